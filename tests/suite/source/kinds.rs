//! The kinds of sources, each from a realistic server or file.

use crate::support::context::{TestContext, compress, sha256, tar_of};
use crate::support::servers::{self, DIR, mirror};
use std::fs;

#[test]
fn a_release_comes_from_a_mirror_once() {
    let context = TestContext::new();
    let server = mirror(&context, &["6.1.7"]);
    let args = format!("6.1.7 --fc --config mini.config --mirror {}", server.url);
    let ran = context.run(&args).ok();
    assert!(ran.stdout.starts_with("out/firecracker-kernel-bin-amd64:6.1.7 sha256:"), "{}", ran.stdout);
    assert_eq!(server.log.lock().unwrap().len(), 3, "the list, the signature, the tarball");
    let again = context.run(&format!("{args} -o other")).ok();
    // Nothing verifies the archive, so the server is asked again for the list and the signature.
    assert_eq!(server.log.lock().unwrap().len(), 5);
    let tarballs = server.log.lock().unwrap().iter().filter(|line| line.ends_with(".tar.xz")).count();
    assert_eq!(tarballs, 1, "fetched twice");
    assert_eq!(again.digests(), ran.digests());
    context.run("6.1.7 --fc --config mini.config --offline -o third").ok();
}

#[test]
fn a_series_resolves_to_its_newest_release() {
    let context = TestContext::new();
    let server = mirror(&context, &["6.1.9", "6.1.10", "6.2.1"]);
    let ran = context.run(&format!("fetch 6.1 --fc --mirror {}/", server.url)).ok();
    assert!(ran.stdout.contains(" 6.1.10 sha256:"), "{}", ran.stdout);
    context
        .run(&format!("fetch 6.3 --fc --mirror {}", server.url))
        .failed(3, &["lists no release of Linux 6.3"]);
    context.run(&format!("fetch 6.1 --fc --mirror {}/", server.url)).ok();
    let tarballs =
        server.log.lock().unwrap().iter().filter(|line| line.ends_with("linux-6.1.10.tar.xz")).count();
    assert_eq!(tarballs, 1, "fetched though it is in the cache");
    // Without a network, the newest cached version is used.
    assert!(context.run("fetch 6.1 --fc --offline").ok().stdout.contains(" 6.1.10 "));
    context.run("fetch 6.2 --fc --offline").failed(3, &["--offline: linux-6.2.*.tar.xz is not in the cache"]);
}

#[test]
fn a_wrong_pinned_digest_refuses_the_source() {
    let context = TestContext::new();
    let server = mirror(&context, &["6.1.7"]);
    let pin = "0".repeat(64);
    fs::create_dir(context.path("work/own")).unwrap();
    let entry = format!(
        "[[kernel]]\nversion = \"6.1.7\"\nflavor = \"firecracker\"\narch = [\"amd64\"]\nsha256 = \"{pin}\"\nstatus = \"untested\"\n"
    );
    fs::write(context.path("work/own/kernels.toml"), entry).unwrap();
    let args = format!("6.1.7 --fc --config mini.config --configs own --mirror {}", server.url);
    context
        .run(&args)
        .failed(3, &["error: checksum mismatch for linux-6.1.7.tar.xz: expected 0000", "found ", "hint: "]);
    assert!(context.names("cache/trees").is_empty() && context.names("cache/tmp").is_empty());
    assert!(!context.path("work/out").exists());
}

#[test]
fn unavailable_sources_are_named() {
    let context = TestContext::new();
    let server = mirror(&context, &["6.1.7"]);
    let url = &server.url;
    context
        .run(&format!("fetch 6.1.8 --fc --mirror {url}"))
        .failed(3, &[&format!("cannot fetch {url}{DIR}/linux-6.1.8.tar.xz: HTTP status 404")]);
    context
        .run("fetch 6.1.8 --fc --mirror http://127.0.0.1:1")
        .failed(3, &["cannot fetch http://127.0.0.1:1/", "hint: "]);
    context
        .run("fetch 6.1.8 --fc --offline")
        .failed(3, &["--offline: linux-6.1.8.tar.xz is not in the cache"]);
}

