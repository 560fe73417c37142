//! Config, patches and compiling of one kernel, with failures and messages, independent of the
//! environment.

use crate::support::context::TestContext;
use std::fs;

#[test]
fn a_setting_that_did_not_take_fails_before_compiling() {
    let context = TestContext::new();
    let ran = context.build("--set MINI_NEEDS_ABSENT=y").failed(
        1,
        &[
            "settings did not take effect: CONFIG_MINI_NEEDS_ABSENT=y is missing: depends on MINI_ABSENT (n)",
            "(n); no setting helps, so remove it\nhint: ",
        ],
    );
    assert!(!ran.stderr.contains("Compile"), "{}", ran.stderr);
    assert!(!context.path("work/out").exists());
    fs::write(context.path("work/f.config"), "CONFIG_NO_SUCH_THING=m\n").unwrap();
    context
        .build("--fragment f.config")
        .failed(1, &["CONFIG_NO_SUCH_THING=m is missing: no such symbol in this kernel (", "f.config"]);
    context
        .build("--set ARM_AMBA=y")
        .failed(1, &["CONFIG_ARM_AMBA=y is missing: only another architecture has it: arm64"]);
}

#[test]
fn requested_settings_that_did_not_take_are_warned_about() {
    let context = TestContext::new();
    let mut config = fs::read_to_string(context.path("work/mini.config")).unwrap();
    config.push_str("CONFIG_NO_SUCH_THING=y\nCONFIG_MINI_SELECTED=n\n");
    fs::write(context.path("work/mini.config"), &config).unwrap();
    context
        .build("")
        .ok()
        .says("warning: CONFIG_NO_SUCH_THING=y is missing")
        .says("warning: CONFIG_MINI_SELECTED=n became y: selected by MINI_SELECTOR (y) (requested by ");
    let receipt: serde_json::Value =
        serde_json::from_slice(&fs::read(context.path("work/out/firecracker-6.1.7-amd64.json")).unwrap())
            .unwrap();
    assert_eq!(receipt["config_differences"][0]["reason"], "selected by MINI_SELECTOR (y)");
    assert_eq!(receipt["config_differences"][1]["symbol"], "NO_SUCH_THING");
    assert_eq!(receipt["findings"].as_array().unwrap().len(), 2);
    assert_eq!(fs::read_to_string(context.path("work/mini.config")).unwrap(), config);
}

/// A config that lacks many settings.
const SMALL: &str = "CONFIG_MODULES=y\nCONFIG_HYPERVISOR_GUEST=y\nCONFIG_PARAVIRT=y\nCONFIG_KVM_GUEST=y\nCONFIG_PVH=y\n\
                     CONFIG_NET=y\nCONFIG_DUMMY=m\n";

#[test]
fn every_config_difference_is_explained() {
    let context = TestContext::new();
    let mut config = SMALL.to_owned();
    config.push_str(
        "CONFIG_CC_VERSION_TEXT=\"gcc 1.0\"\nCONFIG_VIRTIO=y\nCONFIG_VIRTIO_NET=y\nCONFIG_PCI_MSI=y\n\
         # CONFIG_PRINTK is not set\nCONFIG_PSI=m\nCONFIG_SERIAL_8250=m\nCONFIG_SERIAL_8250_CONSOLE=y\n\
         CONFIG_MEMCG_SWAP=y\n",
    );
    fs::write(context.path("work/mini.config"), config).unwrap();
    let ran = context.build("--require none").ok();
    for said in [
        "CONFIG_VIRTIO=y and 1 more did not take effect; set CONFIG_VIRTIO_MMIO=y too: CONFIG_VIRTIO_NET (requested",
        "CONFIG_PCI_MSI=y is missing: depends on PCI (n) (requested",
        "CONFIG_PRINTK=n became y: to change it needs EXPERT (n); default y (requested",
        "CONFIG_PSI=m became n: is a bool: y or n (requested",
        "CONFIG_SERIAL_8250_CONSOLE=y is missing: depends on SERIAL_8250=y (m) (requested",
        "CONFIG_MEMCG_SWAP=y is missing: gone since 6.1: always on with MEMCG and SWAP (requested",
    ] {
        assert!(ran.stderr.contains(&format!("warning: {said}")), "`{said}` is not in:\n{}", ran.stderr);
    }
    // The compiler version of another build is not reported unless requested.
    assert!(!ran.stderr.contains("CC_VERSION_TEXT"), "{}", ran.stderr);
    fs::write(context.path("work/f.config"), "CONFIG_CC_VERSION_TEXT=\"gcc 1.0\"\n").unwrap();
    context
        .build("--require none --fragment f.config")
        .failed(1, &["CONFIG_CC_VERSION_TEXT=\"gcc 1.0\" became \"", "has no prompt"]);
}

