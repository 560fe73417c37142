//! Named pipes, devices, links and endless files instead of every file that kcompile reads or
//! writes. Each is refused by name or replaced, no link target changes, and no run waits or uses
//! much memory.

use crate::support::context::{RunResult, TestContext, compress, sha256, tar_of};
use crate::support::servers::{self, DIR};
use camino::{Utf8Path, Utf8PathBuf};
use kcompile::internals::remove_tree;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

/// Runs kcompile with 100 MB of memory for at most a minute. Address space is not limited, since it
/// may be reserved and unused. git and make have other limits, since compilers need more.
const BOUNDED: &str = "ulimit -S -d 97656; exec timeout -k 1 60 \"$0\" \"$@\"";

/// The kind of file that replaces another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Special {
    /// A named pipe without a writer.
    Pipe,
    /// A link to a file of the user.
    Link,
    /// A link to an endless device.
    Device,
    /// A sparse file of 1 TiB.
    Endless,
}

const ALL: [Special; 4] = [Special::Pipe, Special::Link, Special::Device, Special::Endless];

impl Special {
    fn make(self, context: &TestContext, path: &Utf8Path) {
        remove_tree(path).unwrap();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match self {
            Special::Pipe => {
                assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
            }
            Special::Link => symlink(victim(context), path).unwrap(),
            Special::Device => symlink("/dev/zero", path).unwrap(),
            Special::Endless => fs::File::create(path).unwrap().set_len(1 << 40).unwrap(),
        }
    }

    /// Returns the error for a place in which users may have links.
    fn refusal(self) -> &'static str {
        match self {
            Special::Pipe => "not a regular file, but a named pipe",
            Special::Link => "",
            Special::Device => "not a regular file, but a ",
            Special::Endless => "larger than ",
        }
    }
}

fn victim(context: &TestContext) -> Utf8PathBuf {
    let path = context.path("victim");
    if !path.exists() {
        fs::write(&path, "as it was").unwrap();
    }
    path
}

fn bounded(context: &TestContext, args: &str) -> RunResult {
    context.run_by(&["sh", "-c", BOUNDED], args)
}

/// The host's make and git, without the memory limit.
fn unlimited(context: &mut TestContext) {
    let path = std::env::var("PATH").unwrap();
    for tool in ["make", "git"] {
        let real = path.split(':').map(|dir| Utf8Path::new(dir).join(tool)).find(|tool| tool.is_file());
        if let Some(real) = real {
            let lines = format!("ulimit -S -d unlimited\nexec {real} \"$@\"");
            crate::support::context::write_script(&context.path("bin").join(tool), &lines);
        }
    }
    context.env.insert("PATH".to_owned(), format!("{}:{path}", context.path("bin")));
}

