//! Builds with `--variant minimal`, for sandboxes.

use crate::support::context::{CONFIG, TestContext, copy};
use crate::support::git::repository;
use crate::support::layouts::{descriptor, image_annotations};
use crate::support::servers;
use serde_json::{Value, json};
use std::fs;

const BIN: &str = "firecracker-kernel-bin-amd64";

/// The catalog's config of the variant `suffix` for 6.1 in `own`.
fn write_config(context: &TestContext, suffix: &str, text: &str) {
    let dir = context.path("work/own/firecracker");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(format!("linux-x86_64-6.1{suffix}.config")), text).unwrap();
}

/// A context with a tree, configs of both variants in `own`, and a small profile `sandbox`.
fn context() -> TestContext {
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    write_config(&context, "", CONFIG);
    let minimal = CONFIG.replace("CONFIG_MODULES=y\n", "# CONFIG_MODULES is not set\n");
    let minimal = minimal.replace("CONFIG_DUMMY=m\nCONFIG_BRIDGE=m\n", "CONFIG_IKCONFIG=y\n");
    write_config(&context, "-minimal", &minimal);
    let profile = "title = \"x\"\nsource = \"y\"\n[[option]]\nsymbols = [\"IKCONFIG\", \"!MODULES\"]\n\
                   level = \"required\"\nreason = \"z\"\n";
    fs::create_dir_all(context.path("work/own/requirements")).unwrap();
    fs::write(context.path("work/own/requirements/sandbox.toml"), profile).unwrap();
    context
}

const ARGS: &str = "6.1.7 --fc --source linux --configs own";