#[test]
fn unreadable_kconfig_files_only_remove_the_explanations() {
    let context = TestContext::new();
    let kconfig = context.tree("6.1.7", "work/linux").join("lib/Kconfig.debug");
    let mut text = fs::read_to_string(&kconfig).unwrap();
    text.push_str(&format!("# {}\n", "x".repeat(1000)).repeat(3000));
    fs::write(&kconfig, text).unwrap();
    let mut config = SMALL.to_owned();
    config.push_str("CONFIG_PCI_MSI=y\n");
    fs::write(context.path("work/mini.config"), config).unwrap();
    context
        .build("--require none")
        .ok()
        .says("note: cannot explain what olddefconfig changed: lib/Kconfig.debug: larger than 2 MiB")
        .says("warning: CONFIG_PCI_MSI=y is missing from the final .config (requested by ");
}

#[test]
fn patches_are_applied_to_a_copy() {
    let context = TestContext::new();
    context.tarball("6.1.7", "xz");
    fs::create_dir(context.path("work/p")).unwrap();
    let patch = "--- a/COPYING\n+++ b/COPYING\n@@ -1,1 +1,2 @@\n+patched\n LINE\n";
    let first = fs::read_to_string(context.path("trees/6.1.7-xz/COPYING"))
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .to_owned();
    fs::write(context.path("work/p/1.patch"), patch.replace("LINE", &first)).unwrap();
    let args = "6.1.7 --fc --config mini.config --source linux-6.1.7.tar.xz --patches p";
    context.run(args).ok().says("1 patch applied");
    let trees = context.names("cache/trees");
    assert_eq!(trees.len(), 2);
    let copying =
        |key: &str| fs::read_to_string(context.path(&format!("cache/trees/{key}/linux/COPYING"))).unwrap();
    assert!(!copying(&trees[0]).starts_with("patched") && copying(&trees[1]).starts_with("patched"));
    context.run(&format!("{args} --rebuild")).ok().says("patched tree from the cache");
    fs::write(context.path("work/p/1.patch"), patch.replace("LINE", "something else")).unwrap();
    context.run(args).failed(
        1,
        &["error: 1.patch: the hunk at line 1 of COPYING does not apply", "context must match exactly"],
    );
    assert_eq!(context.names("cache/trees").len(), 2);
    assert!(context.names("cache/tmp").is_empty());
    context.build("--patches p").failed(2, &["in place and never changes it"]);
}

