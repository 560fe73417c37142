//! `kcompile push --tag-series --tag-build`: tags of series and of builds, and how `verify` checks them.

use crate::support::context::{RunResult, TestContext, has_tool, skipped};
use crate::support::layouts::{add_blob, descriptor, write_layout};
use crate::support::registry::{self, Registry};
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

const BIN: &str = "firecracker-kernel-bin-amd64";
const MODULES: &str = "firecracker-kernel-modules-amd64";

/// Builds a version from a tree of its own, with these options.
fn build(context: &TestContext, version: &str, args: &str) -> RunResult {
    if !context.path(&format!("work/{version}")).exists() {
        context.tree(version, &format!("work/{version}"));
    }
    context.run(&format!("{version} --fc --source ./{version} --config mini.config {args}")).ok()
}

fn push(context: &TestContext, registry: &Registry, args: &str) -> RunResult {
    context.run(&format!("push {}/test --tls-verify=false --no-attest {args}", registry.host()))
}

fn digest(context: &TestContext, layout: &str, tag: &str) -> String {
    descriptor(&context.path("work/out").join(layout), tag)["digest"].as_str().unwrap().to_owned()
}

/// Returns the first eight digits of the digest of the plan, from the receipt.
fn build_of(context: &TestContext, tag: &str) -> String {
    let path = context.path(&format!("work/out/firecracker-{tag}-amd64.json"));
    let receipt: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    receipt["plan_digest"].as_str().unwrap()[..8].to_owned()
}

/// Copies an image of the registry to `copy:TAG` with skopeo.
fn pull(context: &TestContext, registry: &Registry, name: &str, tag: &str, options: &[&str]) {
    let source = format!("docker://{}/test/{name}:{tag}", registry.host());
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["--insecure-policy", "copy", "--src-tls-verify=false"]).args(options).arg(source);
    let copied = skopeo.arg(format!("oci:{}:{tag}", context.path("work/copy"))).output().unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
}

#[test]
fn the_tag_of_a_series_moves_to_its_newest_version() {
    if !has_tool("skopeo") {
        return;
    }
    let context = TestContext::new();
    let registry = registry::honest();
    build(&context, "6.1.7", "");
    let first = push(&context, &registry, "--tag-series").ok();
    let lines: Vec<&str> = first.stdout.lines().map(|line| line.split(' ').next().unwrap()).collect();
    let place = |name: &str, tag: &str| format!("docker://{}/test/{name}:{tag}", registry.host());
    assert_eq!(
        lines,
        [place(BIN, "6.1.7"), place(MODULES, "6.1.7"), place(BIN, "6.1"), place(MODULES, "6.1")]
    );
    assert_eq!(registry.digest(&format!("test/{BIN}"), "6.1"), Some(digest(&context, BIN, "6.1.7")));
    // Two versions at once, and the tag that is there already.
    build(&context, "6.1.8", "");
    push(&context, &registry, "--tag-series --no-overwrite").ok().says("and moves to Linux 6.1.8");
    for name in [BIN, MODULES] {
        assert_eq!(registry.digest(&format!("test/{name}"), "6.1"), Some(digest(&context, name, "6.1.8")));
    }
    // An older version alone does not move it back.
    let again = push(&context, &registry, &format!("--tag-series out/{BIN}:6.1.7")).ok();
    again.says(&format!("{} stays at Linux 6.1.8, which is newer", place(BIN, "6.1")));
    assert_eq!(registry.digest(&format!("test/{BIN}"), "6.1"), Some(digest(&context, BIN, "6.1.8")));
    // A kernel without modules has a series of its own.
    build(&context, "6.1.8", "--builtin");
    push(&context, &registry, &format!("--tag-series out/{BIN}")).ok();
    let builtin = registry.digest(&format!("test/{BIN}"), "6.1-builtin");
    assert_eq!(builtin, Some(digest(&context, BIN, "6.1.8-builtin")));
    build(&context, "6.1.8", "--variant minimal --require none");
    push(&context, &registry, &format!("--tag-series out/{BIN}")).ok();
    let minimal = registry.digest(&format!("test/{BIN}"), "6.1-minimal");
    assert_eq!(minimal, Some(digest(&context, BIN, "6.1.8-minimal")));
    assert_eq!(registry.digest(&format!("test/{BIN}"), "6.1-builtin"), builtin);
    pull(&context, &registry, BIN, "6.1", &[]);
    pull(&context, &registry, BIN, "6.1-builtin", &[]);
    let told = context.run("verify copy").ok().stdout;
    assert!(told.contains("tag 6.1,") && told.contains("tag 6.1-builtin,"), "{told}");
    // Without the option nothing moves.
    let plain = push(&context, &registry, &format!("out/{BIN}")).ok().stdout;
    assert_eq!(plain.lines().count(), 4, "{plain}");
}

#[test]
fn release_candidates_and_other_tags_belong_to_no_series() {
    if !has_tool("skopeo") {
        return;
    }
    let context = TestContext::new();
    let registry = registry::honest();
    build(&context, "6.1.7", "");
    build(&context, "6.18-rc3", "");
    let layout = context.path("work/out").join(BIN);
    let mut index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let mut debug = index["manifests"][0].clone();
    debug["annotations"]["org.opencontainers.image.ref.name"] = json!("6.1.7-debug");
    index["manifests"].as_array_mut().unwrap().push(debug);
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    let ran = push(&context, &registry, &format!("--tag-series --tag-build out/{BIN}"))
        .ok()
        .says("6.1.7-debug gets no other tag, because its tag is not the version of a kernel")
        .says("6.18-rc3 is a release candidate, so no tag of a series moves to it");
    assert_eq!(registry.digest(&format!("test/{BIN}"), "6.18"), None);
    let build = build_of(&context, "6.18-rc3");
    assert!(ran.stdout.contains(&format!("{BIN}:6.18-rc3-{build} sha256:")), "{}", ran.stdout);
}