fn receipt(context: &TestContext, tag: &str) -> Value {
    let path = context.path(&format!("work/out/firecracker-{tag}-amd64.json"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_minimal_kernel_has_a_config_a_tag_and_files_of_its_own() {
    let context = context();
    let node = context.run(ARGS).ok();
    let ran = context.run(&format!("{ARGS} --variant minimal")).ok().says(", 0 as modules");
    assert_eq!(ran.stdout.lines().count(), 1, "{}", ran.stdout);
    assert!(ran.stdout.starts_with(&format!("out/{BIN}:6.1.7-minimal sha256:")), "{}", ran.stdout);
    for name in ["6.1.7", "6.1.7-minimal"] {
        for suffix in ["json", "spdx.json", "provenance.json", "compiled.json.gz"] {
            assert!(context.path(&format!("work/out/firecracker-{name}-amd64.{suffix}")).is_file());
        }
    }
    let layout = context.path("work/out").join(BIN);
    assert_eq!(descriptor(&layout, "6.1.7")["digest"], node.digests()[0]);
    let annotations = image_annotations(&layout, "6.1.7-minimal");
    assert_eq!(annotations["io.github.kcompile.variant"], "minimal");
    assert_eq!(annotations["io.github.kcompile.modules"], "builtin");
    assert_eq!(annotations["org.opencontainers.image.version"], "6.1.7");
    assert!(image_annotations(&layout, "6.1.7").get("io.github.kcompile.variant").is_none());
    let written = receipt(&context, "6.1.7-minimal");
    assert_eq!(written["plan"]["variant"], "minimal");
    let command = written["command"].as_str().unwrap();
    assert!(command.contains("--variant minimal") && !command.contains("--require"), "{command}");
    assert!(!command.contains("--builtin"), "{command}");
    let checked: Vec<&str> = written["requirements"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["profile"].as_str().unwrap())
        .collect();
    assert_eq!(checked, ["firecracker", "sandbox"]);
    let told = context.run(&format!("verify out/{BIN}")).ok().stdout;
    assert!(told.contains("firecracker-6.1.7-minimal-amd64.json names this image"), "{told}");
    context.run(&format!("verify out/{BIN}:6.1.7-minimal --rebuild")).ok();
    context.run(&format!("inspect out/{BIN}:6.1.7-minimal")).ok();
    // The same plans again.
    context.run(&format!("{ARGS} --variant minimal")).ok().says("intact: nothing to do");
    context.run(ARGS).ok().says("intact: nothing to do");
    // A tag must not say that a node's kernel is minimal.
    let false_tag = context.path("work/false");
    copy(&layout, &false_tag);
    let mut descriptor = descriptor(&layout, "6.1.7");
    descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": "6.1.7-minimal" });
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
    fs::write(false_tag.join("index.json"), index.to_string()).unwrap();
    let told = context.run("verify false").failed(1, &[]).stdout;
    assert!(told.contains("the tag is 6.1.7-minimal, but the image was not built"), "{told}");
}

#[test]
fn the_variant_is_part_of_the_plan_only_when_it_is_minimal() {
    let context = context();
    let plan = |args: &str| -> Value {
        let printed = context.run(&format!("plan {ARGS} --json {args}")).ok().stdout;
        serde_json::from_str::<Value>(&printed).unwrap()["items"][0].clone()
    };
    let (node, minimal) = (plan(""), plan("--variant minimal"));
    assert!(node["plan"].get("variant").is_none() && node["plan"].get("modules").is_none(), "{node}");
    assert_eq!(plan("--variant node")["digest"], node["digest"]);
    assert_ne!(minimal["digest"], node["digest"]);
    assert_eq!(minimal["plan"]["make"]["targets"], serde_json::json!(["vmlinux"]));
    assert_eq!(minimal["plan"]["images"].as_array().unwrap().len(), 1);
    assert_eq!(minimal["config"][0], "configs/firecracker/linux-x86_64-6.1-minimal.config");
    // There are no modules to leave out.
    assert_eq!(plan("--variant minimal --no-modules")["digest"], minimal["digest"]);
    for (args, says) in [
        ("--variant minimal --builtin", "--builtin cannot be used with a minimal kernel"),
        ("--variant all --builtin", "--builtin cannot be used with a minimal kernel"),
        ("--variant minimal --modules-layout flat", "--modules-layout cannot be used with a minimal kernel"),
        ("--variant tiny", "unknown variant `tiny`: expected node or minimal or all"),
    ] {
        context.run(&format!("plan {ARGS} {args}")).failed(2, &[says]);
    }
    context
        .run("plan 4.14.7 --fc --variant minimal")
        .failed(2, &["no minimal firecracker config for Linux 4.14.7"]);
}

#[test]
fn both_variants_are_built_in_one_run() {
    let context = context();
    let ran = context.run(&format!("{ARGS} --variant all")).ok();
    let tags: Vec<&str> =
        ran.stdout.lines().filter_map(|line| line.split(' ').next()?.strip_prefix("out/")).collect();
    let modules = "firecracker-kernel-modules-amd64:6.1.7";
    assert_eq!(tags, [&format!("{BIN}:6.1.7")[..], modules, &format!("{BIN}:6.1.7-minimal")]);
    assert!(ran.stderr.contains("6.1.7 minimal"), "{}", ran.stderr);
    context
        .run("config show 6.1.7 --fc --variant all")
        .failed(2, &["6.1.7 names more than one kernel", "one variant with --variant"]);
}

#[test]
fn a_project_chooses_the_variant() {
    let context = context();
    fs::rename(context.path("work/own"), context.path("work/configs")).unwrap();
    fs::write(context.path("work/kcompile.toml"), "variant = \"minimal\"\n").unwrap();
    let args = "6.1.7 --fc --source linux";
    assert!(context.run(args).ok().stdout.contains(":6.1.7-minimal "));
    assert!(context.run(&format!("{args} --variant node")).ok().stdout.contains(":6.1.7 "));
    // Commands that look for an image look for the project's variant.
    context.run("extract 6.1 --fc --config minimal.config").ok();
    context.run("extract 6.1 --fc --variant node --config node.config").ok();
    let read = |name: &str| fs::read_to_string(context.path(&format!("work/{name}"))).unwrap();
    assert!(read("minimal.config").contains("# CONFIG_MODULES is not set"));
    assert!(read("node.config").contains("CONFIG_MODULES=y"));
    fs::write(context.path("work/kcompile.toml"), "variant = \"all\"\n").unwrap();
    assert_eq!(context.run(args).ok().stdout.lines().count(), 3);
    fs::write(context.path("work/kcompile.toml"), "variant = \"tiny\"\n").unwrap();
    context.run(args).failed(2, &["kcompile.toml", "variant: unknown variant `tiny`"]);
}

#[test]
fn every_command_with_a_version_takes_the_variant() {
    let context = context();
    let minimal = format!("{ARGS} --variant minimal");
    let shown = context.run(&format!("config show {minimal}")).ok().stdout;
    assert!(shown.contains("# CONFIG_MODULES is not set") && shown.contains("CONFIG_IKCONFIG=y"), "{shown}");
    let both = context.run(&format!("config show {ARGS}")).ok().stdout;
    assert!(both.contains("CONFIG_MODULES=y"), "{both}");
    let fetched = context.run("fetch 6.1.7 --fc --source linux --variant minimal --json").ok();
    assert!(fetched.stdout.contains("6.1.7"), "{}", fetched.stdout);
    // An edited config of the variant is a file of its own.
    let set = context.run(&format!("config set {minimal} DUMMY=y")).ok().stdout;
    assert!(set.contains("own/firecracker/linux-x86_64-6.1-minimal.config"), "{set}");
    let edited =
        fs::read_to_string(context.path("work/own/firecracker/linux-x86_64-6.1-minimal.config")).unwrap();
    assert!(edited.contains("CONFIG_DUMMY=y") && edited.contains("# CONFIG_MODULES is not set"), "{edited}");
    // The kernel's own profiles are checked.
    let checked = context.run("check 6.1.7 --fc --configs own --variant minimal --json").ok().stdout;
    let checked: Value = serde_json::from_str(&checked).unwrap();
    assert_eq!(checked["profiles"][1]["profile"], "sandbox");
    context.run("check mini.config --variant minimal").failed(2, &["--variant is for a version"]);
    let unmet = "the final .config does not meet sandbox: CONFIG_IKCONFIG";
    context.run(&format!("{minimal} --set IKCONFIG=n")).failed(1, &[unmet]);
    context.run(&format!("{minimal} --set IKCONFIG=n --require none")).ok();
    let made = context.run(&format!("make {minimal} --set IKCONFIG=n -- kernelrelease")).ok();
    assert!(made.stdout.ends_with("-minimal\n"), "{}", made.stdout);
    let command = receipt(&context, "6.1.7-minimal")["command"].as_str().unwrap().to_owned();
    assert!(command.contains("--require none"), "{command}");
    // What a fragment has as a module is built in, and modules cannot be turned on.
    fs::write(context.path("work/bridge.config"), "CONFIG_BRIDGE=m\n").unwrap();
    let built = context.run(&format!("config show {minimal} --fragment ./bridge.config")).ok().stdout;
    assert!(built.contains("CONFIG_BRIDGE=y"), "{built}");
    context
        .run(&format!("{minimal} --set MODULES=y"))
        .failed(2, &["--variant minimal turns CONFIG_MODULES off, but CONFIG_MODULES=y turns it on"]);
}

#[test]
fn an_image_of_a_version_is_of_the_variant() {
    let context = context();
    context.run(ARGS).ok();
    context
        .run("extract 6.1 --fc --variant minimal")
        .failed(2, &["no minimal image of 6.1 for amd64", "there is 6.1.7; choose it with --variant node"]);
    context.run(&format!("{ARGS} --variant minimal")).ok();
    fs::remove_dir_all(context.path("work/out")).unwrap();
    context.run(&format!("{ARGS} --variant minimal")).ok();
    context.run("extract 6.1 --fc").failed(
        2,
        &["no image of 6.1 for amd64", "there is 6.1.7-minimal; choose it with --variant minimal"],
    );
    context
        .run("extract 6.12 --fc --variant minimal")
        .failed(2, &["build it with `kcompile 6.12 --fc --variant minimal`"]);
}

#[test]
fn a_minimal_config_is_migrated() {
    let context = context();
    repository(&context);
    let server = servers::git(context.path("repos").as_str());
    let source = format!("git+{}/linux/.git#ch-6.1.7", server.url);
    let add = |args: &str| context.run(&format!("add 6.1.7 --fc --configs own --source {source} {args}"));
    let told = add("--variant minimal").ok().stdout;
    assert!(told.contains("linux-x86_64-6.1-minimal.config") && told.contains("kernels.toml"), "{told}");
    let new = context.path("work/own/firecracker/linux-x86_64-6.1.7-minimal.config");
    assert!(fs::read_to_string(&new).unwrap().contains("# CONFIG_MODULES is not set"));
    assert!(!context.path("work/own/firecracker/linux-x86_64-6.1.7.config").exists());
    // The catalog has the kernel now, so only the config is written.
    fs::remove_file(&new).unwrap();
    let told = add("--variant minimal").ok().stdout;
    assert!(new.is_file() && !told.contains("kernels.toml"), "{told}");
    add("").failed(2, &["already has an entry for 6.1.7"]);
}