#[test]
fn files_named_by_the_user_must_be_regular_and_bounded() {
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    context.tarball("6.1.7", "xz");
    let plan = "plan 6.1.7 --fc --source linux";
    let places = [
        ("work/given.config", format!("{plan} --config given.config"), 2, "--config: cannot read"),
        (
            "work/given.fragment",
            format!("{plan} --config mini.config --fragment given.fragment"),
            2,
            "--fragment: cannot read",
        ),
        ("work/keys", format!("{plan} --config mini.config --keyring keys"), 2, "--keyring: cannot read"),
        (
            "work/patches/1.patch",
            format!("{plan} --config mini.config --patches patches"),
            2,
            "patches/1.patch",
        ),
        ("work/check.config", "check check.config".to_owned(), 2, "check.config"),
        ("work/bundle", "fetch 6.1.7 --fc --from-bundle bundle".to_owned(), 3, "bundle"),
        ("work/index/index.json", "inspect index".to_owned(), 3, "index.json"),
    ];
    fs::create_dir_all(context.path("work/index/blobs/sha256")).unwrap();
    fs::write(context.path("work/index/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let mut tried = 0;
    for (place, args, code, says) in &places {
        for special in ALL.into_iter().filter(|special| *special != Special::Link) {
            // A bundle may have any size, but its content is limited.
            if *place == "work/bundle" && special == Special::Endless {
                continue;
            }
            special.make(&context, &context.path(place));
            let why = if place.ends_with(".patch") && special == Special::Endless {
                "larger than 256 MiB"
            } else {
                special.refusal()
            };
            bounded(&context, args).failed(*code, &[says, why]);
            remove_tree(&context.path(place)).unwrap();
            tried += 1;
        }
    }
    // Users may name files by links.
    symlink("mini.config", context.path("work/given.config")).unwrap();
    bounded(&context, &places[0].1).ok();
    println!("special files given and refused: {tried}");
}

#[test]
fn special_files_in_a_project_are_refused() {
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    let args = "plan 6.1.7 --fc --source linux --config mini.config";
    fs::write(context.path("work/kcompile.toml"), "").unwrap();
    for special in ALL {
        special.make(&context, &context.path("work/kcompile.lock"));
        let why =
            if special == Special::Endless { "larger than 1 MiB" } else { "not a regular file, but a " };
        bounded(&context, args).failed(2, &["kcompile.lock", why]);
    }
    remove_tree(&context.path("work/kcompile.lock")).unwrap();
    for place in ["kcompile.toml", "configs/kernels.toml", "configs/fragments/x.config"] {
        Special::Endless.make(&context, &context.path("work").join(place));
        bounded(&context, args).failed(2, &[place, "larger than "]);
        fs::write(context.path("work").join(place), "").unwrap();
    }
    assert_eq!(fs::read_to_string(victim(&context)).unwrap(), "as it was");
}

#[test]
fn many_large_files_are_limited_in_sum() {
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    let plan = "plan 6.1.7 --fc --source linux --config mini.config";
    fs::create_dir(context.path("work/many")).unwrap();
    for index in 0..5 {
        let patch = fs::File::create(context.path(&format!("work/many/{index}.patch"))).unwrap();
        patch.set_len(250 << 20).unwrap();
    }
    bounded(&context, &format!("{plan} --patches many")).failed(2, &["4.patch: the patches up to this one"]);
    // Settings of two bytes need the most memory.
    let line = |index: usize| format!("CONFIG_A{index:x}=y\n");
    let fragment: String = (0..100_000).map(line).collect();
    fs::write(context.path("work/large.config"), &fragment).unwrap();
    let many = " --fragment large.config".repeat(20);
    bounded(&context, &format!("{plan}{many}")).failed(2, &["config and overrides are larger than 8 MiB"]);
    bounded(&context, &format!("{plan} --fragment large.config")).ok();
    fs::write(context.path("work/lines.config"), format!("{fragment}{}", "x\n".repeat(200_000))).unwrap();
    bounded(&context, &format!("{plan} --fragment lines.config"))
        .failed(2, &["lines.config: not a kernel config"]);
    fs::write(context.path("work/kcompile.toml"), "").unwrap();
    for index in 0..25 {
        let path = context.path(&format!("work/configs/fragments/{index}.config"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, &fragment).unwrap();
    }
    bounded(&context, plan).failed(2, &["configs: more than 32 MiB in its files"]);
}

#[test]
fn large_patches_are_streamed() {
    let mut context = TestContext::new();
    unlimited(&mut context);
    context.tree("6.1.7", "work/linux");
    context.tarball("6.1.7", "xz");
    fs::create_dir(context.path("work/patches")).unwrap();
    let mut patch = String::from("--- /dev/null\n+++ b/large\n@@ -0,0 +1,1000000 @@\n");
    (0..1_000_000).for_each(|index| patch.push_str(&format!("+{index:0100}\n")));
    for (name, bytes) in
        [("1.patch", patch.clone().into_bytes()), ("1.patch.xz", compress(patch.as_bytes(), "xz"))]
    {
        remove_tree(&context.path("work/patches")).unwrap();
        fs::create_dir(context.path("work/patches")).unwrap();
        fs::write(context.path("work/patches").join(name), bytes).unwrap();
        bounded(&context, "fetch 6.1.7 --fc --source linux-6.1.7.tar.xz --patches patches").ok();
    }
}

#[test]
fn a_cache_writable_by_others_is_refused() {
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    let mode =
        |path: &str, mode| fs::set_permissions(context.path(path), Permissions::from_mode(mode)).unwrap();
    let args = "6.1.7 --fc --source linux --config mini.config";
    fs::create_dir(context.path("cache")).unwrap();
    mode("cache", 0o777);
    for command in ["plan", "build", "config show"] {
        context
            .run(&format!("{command} {args}"))
            .failed(2, &["everybody can replace files in it (mode 777)", "chmod 1777"]);
    }
    context.run("clean").failed(2, &["everybody can replace files in it"]);
    assert!(context.names("cache").is_empty());
    // Writable by everybody, but nobody can replace files of others.
    mode("cache", 0o1777);
    context.run(&format!("build {args}")).ok();
    mode("cache", 0o755);
    mode("cache/known", 0o777);
    context.run(&format!("build {args}")).failed(2, &["cache/known is not safe", "chmod go-w"]);
    mode("cache/known", 0o755);
    remove_tree(&context.path("cache/boots")).unwrap();
    symlink(context.path("home"), context.path("cache/boots")).unwrap();
    context.run(&format!("build {args}")).failed(2, &["cache/boots is not a directory"]);
}

#[test]
fn a_layout_behind_a_link_is_refused() {
    let context = TestContext::new();
    context.build("").ok();
    let layout = context.path("work/out/firecracker-kernel-bin-amd64");
    fs::rename(&layout, context.path("elsewhere")).unwrap();
    symlink(context.path("elsewhere"), &layout).unwrap();
    let before = context.snapshot("elsewhere");
    context.build("--set CONFIG_DUMMY=y").failed(2, &["firecracker-kernel-bin-amd64: it is a link"]);
    assert_eq!(context.snapshot("elsewhere"), before);
}

#[test]
fn the_pid_file_does_not_follow_links() {
    let mut context = TestContext::new();
    unlimited(&mut context);
    context.tree("6.1.7", "work/linux");
    let args = "6.1.7 --fc --source linux --config mini.config --rebuild";
    bounded(&context, args).ok();
    let files = walkdir::WalkDir::new(context.path("cache")).into_iter().flatten();
    let log = files.map(walkdir::DirEntry::into_path).find(|path| path.ends_with("kcompile.log")).unwrap();
    let note = Utf8PathBuf::from_path_buf(log.with_file_name(".kcompile-make.pid")).unwrap();
    // Like a build script without a sandbox could leave it.
    symlink(context.path("home/made"), &note).unwrap();
    bounded(&context, args).ok();
    assert!(!context.path("home/made").exists());
    for special in ALL {
        special.make(&context, &note);
        bounded(&context, args).ok();
        assert_eq!(fs::read_to_string(victim(&context)).unwrap(), "as it was");
    }
}

/// A context that built 6.1.7 from a mirror, and its command line.
struct Built {
    context: TestContext,
    args: String,
    digests: Vec<String>,
}

impl Built {
    fn new() -> Built {
        let mut context = TestContext::new();
        unlimited(&mut context);
        let tree = context.tree("6.1.7", "trees/linux");
        let bytes = compress(&tar_of(&tree, "linux-6.1.7"), "xz");
        let list = format!("{}  linux-6.1.7.tar.xz\n", sha256(&bytes));
        let server = servers::files([
            (format!("{DIR}/linux-6.1.7.tar.xz"), bytes),
            (format!("{DIR}/sha256sums.asc"), list.into_bytes()),
        ]);
        let args = format!("6.1.7 --fc --config mini.config -j 2 --mirror {}", server.url);
        let digests = bounded(&context, &args).ok().digests();
        assert_eq!(digests.len(), 2);
        victim(&context);
        Built { context, args, digests }
    }

    /// Returns the files that kcompile wrote and reads again, without those of the source or make.
    fn places(&self) -> Vec<Utf8PathBuf> {
        let mut places = Vec::new();
        for dir in ["cache", "work/out"] {
            for entry in walkdir::WalkDir::new(self.context.path(dir)).sort_by_file_name() {
                let entry = entry.unwrap();
                let path = Utf8PathBuf::from_path_buf(entry.path().to_owned()).unwrap();
                let of_make = ["/.config", "/kernel.release", "/vmlinux"]
                    .iter()
                    .any(|end| path.as_str().ends_with(end));
                let is_ours =
                    !path.as_str().contains("/linux/") || path.file_name().unwrap().contains("kcompile");
                if entry.file_type().is_file() && (is_ours || of_make && path.as_str().contains("/kcompile-"))
                {
                    places.push(path);
                }
            }
        }
        places
    }

    /// Puts the special file in place, runs the same build, checks the result, and returns whether
    /// the file was refused.
    fn attack(&self, special: Special, place: &Utf8Path, args: &str) -> bool {
        let context = &self.context;
        special.make(context, place);
        let ran = bounded(context, args);
        let case = format!("{special:?} at {place}: exit code {}\n{}", ran.code, ran.stderr);
        assert_eq!(fs::read_to_string(victim(context)).unwrap(), "as it was", "{case}");
        assert!((0..=4).contains(&ran.code), "{case}");
        if ran.code == 0 {
            assert_eq!(ran.digests(), self.digests, "{case}");
        } else {
            let name = place.file_name().unwrap();
            assert!(ran.stderr.contains(name) || ran.stderr.contains("firecracker-kernel-"), "{case}");
        }
        ran.code != 0
    }
}

#[test]
fn special_files_in_the_cache_or_output_are_refused() {
    let built = Built::new();
    let context = &built.context;
    let keep = |from: &str, to: &str| {
        remove_tree(&context.path(to)).unwrap();
        crate::support::context::copy(&context.path(from), &context.path(to));
    };
    for dir in ["cache", "work/out"] {
        keep(dir, &format!("kept/{dir}"));
    }
    let all = crate::support::random::number_from_env("KCOMPILE_SPECIAL").is_some();
    let (mut tried, mut refused) = (0, 0);
    for (index, place) in built.places().iter().enumerate() {
        for (turn, special) in ALL.into_iter().enumerate() {
            // Make waits for a pipe instead of its own file, and Ctrl-C ends that.
            let waits = special == Special::Pipe && place.file_name() == Some("kernel.release");
            if waits || !all && index % ALL.len() != turn {
                continue;
            }
            // Restored from the cache, and built again.
            for more in ["", " --rebuild"].into_iter().take(if all { 2 } else { 1 + turn % 2 }) {
                tried += 1;
                refused += u32::from(built.attack(special, place, &format!("{}{more}", built.args)));
                for dir in ["cache", "work/out"] {
                    keep(&format!("kept/{dir}"), dir);
                }
            }
        }
    }
    println!(
        "special files tried in the cache and the output directory: {tried}, refused: {refused}, replaced: {}",
        tried - refused
    );
}

#[test]
fn missing_files_are_not_created_through_links() {
    let built = Built::new();
    let context = &built.context;
    let archive = context.names("cache/archives").into_iter().find(|name| name.len() == 64).unwrap();
    let build = built.places().into_iter().find(|path| path.file_name() == Some("kcompile.log")).unwrap();
    let build =
        build.strip_prefix(context.path("cache")).unwrap().parent().unwrap().file_name().unwrap().to_owned();
    let (mut tried, mut refused) = (0, 0);
    for special in ALL {
        for place in [
            format!("cache/partial/{archive}.partial"),
            format!("cache/locks/sha256-{archive}.lock"),
            format!("cache/locks/sha256-{archive}-{build}.lock"),
            "cache/tmp/work-x".to_owned(),
            "cache/kcompile.lock".to_owned(),
            "cache/releases/x.json".to_owned(),
            "work/out/.kcompile.lock".to_owned(),
        ] {
            remove_tree(&context.path("cache")).unwrap();
            remove_tree(&context.path("work/out")).unwrap();
            tried += 1;
            refused += u32::from(built.attack(special, &context.path(&place), &built.args));
        }
    }
    println!(
        "special files tried before the first run: {tried}, refused: {refused}, not in the way: {}",
        tried - refused
    );
}
