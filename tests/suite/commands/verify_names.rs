//! `kcompile verify` of images under several names, and of images of other tools.

use crate::support::context::{TestContext, copy};
use crate::support::layouts::{add_blob, copy_of, descriptor, fails, verified, write_layout};
use camino::Utf8PathBuf;
use kcompile::internals::{VerifyCache, VerifyReport};
use serde_json::{Value, json};
use std::fs;
const BIN: &str = "out/firecracker-kernel-bin-amd64";
const MODULES: &str = "out/firecracker-kernel-modules-amd64";

#[test]
fn buildkit_attestation_manifests_are_ignored() {
    let context = TestContext::new();
    context.build("").ok();
    let layout = context.path("work/docker");
    copy(&context.path("work").join(BIN), &layout);
    let manifest = json!("application/vnd.oci.image.manifest.v1+json");
    let config =
        json!({ "architecture": "unknown", "os": "unknown", "rootfs": { "type": "layers", "diff_ids": [] } });
    let statement = json!({
        "schemaVersion": 2, "mediaType": manifest,
        "config": add_blob(&layout, config.to_string().as_bytes(), &json!("application/vnd.oci.image.config.v1+json")),
        "layers": [add_blob(&layout, b"{}", &json!("application/vnd.in-toto+json"))],
    });
    let mut attestation = add_blob(&layout, statement.to_string().as_bytes(), &manifest);
    attestation["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [descriptor(&layout, "6.1.7"), attestation],
    });
    write_layout(&layout, &[("6.1.7", index)]);
    let all = verified(&layout);
    assert!(all.len() == 2 && all.iter().all(VerifyReport::passes), "{all:?}");
    let told = context.run("inspect docker:6.1.7").ok();
    assert_eq!(told.stdout.matches("image   a kernel").count(), 1, "{}", told.stdout);
}

/// Copies an image of `out` to a layout of the same name under these names.
fn under_names(context: &TestContext, layout: &str, names: &[Value]) -> Utf8PathBuf {
    let copy = copy_of(context, layout);
    let mut index: Value = serde_json::from_slice(&fs::read(copy.join("index.json")).unwrap()).unwrap();
    let image = index["manifests"][0].clone();
    let named = |annotations: &Value| {
        let mut image = image.clone();
        image["annotations"] = annotations.clone();
        image
    };
    index["manifests"] = names.iter().map(named).collect();
    fs::write(copy.join("index.json"), index.to_string()).unwrap();
    copy
}

#[test]
fn verify_does_not_depend_on_the_layout_name() {
    let context = TestContext::new();
    context.build("").ok();
    let name = |name: &str| json!({ "org.opencontainers.image.ref.name": name });
    let plan = "3f2a".repeat(16);
    let names = [
        name("6.1.7"),
        name("6.1"),
        name("latest"),
        name("6.1.7-debug"),
        name("debug"),
        name(&plan),
        name("docker.io/foobar/firecracker-kernel-bin-amd64:latest"),
        name(
            "ghcr.io/foobar/kernel:6.1.7@sha256:0000000000000000000000000000000000000000000000000000000000000000",
        ),
        // A version of something else.
        name("2024.10.1"),
        name("1.4.0"),
        json!({}),
        json!({ "io.containerd.image.name": "docker.io/foobar/kernel:6.1.7", "com.example.note": "x" }),
    ];
    let layout = under_names(&context, BIN, &names);
    let told = context.run(&format!("verify {layout}")).ok().stdout;
    assert_eq!(told.matches("  ok       index").count(), names.len(), "{told}");
    for reference in ["latest", "docker.io/foobar/firecracker-kernel-bin-amd64:latest"] {
        assert!(
            context
                .run(&format!("verify {layout}:{reference}"))
                .ok()
                .stdout
                .contains(&format!(":{reference}\n"))
        );
    }
    // The name of another kernel is not one of its names.
    for (wrong, says) in [
        ("6.1.9", "the tag is 6.1.9, but the image has the version 6.1.7"),
        ("5.10", "the tag is 5.10, but the image has the version 6.1.7"),
        ("docker.io/foobar/kernel:6.1.9", "the tag is 6.1.9"),
        ("docker.io/foobar/kernel", "the name docker.io/foobar/kernel has no tag in it"),
    ] {
        fails(&context, under_names(&context, BIN, &[name(wrong)]).as_str(), &[says]);
    }
}

/// What was read is not read again, so it may even be gone.
#[test]
fn each_blob_is_read_once_per_run() {
    let context = TestContext::new();
    context.build("").ok();
    let name = |name: &str| json!({ "org.opencontainers.image.ref.name": name });
    let layout = under_names(&context, MODULES, &[name("one"), name("two")]);
    let beside = under_names(&context, BIN, &[name("one"), name("two")]);
    let mut cache = VerifyCache::default();
    let mut told = |tag: &str| {
        let mut all = Vec::new();
        let each = |verified: VerifyReport| {
            all.push(serde_json::to_value(verified).unwrap());
            Ok(())
        };
        kcompile::internals::verify(&layout, Some(tag), &mut cache, each).unwrap();
        all[0]["checks"].clone()
    };
    let first = told("one");
    for layout in [&layout, &beside] {
        fs::remove_dir_all(layout.join("blobs")).unwrap();
        fs::remove_file(layout.join("index.json")).unwrap();
    }
    let second = told("two");
    assert_eq!(second[0]["detail"], "tag two, linux on amd64");
    assert_eq!(first.as_array().unwrap()[1..], second.as_array().unwrap()[1..]);
    assert!(first.to_string().contains("the same in firecracker-kernel-bin-amd64"), "{first:#}");
    let fresh = context.run(&format!("verify {layout}:two"));
    assert_eq!(fresh.code, 3, "another run reads it: {}", fresh.stdout);
}

/// The time of a run is linear in the number of tags.
#[test]
fn verify_time_is_linear_in_the_number_of_tags() {
    let context = TestContext::new();
    context.build("").ok();
    let tags = |count: usize| {
        let name =
            |number: usize| json!({ "org.opencontainers.image.ref.name": format!("nightly-{number}") });
        under_names(&context, MODULES, &(0..count).map(name).collect::<Vec<_>>())
    };
    let timed = |count: usize| {
        let layout = tags(count);
        let begin = std::time::Instant::now();
        let all = verified(&layout);
        assert!(all.len() == count && all.iter().all(VerifyReport::passes));
        begin.elapsed()
    };
    // The kernel's layout beside it has as many tags.
    let beside =
        (0..6000).map(|number| json!({ "org.opencontainers.image.ref.name": format!("nightly-{number}") }));
    under_names(&context, BIN, &beside.collect::<Vec<_>>());
    timed(100);
    let (few, many) = (timed(500), timed(6000));
    // With twelve times as many tags, 48 times the time allows for a slow machine, but not for
    // quadratic growth (144).
    assert!(many < few * 48 + std::time::Duration::from_secs(1), "500 tags: {few:?}, 6000 tags: {many:?}");
}
