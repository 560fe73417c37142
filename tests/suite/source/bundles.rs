//! Bundles contain everything for a build without a network in one file.

use crate::support::context::{TestContext, has_tool, sha256};
use crate::support::servers::{self, DIR, mirror};
use std::fs;
use std::process::Command;

/// Runs kcompile without any network, if this machine supports that.
fn without_network(context: &TestContext, args: &str) -> Option<crate::support::context::RunResult> {
    let flags = ["-n", "-rn"].into_iter().find(|flags| {
        Command::new("unshare").args([flags, "true"]).output().is_ok_and(|output| output.status.success())
    });
    let Some(flags) = flags else {
        crate::support::context::skipped("unshare cannot make a network namespace here");
        return None;
    };
    Some(context.run_by(&["unshare", flags, "--"], args))
}

#[test]
fn a_bundle_builds_on_a_machine_without_a_network() {
    let context = TestContext::new();
    let server = mirror(&context, &["6.1.7"]);
    let config = "--config mini.config";
    let direct = context.run(&format!("6.1.7 --fc {config} --mirror {} -o direct", server.url)).ok();
    let fetched = context.run(&format!("fetch 6.1 --fc --mirror {} --bundle b.tar", server.url)).ok();
    assert!(fetched.stderr.contains("b.tar: 1 source, "), "{}", fetched.stderr);
    context.run(&format!("fetch 6.1.7 --fc --mirror {} --bundle c.tar", server.url)).ok();
    let bytes = |name: &str| fs::read(context.path("work").join(name)).unwrap();
    assert_eq!(sha256(&bytes("b.tar")), sha256(&bytes("c.tar")), "the same for everybody");
    assert_eq!(server.log.lock().unwrap().iter().filter(|line| line.ends_with(".tar.xz")).count(), 1);

    let args = format!("6.1 --fc {config} --offline --from-bundle b.tar --cache-dir empty -o out2");
    let Some(ran) = without_network(&context, &args) else { return };
    assert_eq!(ran.ok().digests(), direct.digests());
    // The cache has it from then on.
    let again = format!("6.1.7 --fc {config} --offline --cache-dir empty -o out3");
    without_network(&context, &again).unwrap().ok();
    let missing = format!("6.1.8 --fc {config} --offline --cache-dir empty -o out3");
    without_network(&context, &missing)
        .unwrap()
        .failed(3, &["--offline: linux-6.1.8.tar.xz is not in the cache", "--from-bundle"]);
}

#[test]
fn a_branch_goes_into_a_bundle_as_its_commit() {
    if !has_tool("git") {
        return;
    }
    let context = TestContext::new();
    crate::support::git::repository(&context);
    let server = servers::git(context.path("repos").as_str());
    let source = format!("--source git+{}/linux/.git", server.url);
    let fetched = context.run(&format!("fetch 6.1.7 --ch {source} --bundle b.tar")).ok();
    let offline = "--offline --from-bundle b.tar --cache-dir empty";
    let taken = context.run(&format!("fetch 6.1.7 --ch {source} {offline}")).ok();
    assert_eq!(taken.digests(), fetched.digests());
    context.run(&format!("6.1.7 --ch {source} --config mini.config --offline --cache-dir empty")).ok();
    // A bundle needs more than a tree.
    let commit = fetched.digests()[0].replace("commit:", "#");
    context.run(&format!("fetch 6.1.7 --ch {source}{commit}")).ok();
    fs::remove_dir_all(context.path("cache/git")).unwrap();
    let bundle = format!("fetch 6.1.7 --ch {source}{commit} --bundle c.tar");
    context.run(&format!("{bundle} --offline")).failed(3, &["is not in the cache", "hint: "]);
    assert!(!context.path("work/c.tar").exists());
    context.run(&bundle).ok();
    let third = format!("fetch 6.1.7 --ch {source}{commit} --offline --from-bundle c.tar --cache-dir third");
    assert_eq!(context.run(&third).ok().digests(), fetched.digests());
}

const INDEX: &str = "kcompile-bundle.json";

