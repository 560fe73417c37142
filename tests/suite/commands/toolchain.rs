//! `kcompile toolchain`: making, listing and checking toolchains.

use crate::support::context::{TestContext, has_tool, write_script};
use crate::support::fixtures::{Item, layer, named, put_image_for, put_index};
use crate::support::toolchain::{host_arch, write_toolchain};
use serde_json::Value;
use std::fs;

/// A stand-in for mmdebstrap. It writes a small root file system as an archive, with what differs between runs, and
/// records its arguments.
const MMDEBSTRAP: &str = r#"
printf '%s\n' "$@" >"$HOME/arguments"
echo "$SOURCE_DATE_EPOCH" >>"$HOME/arguments"
for last; do case "$last" in *.tar) tar=$last ;; esac; done
root=$HOME/root.$$
mkdir -p "$root/usr/bin" "$root/etc/apt" "$root/var/lib/dpkg/info" "$root/var/log" "$root/usr/share/doc" "$root/tmp" "$root/dev"
printf 'compiler' >"$root/usr/bin/gcc"
chmod 755 "$root/usr/bin/gcc"
ln "$root/usr/bin/gcc" "$root/usr/bin/gcc-12"
ln -s usr/bin "$root/bin"
printf 'Package: gcc\nStatus: install ok installed\nVersion: 4:12.2.0-3\nArchitecture: amd64\nSource: gcc-defaults (1.203)\n' \
    >"$root/var/lib/dpkg/status"
for varies in etc/hostname etc/resolv.conf etc/machine-id etc/passwd- etc/apt/sources.list var/log/dpkg.log var/lib/dpkg/status-old; do
    date +%N >"$root/$varies"
done
tar -C "$root" -cf "$tar" .
"#;

