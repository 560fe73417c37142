//! Invalid data files, configs and patches.

use crate::support::context::{CONFIG, TestContext, copy};
use serde_json::Value;
use std::fs;

#[test]
fn a_mistake_in_any_data_file_names_file_line_and_field() {
    let context = TestContext::new();
    let entry = "[[kernel]]\nversion = \"6.6\"\nflavor = \"firecracker\"\narch = [\"amd64\"]\n";
    let rule = "[[rule]]\nid = \"x\"\ntool = \"gcc\"\nfrom = \"one\"\n";
    let profile = "title = \"t\"\nsource = \"s\"\n[[option]]\nsymbols = [\"A\"]\nlevel = \"must\"\n";
    let patch = "[[patch]]\nfile = \"x\"\nfrom = \"5\"\nbefore = \"5.2\"\nreason = \"r\"\n";
    for (file, text, says) in [
        ("configs/kernels.toml", &*format!("{entry}status = \"fine\"\n"), "line 5, column 10: status: "),
        ("configs/requirements/firecracker.toml", profile, "line 5, column 9: level: unknown variant `must`"),
        ("configs/toolchains.toml", rule, "line 4, column 8: from: `one` is not a version of a tool"),
        ("configs/renames.toml", "[[rename]]\nold = \"A\"\nsince = \"old\"\n", "line 3, column 9: since: "),
        ("patches/series.toml", patch, "line 3, column 8: from: `5` is not a kernel version"),
        (
            "configs/firecracker/linux-x86_64-6.1.config",
            "CONFIG_A=y\nCONFIG_B=q\n",
            ".config:2: not a setting",
        ),
        (
            "kcompile.toml",
            "flavor = \"firecracker\"\noutptu = \"x\"\n",
            "line 2, column 1: outptu: unknown field",
        ),
        ("kcompile.lock", "[[source]]\norigin = 1\n", "line 2, column 10: origin: invalid type"),
    ] {
        let own = context.path("work/own");
        let _ = fs::remove_dir_all(&own);
        fs::create_dir_all(own.join(file).parent().unwrap()).unwrap();
        fs::write(own.join("kcompile.toml"), "").unwrap();
        fs::write(own.join(file), text).unwrap();
        let mut command = context.command("plan 6.1 --fc");
        let ran = crate::support::context::run_result(command.current_dir(&own).output().unwrap());
        let ran = ran.failed(2, &[&format!("own/{file}"), says]);
        assert!(!context.path("cache").exists(), "{}", ran.stderr);
    }
}

#[test]
fn a_config_with_carriage_returns_is_the_same_config() {
    let context = TestContext::new();
    let crlf = CONFIG.replace('\n', "\r\n");
    fs::write(context.path("work/crlf.config"), &crlf).unwrap();
    fs::write(context.path("work/crlf.fragment"), "CONFIG_PSI=y\r\n# CONFIG_VETH is not set\r\n").unwrap();
    context.tree("6.1.7", "work/linux");
    let args = "6.1.7 --fc --source linux --config crlf.config --fragment crlf.fragment --no-modules";
    context.run(args).ok();
    let receipt: Value =
        serde_json::from_slice(&fs::read(context.path("work/out/firecracker-6.1.7-amd64.json")).unwrap())
            .unwrap();
    assert_eq!(receipt["findings"], serde_json::json!([]));
    assert_eq!(fs::read_to_string(context.path("work/crlf.config")).unwrap(), crlf);
}

#[test]
fn refused_configs_are_not_modified() {
    let context = TestContext::new();
    for text in ["", "hello\nworld\n", "CONFIG_ARM64=y\n", "\u{feff}\0\u{1}", "CONFIG_A=q\n"] {
        fs::write(context.path("work/x.config"), text).unwrap();
        for option in ["--config", "--fragment"] {
            context.run(&format!("plan 6.1 --fc {option} x.config")).failed(2, &["x.config"]);
        }
        assert_eq!(fs::read_to_string(context.path("work/x.config")).unwrap(), text);
    }
}

#[test]
fn a_patch_that_does_not_apply_leaves_the_tree_unchanged() {
    let context = TestContext::new();
    context.tarball("6.1.7", "gz");
    let copying = fs::read_to_string(context.path("trees/6.1.7-gz/COPYING")).unwrap();
    let lines: Vec<&str> = copying.lines().take(3).collect();
    let [first, second, third] = lines[..] else { panic!("{copying}") };
    let patch = |body: &str| format!("--- a/COPYING\n+++ b/COPYING\n{body}");
    let hunk = |first: &str| format!("@@ -1,3 +1,4 @@\n {first}\n+patched\n {second}\n {third}\n");
    let build = |text: &str| {
        let _ = fs::remove_dir_all(context.path("work/p"));
        fs::create_dir(context.path("work/p")).unwrap();
        fs::write(context.path("work/p/1.patch"), text).unwrap();
        context.run("6.1.7 --fc --config mini.config --source linux-6.1.7.tar.gz --no-modules --patches p")
    };
    // GNU patch would apply this with fuzz, because one word of the context differs.
    let fuzzy = patch(&hunk(&format!("{first} nearly")));
    build(&fuzzy)
        .failed(1, &["1.patch: the hunk at line 1 of COPYING does not apply", "context must match exactly"]);
    let applied = patch(&format!("@@ -1,2 +1,2 @@\n-before\n+{first}\n {second}\n"));
    build(&applied).failed(
        1,
        &["the hunk at line 1 of COPYING does not apply", "the source already has this patch; leave it out"],
    );
    let second_hunk = format!("{}@@ -900,1 +901,2 @@\n nowhere\n+x\n", patch(&hunk(first)));
    build(&second_hunk).failed(1, &["1.patch: the hunk at line 900 of COPYING does not apply"]);
    for path in ["../evil", "/tmp/evil", "a/../../evil"] {
        let escaping = format!("--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n");
        build(&escaping).failed(1, &["1.patch: ", "is not a path inside the tree"]);
    }
    assert!(!context.path("cache/evil").exists() && context.names("cache/tmp").is_empty());
    assert_eq!(context.names("cache/trees").len(), 1);
    // The same pristine tree in the cache accepts the right patch.
    build(&patch(&hunk(first))).ok().says("from the cache");
    let trees = context.names("cache/trees");
    let pristine = trees.iter().find(|name| !name.contains('+')).unwrap();
    let path = context.path(&format!("cache/trees/{pristine}/linux/COPYING"));
    assert_eq!(fs::read_to_string(path).unwrap(), copying);
}

#[test]
fn a_missing_or_invalid_arm64_image_fails_the_build() {
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    copy(&context.path("work/linux"), &context.path("work/again"));
    let args = "6.1.7 --fc --arch arm64 --config mini.config --require none --cross-compile= --no-modules";
    let run = |source: &str, more: &str| context.run(&format!("{args} --source {source} {more}"));
    run("linux", "--set MINI_NO_VMLINUX=y")
        .failed(1, &["make succeeded, but ", "arch/arm64/boot/Image is missing", "hint: full log: "]);
    run("linux", "--set MINI_BAD_VMLINUX=y")
        .failed(1, &["make succeeded, but ", "arch/arm64/boot/Image is ", "expected an arm64 Image"]);
    run("again", "").ok();
    run("again", "--set MINI_STALE_VMLINUX=y --set PSI=y")
        .failed(1, &["make succeeded, but ", "arch/arm64/boot/Image is missing"]);
}