/// Returns a bundle with one member.
fn member(name: &str, kind: tar::EntryType, content: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_entry_type(kind);
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_cksum();
    tar.append(&header, content.as_bytes()).unwrap();
    tar.into_inner().unwrap()
}

#[test]
fn bundles_lock_digests_only() {
    let context = TestContext::new();
    for (digest, why) in [
        ("nonsense".to_owned(), "not a bundle, or damaged"),
        (format!("content:{}", "0".repeat(64)), "it locks a directory"),
    ] {
        let index =
            format!(r#"{{"format":1,"archives":[],"commits":[],"locked":{{"https://x":"{digest}"}}}}"#);
        fs::write(context.path("work/x.tar"), member(INDEX, tar::EntryType::Regular, &index)).unwrap();
        context.run("fetch 6.1.7 --fc --offline --from-bundle x.tar --cache-dir other").failed(3, &[why]);
        assert!(!context.path("work/other/kcompile.lock").exists());
    }
}

#[test]
fn damaged_or_malicious_bundles_are_refused() {
    let context = TestContext::new();
    let server = mirror(&context, &["6.1.7"]);
    context.run(&format!("fetch 6.1.7 --fc --mirror {} --bundle b.tar", server.url)).ok();
    let whole = fs::read(context.path("work/b.tar")).unwrap();
    let take = |bytes: &[u8]| {
        fs::write(context.path("work/x.tar"), bytes).unwrap();
        context.run("fetch 6.1.7 --fc --offline --from-bundle x.tar --cache-dir other")
    };
    take(b"").failed(3, &["x.tar: empty, not a bundle"]);
    take(&[7; 2000]).failed(3, &["x.tar: not a bundle, or damaged"]);
    take(&whole[..whole.len() / 2]).failed(3, &["x.tar"]);
    let end = whole
        .windows(10)
        .position(|window| window == b"archives/\0" || window.starts_with(b"archives/"))
        .unwrap();
    take(&[&whole[..1024 + (end - 1024) / 512 * 512], &[0; 1024]].concat())
        .failed(3, &["x.tar: incomplete bundle, without archives/"]);
    let mut flipped = whole.clone();
    let middle = whole.len() * 2 / 3;
    flipped[middle] ^= 1;
    take(&flipped).failed(3, &["checksum mismatch for https://cdn.kernel.org", "in "]);
    let regular = tar::EntryType::Regular;
    take(&member("../x", regular, "{}")).failed(3, &["refused member `../x`"]);
    take(&member(INDEX, tar::EntryType::Symlink, "{}")).failed(3, &["not a file"]);
    take(&member(INDEX, regular, "{}")).failed(3, &["missing field"]);
    assert!(context.names("work/other/trees").is_empty() && context.names("work/other/archives").is_empty());
    assert!(context.names("work/other/tmp").is_empty());
    // Without the network and the bundle it fails.
    context.run("fetch 6.1.7 --fc --offline --cache-dir other").failed(3, &["is not in the cache"]);
}

#[test]
fn a_bundle_pins_only_what_was_asked_for() {
    let context = TestContext::new();
    let server = mirror(&context, &["6.1.7", "6.1.8"]);
    context.run(&format!("fetch 6.1.7 6.1.8 --fc --mirror {} --bundle b.tar", server.url)).ok();
    context.run("fetch 6.1.7 --fc --offline --from-bundle b.tar --cache-dir other").ok();
    let lock = fs::read_to_string(context.path("work/other/kcompile.lock")).unwrap();
    assert!(lock.contains("linux-6.1.7.tar.xz") && !lock.contains("linux-6.1.8.tar.xz"), "{lock}");
    // The bundle ignores a digest of another archive.
    let origin = format!("https://cdn.kernel.org{DIR}/linux-6.1.9.tar.xz");
    let index = format!(
        r#"{{"format":1,"archives":[],"commits":[],"locked":{{"{origin}":"sha256:{}"}}}}"#,
        "0".repeat(64)
    );
    fs::write(context.path("work/x.tar"), member(INDEX, tar::EntryType::Regular, &index)).unwrap();
    context
        .run("fetch 6.1.9 --fc --offline --from-bundle x.tar --cache-dir third")
        .failed(3, &["it has a lock entry for https://cdn.kernel.org", "but not that source"]);
}

#[test]
fn a_refused_bundle_leaves_nothing_in_the_cache() {
    let context = TestContext::new();
    let server = mirror(&context, &["6.1.7", "6.1.8"]);
    context.run(&format!("fetch 6.1.7 6.1.8 --fc --mirror {} --bundle b.tar", server.url)).ok();
    let mut bytes = fs::read(context.path("work/b.tar")).unwrap();
    // In the second archive.
    let at = bytes.len() - 4096;
    bytes[at] ^= 1;
    fs::write(context.path("work/flipped.tar"), &bytes).unwrap();
    fs::write(context.path("work/short.tar"), &bytes[..at]).unwrap();
    for (bundle, why) in [("flipped.tar", "checksum mismatch"), ("short.tar", "short.tar: ")] {
        context
            .run(&format!("fetch 6.1.7 --fc --offline --from-bundle {bundle} --cache-dir other"))
            .failed(3, &[why]);
        for dir in ["archives", "trees", "git", "tmp"] {
            assert_eq!(context.names(&format!("work/other/{dir}")), [""; 0], "{bundle}: {dir}");
        }
        assert!(!context.path("work/other/kcompile.lock").exists(), "{bundle}");
    }
    // A bundle that contradicts the lock file.
    let other = format!("sha256:{}", "0".repeat(64));
    let entry = format!(
        "[[source]]\norigin = \"https://cdn.kernel.org{DIR}/linux-6.1.8.tar.xz\"\ndigest = \"{other}\"\n"
    );
    fs::create_dir(context.path("work/own")).unwrap();
    fs::write(context.path("work/own/kcompile.lock"), entry).unwrap();
    context
        .run("fetch 6.1.7 --fc --offline --from-bundle b.tar --configs own --cache-dir other")
        .failed(3, &["kcompile.lock has "]);
    assert_eq!(context.names("work/other/archives"), [""; 0]);
}

#[test]
fn a_bundle_does_not_report_missing_checksum_lists() {
    let context = TestContext::new();
    let bytes = fs::read(context.tarball("6.1.7", "xz")).unwrap();
    let server = servers::files([(format!("{DIR}/linux-6.1.7.tar.xz"), bytes)]);
    let asked = format!("fetch 6.1.7 --fc --mirror {} --bundle b.tar", server.url);
    context.run(&asked).ok().says("no sha256sums.asc");
    let taken = context.run("fetch 6.1.7 --fc --offline --from-bundle b.tar --cache-dir other").ok();
    assert!(!taken.stderr.contains("sha256sums.asc"), "{}", taken.stderr);
}

#[test]
fn local_sources_need_no_bundle() {
    let context = TestContext::new();
    context.tarball("6.1.7", "xz");
    context
        .run("fetch 6.1.7 --fc --source linux-6.1.7.tar.xz --bundle b.tar")
        .failed(2, &["--bundle: a source on this machine needs no bundle"]);
    assert!(!context.path("work/b.tar").exists());
}

#[test]
fn a_bundle_does_not_override_the_lock_file() {
    let context = TestContext::new();
    let server = mirror(&context, &["6.1.7"]);
    context.run(&format!("fetch 6.1.7 --fc --mirror {} --bundle b.tar", server.url)).ok();
    fs::create_dir(context.path("work/own")).unwrap();
    let digest = format!("sha256:{}", "0".repeat(64));
    let entry = format!(
        "[[source]]\norigin = \"https://cdn.kernel.org{DIR}/linux-6.1.7.tar.xz\"\ndigest = \"{digest}\"\n"
    );
    fs::write(context.path("work/own/kcompile.lock"), entry).unwrap();
    let args = "fetch 6.1.7 --fc --offline --configs own --cache-dir other --from-bundle b.tar";
    context.run(args).failed(
        3,
        &[
            "b.tar: kcompile.lock has sha256:0000",
            " for https://cdn.kernel.org",
            "but the bundle has sha256:",
        ],
    );
    context.run(&format!("{args} --update-lock")).ok();
}
