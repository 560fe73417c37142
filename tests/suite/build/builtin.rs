//! Builds with `--builtin`, which have no modules.

use crate::support::context::{CONFIG, TestContext, copy};
use crate::support::layouts::{descriptor, image_annotations};
use serde_json::Value;
use std::fs;

const BIN: &str = "firecracker-kernel-bin-amd64";

/// Adds an option to the tree `linux`.
fn add_option(context: &TestContext, kconfig: &str) {
    let path = context.path("work/linux/drivers/mini/Kconfig");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(path, text.replace("endmenu", &format!("{kconfig}\nendmenu"))).unwrap();
}

fn receipt(context: &TestContext, tag: &str) -> Value {
    let path = context.path(&format!("work/out/firecracker-{tag}-amd64.json"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn modules_are_built_in_under_a_tag_of_their_own() {
    let context = TestContext::new();
    fs::write(context.path("work/mini.config"), format!("{CONFIG}CONFIG_IKCONFIG=y\n")).unwrap();
    let modular = context.build("").ok();
    let ran = context.build("--builtin").ok().says("Configure: done in").says(", 0 as modules");
    assert_eq!(ran.stdout.lines().count(), 1, "{}", ran.stdout);
    assert!(ran.stdout.starts_with(&format!("out/{BIN}:6.1.7-builtin sha256:")), "{}", ran.stdout);
    assert!(!ran.stderr.contains("warning:") && !ran.stderr.contains("depmod"), "{}", ran.stderr);
    // The files of the build with modules stay, and so do its images.
    for name in ["6.1.7", "6.1.7-builtin"] {
        for suffix in ["json", "spdx.json", "provenance.json", "compiled.json.gz"] {
            assert!(context.path(&format!("work/out/firecracker-{name}-amd64.{suffix}")).is_file());
        }
    }
    let layout = context.path("work/out").join(BIN);
    assert_eq!(descriptor(&layout, "6.1.7")["digest"], modular.digests()[0]);
    let annotations = image_annotations(&layout, "6.1.7-builtin");
    assert_eq!(annotations["io.github.kcompile.modules"], "builtin");
    assert_eq!(annotations["org.opencontainers.image.version"], "6.1.7");
    // The config in the kernel has what was a module.
    let config = context.run(&format!("config diff mini.config out/{BIN}:6.1.7-builtin --all")).ok().stdout;
    for line in ["DUMMY: m -> y", "BRIDGE: m -> y", "MODULES: y -> n"] {
        assert!(config.contains(line), "{line} is not in:\n{config}");
    }
    let told = context.run(&format!("verify out/{BIN}")).ok().stdout;
    assert!(told.contains("firecracker-6.1.7-builtin-amd64.json names this image"), "{told}");
    context.run(&format!("verify out/{BIN}:6.1.7-builtin --rebuild")).ok();
    context.run(&format!("inspect out/{BIN}:6.1.7-builtin")).ok();
    // The same plan again.
    context.build("--builtin").ok().says("intact: nothing to do");
    context.build("").ok().says("intact: nothing to do");
}

#[test]
fn builtin_is_part_of_the_plan_only_when_given() {
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    let plan = |args: &str| -> Value {
        let args = format!("plan 6.1.7 --fc --source linux --config mini.config --json {args}");
        let printed: Value = serde_json::from_str(&context.run(&args).ok().stdout).unwrap();
        printed["items"][0].clone()
    };
    let (modular, builtin) = (plan(""), plan("--builtin"));
    assert!(modular["plan"].get("modules").is_none(), "{modular}");
    assert_eq!(builtin["plan"]["modules"], "builtin");
    assert_ne!(modular["digest"], builtin["digest"]);
    assert_eq!(builtin["plan"]["make"]["targets"], serde_json::json!(["vmlinux"]));
    assert_eq!(builtin["plan"]["images"].as_array().unwrap().len(), 1);
    assert_eq!(builtin["config"].as_array().unwrap().last().unwrap(), "--builtin");
    assert!(builtin["plan"]["toolchain"]["identity"].get("depmod").is_none());
    // There are no modules to leave out.
    assert_eq!(plan("--builtin --no-modules")["digest"], builtin["digest"]);
    let combined = plan("--builtin --combined-image");
    let layouts: Vec<&str> = combined["plan"]["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["layout"].as_str().unwrap())
        .collect();
    assert_eq!(layouts, [BIN, "flintlock-kernel", "firecracker-kernel"]);
    context.run("plan 6.1.7 --fc --builtin --modules-layout flat").failed(2, &["cannot be used with"]);
}

#[test]
fn a_lost_module_is_reported_with_its_reason() {
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    // One that no built-in BRIDGE allows, and one that a default turns on where nobody asked for it.
    add_option(
        &context,
        "config MINI_SHY\n\ttristate \"Never beside a built-in bridge\"\n\tdepends on !BRIDGE\n\n\
         config MINI_DEFAULT\n\ttristate \"The same by default\"\n\tdefault m\n\tdepends on !BRIDGE\n",
    );
    fs::write(context.path("work/mini.config"), format!("{CONFIG}CONFIG_MINI_SHY=m\n")).unwrap();
    context.build("").ok().says("6 as modules");
    let ran = context
        .build("--builtin")
        .ok()
        .says("warning: CONFIG_MINI_SHY=y is missing: depends on !BRIDGE (y)")
        .says("mini.config)")
        .says("warning: CONFIG_MINI_DEFAULT=y is missing: depends on !BRIDGE (y)")
        .says("(requested by --builtin)");
    assert_eq!(ran.stderr.matches("CONFIG_MINI_SHY=y").count(), 1, "{}", ran.stderr);
    assert_eq!(receipt(&context, "6.1.7-builtin")["findings"].as_array().unwrap().len(), 2);
    // The next build reports it again, from the cache and from make.
    context.build("--builtin").ok().says("CONFIG_MINI_SHY=y is missing");
    context.build("--builtin --rebuild").ok().says("CONFIG_MINI_DEFAULT=y is missing");
    context
        .build("--builtin --set MINI_SHY=m")
        .failed(1, &["settings did not take effect: CONFIG_MINI_SHY=y is missing: depends on !BRIDGE (y)"]);
}

#[test]
fn options_of_the_module_loader_are_no_findings() {
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    add_option(
        &context,
        "config MODULE_UNLOAD\n\tbool \"Module unloading\"\n\tdepends on MODULES\n\n\
         config MINI_LOADABLE\n\ttristate \"A module and nothing else\"\n\tdepends on MODULES\n\n\
         config BPF_JIT\n\tbool \"Needs memory of modules\"\n\tdepends on MODULES\n",
    );
    let config = format!("{CONFIG}CONFIG_MODULE_UNLOAD=y\n");
    fs::write(context.path("work/mini.config"), &config).unwrap();
    let ran = context
        .build("--builtin --require flintlock --require none")
        .failed(1, &["off with the module loader, by --builtin: MODULE_UNLOAD"]);
    assert!(!ran.stderr.contains("CONFIG_MODULES is"), "{}", ran.stderr);
    let ran = context.build("--builtin").ok();
    assert!(!ran.stderr.contains("warning:"), "{}", ran.stderr);
    // Configuring again, since a setting was dropped, compiles no file again.
    context.build("--builtin --rebuild").ok().says("Compile: done in").says(": 6.1.7, 1 step");
    // Whoever asks for it by an option gets an error.
    context.build("--builtin --set MODULE_UNLOAD=y").failed(1, &["CONFIG_MODULE_UNLOAD=y is missing"]);
    context
        .build("--builtin --set MODULES=y")
        .failed(2, &["--builtin turns CONFIG_MODULES off, but CONFIG_MODULES=y turns it on"]);
    // Neither a module nor an option that needs modules is an option of the loader.
    let config = format!("{config}CONFIG_MINI_LOADABLE=m\nCONFIG_BPF_JIT=y\n");
    fs::write(context.path("work/mini.config"), config).unwrap();
    context
        .build("--builtin")
        .ok()
        .says("warning: CONFIG_MINI_LOADABLE=y is missing: depends on MODULES (n)")
        .says("warning: CONFIG_BPF_JIT=y is missing: depends on MODULES (n)");
}

#[test]
fn modules_that_stay_on_are_an_error() {
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    add_option(&context, "config MINI_FORCE\n\tbool\n\tdefault y\n\tselect MODULES\n");
    context.build("--builtin").failed(1, &["settings did not take effect: CONFIG_MODULES=n became y"]);
}

#[test]
fn every_command_with_a_config_takes_builtin() {
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    let args = "6.1.7 --fc --source linux --config mini.config --builtin";
    let shown = context.run(&format!("config show {args}")).ok().stdout;
    assert!(shown.contains("CONFIG_DUMMY=y") && shown.contains("# CONFIG_MODULES is not set"), "{shown}");
    assert!(!shown.contains("=m"), "{shown}");
    let why = context.run("config why 6.1.7 DUMMY --fc --source linux --config mini.config --builtin").ok();
    assert!(why.stdout.contains("DUMMY=y") || why.stdout.contains("y"), "{}", why.stdout);
    let planned = context.run(&format!("plan {args}")).ok().stdout;
    assert!(planned.contains("--builtin (1 setting") && planned.contains(":6.1.7-builtin"), "{planned}");
    let checked = context.run("check 6.1.7 --fc --builtin --for flintlock --all --json");
    assert!(checked.stdout.contains("\"MODULES\""), "{}", checked.stderr);
    context.run("check mini.config --builtin").failed(2, &["--builtin is for a version"]);
}

#[test]
fn several_kernels_are_built_without_modules() {
    let context = TestContext::new();
    context.tarball("6.1.7", "xz");
    context.tree("6.1.7", "work/linux");
    let args = "6.1.7 --fc --source linux --config mini.config --builtin --arch amd64 --arch arm64";
    let ran = context.run(&format!("{args} --combined-image --require none"));
    if ran.stderr.contains("aarch64-linux-gnu") && ran.code == 4 {
        crate::support::context::skipped("there is no cross compiler");
        return;
    }
    let lines = ran.ok().stdout;
    for layout in
        ["firecracker-kernel-bin", BIN, "flintlock-kernel", "firecracker-kernel", "firecracker-kernel-arm64"]
    {
        assert!(
            lines.contains(&format!("out/{layout}:6.1.7-builtin sha256:")),
            "{layout} is not in:\n{lines}"
        );
    }
    assert!(!lines.contains("-kernel-modules"), "{lines}");
    context.run("verify out/firecracker-kernel-bin out/flintlock-kernel out/firecracker-kernel").ok();
    let copied = context.path("work/out/firecracker-kernel-copy");
    copy(&context.path("work/out/firecracker-kernel"), &copied);
    context.run("verify out/firecracker-kernel-copy").ok();
}