#[test]
fn toolchain_rules_apply_to_old_trees() {
    let context = TestContext::new();
    let rule = |id: &str, sign: &str| {
        format!(
            "[[rule]]\nid = \"{id}\"\ntool = \"host-gcc\"\nfrom = \"1\"\ntree = [{{ file = \"Makefile\", {sign} }}]\n\
             variables = {{ HOSTCC = \"-D{id}\" }}\nreason = \"it would break\"\nsource = \"a test\"\n"
        )
    };
    fs::create_dir(context.path("work/own")).unwrap();
    let rules = context.path("work/own/toolchains.toml");
    fs::write(&rules, rule("OLD", "has = \"miniature\"") + &rule("NEW", "lacks = \"miniature\"")).unwrap();
    let ran = context.build("--configs own").ok().says("OLD (HOSTCC: -DOLD): it would break");
    assert!(!ran.stderr.contains("NEW"), "{}", ran.stderr);
    let receipt: serde_json::Value =
        serde_json::from_slice(&fs::read(context.path("work/out/firecracker-6.1.7-amd64.json")).unwrap())
            .unwrap();
    assert_eq!(
        receipt["plan"]["rules"],
        serde_json::json!([{ "id": "OLD", "variables": { "HOSTCC": "-DOLD" } }])
    );
    assert!(receipt["plan"]["make"]["variables"]["HOSTCC"].as_str().unwrap().ends_with(" -DOLD"));
    let commands = walkdir::WalkDir::new(context.path("cache/builds"))
        .into_iter()
        .find_map(|entry| entry.ok().filter(|entry| entry.file_name() == ".fixdep.cmd"))
        .unwrap();
    let commands = fs::read_to_string(commands.path()).unwrap();
    assert!(commands.contains("-DOLD") && !commands.contains("-DNEW"), "{commands}");
    // Before the source is fetched, the plan is not final.
    context.tarball("6.1.7", "gz");
    let args = "plan 6.1.7 --fc --source linux-6.1.7.tar.gz --configs own";
    let text = context.run(args).ok().stdout;
    assert!(text.contains("if the source needs it: OLD (HOSTCC: -DOLD)"), "{text}");
    let mut dated = context;
    dated.env.insert("SOURCE_DATE_EPOCH".into(), "1700000000".into());
    let is_final = |args: &str| {
        let plan = dated.run(&format!("{args} --json")).ok().item();
        plan["final"].as_bool().unwrap()
    };
    assert!(!is_final(args) && is_final("plan 6.1.7 --fc --source linux-6.1.7.tar.gz"));
    fs::write(&rules, "[[rule]]\nid = \"x\"\n").unwrap();
    dated.run(args).failed(2, &["toolchains.toml: TOML parse error at line 1", "missing field `tool`"]);
}

#[test]
fn a_failed_build_shows_the_first_error_with_its_source_and_names_the_log() {
    let context = TestContext::new();
    let ran = context.build("--set MINI_FAIL=y").failed(
        1,
        &[
            "make vmlinux modules failed: ",
            "drivers/mini/fail.c:7:",
            "error: 'undeclared_on_purpose' undeclared",
            "\n    7 |         int failed = undeclared_on_purpose;\n",
            " ^~~~~~~~~~~~~~~~~~~~~\n",
            "Compile: failed after ",
        ],
    );
    assert!(!ran.stderr.contains("make -C "), "{}", ran.stderr);
    let log = ran.stderr.split("full log: ").nth(1).unwrap().lines().next().unwrap();
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("undeclared_on_purpose"), "{log}");
    let commands: Vec<&str> = log.lines().filter(|line| line.starts_with("+ make -C ")).collect();
    assert!(commands.len() == 2 && commands[1].contains(" vmlinux modules"), "{commands:?}");
    assert!(!context.path("work/out").exists());
    // The same directory builds after the fix.
    context.build("").ok();
}

#[test]
fn a_missing_or_invalid_vmlinux_fails_the_build_even_if_make_succeeds() {
    let context = TestContext::new();
    context.build("--set MINI_NO_VMLINUX=y").failed(1, &["make succeeded, but ", "vmlinux is missing"]);
    context
        .build("--set MINI_BAD_VMLINUX=y")
        .failed(1, &["make succeeded, but ", "vmlinux is ", ", expected an ELF file for x86-64"]);
    assert!(!context.path("work/out").exists());
    // The kernel of an earlier config is left in place.
    context.build("").ok();
    context
        .build("--set MINI_STALE_VMLINUX=y --set PSI=y")
        .failed(1, &["make succeeded, but ", "vmlinux is missing"]);
}

#[test]
fn missing_depmod_output_fails_the_build() {
    TestContext::new().build("--set MINI_NO_DEPMOD=y").failed(4, &["depmod wrote no modules.dep"]);
}

