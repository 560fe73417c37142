//! `kcompile verify --rebuild` builds from scratch and compares.

use crate::support::context::{TestContext, copy};
use std::fs;

const BIN: &str = "out/firecracker-kernel-bin-amd64";

#[test]
fn a_rebuild_from_the_receipt_is_identical() {
    let mut context = TestContext::new();
    context.env.insert("SOURCE_DATE_EPOCH".into(), "1600000000".into());
    let first = context.build("--legacy --set PSI=y").ok();
    context.env.clear();
    let (out, cache) = (context.snapshot("work/out"), context.names("cache/builds"));
    let told = context.run(&format!("verify {BIN} --rebuild")).ok();
    assert_eq!(told.stdout.matches("ok       firecracker-kernel-").count(), 2, "{}", told.stdout);
    assert!(told.stdout.contains("ok       flintlock-kernel:6.1.7\n"), "{}", told.stdout);
    assert!(told.stdout.contains("\nrebuilt in an empty directory\n  $ "), "{}", told.stdout);
    first.digests().iter().for_each(|digest| assert!(told.stdout.contains(digest), "{}", told.stdout));
    assert!(told.stderr.contains("Compile: "), "it was compiled: {}", told.stderr);
    assert_eq!(
        (context.snapshot("work/out"), context.names("cache/builds")),
        (out, cache),
        "nothing is left"
    );
    assert!(context.names("cache/tmp").iter().all(|name| !name.starts_with("work-")));
}

#[test]
fn a_different_rebuild_names_the_differing_sections() {
    let context = TestContext::new();
    let tree = context.tree("6.1.7", "work/linux");
    // A script that adds a random number to the kernel. A process number may repeat in the sandbox.
    let script = tree.join("scripts/mkcompile_h");
    let line = "\necho \"#define BUILD_ID \\\"$(cat /proc/sys/kernel/random/uuid)\\\"\"\n";
    let text = fs::read_to_string(&script).unwrap() + line;
    fs::write(&script, text).unwrap();
    let version = tree.join("init/version.c");
    let text = fs::read_to_string(&version).unwrap() + "\nconst char build_id[] = BUILD_ID;\n";
    fs::write(&version, text).unwrap();
    context.build("").ok();
    let told = context.run(&format!("verify {BIN} --rebuild"));
    assert_eq!(told.code, 1, "{}{}", told.stdout, told.stderr);
    assert!(told.stdout.contains("FAILED   firecracker-kernel-bin-amd64:6.1.7\n"), "{}", told.stdout);
    // The modules have the same bytes, but now belong to another kernel.
    assert!(told.stdout.contains("FAILED   firecracker-kernel-modules-amd64:6.1.7\n"), "{}", told.stdout);
    let bytes = told.stdout.split("\nbytes\n").nth(1).unwrap();
    assert!(bytes.starts_with("  bin/vmlinux in ") && bytes.contains(".rodata"), "{}", told.stdout);
}

#[test]
fn impossible_rebuilds_are_refused_before_compiling() {
    let context = TestContext::new();
    context.build("").ok();
    let config = fs::read_to_string(context.path("work/mini.config")).unwrap();
    fs::write(context.path("work/mini.config"), format!("{config}CONFIG_PSI=y\n")).unwrap();
    let refused = context.run(&format!("verify {BIN} --rebuild"));
    let refused = refused.failed(1, &["cannot rebuild the images here: config[0].sha256 was ", "hint: "]);
    assert!(!refused.stderr.contains("Compile: "), "{}", refused.stderr);
    fs::remove_file(context.path("work/mini.config")).unwrap();
    context.run(&format!("verify {BIN} --rebuild")).failed(2, &["mini.config"]);
    copy(&context.path("work").join(BIN), &context.path("work/alone/firecracker-kernel-bin-amd64"));
    let alone = "verify alone/firecracker-kernel-bin-amd64 --rebuild";
    context.run(alone).failed(2, &["none of the images has a receipt beside it", "keep the receipt"]);
    let receipt = context.path("work/out/firecracker-6.1.7-amd64.json");
    let text = fs::read_to_string(&receipt).unwrap();
    // A kcompile that compressed layers differently.
    let mut older: serde_json::Value = serde_json::from_str(&text).unwrap();
    older["plan"].as_object_mut().unwrap().remove("layer_format");
    fs::write(&receipt, older.to_string()).unwrap();
    fs::write(context.path("work/mini.config"), &config).unwrap();
    let refused = context.run(&format!("verify {BIN} --rebuild"));
    refused.failed(1, &["cannot rebuild the images here: layer_format was null and is now "]);
    let at = text.rfind("\"command\": \"").unwrap();
    fs::write(&receipt, format!("{}\"command\": \"kcompile clean\"\n}}\n", &text[..at])).unwrap();
    context
        .run(&format!("verify {BIN} --rebuild"))
        .failed(2, &["cannot run its command again: `clean` is not a kernel version"]);
}