#[test]
fn a_local_tarball_of_every_kind_gives_the_same_kernel() {
    let context = TestContext::new();
    let mut seen = Vec::new();
    for suffix in ["xz", "gz", "zst", "bz2"] {
        context.tarball("6.1.7", suffix);
        let args =
            format!("6.1.7 --fc --config mini.config --source linux-6.1.7.tar.{suffix} -o out-{suffix}");
        let ran = context.run(&args).ok();
        let layer =
            fs::read_to_string(context.path(&format!("work/out-{suffix}/firecracker-6.1.7-amd64.json")))
                .unwrap();
        assert!(layer.contains("from a local file"), "{layer}");
        seen.push(ran.stdout.lines().count());
    }
    assert_eq!(seen, [2, 2, 2, 2]);
    assert_eq!(context.names("cache/trees").len(), 4);
}

#[test]
fn trees_are_pristine_and_read_only() {
    use std::os::unix::fs::PermissionsExt;
    let context = TestContext::new();
    context.tarball("6.1.7", "xz");
    context.run("6.1.7 --fc --config mini.config --source linux-6.1.7.tar.xz").ok();
    let tree = context.path(&format!("cache/trees/{}/linux", context.names("cache/trees")[0]));
    for entry in walkdir::WalkDir::new(&tree)
        .into_iter()
        .filter_entry(|entry| !entry.file_name().to_string_lossy().starts_with("kcompile-"))
    {
        let entry = entry.unwrap();
        if entry.depth() > 0 && !entry.path_is_symlink() {
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o222, 0, "{} {mode:o}", entry.path().display());
        }
    }
    assert!(!tree.join(".config").exists());
}

#[test]
fn a_directory_is_used_in_place_and_never_written_to() {
    let context = TestContext::new();
    let tree = context.tree("6.1.7", "work/linux");
    let before = sha256(&tar_of(&tree, "x"));
    let ran = context.build("").ok();
    assert_eq!(sha256(&tar_of(&tree, "x")), before);
    assert!(context.names("cache/trees").is_empty());
    // The content of the directory matters, not its path.
    crate::support::context::copy(&tree, &context.path("work/moved"));
    let moved = context.run("6.1.7 --fc --source moved --config mini.config -o out2").ok();
    assert_eq!(moved.digests(), ran.digests());
}

/// These are the conditions of `outputmakefile` in the kernel's Makefile.
#[test]
fn a_source_that_was_built_in_is_refused_before_make() {
    let context = TestContext::new();
    let tree = context.tree("6.1.7", "work/linux");
    let refused = |trace: &str, command: &str| {
        let says = format!("contains a build: it has {trace}, but the kernel's make needs a clean tree");
        let hint = format!("hint: clean it with `{command}`");
        context.build("").failed(2, &[&says, &hint]);
        let tar = compress(&tar_of(&tree, "linux-6.1.7"), "gz");
        fs::write(context.path("work/linux-6.1.7.tar.gz"), tar).unwrap();
        context.run("fetch 6.1.7 --fc --source linux-6.1.7.tar.gz").failed(2, &[&says, &hint]);
    };
    fs::write(tree.join(".config"), "").unwrap();
    refused(".config", "make mrproper");
    fs::remove_file(tree.join(".config")).unwrap();
    fs::create_dir_all(tree.join("include/config")).unwrap();
    refused("include/config", "make mrproper");
    fs::remove_dir(tree.join("include/config")).unwrap();
    for arch in ["x86", "arm64"] {
        let generated = tree.join("arch").join(arch).join("include/generated");
        fs::create_dir_all(&generated).unwrap();
        refused(&format!("arch/{arch}/include/generated"), &format!("make ARCH={arch} mrproper"));
        fs::remove_dir(generated).unwrap();
    }
    context.build("").ok();
}

