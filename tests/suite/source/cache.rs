//! The cache is checked before reuse, repaired if damaged, shared and cleaned.

use crate::support::context::{TestContext, sha256};
use crate::support::servers::{Server, mirror};
use camino::Utf8PathBuf;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};

fn downloads(server: &Server) -> usize {
    server.log.lock().unwrap().iter().filter(|line| line.ends_with(".tar.xz")).count()
}

fn tree(context: &TestContext) -> Utf8PathBuf {
    context.path(&format!("cache/trees/{}/linux", context.names("cache/trees")[0]))
}

/// Returns the build directories in the cache.
fn build_dirs(context: &TestContext) -> Vec<String> {
    let names = tree(context).read_dir_utf8().unwrap().map(|entry| entry.unwrap().file_name().to_owned());
    names.filter(|name| name.starts_with("kcompile-")).collect()
}

/// Writes to a file of a tree like a broken tool of an ordinary user.
fn spoil(path: &Utf8PathBuf, text: &str) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o444)).unwrap();
}

#[test]
fn a_damaged_tree_is_unpacked_again_from_its_archive() {
    let context = TestContext::new();
    let server = mirror(&context, &["6.1.7"]);
    let args = format!("6.1.7 --fc --config mini.config --rebuild --mirror {}", server.url);
    let before = context.run(&args).ok();
    let readme = tree(&context).join("README");
    let whole = fs::read_to_string(&readme).unwrap();
    // With the same length and time.
    let modified = fs::metadata(&readme).unwrap().modified().unwrap();
    spoil(&readme, &whole.replace('e', "x"));
    fs::File::open(&readme).unwrap().set_modified(modified).unwrap();
    let after = context.run(&args).ok().says("changed after it was unpacked; unpacking it again");
    assert_eq!(after.digests(), before.digests());
    assert_eq!((fs::read_to_string(&readme).unwrap(), downloads(&server)), (whole.clone(), 1));
    // An extra file, and a missing one.
    let dir = tree(&context);
    fs::write(dir.join("stray"), "x").unwrap();
    context.run(&args).ok().says("unpacking it again");
    assert!(!dir.join("stray").exists());
    fs::remove_file(dir.join("README")).unwrap();
    context.run(&format!("{args} --offline")).ok().says("unpacking it again");
    assert_eq!((fs::read_to_string(&readme).unwrap(), downloads(&server)), (whole, 1));
}

#[test]
fn a_damaged_archive_is_fetched_again() {
    let context = TestContext::new();
    let server = mirror(&context, &["6.1.7"]);
    let args = format!("fetch 6.1.7 --fc --mirror {}", server.url);
    context.run(&args).ok();
    spoil(&tree(&context).join("README"), "x");
    let archive = context.names("cache/archives").into_iter().find(|name| !name.ends_with(".json")).unwrap();
    let archive = context.path(&format!("cache/archives/{archive}"));
    let mut bytes = fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&archive, bytes).unwrap();
    context.run(&args).ok().says("checksum mismatch").says("removing the archive from the cache");
    assert_eq!(downloads(&server), 2);
    assert_eq!(sha256(&fs::read(&archive).unwrap()), archive.file_name().unwrap());
}

#[test]
fn a_copied_cache_is_verified_once() {
    let context = TestContext::new();
    let server = mirror(&context, &["6.1.7"]);
    context.run(&format!("fetch 6.1.7 --fc --mirror {}", server.url)).ok();
    crate::support::context::copy(&context.path("cache"), &context.path("work/copy"));
    let ran = context.run("fetch 6.1.7 --fc --offline --cache-dir copy").ok();
    assert!(!ran.stderr.contains("unpacking it again"), "{}", ran.stderr);
}

#[test]
fn a_patched_tree_does_not_change_the_pristine_one() {
    let context = TestContext::new();
    let server = mirror(&context, &["6.1.7"]);
    fs::create_dir(context.path("work/patches")).unwrap();
    let patch = "--- a/README\n+++ b/README\n@@ -1,1 +1,1 @@\n-OLD\n+patched\n";
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mini-linux/README")).unwrap();
    let first = readme.lines().next().unwrap();
    let count = readme.lines().count();
    let mut patch = patch.replace("OLD", first).replace("-1,1 +1,1", &format!("-1,{count} +1,{count}"));
    readme.lines().skip(1).for_each(|line| patch.push_str(&format!(" {line}\n")));
    fs::write(context.path("work/patches/readme.patch"), patch).unwrap();
    let args = format!("fetch 6.1.7 --fc --mirror {}", server.url);
    for _ in 0..2 {
        for more in ["", "--patches patches"] {
            let ran = context.run(&format!("{args} {more}")).ok();
            assert!(!ran.stderr.contains("unpacking it again"), "{}", ran.stderr);
        }
    }
    assert_eq!(downloads(&server), 1);
}

