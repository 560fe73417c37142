//! `ccache export` and `ccache import` carry ccache's directory, and nothing else, to another
//! machine. Uses the real ccache.

use crate::support::context::{RunResult, TestContext, compress, has_tool, skipped};
use crate::support::fixtures::craft;
use crate::support::registry;
use camino::{Utf8Path, Utf8PathBuf};
use std::fs;
use std::process::Command;
use tar::EntryType;

/// Returns a context with its own ccache directory, or `None` if ccache is not installed.
fn context() -> Option<TestContext> {
    has_tool("ccache").then(|| {
        let mut context = TestContext::new();
        let dir = context.path("ccache").into_string();
        context.env.insert("CCACHE_DIR".into(), dir);
        context
    })
}

/// Returns one of ccache's counters.
fn count(context: &TestContext, name: &str) -> u64 {
    let output =
        Command::new("ccache").arg("--print-stats").env("CCACHE_DIR", context.path("ccache")).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

/// Returns the cache entries with their bytes.
fn entries(context: &TestContext) -> Vec<(Utf8PathBuf, Vec<u8>)> {
    let walk = walkdir::WalkDir::new(context.path("ccache")).sort_by_file_name().into_iter();
    let files = walk.map(|entry| Utf8PathBuf::from_path_buf(entry.unwrap().into_path()).unwrap());
    let entries = files.filter(|path| {
        let name = path.strip_prefix(context.path("ccache")).unwrap();
        kcompile::internals::ccache_image::is_entry(name.as_str())
    });
    entries.map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

/// Builds from a tarball in an arbitrary directory, like a CI machine.
fn build(context: &TestContext) -> RunResult {
    context.tarball("6.1.7", "zst");
    context.run("6.1.7 --fc --source linux-6.1.7.tar.zst --config mini.config --launcher ccache").ok()
}

/// Copies the image from the working directory of one context to that of another, like a registry
/// does.
fn carry(from: &TestContext, to: &TestContext) {
    let [from, to] = [from, to].map(|context| context.path("work/warm/ccache"));
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    if !has_tool("skopeo") {
        return crate::support::context::copy(&from, &to);
    }
    let [from, to] = [from, to].map(|layout| format!("oci:{layout}:6.1"));
    let skopeo = Command::new("skopeo").args(["--insecure-policy", "copy", &from, &to]).output().unwrap();
    assert!(skopeo.status.success(), "{}", String::from_utf8_lossy(&skopeo.stderr));
}

#[test]
fn an_imported_ccache_saves_nearly_all_compilation() {
    let (Some(first), Some(second)) = (context(), context()) else { return };
    let cold = build(&first);
    let misses = count(&first, "cache_miss");
    assert!(misses > 5 && count(&first, "direct_cache_hit") == 0, "{misses}");
    let export = first.run("cache export oci:warm/ccache:6.1").ok();
    assert!(export.stdout.starts_with("warm/ccache:6.1 sha256:"), "{}", export.stdout);
    // The same entries have the same digest.
    assert_eq!(first.run("cache export oci:warm/ccache:6.1").ok().stdout, export.stdout);
    let told = first.run("verify warm/ccache").ok().stdout;
    assert!(told.contains("not a kernel image: what ccache has compiled"), "{told}");
    let told = first.run("inspect warm/ccache").ok().stdout;
    assert!(
        told.contains("image   not a kernel image") && told.contains("what ccache has compiled"),
        "{told}"
    );

    carry(&first, &second);
    let import = second.run("cache import oci:warm/ccache:6.1").ok();
    assert!(import.stdout.contains(&format!("added {} entries", entries(&first).len())), "{}", import.stdout);
    assert_eq!(count(&second, "files_in_cache"), entries(&first).len() as u64);
    let warm = build(&second);
    assert_eq!(warm.digests(), cold.digests());
    assert_eq!((count(&second, "cache_miss"), count(&second, "direct_cache_hit")), (0, misses));
    // Nothing is overwritten, and nothing is left behind.
    let again = second.run("cache import oci:warm/ccache").ok();
    assert!(again.stdout.contains(": added 0 entries (0 B), already had "), "{}", again.stdout);
    assert!(!second.path("ccache/kcompile-import").exists());
}

#[test]
fn export_prefers_new_entries_and_skips_damaged_ones() {
    let Some(context) = context() else { return };
    context.build("--launcher ccache").ok();
    let all = entries(&context);
    let sizes: u64 = all.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let (newest, bytes) = &all[all.len() / 2];
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(3600);
    fs::File::options().write(true).open(newest).unwrap().set_modified(later).unwrap();
    // Leaves room for this file and nothing else.
    context
        .run(&format!("cache export oci:warm/ccache:one --max-size {}B", bytes.len()))
        .ok()
        .says("1 entry");
    let half = context.run(&format!("cache export oci:warm/ccache:half --max-size {}B", sizes / 2)).ok();
    assert!(!half.stderr.contains(&format!("{} entries", all.len())), "{}", half.stderr);

    let mut damaged = bytes.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(newest, damaged).unwrap();
    context.run("cache export oci:warm/ccache:all").ok().says(&format!("{} entries", all.len() - 1));
    context
        .run("cache export oci:warm/ccache:none --max-size 1B")
        .failed(2, &["no entries of ccache", "hint: "]);
    context.run("cache export oci:warm/ccache").failed(2, &["no valid tag"]);
}

#[test]
fn import_refuses_anything_but_valid_entries() {
    let (Some(source), Some(context)) = (context(), context()) else { return };
    source.build("--launcher ccache").ok();
    let (path, good) = entries(&source).into_iter().find(|(path, _)| path.as_str().ends_with('R')).unwrap();
    let name = path.strip_prefix(source.path("ccache")).unwrap().as_str();
    let mut damaged = good.clone();
    damaged[good.len() / 2] ^= 1;
    fs::create_dir(context.path("ccache")).unwrap();
    fs::write(context.path("ccache/ccache.conf"), "max_size = 1G\n").unwrap();
    let before = context.snapshot("ccache");
    for (path, kind, bytes, link, says) in [
        (name, EntryType::Regular, &damaged[..], "", "damaged: its checksum does not match"),
        (name, EntryType::Regular, b"#!/bin/sh\n", "", "not in the format of ccache"),
        (name, EntryType::Symlink, b"", "/etc/passwd", "not a path of ccache"),
        (
            "ccache.conf",
            EntryType::Regular,
            b"compiler = /tmp/x\n",
            "",
            "refused entry `ccache.conf`: not a path of ccache",
        ),
        ("b/e/stats", EntryType::Regular, b"0\n", "", "not a path of ccache"),
        ("tmp", EntryType::Directory, b"", "", "not a path of ccache"),
        ("../b/e/x", EntryType::Regular, b"x", "", "is not a path inside the image"),
        ("/b/e/x", EntryType::Regular, b"x", "", "is not a path inside the image"),
    ] {
        let mut tar = tar::Builder::new(Vec::new());
        // A valid entry comes first, which must not be imported either.
        for (path, kind, bytes, link) in [
            (&*format!("0/0/{}", "0".repeat(31) + "R"), EntryType::Regular, &good[..], ""),
            (path, kind, bytes, link),
        ] {
            let mut header = tar::Header::new_ustar();
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
            header.set_entry_type(kind);
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            tar.append(&header, bytes).unwrap();
        }
        let tar = tar.into_inner().unwrap();
        craft(&context, &tar, &compress(&tar, "zst"), "layer.v1.tar+zstd");
        context.run("cache import oci:crafted").failed(3, &[says]);
        fs::remove_file(context.path("ccache/kcompile.lock")).unwrap();
        assert_eq!(context.snapshot("ccache"), before, "{path}");
    }
}

#[test]
fn a_damaged_ccache_entry_is_compiled_again() {
    let Some(context) = context() else { return };
    let cold = context.build("--launcher ccache").ok();
    for (path, mut bytes) in entries(&context) {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
    }
    context.run("clean --builds").ok();
    let misses = count(&context, "cache_miss");
    let again = context.build("--launcher ccache").ok();
    assert_eq!(again.digests(), cold.digests());
    assert_eq!(count(&context, "cache_miss"), 2 * misses);
}

#[test]
fn a_missing_ccache_is_reported_with_the_package_to_install() {
    let mut context = TestContext::new();
    context.env.insert("PATH".into(), "/nonexistent".into());
    if let Some(dir) = ["/usr/local/sbin", "/usr/sbin", "/sbin"]
        .iter()
        .find(|dir| Utf8Path::new(dir).join("ccache").is_file())
    {
        return skipped(&format!("ccache is in {dir}, which is always searched"));
    }
    context.run("cache export oci:warm/ccache:6.1").failed(4, &["cannot run ccache", "hint: install ccache"]);
}

#[test]
fn a_build_takes_its_ccache_from_a_registry_and_returns_it() {
    let (Some(first), Some(mut second)) = (context(), context()) else { return };
    if !has_tool("skopeo") {
        return;
    }
    let registry = registry::misbehaving(|request, _| request.path.contains("/dead/"));
    let image = format!("docker://{}/kernel-ccache:6.1", registry.host());
    let build = |context: &TestContext, options: &str| {
        registry.allow(context);
        context.tarball("6.1.7", "zst");
        context.run(&format!("6.1.7 --fc --source linux-6.1.7.tar.zst --config mini.config {options}"))
    };
    let options = format!("--ccache-from {image} --ccache-to {image}");
    let cold = build(&first, &options).ok().says(&format!("{image} does not exist yet"));
    assert!(registry.digest("kernel-ccache", "6.1").is_some());
    let warm = build(&second, &options).ok().says("ccache: added ");
    assert_eq!(warm.digests(), cold.digests());
    assert_eq!(count(&second, "cache_miss"), 0, "{}", warm.stderr);

    // A layout on this machine, and its directory is made.
    second.env.insert("CCACHE_DIR".into(), second.path("other").into_string());
    build(&second, "--rebuild --ccache-from oci:warm/ccache:6.1 --ccache-to oci:warm/ccache:6.1")
        .ok()
        .says("oci:warm/ccache:6.1 does not exist yet");
    assert!(second.path("work/warm/ccache/index.json").is_file());

    let dead = format!("--ccache-from docker://{}/dead/x:1", registry.host());
    build(&second, &dead).failed(3, &["--ccache-from docker://", "skopeo cannot copy the image"]);
    build(&second, "--ccache-to warm/ccache").failed(2, &["`warm/ccache` has no valid tag"]);
    build(&second, &format!("{options} --launcher distcc")).failed(2, &["need ccache as the launcher"]);
    build(&second, "--ccache-from docker://-x").failed(2, &["not the reference of an image"]);
    // An image of something else is refused before the build.
    build(&second, "--ccache-from out/firecracker-kernel-bin-amd64:6.1.7 --rebuild")
        .failed(3, &["--ccache-from"]);
}
