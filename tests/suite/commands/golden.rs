//! Golden files, `tests/golden`: what plans and `--json` print for fixed inputs. A change of the code that is meant
//! to change nothing leaves them as they are; `KCOMPILE_GOLDEN=update` writes them anew.

use crate::commands::boot;
use crate::source::kinds::sh;
use crate::support::context::{CONFIG, RunResult, TestContext, has_tool, skipped};
use crate::support::fixed_tools;
use crate::support::normalize::{compact, differing, first_of_each, masked, normal, pretty};
use crate::support::servers;
use camino::Utf8PathBuf;
use serde_json::{Value, json};
use std::fs;
use std::time::{Duration, UNIX_EPOCH};

/// The date of sources that have none of their own.
const DATE: u64 = 1_700_000_000;

/// A text under its heading.
pub(crate) fn section(heading: &str, text: &str) -> String {
    format!("== {heading}\n{}\n\n", text.trim_end())
}

/// Where the files are.
pub(crate) fn directory() -> Utf8PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden").into()
}

/// Are they to be written anew?
pub(crate) fn is_update() -> bool {
    std::env::var("KCOMPILE_GOLDEN").is_ok_and(|what| what == "update")
}

/// Holds a text against the file of this name.
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
        "tests/golden/{name}, line {}, {heading}\n{above}{}{}KCOMPILE_GOLDEN=update writes it anew",
        at + 1,
        show(&before, "-"),
        show(&now, "+")
    );
}

/// The context of all golden files: tools that are the same everywhere, and a kernel tree of each kind.
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

/// A git source that no server has: its name is the same everywhere.
const GIT: &str = "git+http://git.example/linux/.git";

/// The options by which [`GIT`] is taken from a bundle; `None`: there is no git.
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

/// What a command prints as JSON.
fn json(context: &TestContext, args: &str) -> Value {
    let RunResult { stdout, stderr, .. } = context.run(args);
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{args}: {error}: {stdout}{stderr}"))
}

/// What a command prints, and its exit code where that is not 0.
pub(crate) fn printed(context: &TestContext, args: &str) -> String {
    let RunResult { code, stdout, stderr } = context.run(args);
    assert!(!stdout.is_empty(), "{args}: {stderr}");
    let text = compact(&normal(context, &stdout));
    section(&if code == 0 { args.to_owned() } else { format!("{args} (exit code {code})") }, &text)
}

#[test]
fn plans_and_their_digests() {
    let Some(context) = context() else { return };
    let plan = |args: &str| json(&context, &format!("plan {args} --json"));
    let base = "6.1.7 --fc --arch amd64 --config mini.config";
    let first = plan(base);
    let mut text = section(
        "Below the first plan: what others have otherwise. The digest is that of the plan",
        &printed(&context, &format!("plan {base} --json")),
    );
    for args in [
        "5.10.77 --fc --arch amd64",
        "6.1 --ch --arch amd64 --require none",
        "6.6.60 --fc --arch arm64 --config mini.config",
        "5.15.12 --ch --arch amd64",
        "6.1.7 --ch --arch arm64 --config mini.config --cross-compile x- --cc gcc",
        "6.1.7 --fc --arch amd64 --source linux-6.1.7.tar.gz --config mini.config --set KSM=n --fragment some.config",
        "5.10.77 --fc --arch amd64 --source linux --config mini.config --patches patches",
        &format!("6.1.7 --ch --arch amd64 --source {GIT} --config mini.config --compression zstd"),
        &format!("{base} --legacy --also-at boot/vmlinux --modules-layout flat --compression none"),
        &format!("{base} --no-modules --launcher ccache --llvm"),
    ] {
        let other = plan(args);
        let mut shown = differing(&other, &first);
        shown["plan"] = differing(&other["plan"], &first["plan"]);
        for image in shown["plan"]["images"].as_array_mut().into_iter().flatten() {
            image.as_object_mut().unwrap().remove("annotations");
        }
        text.push_str(&section(args, &compact(&normal(&context, &pretty(&shown)))));
    }
    let several = plan("6.1.7 6.6.60 --fc --arch amd64 --arch arm64 --config mini.config");
    let digests: Vec<&Value> = several.as_array().unwrap().iter().map(|plan| &plan["digest"]).collect();
    text.push_str(&section("several", &pretty(&json!(digests))));
    compare("plan.txt", &text);
}

#[test]
fn the_catalog() {
    let Some(context) = context() else { return };
    fs::create_dir_all(context.path("work/own")).unwrap();
    fs::write(
        context.path("work/own/kernels.toml"),
        "[[kernel]]\nversion = \"9.9\"\nflavor = \"firecracker\"\narch = [\"amd64\"]\nstatus = \"untested\"\nnote = \"mine\"\n",
    )
    .unwrap();
    let mut all = json(&context, "list --configs own --json");
    let some = ["4.19", "5.10.77", "5.15.12", "6.1", "9.9"];
    let kernels = all["kernels"].as_array_mut().unwrap();
    kernels.retain(|kernel| some.contains(&kernel["version"].as_str().unwrap()));
    for kernel in kernels {
        first_of_each(&mut kernel["kubernetes"]["reasons"], &["level"]);
    }
    for list in ["series", "fragments"] {
        all[list].as_array_mut().unwrap().truncate(2);
    }
    all["revision"] = json!("*");
    compare("list.txt", &section("list --configs own --json: some of it", &compact(&pretty(&all))));
}