#[test]
fn the_same_packages_make_the_same_toolchain() {
    if !has_tool("skopeo") {
        return;
    }
    let mut context = TestContext::new();
    let bin = context.path("home/bin");
    write_script(&bin.join("mmdebstrap"), MMDEBSTRAP);
    write_script(
        &bin.join("apt-get"),
        "echo 'Debian-Security https://a.invalid/security/'; echo 'Debian https://a.invalid/debian/'",
    );
    context.env.insert("PATH".into(), format!("{bin}:{}", std::env::var("PATH").unwrap()));
    let arguments = || fs::read_to_string(context.path("home/arguments")).unwrap();
    let make = |options: &str| context.run(&format!("toolchain make debian:bookworm {options}")).ok().stdout;

    let first = make("-o oci:one/tools:1");
    assert!(first.starts_with("one/tools:1 sha256:"), "{first}");
    let given = arguments();
    let given: Vec<&str> = given.lines().collect();
    assert!(
        given.ends_with(&["https://a.invalid/debian/", "0"]),
        "the mirror of apt and the date: {given:?}"
    );
    assert!(given.contains(&"bookworm") && given.contains(&"--variant=essential"), "{given:?}");
    let packages = given.iter().find_map(|word| word.strip_prefix("--include=")).unwrap();
    for package in ["gcc", "make", "flex", "kmod", "libelf-dev", "pkg-config"] {
        assert!(packages.split(',').any(|one| one == package), "{packages}");
    }
    let second = make("-o oci:two/tools:1 --mirror http://b.invalid/snapshot --arch arm64 --arch amd64");
    assert_eq!(first.split(' ').nth(1), second.split(' ').nth(1), "equal bytes at another time and place");
    let given = arguments();
    assert!(given.lines().any(|word| word == "http://b.invalid/snapshot"), "{given}");
    let cross = if host_arch() == "amd64" { "gcc-aarch64-linux-gnu" } else { "gcc-x86-64-linux-gnu" };
    assert!(given.contains(cross), "{given}");
    context.env.insert("SOURCE_DATE_EPOCH".into(), "1700000000".into());
    let dated = context.run("toolchain make debian:bookworm -o oci:three/tools:1").ok().stdout;
    assert_ne!(first.split(' ').nth(1), dated.split(' ').nth(1));

    context.run("toolchain check oci:one/tools:1").failed(4, &["the toolchain lacks sh"]);
    let [entry] = &context.names("cache/toolchains")[..] else { panic!("one toolchain is unpacked") };
    let names = |dir: &str| context.names(&format!("cache/toolchains/{entry}/root/{dir}"));
    assert_eq!(names(""), ["bin", "dev", "etc", "tmp", "usr", "var"]);
    assert_eq!(names("usr/bin"), ["gcc", "gcc-12"]);
    assert_eq!((names("etc").len(), names("usr/share").len()), (0, 0));
    assert_eq!(names("var"), ["lib"]);
    assert_eq!(names("var/lib/dpkg"), ["status"]);
    let index: Value =
        serde_json::from_slice(&fs::read(context.path("work/one/tools-attest/index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().map(Vec::len), Some(1), "{index}");
    let blobs = context.path("work/one/tools-attest/blobs/sha256");
    let mut blobs =
        blobs.read_dir_utf8().unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    let spdx = blobs.find(|text| text.contains("spdxVersion")).expect("the list of packages is attached");
    assert!(spdx.contains("pkg:deb/debian/gcc@4:12.2.0-3?arch=amd64&distro=bookworm"), "{spdx}");
    assert!(context.names("cache/tmp").is_empty());
}

#[test]
fn a_toolchain_that_cannot_be_made_leaves_nothing() {
    let mut context = TestContext::new();
    let make = |context: &TestContext, options: &str| context.run(&format!("toolchain make {options}"));
    make(&context, "fedora:42 -o oci:out/x:1").failed(2, &["`fedora:42` is not a release"]);
    make(&context, "debian:bookworm -o oci:out/x").failed(2, &["has no valid tag"]);
    make(&context, "debian:bookworm -o oci:out/x:1 --mirror=--option").failed(2, &["--mirror"]);
    make(&context, "debian:bookworm -o oci:out/x:1 --mirror /etc").failed(2, &["expected a URL"]);
    let bin = context.path("home/bin");
    write_script(
        &bin.join("mmdebstrap"),
        "echo 'E: Unable to locate package pahole' >&2; echo 'E: apt-get failed' >&2; exit 100",
    );
    context.env.insert("PATH".into(), format!("{bin}:{}", std::env::var("PATH").unwrap()));
    make(&context, "debian:bookworm -o oci:out/x:1").failed(
        3,
        &[
            "mmdebstrap cannot make debian:bookworm: E: Unable to locate package pahole; E: apt-get failed",
            "--mirror URL",
        ],
    );
    assert!(!context.path("work/out").exists() && context.names("cache/tmp").is_empty());
    context.env.insert("PATH".into(), "/nowhere".into());
    make(&context, "debian:bookworm -o oci:out/x:1").failed(4, &["lacks mmdebstrap"]);
}

#[test]
fn toolchains_are_listed_and_checked() {
    let context = TestContext::new();
    assert_eq!(context.run("toolchain list").ok().stdout, "");
    assert!(!context.path("cache").exists());
    if !has_tool("bwrap") {
        return;
    }
    let layout = write_toolchain(&context);
    let checked = context.run("toolchain check oci:tools:1").ok().stdout;
    assert!(checked.contains("ok       make") && checked.contains("nothing is missing"), "{checked}");
    let json = context.run("toolchain check oci:tools:1 --json").ok().json();
    let doctor = context.run("doctor 6.1 --toolchain oci:tools:1 --json").ok().json();
    assert_eq!(json["items"][0]["findings"], doctor["items"][0]["findings"]);
    let listed = context.run("toolchain list").ok().stdout;
    assert!(listed.contains(" used ") && listed.ends_with("  oci:tools:1\n"), "{listed}");
    let json = context.run("toolchain list --json").ok().json();
    let item = &json["items"][0];
    assert_eq!(item["toolchain"], "oci:tools:1");
    assert!(item["bytes"].as_u64().unwrap() > 10 << 20, "{item}");
    let digest = item["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    assert!(context.path("cache/toolchains").join(digest).is_dir());

    let image = put_image_for(
        &layout,
        &[layer(&[("bin", Item::Dir), ("bin/sh", Item::Program(b"#!/nothing"))])],
        host_arch(),
    );
    put_index(&layout, &[named(image, "2")]);
    context.run("toolchain check oci:tools:2").failed(4, &["--toolchain oci:tools:2: the toolchain lacks"]);
    context.run("toolchain check kernel.org:tcc-1").failed(2, &["is not a toolchain"]);
}
