//! Every input of an image is in its plan or is refused.

use crate::support::context::{
    TestContext, compress, has_tool, run_result, sha256, skipped, tar_of, write_script,
};
use crate::support::git::{commit, repository, sh};
use crate::support::mounts::mount_namespace_command;
use crate::support::servers;
use std::fs;
use std::os::unix::fs::symlink;

#[test]
fn git_url_rewrites_of_the_user_are_ignored() {
    if !has_tool("git") {
        return;
    }
    let context = TestContext::new();
    let asked = repository(&context);
    crate::support::context::copy(&asked, &context.path("elsewhere/linux"));
    let other = context.path("elsewhere/linux");
    sh(&other, "echo other >> COPYING; git add COPYING");
    commit(&other);
    let (here, elsewhere) =
        (servers::git(context.path("repos").as_str()), servers::git(context.path("elsewhere").as_str()));
    let fetch = format!("fetch 6.1.7 --ch --source git+{}/linux/.git", here.url);
    let plain = context.run(&format!("{fetch} --cache-dir plain")).ok();
    // Another server instead, and a proxy that does not exist.
    let rewritten = format!("[url \"{}/\"]\n\tinsteadOf = {}/\n", elsewhere.url, here.url);
    for (cache, config) in [("rewritten", &*rewritten), ("proxy", "[http]\n\tproxy = http://127.0.0.1:1\n")] {
        fs::write(context.path("home/.gitconfig"), config).unwrap();
        let fetched = context.run(&format!("{fetch} --cache-dir {cache}")).ok();
        assert_eq!(fetched.digests(), plain.digests(), "{config}");
    }
    assert!(elsewhere.log.lock().unwrap().is_empty());
}

/// Its objects would be taken for those of kcompile.
#[test]
fn sources_with_a_build_directory_are_refused() {
    let context = TestContext::new();
    let tree = context.tree("6.1.7", "repos/linux");
    fs::create_dir(tree.join("kcompile-firecracker-amd64-0")).unwrap();
    fs::write(tree.join("kcompile-firecracker-amd64-0/main.o"), "x").unwrap();
    fs::write(context.path("work/linux.tar.gz"), compress(&tar_of(&tree, "linux"), "gz")).unwrap();
    let refused = "kcompile-firecracker-amd64-0";
    context.run("fetch 6.1.7 --fc --source linux.tar.gz").failed(3, &["refused entry `", refused]);
    let directory = format!("6.1.7 --fc --config mini.config --source {tree}");
    context.run(&directory).failed(2, &[refused, "hint: "]);
    if has_tool("git") {
        sh(&tree, "git init -q -b ch-6.1.7 . && git add .");
        commit(&tree);
        let args = format!("fetch 6.1.7 --ch --source git+{tree}");
        context.run(&args).failed(3, &["refused entry `", refused]);
    }
    context.tarball("6.1.7", "xz");
    fs::create_dir(context.path("work/p")).unwrap();
    let patch = "--- /dev/null\n+++ b/kcompile-x/main.o\n@@ -0,0 +1 @@\n+x\n";
    fs::write(context.path("work/p/1.patch"), patch).unwrap();
    context
        .run("6.1.7 --fc --config mini.config --source linux-6.1.7.tar.xz --patches p")
        .failed(1, &["a patch adds kcompile-x", "hint: "]);
    assert!(context.names("cache/tmp").is_empty());
}

/// The digest of a source directory covers mounts in it, so make has to see them.
#[test]
fn mounts_inside_a_source_directory_are_part_of_the_source() {
    let Some(way) = mount_namespace_command() else { return };
    let context = TestContext::new();
    let tree = context.tree("6.1.7", "work/linux");
    crate::support::context::copy(&tree.join("init"), &context.path("other/init"));
    let main = context.path("other/init/main.c");
    let text = fs::read_to_string(&main).unwrap();
    fs::write(&main, format!("{text}\nconst char kcompile_test[] = \"mounted\";\n")).unwrap();
    crate::support::context::copy(&tree, &context.path("work/whole"));
    crate::support::context::copy(&main, &context.path("work/whole/init/main.c"));
    let args = "6.1.7 --fc --config mini.config --sandbox on --source";
    let whole = context.run(&format!("{args} whole --cache-dir whole-cache -o whole-out"));
    if whole.code == 4 {
        skipped("no namespaces: nothing is hidden from make");
        return;
    }
    let whole = whole.ok().digests();
    let script =
        format!("mount --bind {} {} && exec \"$0\" \"$@\"", context.path("other/init"), tree.join("init"));
    let mut words = way.clone();
    words.extend(["sh", "-c", &script]);
    assert_eq!(context.run_by(&words, &format!("{args} linux")).ok().digests(), whole);
    // The mount is read-only for make, like the rest.
    let makefile = tree.join("Makefile");
    let text = fs::read_to_string(&makefile).unwrap();
    fs::write(&makefile, format!("$(shell touch {}/written)\n{text}", tree.join("init"))).unwrap();
    context.run_by(&words, &format!("{args} linux")).ok();
    assert!(!context.path("other/init/written").exists());
}