#[test]
fn the_host_and_the_cache() {
    let Some(context) = context() else { return };
    let mut doctor = json(&context, "doctor 6.1.7 --arch arm64 --json");
    for finding in doctor["findings"].as_array_mut().unwrap() {
        for key in ["found", "package"] {
            finding[key] = json!("*");
        }
    }
    doctor["install"] = json!("*");
    let mut text = section("doctor 6.1.7 --arch arm64 --json", &compact(&pretty(&doctor)));
    context.run("6.1.7 --fc --arch amd64 --config mini.config --progress quiet").ok();
    // Half a tree.
    fs::create_dir(context.path("cache/trees/sha256-00")).unwrap();
    for (args, list) in
        [("doctor --cache --json", "found"), ("clean --cache --builds --dry-run --json", "removed")]
    {
        let mut items = json(&context, args);
        // Sizes are those of a file system, and the order is that of times that are nearly the same.
        items[list].as_array_mut().unwrap().sort_by_key(|item| item["path"].to_string());
        let text_of = normal(&context, &pretty(&items));
        text.push_str(&section(args, &compact(&masked(&text_of, "\"bytes\": ", |c| c.is_ascii_digit()))));
    }
    compare("host.txt", &text);
}

#[test]
fn configs_and_requirements() {
    let Some(context) = context() else { return };
    fs::write(context.path("work/a"), "CONFIG_NF_NAT_IPV4=m\nCONFIG_A=y\nCONFIG_B=m\n").unwrap();
    fs::write(context.path("work/b"), "CONFIG_NF_NAT=m\nCONFIG_B=y\nCONFIG_C=\"c\"\n").unwrap();
    let check = |args: &str| {
        let args = format!("check {args} --arch amd64 --kernel 6.1.7 --all --json");
        let mut checked = json(&context, &args);
        first_of_each(&mut checked["outcomes"], &["level", "verdict"]);
        section(&format!("{args}: some of it"), &compact(&normal(&context, &pretty(&checked))))
    };
    let text = [
        check("mini.config --for firecracker"),
        check("a --for firecracker,kubernetes-1.35"),
        printed(&context, "config diff a b --json"),
        printed(
            &context,
            "config show 6.1.7 --fc --arch amd64 --source linux-6.1.7.tar.gz --config mini.config --json",
        ),
    ];
    compare("config.txt", &text.concat());
}

#[test]
fn a_kernel_that_is_added() {
    let Some(context) = context() else { return };
    fs::create_dir_all(context.path("work/own/firecracker")).unwrap();
    let config =
        format!("{CONFIG}CONFIG_PSI=y\nCONFIG_NOWHERE=y\nCONFIG_MINI_NEEDS_ABSENT=y\nCONFIG_OLD=m\n");
    fs::write(context.path("work/own/firecracker/linux-x86_64-6.1.config"), config).unwrap();
    let renames = "[[rename]]\nold = \"OLD\"\nnew = [\"VETH\"]\nsince = \"6.6\"\n\
                   [[rename]]\nold = \"NOWHERE\"\nsince = \"6.6\"\nnote = \"always there\"\n";
    fs::write(context.path("work/own/renames.toml"), renames).unwrap();
    let mut text = printed(&context, "add 6.6.60 --fc --arch amd64 --from 6.1 --configs own --json");
    for name in ["kernels.toml", "kcompile.lock"] {
        text.push_str(&section(name, &fs::read_to_string(context.path("work/own").join(name)).unwrap()));
    }
    compare("add.txt", &text);
}

#[test]
fn boots() {
    if !has_tool("gcc") || !has_tool("mke2fs") {
        return;
    }
    let Some(mut context) = context() else { return };
    context.run("6.1.7 --fc --arch amd64 --config mini.config --progress quiet").ok();
    boot::machine(&mut context);
    let boot = |console: &str, then: &str, args: &str| {
        boot::prints(&context, console, then);
        context.run(&format!("boot 6.1.7 --fc --accel tcg --json {args}"))
    };
    let good = boot::good();
    let faults = good
        .replace("loaded 0 0", "loaded 0 19")
        .replace("loaded 1 0", "loaded 1 8")
        .replace("check nftables 0 ", "check nftables 95 a rule with a counter")
        .replace(
            "[    4.0]",
            "[    3.5] WARNING: CPU: 0 PID: 1 at kernel/x.c:1\n[    3.5] ---[ end trace 0 ]---\n[    4.0]",
        );
    let start = "[    0.0] Linux version 6.1.7\n";
    let panic = format!(
        "{start}[ 1.0] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\n"
    );
    let oops = good
        .replace(
            "[    4.0]",
            "[    3.5] BUG: kernel NULL pointer dereference, address: 0\n[    3.5] Oops: 0000\n[    4.0]",
        )
        .replace("[    3.0] kcompile: check veth 0 \n", "[    3.0] kcompile: check veth 77 \n");
    let first = boot(&good, "", "--root initramfs").ok().stdout;
    let mut text = section("a good boot", &compact(&normal(&context, &first)));
    let first = serde_json::from_str(&first).unwrap();
    for (name, ran) in [
        ("faults", boot(&faults, "", "")),
        ("an oops", boot(&oops, "", "--require none")),
        ("a panic", boot(&panic, "", "--require none")),
        ("a machine that dies", boot(start, "echo 'qemu: no such thing' >&2; exit 3", "--require none")),
        ("a hang", boot(start, "sleep 1000", "--time-limit 5 --require none")),
    ] {
        let mut other: Value = serde_json::from_str(&ran.failed(1, &[]).stdout).unwrap();
        first_of_each(&mut other["checks"], &["verdict"]);
        let heading = format!("{name}: what is otherwise than in the first");
        text.push_str(&section(&heading, &compact(&normal(&context, &pretty(&differing(&other, &first))))));
    }
    compare("boot.txt", &text);
}