#[test]
fn environment_variables_do_not_affect_the_output() {
    let mut context = TestContext::new();
    let clean = context.build("").ok().digests();
    for (key, value) in [
        ("MAKEFLAGS", "-n"),
        ("ARCH", "arm64"),
        ("CROSS_COMPILE", "nowhere-"),
        ("KCFLAGS", "-DX"),
        ("KBUILD_OUTPUT", "/nowhere"),
        ("KCONFIG_CONFIG", "/nowhere"),
        ("KBUILD_BUILD_USER", "me"),
        ("LOCALVERSION", "-mine"),
        ("INSTALL_MOD_PATH", "/nowhere"),
        ("LLVM", "1"),
        ("CDPATH", "/"),
        ("GREP_OPTIONS", "-v"),
        ("LANG", "tr_TR.UTF-8"),
        ("LC_ALL", "tr_TR.UTF-8"),
        ("TZ", "Asia/Tokyo"),
        ("V", "1"),
        ("O", "/nowhere"),
    ] {
        context.env.insert(key.into(), value.into());
    }
    let ran = context
        .build("--cache-dir other -o other-out -j 5")
        .ok()
        .says("note: ignored these environment variables")
        .says("KBUILD_OUTPUT");
    assert_eq!(ran.digests(), clean);
}

#[test]
fn cross_compile_in_the_makefile_does_not_affect_the_output() {
    let context = TestContext::new();
    let makefile = context.tree("6.1.7", "work/linux").join("Makefile");
    let text = fs::read_to_string(&makefile).unwrap();
    fs::write(&makefile, text.replacen("CC      =", "CROSS_COMPILE = /nowhere/arm-\nCC      =", 1)).unwrap();
    context.build("").ok();
}

#[test]
fn source_date_epoch_sets_every_date() {
    let mut context = TestContext::new();
    context.env.insert("SOURCE_DATE_EPOCH".into(), "1600000000".into());
    context.build("--compression none").ok();
    let receipt = fs::read_to_string(context.path("work/out/firecracker-6.1.7-amd64.json")).unwrap();
    assert!(
        receipt.contains("2020-09-13T12:26:40Z") && receipt.contains("Sun Sep 13 12:26:40 UTC 2020"),
        "{receipt}"
    );
    context.env.insert("SOURCE_DATE_EPOCH".into(), "yesterday".into());
    context.build("").failed(2, &["SOURCE_DATE_EPOCH=yesterday"]);
}

#[test]
fn repeating_a_build_compiles_nothing() {
    let context = TestContext::new();
    context.build("").ok();
    context.build("--rebuild").ok().says("6.1.7, 0 steps");
    assert!(!context.build("--set DUMMY=n").ok().stderr.contains("6.1.7, 0 steps"));
}

#[test]
fn json_progress_is_one_object_per_line() {
    let context = TestContext::new();
    let ran = context.build("--progress json").ok();
    let events: Vec<serde_json::Value> =
        ran.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let finished: Vec<&str> = events
        .iter()
        .filter(|event| event["event"] == "finish")
        .map(|event| event["phase"].as_str().unwrap())
        .collect();
    assert_eq!(finished, ["source", "configure", "compile", "install", "pack"]);
    assert_eq!(events.last().unwrap()["event"], "summary");
    let failed = context.build("--progress json --set MINI_FAIL=y");
    let last: serde_json::Value = serde_json::from_str(failed.stderr.lines().last().unwrap()).unwrap();
    assert_eq!((last["event"].as_str(), last["code"].as_u64()), (Some("error"), Some(1)));
    assert_eq!(context.build("--progress quiet").ok().stderr, "");
}

#[test]
fn paths_with_spaces_or_colons_are_refused() {
    let mut context = TestContext::new();
    for name in ["sp ace", "co:lon"] {
        context.env.insert("KCOMPILE_CACHE_DIR".into(), context.path(name).into_string());
        context.build("").failed(2, &["the cache directory", "cannot work in a path with"]);
        assert!(!context.path(name).exists() && !context.path("sp").exists());
    }
}

