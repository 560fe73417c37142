//! Several architectures in one command, with one image for each and one tag for all.

use crate::support::context::{RunResult, TestContext, has_tool, run_result};
use crate::support::layouts::descriptor;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

const BIN: &str = "firecracker-kernel-bin";
const MODULES: &str = "firecracker-kernel-modules";

/// Builds for both. The miniature tree makes a real arm64 Image header with any compiler, and an
/// empty prefix selects the host's.
fn build(context: &TestContext, args: &str) -> RunResult {
    if !context.path("work/linux-6.1.7.tar.xz").exists() {
        context.tarball("6.1.7", "xz");
    }
    let both = "6.1.7 --fc --config mini.config --source linux-6.1.7.tar.xz --arch amd64 --arch arm64";
    run_result(context.command(&format!("{both} {args} --cross-compile")).arg("").output().unwrap())
}

fn index(context: &TestContext, layout: &str) -> Value {
    let layout = context.path("work/out").join(layout);
    let digest = descriptor(&layout, "6.1.7")["digest"].as_str().unwrap().replace(':', "/");
    serde_json::from_slice(&fs::read(layout.join("blobs").join(digest)).unwrap()).unwrap()
}

#[test]
fn one_tag_covers_all_architectures() {
    let context = TestContext::new();
    let ran = build(&context, "").ok().says("Pack: one tag for amd64 and arm64").says("2 indexes");
    let lines: Vec<&str> = ran.stdout.lines().map(|line| line.split(' ').next().unwrap()).collect();
    let names =
        ["-amd64", "-arm64", ""].map(|arch| [BIN, MODULES].map(|name| format!("out/{name}{arch}:6.1.7")));
    assert_eq!(lines, names.concat());
    for name in [BIN, MODULES] {
        let index = index(&context, name);
        let images = index["manifests"].as_array().unwrap();
        for (image, arch) in images.iter().zip(["amd64", "arm64"]) {
            let alone = format!("{name}-{arch}");
            assert_eq!(image["platform"]["architecture"], arch);
            assert_eq!(
                image["digest"],
                descriptor(&context.path("work/out").join(&alone), "6.1.7")["digest"]
            );
            // Every blob of the image is there, as a hard link.
            for blob in context.names(&format!("work/out/{alone}/blobs/sha256")) {
                let path =
                    |layout: &str| context.path("work/out").join(layout).join("blobs/sha256").join(&blob);
                let inode = |layout: &str| fs::metadata(path(layout)).unwrap().ino();
                assert_eq!(inode(name), inode(&alone), "{alone}: {blob}");
            }
        }
        let says = |key: &str| index["annotations"][format!("org.opencontainers.image.{key}")].clone();
        assert_eq!((says("title"), says("version")), (name.into(), "6.1.7".into()));
        // What is true of only one architecture is left out.
        assert_eq!(index["annotations"]["io.github.kcompile.pairing"], Value::Null);
    }
    // `--arch` selects one where one is needed.
    for arch in ["amd64", "arm64"] {
        let told = context.run(&format!("check out/{MODULES}:6.1.7 --arch {arch} --for kubernetes"));
        let heading = format!("out/{MODULES}:6.1.7: Linux 6.1.7 on {arch}\n");
        assert!(told.stdout.starts_with(&heading), "{}{}", told.stdout, told.stderr);
        let told =
            context.run(&format!("config diff out/{MODULES}:6.1.7 out/{MODULES}-{arch}:6.1.7 --arch {arch}"));
        assert!(told.ok().stdout.ends_with("the settings are equal\n"));
    }
    // A second build with other bytes removes what no tag needs.
    let blobs =
        || context.names(&format!("work/out/{BIN}/blobs/sha256")).into_iter().collect::<BTreeSet<_>>();
    // Time stamps show that a blob is unchanged without reading it.
    let changed = || {
        let layout = format!("work/out/{BIN}-amd64/blobs/sha256");
        let times = |blob: &String| fs::metadata(context.path(&layout).join(blob)).unwrap();
        let time = |blob: String| (times(&blob).ctime(), times(&blob).ctime_nsec(), blob);
        context.names(&layout).into_iter().map(time).collect::<BTreeSet<_>>()
    };
    let (before, then, again) = (blobs(), changed(), build(&context, "").ok());
    assert_eq!((again.stdout, blobs(), changed()), (ran.stdout, before.clone(), then));
    // A build of one architecture leaves the index unchanged, and says so.
    let alone = "6.1.7 --fc --config mini.config --source linux-6.1.7.tar.xz --set DEBUG_INFO=y";
    let outdated = format!("/out/{BIN}:6.1.7 still has an older image");
    context.run(alone).ok().says(&outdated);
    assert_eq!(blobs(), before);
    build(&context, "--set DEBUG_INFO=y").ok();
    let after = blobs();
    // A foreign layout of this name does not matter.
    let index = context.path(&format!("work/out/{BIN}/index.json"));
    let docker = "application/vnd.docker.distribution.manifest.v2+json";
    let text = fs::read_to_string(&index).unwrap().replace("application/vnd.oci.image.index.v1+json", docker);
    fs::write(&index, text).unwrap();
    context.run(alone).ok();
    assert!(after != before && after.len() == before.len(), "{before:?}, then {after:?}");
}

