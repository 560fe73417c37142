//! Each warning is printed once, and similar ones together.

use crate::support::context::{CONFIG, TestContext};
use crate::support::servers;
use std::fs;

#[test]
fn an_unverified_source_is_said_to_be_so_once() {
    let mut context = TestContext::new();
    context.env.insert("KCOMPILE_MIRROR".into(), servers::mirror(&context, &["6.1.7"]).url);
    let ran = context.run("6.1.7 --fc --config mini.config --sandbox off").ok();
    let ran = ran
        .says("warning: the source is not verified: linux-6.1.7.tar.xz (")
        .says("  warnings        1, above\n");
    for words in ["not verified", "not signed", "tar.sign"] {
        assert_eq!(ran.stderr.matches(words).count(), 1, "{words}: {}", ran.stderr);
    }
}

#[test]
fn equal_warnings_are_one_with_a_command_that_lists_all() {
    let context = TestContext::new();
    let unknown: String = (100..366).map(|number| format!("CONFIG_NOWHERE_{number}=y\n")).collect();
    fs::write(context.path("work/mini.config"), format!("{CONFIG}{unknown}CONFIG_ARM_AMBA=y\n")).unwrap();
    let build = "--arch amd64 --sandbox off";
    let ran = context.build(build).ok();
    let config = context.path("work/mini.config");
    let ran = ran.says(&format!(
        "warning: 266 settings are missing: no such symbol in this kernel: CONFIG_NOWHERE_100, CONFIG_NOWHERE_101, \
         CONFIG_NOWHERE_102 and 263 more (requested by {config}); `kcompile config show 6.1.7 --fc --verbose` with \
         the same options lists all\n"
    ));
    let ran = ran.says("warning: CONFIG_ARM_AMBA=y is missing: only another architecture has it: arm64");
    assert_eq!(ran.stderr.matches("warning: ").count(), 2, "{}", ran.stderr);
    let show = "config show 6.1.7 --fc --arch amd64 --source linux --config mini.config --sandbox off";
    let all = context.run(&format!("{show} --verbose")).ok();
    assert_eq!(all.stderr.matches("warning: CONFIG_NOWHERE_").count(), 266, "{}", all.stderr);
    // The receipt has them all as data.
    let receipt: serde_json::Value =
        serde_json::from_slice(&fs::read(context.path("work/out/firecracker-6.1.7-amd64.json")).unwrap())
            .unwrap();
    assert_eq!(receipt["config_differences"].as_array().unwrap().len(), 267);
    assert_eq!(receipt["findings"].as_array().unwrap().len(), 267);
    // The same from the cache.
    let again = context.build(build).ok().says("Reuse: done").says("warning: 266 settings are missing: ");
    assert_eq!(again.stderr.matches("warning: ").count(), 2, "{}", again.stderr);
}