#[test]
fn two_architectures_share_one_source_tree() {
    let context = TestContext::new();
    context.tarball("6.1.7", "xz");
    let args = "6.1.7 --fc --config mini.config --source linux-6.1.7.tar.xz --arch arm64 --cross-compile";
    // The miniature tree makes a real arm64 Image header with any compiler, and an empty prefix
    // selects the host's.
    let ran = context.command(args).arg("").output().unwrap();
    let ran = crate::support::context::run_result(ran).ok();
    assert!(ran.stdout.contains("firecracker-kernel-bin-arm64:6.1.7"), "{}", ran.stdout);
    context.run("6.1.7 --fc --config mini.config --source linux-6.1.7.tar.xz --arch amd64").ok();
    assert_eq!(context.names("cache/trees").len(), 1);
}

#[test]
fn source_changes_that_make_cannot_see_are_rebuilt() {
    let context = TestContext::new();
    let first = context.build("").ok().digests();
    let main = context.path("work/linux/init/main.c");
    let text = fs::read_to_string(&main).unwrap();
    fs::write(&main, format!("{text}\nconst char kcompile_test[] = \"changed\";\n")).unwrap();
    let status =
        std::process::Command::new("touch").args(["-d", "2001-01-01", main.as_str()]).status().unwrap();
    assert!(status.success());
    let second = context.build("").ok().digests();
    assert_ne!(second[0], first[0]);
    assert_eq!(context.build("--cache-dir fresh -o fresh-out").ok().digests(), second);
}

#[test]
fn debug_info_contains_no_host_paths_or_launcher() {
    let context = TestContext::new();
    context.tarball("6.1.7", "gz");
    let args = "6.1.7 --fc --config mini.config --source linux-6.1.7.tar.gz --set DEBUG_INFO=y";
    let plain = context.run(args).ok().digests();
    assert_eq!(context.run(&format!("{args} --rebuild --launcher env -o o2")).ok().digests(), plain);
    fs::create_dir(context.path("real-cache")).unwrap();
    std::os::unix::fs::symlink(context.path("real-cache"), context.path("linked")).unwrap();
    assert_eq!(context.run(&format!("{args} --rebuild --cache-dir ../linked -o o3")).ok().digests(), plain);
    let bytes = fs::read(context.path("work/o3/firecracker-kernel-bin-amd64/index.json")).unwrap();
    assert!(!String::from_utf8_lossy(&bytes).contains("real-cache"));
}

/// There the compiler gets absolute paths, and `..` in the tree. Another user's build in a shared
/// cache does the same.
#[test]
fn debug_info_does_not_depend_on_the_build_directory() {
    let mut context = TestContext::new();
    context.env.insert("SOURCE_DATE_EPOCH".into(), "1600000000".into());
    context.tarball("6.1.7", "gz");
    context.build("--set DEBUG_INFO=y -o outside").ok();
    context
        .run("6.1.7 --fc --config mini.config --source linux-6.1.7.tar.gz --set DEBUG_INFO=y -o within")
        .ok();
    let blobs = ["outside", "within"]
        .map(|out| context.names(&format!("work/{out}/firecracker-kernel-bin-amd64/blobs/sha256")));
    // The manifest and the config name the source, which differs. The layer is the kernel.
    let same = blobs[0].iter().filter(|blob| blobs[1].contains(blob)).count();
    assert_eq!((blobs[0].len(), same), (3, 1), "{blobs:?}");
}

#[test]
fn a_patch_may_add_directories() {
    let context = TestContext::new();
    context.tarball("6.1.7", "xz");
    fs::create_dir(context.path("work/p")).unwrap();
    fs::write(context.path("work/p/1.diff"), "--- /dev/null\n+++ b/new/er/file\n@@ -0,0 +1 @@\n+x\n")
        .unwrap();
    context.run("6.1.7 --fc --config mini.config --source linux-6.1.7.tar.xz --patches p").ok();
    let patched = context.names("cache/trees").into_iter().find(|name| name.contains('+')).unwrap();
    assert!(context.path(&format!("cache/trees/{patched}/linux/new/er/file")).is_file());
}