#[test]
fn the_tag_of_a_build_is_never_replaced() {
    if !has_tool("skopeo") {
        return;
    }
    let context = TestContext::new();
    let registry = registry::honest();
    build(&context, "6.1.7", "");
    build(&context, "6.1.7", "--builtin");
    let (modular, builtin) = (build_of(&context, "6.1.7"), build_of(&context, "6.1.7-builtin"));
    let ran = push(&context, &registry, "--tag-build").ok();
    for (name, tag, of) in [
        (BIN, format!("6.1.7-{modular}"), "6.1.7"),
        (MODULES, format!("6.1.7-{modular}"), "6.1.7"),
        (BIN, format!("6.1.7-builtin-{builtin}"), "6.1.7-builtin"),
    ] {
        assert_eq!(registry.digest(&format!("test/{name}"), &tag), Some(digest(&context, name, of)), "{tag}");
        assert!(ran.stdout.contains(&format!("{name}:{tag} sha256:")), "{}", ran.stdout);
    }
    // The same image again is no change.
    push(&context, &registry, "--tag-build --no-overwrite").ok();
    // Another image of the same name, as from a build that cannot be repeated.
    let path = format!("/v2/test/{MODULES}/manifests/6.1.7-{modular}");
    let theirs = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#;
    registry.store.lock().unwrap().insert(path, theirs.to_vec());
    let uploads = registry.uploads().len();
    push(&context, &registry, "--tag-build").failed(
        1,
        &[&format!("{MODULES}:6.1.7-{modular} has the digest sha256:"), "the tag of a build never moves"],
    );
    assert_eq!(registry.uploads().len(), uploads);

    let tag = format!("6.1.7-{modular}");
    pull(&context, &registry, BIN, &tag, &[]);
    let told = context.run(&format!("verify copy:{tag}")).ok().stdout;
    assert!(told.contains(&format!("tag {tag},")), "{told}");
    // The tag of another build, and of a build without modules.
    let copy = context.path("work/copy");
    let named = |name: &str| {
        let index = fs::read_to_string(copy.join("index.json")).unwrap();
        fs::write(copy.join("index.json"), index.replace(&tag, name)).unwrap();
        let ran = context.run("verify copy");
        fs::write(copy.join("index.json"), index).unwrap();
        ran
    };
    let other = named("6.1.7-0badc0de");
    assert_eq!(other.code, 1);
    assert!(
        other.stdout.contains("the tag names the build 0badc0de, but the image is of"),
        "{}",
        other.stdout
    );
    let other = named("6.1.7-builtin");
    assert_eq!(other.code, 1);
    assert!(
        other.stdout.contains("the tag is 6.1.7-builtin, but the image was not built"),
        "{}",
        other.stdout
    );
    assert_eq!(named("6.1.8-builtin").code, 1);
}

#[test]
fn indexes_of_several_architectures_have_the_same_tags() {
    if !has_tool("skopeo") {
        return;
    }
    let context = TestContext::new();
    let registry = registry::honest();
    context.tree("6.1.7", "work/6.1.7");
    let args = "6.1.7 --fc --source ./6.1.7 --config mini.config --require none --arch amd64 --arch arm64";
    if context.run(args).code == 4 {
        skipped("there is no cross compiler");
        return;
    }
    let ran = push(&context, &registry, "--tag-series --tag-build").ok().stdout;
    let tag_in = |name: &str| {
        let start = format!("/test/{name}:6.1.7-");
        let line = ran.lines().find(|line| line.contains(&start)).unwrap();
        line.split_once(&start).unwrap().1.split(' ').next().unwrap().to_owned()
    };
    let build = tag_in("firecracker-kernel-bin");
    assert_eq!(build, tag_in("firecracker-kernel-modules"));
    assert_ne!(build, tag_in(BIN));
    let index = Some(digest(&context, "firecracker-kernel-bin", "6.1.7"));
    assert_eq!(registry.digest("test/firecracker-kernel-bin", "6.1"), index);
    assert_eq!(registry.digest("test/firecracker-kernel-bin", &format!("6.1.7-{build}")), index);
    let tag = format!("6.1.7-{build}");
    pull(&context, &registry, "firecracker-kernel-bin", &tag, &["--all"]);
    let told = context.run(&format!("verify copy:{tag}")).ok().stdout;
    assert_eq!(told.matches(&format!("tag {tag},")).count(), 2, "{told}");
}

#[test]
fn images_of_other_programs_get_no_other_tags() {
    if !has_tool("skopeo") {
        return;
    }
    let context = TestContext::new();
    let registry = registry::honest();
    let layout = context.path("work/out/kernel");
    let config =
        json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [] } });
    let image = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": add_blob(&layout, config.to_string().as_bytes(), &json!("application/vnd.oci.image.config.v1+json")),
        "layers": [],
    });
    write_layout(&layout, &[("6.1.7", image)]);
    let ran = push(&context, &registry, "--tag-series --tag-build").ok();
    assert_eq!(ran.stdout.lines().count(), 1, "{}", ran.stdout);
    ran.says("kernel:6.1.7 gets no other tag");
}