#[test]
fn a_url_alone_is_no_source() {
    let context = TestContext::new();
    for source in ["https://example.org/linux-6.1.tar.xz", "ftp://x", "ssh://git@example.org/linux.git"] {
        let ran = context.run(&format!("plan 6.1 --fc --source {source}")).failed(
            2,
            &[
                "a URL alone is not a source; write git+URL#REF for a git repository",
                "kernel.org, git[+URL][#REF], apt[:PACKAGE], or the path of a tarball or directory",
            ],
        );
        assert!(!ran.stderr.contains("no such file"), "{}", ran.stderr);
    }
    context.run("plan 6.1 --fc --source git+").failed(2, &["the URL or the path of a repository is missing"]);
}

#[test]
fn a_tarball_with_another_top_is_described() {
    let context = TestContext::new();
    let tree = context.tree("6.1.7", "work/trees/linux-6.1.7");
    let pack = |name: &str, args: &[&str]| {
        let path = context.path(&format!("work/{name}"));
        let packed = std::process::Command::new("tar").args(["-czf", path.as_str()]).args(args).status();
        assert!(packed.unwrap().success());
        context.run(&format!("fetch 6.1.7 --fc --source {name}"))
    };
    let config = context.path("work/mini.config");
    let dir = config.parent().unwrap().as_str();
    let hint = "hint: a kernel tarball has one top directory, such as linux-6.1.7/";
    pack("bare.tar.gz", &["-C", tree.as_str(), "Makefile", "Kconfig", "Kbuild"])
        .failed(3, &["refused entry `Makefile`: a file at the top of the archive", hint]);
    pack("two.tar.gz", &["-C", dir, "trees/linux-6.1.7", "mini.config"]).failed(
        3,
        &["refused entry `mini.config`: the archive has more at its top than the directory `trees`", hint],
    );
    pack("deep.tar.gz", &["-C", dir, "trees"]).failed(
        2,
        &["deep.tar.gz is not a kernel tree", "hint: the source is in its directory `linux-6.1.7`"],
    );
    context
        .run("fetch 6.1.7 --fc --source trees")
        .failed(2, &["hint: the source is in its directory `linux-6.1.7`: give that directory"]);
    assert!(context.names("cache/trees").is_empty() && context.names("cache/tmp").is_empty());
}

#[test]
fn sources_that_are_not_kernel_trees_are_refused() {
    let context = TestContext::new();
    fs::create_dir(context.path("work/empty")).unwrap();
    fs::write(context.path("work/empty/x"), "x").unwrap();
    fs::write(context.path("work/text.tar.xz"), "hello").unwrap();
    let tar = compress(&tar_of(&context.path("work/empty"), "linux-6.1.7"), "gz");
    fs::write(context.path("work/other.tar.gz"), tar).unwrap();
    context.run("6.1.7 --fc --source empty").failed(2, &["empty is not a kernel tree"]);
    context.run("6.1.7 --fc --source text.tar.xz").failed(3, &["text.tar.xz is not a compressed tarball"]);
    context.run("6.1.7 --fc --source other.tar.gz").failed(2, &["other.tar.gz is not a kernel tree"]);
    context.tree("6.1.8", "work/newer");
    context
        .run("6.1.7 --fc --source newer")
        .failed(2, &["the source is Linux 6.1.8, but 6.1.7 was requested", "hint: build it"]);
    assert!(context.names("cache/trees").is_empty() && context.names("cache/tmp").is_empty());
}

#[test]
fn a_damaged_or_malicious_tarball_leaves_nothing() {
    let context = TestContext::new();
    let whole = fs::read(context.tarball("6.1.7", "xz")).unwrap();
    fs::write(context.path("work/short.tar.xz"), &whole[..whole.len() / 2]).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    fs::write(context.path("work/flipped.tar.xz"), flipped).unwrap();
    for name in ["short", "flipped"] {
        context.run(&format!("fetch 6.1.7 --fc --source {name}.tar.xz")).failed(3, &["corrupt archive"]);
    }
    for (path, kind) in [
        ("linux/../../evil", tar::EntryType::Regular),
        ("linux/fifo", tar::EntryType::Fifo),
        ("other/x", tar::EntryType::Regular),
    ] {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        header.set_mode(0o644);
        header.as_mut_bytes()[..5].copy_from_slice(b"linux");
        header.set_entry_type(tar::EntryType::Directory);
        header.set_cksum();
        tar.append(&header, &[][..]).unwrap();
        header.as_mut_bytes()[..100].fill(0);
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_cksum();
        tar.append(&header, &[][..]).unwrap();
        fs::write(context.path("work/evil.tar.gz"), compress(&tar.into_inner().unwrap(), "gz")).unwrap();
        context
            .run("fetch 6.1.7 --fc --source evil.tar.gz")
            .failed(3, &["refused entry", path.trim_start_matches("linux/")]);
    }
    assert!(context.names("cache/trees").is_empty() && context.names("cache/tmp").is_empty());
}

