//! Golden files in `tests/golden` of kcompile's output for fixed inputs.

use crate::support::context::{CONFIG, RunResult, TestContext, has_tool, skipped};
use crate::support::git::sh;
use crate::support::normalize::{compact, normal};
use crate::support::{fixed_tools, servers};
use camino::Utf8PathBuf;
use serde_json::json;
use std::fs;
use std::time::{Duration, UNIX_EPOCH};

/// The date of sources without a date.
const DATE: u64 = 1_700_000_000;
/// A git URL without a server, so that it is the same everywhere.
pub(crate) const GIT: &str = "git+http://git.example/linux/.git";

/// Returns a text with a heading.
pub(crate) fn section(heading: &str, text: &str) -> String {
    format!("== {heading}\n{}\n\n", text.trim_end())
}

/// Returns the directory of the golden files.
pub(crate) fn directory() -> Utf8PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden").into()
}

/// Returns whether to write the files anew.
pub(crate) fn is_update() -> bool {
    std::env::var("KCOMPILE_GOLDEN").is_ok_and(|what| what == "update")
}

/// Compares a text with the golden file of this name.
#[track_caller]
pub(crate) fn compare(name: &str, found: &str) {
    let path = directory().join(name);
    let found = found.trim_end().to_owned() + "\n";
    for private in [std::env::temp_dir().to_str().unwrap(), env!("CARGO_MANIFEST_DIR")] {
        assert!(!found.contains(private), "{name} has a path of this machine, {private}:\n{found}");
    }
    if is_update() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, found).unwrap();
        return;
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    if found == golden {
        return;
    }
    let (before, now): (Vec<&str>, Vec<&str>) = (golden.lines().collect(), found.lines().collect());
    let at = before.iter().zip(&now).take_while(|(before, now)| before == now).count();
    let show = |lines: &[&str], sign: &str| {
        lines.iter().skip(at).take(8).map(|line| format!("{sign} {line}\n")).collect::<String>()
    };
    let heading = before[..at].iter().rev().find(|line| line.starts_with("== ")).unwrap_or(&"");
    let above: String = before[at.saturating_sub(3)..at].iter().map(|line| format!("  {line}\n")).collect();
    panic!(
        "tests/golden/{name}, line {}, {heading}\n{above}{}{}KCOMPILE_GOLDEN=update regenerates it",
        at + 1,
        show(&before, "-"),
        show(&now, "+")
    );
}

/// Returns the context of all golden files, with the same tools everywhere and a kernel tree of
/// each kind.
pub(crate) fn context() -> Option<TestContext> {
    if std::env::consts::ARCH != "x86_64" {
        skipped("the golden files are of an x86-64 host");
        return None;
    }
    let mut context = fixed_tools::context(&["5.10.77", "6.1.7", "6.6.60"]);
    let server = servers::mirror(&context, &["6.1.7", "6.6.60"]);
    context.env.insert("KCOMPILE_MIRROR".into(), server.url);
    context.tarball("6.1.7", "gz");
    let dir = context.tree("5.10.77", "work/linux");
    for entry in walkdir::WalkDir::new(dir) {
        let file = fs::File::open(entry.unwrap().path()).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(DATE)).unwrap();
    }
    fs::write(
        context.path("work/odd.config"),
        format!("{CONFIG}CONFIG_MINI_NEEDS_ABSENT=y\nCONFIG_NOWHERE=y\n"),
    )
    .unwrap();
    fs::write(context.path("work/some.config"), "CONFIG_PSI=y\n# CONFIG_VETH is not set\n").unwrap();
    fs::create_dir(context.path("work/patches")).unwrap();
    let patch = "--- a/NEW\n+++ b/NEW\n@@ -0,0 +1,1 @@\n+new\n".replace("--- a/NEW", "--- /dev/null");
    fs::write(context.path("work/patches/new.patch"), patch).unwrap();
    Some(context)
}

/// Returns the options to read [`GIT`] from a bundle, or `None` without git.
pub(crate) fn repository(context: &TestContext) -> Option<String> {
    if !has_tool("git") {
        return None;
    }
    let tree = context.tree("6.1.7", "repos/linux");
    let date = format!("@{DATE} +0000");
    sh(
        &tree,
        &format!(
            "git init -q -b ch-6.1.7 . && git add . && GIT_AUTHOR_DATE='{date}' GIT_COMMITTER_DATE='{date}' git \
             -c user.name=t -c user.email=t@example.org -c commit.gpgsign=false commit -q -m x
             git rev-parse HEAD > ../head; git rev-parse HEAD | git pack-objects -q --revs --stdout > ../pack"
        ),
    );
    let commit = fs::read_to_string(context.path("repos/head")).unwrap().trim().to_owned();
    let url = GIT.trim_start_matches("git+");
    let index = json!({
        "format": 1,
        "archives": [],
        "commits": [{ "url": url, "commit": commit }],
        "locked": { (format!("{url}#ch-6.1.7")): format!("commit:{commit}") },
    });
    let mut bundle = tar::Builder::new(fs::File::create(context.path("work/seed.tar")).unwrap());
    let pack = fs::read(context.path("repos/pack")).unwrap();
    for (name, bytes) in [
        ("kcompile-bundle.json".to_owned(), index.to_string().into_bytes()),
        (format!("commits/{commit}.pack"), pack),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        bundle.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    bundle.finish().unwrap();
    Some(format!("--source {GIT} --offline --from-bundle seed.tar"))
}

/// Returns the output of a command, and its exit code if it is not 0.
pub(crate) fn printed(context: &TestContext, args: &str) -> String {
    let RunResult { code, stdout, stderr } = context.run(args);
    assert!(!stdout.is_empty(), "{args}: {stderr}");
    let text = compact(&normal(context, &stdout));
    section(&if code == 0 { args.to_owned() } else { format!("{args} (exit code {code})") }, &text)
}