#[test]
fn index_conflicts_are_found_before_building() {
    let context = TestContext::new();
    fs::create_dir_all(context.path("work/out").join(MODULES)).unwrap();
    fs::create_dir_all(context.path("work/out/x")).unwrap();
    fs::write(context.path("work/out/x/oci-layout"), "{}").unwrap();
    build(&context, "").failed(2, &[MODULES, "it is not an OCI layout"]);
    assert!(!context.path("cache").exists());
}

#[test]
fn one_failed_architecture_leaves_the_other_without_an_index() {
    let context = TestContext::new();
    context.tarball("6.1.7", "xz");
    let ran = context.run(
        "6.1.7 --fc --config mini.config --source linux-6.1.7.tar.xz --arch amd64 --arch arm64 --cross-compile nowhere-",
    );
    assert_eq!((ran.code, ran.stdout.as_str()), (4, ""), "{}", ran.stderr);
    fs::write(
        context.path("work/mini.config"),
        format!("{}CONFIG_X86_64=y\n", crate::support::context::CONFIG),
    )
    .unwrap();
    let ran = build(&context, "");
    assert_eq!((ran.code, ran.stdout.lines().count()), (2, 2), "{}", ran.stderr);
    assert!(!context.path("work/out").join(BIN).exists());
}

#[test]
fn skopeo_copies_one_or_all_architectures() {
    if !has_tool("skopeo") {
        return;
    }
    let context = TestContext::new();
    build(&context, "--no-modules").ok();
    let script = format!(
        "skopeo --insecure-policy copy -q --all --preserve-digests oci:out/{BIN}:6.1.7 oci:all:x
         for arch in amd64 arm64; do skopeo --insecure-policy --override-arch $arch copy -q oci:out/{BIN}:6.1.7 oci:$arch:x; done"
    );
    let output =
        Command::new("sh").args(["-ec", &script]).current_dir(context.path("work")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let digest =
        |layout: &str, tag: &str| descriptor(&context.path("work").join(layout), tag)["digest"].clone();
    assert_eq!(digest("all", "x"), digest(&format!("out/{BIN}"), "6.1.7"));
    for arch in ["amd64", "arm64"] {
        assert_eq!(digest(arch, "x"), digest(&format!("out/{BIN}-{arch}"), "6.1.7"));
    }
}

#[test]
fn the_cross_compiler_of_the_distribution_is_found() {
    if !has_tool("aarch64-linux-gnu-gcc") {
        return;
    }
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    context.run("6.1.7 --ch --source linux --config mini.config --arch arm64 --compression none").ok();
    let layout = context.path("work/out/cloudhypervisor-kernel-modules-arm64");
    let digest = descriptor(&layout, "6.1.7")["digest"].as_str().unwrap().replace(':', "/");
    let manifest: Value =
        serde_json::from_slice(&fs::read(layout.join("blobs").join(digest)).unwrap()).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap().replace(':', "/");
    let tar = fs::read(layout.join("blobs").join(layer)).unwrap();
    // An ELF header with the machine 183, EM_AARCH64.
    let is_module = |header: &[u8]| header.starts_with(b"\x7fELF") && header[18..20] == [183, 0];
    assert!(tar.chunks(512).any(is_module));
}