/// Installs a fake apt that knows one package with this kernel version.
fn fake_apt(context: &mut TestContext, kernel: &str, version: &str) {
    let tree = context.tree(kernel, &format!("trees/apt-{version}"));
    let inner = compress(&tar_of(&tree, "linux-source-6.1"), "xz");
    let mut data = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(inner.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    data.append_data(&mut header, "./usr/src/linux-source-6.1.tar.xz", &inner[..]).unwrap();
    let data = compress(&data.into_inner().unwrap(), "xz");
    let mut deb = ar::Builder::new(Vec::new());
    for (name, bytes) in [("debian-binary", &b"2.0\n"[..]), ("control.tar.xz", &[]), ("data.tar.xz", &data)] {
        deb.append(&ar::Header::new(name.into(), bytes.len() as u64), bytes).unwrap();
    }
    let deb = deb.into_inner().unwrap();
    fs::write(context.path("package.deb"), &deb).unwrap();
    let bin = context.path("aptbin");
    fs::create_dir_all(&bin).unwrap();
    let show = format!(
        "#!/bin/sh\n[ \"$3\" = linux-source-6.1 ] || exit 100\nprintf 'Package: x\\nVersion: {version}\\nSHA256: {}\\n'\n",
        sha256(&deb)
    );
    let get = format!(
        "#!/bin/sh\nfor last; do :; done\ncase $last in linux-source-6.1={version}) ;; *) echo 'E: Unable to locate package' >&2; exit 100;; esac\n\
         echo 'dlstatus:1:50.0000:Retrieving file 1 of 1'\ncp {} linux-source-6.1_{version}_all.deb\n",
        context.path("package.deb")
    );
    for (name, script) in [("apt-cache", show), ("apt-get", get)] {
        use std::os::unix::fs::PermissionsExt;
        fs::write(bin.join(name), script).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    context.env.insert("PATH".into(), format!("{bin}:{}", std::env::var("PATH").unwrap()));
}

#[test]
fn the_distributions_source_package_is_unpacked() {
    let mut context = TestContext::new();
    fake_apt(&mut context, "6.1.7", "6.1.7-2");
    assert!(context.run("plan 6.1 --fc --source apt").ok().stdout.contains("linux-source-6.1 6.1.7-2"));
    for source in ["apt", "apt:linux-source-6.1"] {
        let ran = context.run(&format!("6.1 --fc --config mini.config --source {source}")).ok();
        assert!(ran.stdout.starts_with("out/firecracker-kernel-bin-amd64:6.1.7 "), "{}", ran.stdout);
    }
    context
        .run("6.2 --fc --source apt")
        .failed(3, &["`apt-get download linux-source-6.2` failed: ", "Unable to locate package"]);
    fs::write(context.path("package.deb"), "other bytes").unwrap();
    context
        .run("6.1 --fc --source apt --cache-dir other")
        .failed(3, &["checksum mismatch for linux-source-6.1 6.1.7-2"]);
}

#[test]
fn the_newest_cached_source_package_is_used() {
    let mut context = TestContext::new();
    for (kernel, version) in [("6.1.192", "6.1.192-1"), ("6.1.7", "6.1.7-1")] {
        fake_apt(&mut context, kernel, version);
        context.run("fetch 6.1 --fc --source apt").ok();
    }
    // Another machine, whose apt does not know the package, with only these archives.
    fs::write(context.path("aptbin/apt-cache"), "#!/bin/sh\nexit 100\n").unwrap();
    crate::support::context::copy(&context.path("cache/archives"), &context.path("work/other/archives"));
    let ran = context.run("fetch 6.1 --fc --source apt --offline --cache-dir other").ok();
    assert!(ran.stdout.contains(" 6.1.192 "), "{}", ran.stdout);
    ran.says("kept in the cache; apt's lists on this host do not have it");
}

#[test]
fn one_download_serves_two_runs_at_once() {
    let context = TestContext::new();
    let server = mirror(&context, &["6.1.7"]);
    let args = |out: &str| format!("6.1.7 --fc --config mini.config --mirror {} -o {out}", server.url);
    let spawn = |out: &str| {
        let mut command = context.command(&args(out));
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let both = [spawn("one"), spawn("two")];
    let outputs =
        both.map(|child| crate::support::context::run_result(child.wait_with_output().unwrap()).ok());
    assert_eq!(outputs[0].digests(), outputs[1].digests());
    let log = server.log.lock().unwrap();
    assert_eq!(log.iter().filter(|line| line.ends_with(".tar.xz")).count(), 1, "{log:?}");
    assert_eq!(context.names("cache/trees").len(), 1);
}

#[test]
fn a_local_tarball_is_not_used_as_the_kernel_org_one() {
    let context = TestContext::new();
    context.tarball("6.1.7", "xz");
    context.run("fetch 6.1.7 --fc --source linux-6.1.7.tar.xz").ok();
    context.run("fetch 6.1.7 --fc --mirror http://127.0.0.1:1").failed(3, &["cannot fetch"]);
    context.run("fetch 6.1.7 --fc --offline").failed(3, &["is not in the cache"]);
}

#[test]
fn source_file_names_do_not_affect_the_output() {
    let context = TestContext::new();
    let path = context.tarball("6.1.7", "xz");
    fs::copy(&path, context.path("work/renamed.tar.xz")).unwrap();
    let build = |source: &str, cache: &str| {
        context
            .run(&format!(
                "6.1.7 --fc --config mini.config --source {source} --cache-dir {cache} -o out-{cache}"
            ))
            .ok()
    };
    let first = build("linux-6.1.7.tar.xz", "one").digests();
    assert_eq!(build("renamed.tar.xz", "one").digests(), first);
    assert_eq!(build("renamed.tar.xz", "two").digests(), first);
}

#[test]
fn unverified_sources_are_warned_about_every_time() {
    let context = TestContext::new();
    let bytes = fs::read(context.tarball("6.1.7", "xz")).unwrap();
    let server = servers::files([(format!("{DIR}/linux-6.1.7.tar.xz"), bytes)]);
    let args = format!("fetch 6.1.7 --fc --mirror {}", server.url);
    context.run(&args).ok().says("warning: the source is not verified: linux-6.1.7.tar.xz");
    context.run(&args).ok().says("warning: the source is not verified: linux-6.1.7.tar.xz");
}

#[test]
fn oversized_tar_records_are_refused() {
    let context = TestContext::new();
    let mut tar = Vec::new();
    let mut header = tar::Header::new_gnu();
    header.as_mut_bytes()[..13].copy_from_slice(b"././@LongLink");
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(64 << 20);
    header.set_mode(0o644);
    header.set_cksum();
    tar.extend_from_slice(header.as_bytes());
    tar.resize(tar.len() + (64 << 20), b'x');
    fs::write(context.path("work/bomb.tar.gz"), compress(&tar, "gz")).unwrap();
    context.run("fetch 6.1.7 --fc --source bomb.tar.gz").failed(3, &["refused entry", "67108864 bytes long"]);
}

#[test]
fn leftovers_of_a_killed_run_are_removed() {
    let context = TestContext::new();
    fs::create_dir_all(context.path("cache/tmp/work-left/linux")).unwrap();
    fs::create_dir_all(context.path("work/out/.tmp-left")).unwrap();
    fs::write(context.path("work/out/.kcompile.lock"), "1").unwrap();
    context.build("").ok();
    assert!(context.names("cache/tmp").is_empty());
    assert!(!context.names("work/out").contains(&".tmp-left".to_owned()));
}