/// A header and a driver's directory that a developer linked into the tree.
#[test]
fn files_behind_links_out_of_a_source_directory_are_inputs() {
    let context = TestContext::new();
    let tree = context.tree("6.1.7", "work/linux");
    fs::create_dir(context.path("mine")).unwrap();
    for (inside, outside) in [("init/main.c", "mine/main.c"), ("drivers/net", "mine/net")] {
        fs::rename(tree.join(inside), context.path(outside)).unwrap();
        symlink(context.path(outside), tree.join(inside)).unwrap();
    }
    let config = "--set DUMMY=y";
    let mut seen = vec![context.build(config).ok().digests()];
    context.build(config).ok().says("nothing to do");
    for (file, is_old) in [("main.c", false), ("net/dummy.c", false), ("main.c", true), ("net/dummy.c", true)]
    {
        let path = context.path("mine").join(file);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}\nconst char kcompile_test{}[] = \"changed\";\n", seen.len()))
            .unwrap();
        if is_old {
            sh(&context.path("mine"), &format!("touch -d 2001-01-01 {file}"));
        }
        let digests = context.build(config).ok().digests();
        assert!(!seen.contains(&digests), "{file} was changed");
        let cache = format!("--cache-dir cache{} -o fresh", seen.len());
        assert_eq!(context.build(&format!("{config} {cache}")).ok().digests(), digests);
        seen.push(digests);
    }
    // A link to the directory above the source, and a dangling link.
    symlink(context.path("."), tree.join("around")).unwrap();
    context.build(config).failed(2, &["linux/around leads to ", "which contains the source directory"]);
    fs::remove_file(tree.join("around")).unwrap();
    symlink(context.path("mine/later"), tree.join("later")).unwrap();
    let before = context.build(config).ok().digests();
    fs::write(context.path("mine/later"), "x").unwrap();
    assert_ne!(context.build(config).ok().digests(), before);
}

#[test]
fn changing_a_compiler_wrapper_changes_the_plan() {
    let context = TestContext::new();
    let wrapper = context.path("home/cc");
    let args = format!("--cc {wrapper}");
    write_script(&wrapper, "exec gcc \"$@\"");
    let first = context.build(&args).ok().digests();
    write_script(&wrapper, "exec gcc \"$@\" -O1");
    let second = context.build(&args).ok().says("Compile: done").digests();
    assert_ne!(second, first);
    assert_eq!(context.build(&format!("{args} --cache-dir fresh -o fresh")).ok().digests(), second);
    write_script(&wrapper, "exec gcc \"$@\"");
    assert_eq!(context.build(&args).ok().says("nothing compiled").digests(), first);
    // Its place in the command does not matter.
    write_script(&wrapper, "exec \"$@\"");
    let plan = |args: &str| -> serde_json::Value {
        let plan = context.run(&format!("plan 6.1.7 --fc --config mini.config --json {args}")).ok();
        plan.item()["plan"]["toolchain"]["programs"].clone()
    };
    let digest = sha256(&fs::read(&wrapper).unwrap());
    let shell = |command: &str| {
        let args = ["plan", "6.1.7", "--fc", "--config", "mini.config", "--json", "--cc", command];
        let planned = run_result(context.command("").args(args).output().unwrap()).ok();
        planned.item()["plan"]["toolchain"]["programs"].clone()
    };
    assert_eq!(shell(&format!("{wrapper} gcc"))["cc"], digest);
    assert_eq!(plan(&format!("--launcher {wrapper}")), serde_json::json!({ "launcher": digest }));
    // Versions identify the distribution's own tools.
    assert_eq!(plan("--launcher env"), serde_json::Value::Null);
}

#[test]
fn tools_outside_the_distribution_are_identified_by_digest() {
    let mut context = TestContext::new();
    let path = std::env::var("PATH").unwrap();
    for tool in ["as", "ld", "objcopy", "x-ld", "llvm-ar"] {
        write_script(&context.path(&format!("tools/{tool}")), &format!("PATH='{path}' exec {tool} \"$@\""));
    }
    context.env.insert("PATH".into(), format!("{}:{path}", context.path("tools")));
    let programs = |args: &str| -> Vec<String> {
        let plan = context.run(&format!("plan 6.1.7 --fc --config mini.config --json {args}")).ok();
        plan.item()["plan"]["toolchain"]["programs"].as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(programs(""), ["as", "ld", "objcopy"]);
    assert_eq!(programs("--cross-compile x-"), ["ld"]);
    assert_eq!(programs("--llvm"), ["ar"]);
}