#[test]
fn several_users_can_share_a_cache() {
    if !rustix::process::geteuid().is_root() {
        crate::support::context::skipped("only root can run as two users");
        return;
    }
    let context = TestContext::new();
    let server = mirror(&context, &["6.1.7"]);
    fs::set_permissions(context.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    for (dir, mode) in [("shared", 0o1777), ("one", 0o777), ("two", 0o777), ("work", 0o755)] {
        fs::create_dir_all(context.path(dir)).unwrap();
        fs::set_permissions(context.path(dir), fs::Permissions::from_mode(mode)).unwrap();
    }
    let run = |user: u32, out: &str| {
        use std::os::unix::process::CommandExt;
        let args = format!(
            "6.1.7 --fc --config mini.config --mirror {} --cache-dir {} -o {}",
            server.url,
            context.path("shared"),
            context.path(out)
        );
        let mut command = context.command(&args);
        command.env("HOME", context.path(out)).uid(user).gid(user);
        crate::support::context::run_result(command.output().unwrap())
    };
    let binary = context.command("").get_program().to_owned();
    let readable =
        Command::new("setpriv").args(["--reuid=12345", "--clear-groups", "test", "-x"]).arg(binary).status();
    if !readable.is_ok_and(|status| status.success()) {
        crate::support::context::skipped("another user cannot run the program from where it was built");
        return;
    }
    let one = run(12345, "one").ok();
    let two = run(12346, "two").ok();
    assert_eq!(one.digests(), two.digests());
    assert_eq!(downloads(&server), 1);
    run(12345, "one").ok();
}

#[test]
fn clean_removes_what_is_named_and_reports_its_size() {
    let context = TestContext::new();
    let server = mirror(&context, &["6.1.7"]);
    let args = format!("6.1.7 --fc --config mini.config --mirror {}", server.url);
    let before = context.run(&args).ok();
    assert!(context.run("clean --builds --older-than 1h").ok().stdout.starts_with("      0 B  freed in "));
    let would = context.run("clean --sources --builds --dry-run").ok().stdout;
    assert!(
        would.contains("source tree") && would.contains("archive ") && would.contains("would be freed"),
        "{would}"
    );
    for kernel in [
        "source tree      6.1.7 ",
        "archive          linux-6.1.7.tar.",
        "packed images    6.1.7 firecracker-kernel-bin-",
    ] {
        assert!(
            would.contains(kernel) && would.contains("used ") && would.contains(" ago"),
            "`{kernel}` is not in:\n{would}"
        );
    }
    let would = context.run("clean --dry-run").ok().stdout;
    assert!(
        would.contains("build directory  6.1.7 firecracker-") && !would.contains("source tree"),
        "{would}"
    );
    let items = context.run("clean --dry-run --json").ok().json();
    let build = items["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|item| item["what"] == "build directory")
        .unwrap()
        .clone();
    assert!(
        build["kernel"].as_str().unwrap().starts_with("6.1.7 ") && build["unused_seconds"].is_u64(),
        "{build}"
    );
    // Without options, builds are removed and sources stay.
    let builds = context.run("clean").ok().stdout;
    assert_eq!(builds.lines().count(), 3, "{builds}");
    assert!(builds.contains("build directory ") && builds.contains(" trees/sha256-"), "{builds}");
    assert!(builds.contains("packed images ") && builds.contains(" images/"), "{builds}");
    assert!(build_dirs(&context).is_empty());
    assert_eq!(context.run(&format!("{args} --offline")).ok().digests(), before.digests());
    let all: serde_json::Value =
        serde_json::from_str(&context.run("clean --sources --builds --json").ok().stdout).unwrap();
    assert!(all["bytes"].as_u64().unwrap() > 100_000 && all["items"].as_array().unwrap().len() >= 2, "{all}");
    assert!(context.names("cache/trees").is_empty() && context.names("cache/archives").is_empty());
    assert!(context.path("cache/kcompile.lock").exists(), "the pins stay");
    assert_eq!(context.run(&args).ok().digests(), before.digests());
    assert_eq!(downloads(&server), 2);
    context.run("clean --cache-dir nowhere").ok();
    assert!(!context.path("work/nowhere").exists());
    context.run("clean --older-than soon").failed(2, &["expected a number and m, h, d or w"]);
}

#[test]
fn clean_keeps_what_is_in_use() {
    let context = TestContext::new();
    let server = mirror(&context, &["6.1.7"]);
    context.run(&format!("6.1.7 --fc --config mini.config --mirror {}", server.url)).ok();
    let lock = context.names("cache/locks").into_iter().find(|name| name.contains("-kcompile-")).unwrap();
    let held = fs::File::open(context.path(&format!("cache/locks/{lock}"))).unwrap();
    held.lock().unwrap();
    let ran = context.run("clean --sources").ok().says("is in use and was not removed");
    assert!(!ran.stdout.contains("source tree"), "{}", ran.stdout);
    assert_eq!(context.names("cache/trees").len(), 1);
}

#[test]
fn fetching_an_archive_again_keeps_its_builds() {
    let context = TestContext::new();
    let server = mirror(&context, &["6.1.7"]);
    let args = format!("6.1.7 --fc --mirror {}", server.url);
    context.run(&format!("{args} --config mini.config")).ok();
    fs::remove_dir_all(context.path("cache/archives")).unwrap();
    let before = (fs::metadata(tree(&context)).unwrap().ino(), build_dirs(&context));
    context.run(&format!("fetch {args} --bundle linux.tar")).ok();
    assert_eq!(downloads(&server), 2);
    assert_eq!((fs::metadata(tree(&context)).unwrap().ino(), build_dirs(&context)), before);
    assert_eq!(before.1.len(), 1);
}

#[test]
fn a_damaged_tree_in_use_is_not_replaced() {
    let context = TestContext::new();
    let server = mirror(&context, &["6.1.7"]);
    let args = format!("6.1.7 --fc --mirror {}", server.url);
    context.run(&format!("{args} --config mini.config")).ok();
    spoil(&tree(&context).join("README"), "x");
    let lock = context.names("cache/locks").into_iter().find(|name| name.contains("-kcompile-")).unwrap();
    let building = fs::File::open(context.path(&format!("cache/locks/{lock}"))).unwrap();
    building.lock().unwrap();
    let mut fetching = context.command(&format!("fetch {args}"));
    let mut fetching = fetching.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(fetching.stderr.take().unwrap()).lines().map(Result::unwrap);
    let waits = lines.any(|line| line.contains("waiting for the lock") && line.contains(&lock));
    assert!(waits && build_dirs(&context).len() == 1, "{:?}", build_dirs(&context));
    building.unlock().unwrap();
    lines.for_each(drop);
    assert!(fetching.wait().unwrap().success());
    assert!(build_dirs(&context).is_empty() && tree(&context).join("README").exists());
}

#[test]
fn a_quick_copy_of_the_archive_is_kept_on_many_cores() {
    let context = TestContext::new();
    let server = mirror(&context, &["6.1.7"]);
    let args = format!("fetch 6.1.7 --fc -j 4 --mirror {}", server.url);
    context.run(&args).ok();
    let copy = context.names("cache/archives").into_iter().find(|name| name.ends_with(".zst")).unwrap();
    let copy = context.path(&format!("cache/archives/{copy}"));
    let readme = tree(&context).join("README");
    let whole = fs::read_to_string(&readme).unwrap();
    // The archive itself is not needed then.
    let archive = copy.with_extension("");
    let bytes = fs::read(&archive).unwrap();
    fs::write(&archive, "x").unwrap();
    spoil(&readme, "x");
    context.run(&args).ok().says("unpacking it again");
    assert_eq!(fs::read_to_string(&readme).unwrap(), whole);
    // A damaged copy does not matter.
    fs::write(&archive, bytes).unwrap();
    fs::write(&copy, "x").unwrap();
    spoil(&readme, "x");
    context
        .run(&args)
        .ok()
        .says("checksum mismatch for the copy of linux-6.1.7.tar.xz")
        .says("removing the copy from the cache");
    assert_eq!((fs::read_to_string(&readme).unwrap(), downloads(&server), copy.exists()), (whole, 1, false));
}
