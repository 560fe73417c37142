//! `--toolchain`: builds with the tools of a root file system.

use crate::support::context::{RunResult, TestContext, has_tool, sha256, write_script};
use crate::support::downloads::send_part;
use crate::support::fixtures::{Item, layer, named, put_image_for, put_index};
use crate::support::registry;
use crate::support::servers::respond;
use crate::support::toolchain::{host_arch, tools_layer, write_toolchain};
use std::fs;
use std::process::Command;

/// Runs the usual build with options.
fn build(context: &TestContext, options: &str) -> RunResult {
    context.build(&format!("--require none {options}"))
}

#[test]
fn the_same_toolchain_gives_the_same_plan_and_bytes() {
    if !has_tool("bwrap") {
        return;
    }
    let mut first = TestContext::new();
    // The date of a directory is that of its newest file.
    first.env.insert("SOURCE_DATE_EPOCH".into(), "1700000000".into());
    write_toolchain(&first);
    let built = build(&first, "--toolchain oci:tools:1").ok().says("unpacked the toolchain sha256:");
    // Another machine: other tools, another path, another time.
    let mut second = TestContext::new();
    second.env = first.env.clone();
    crate::support::context::copy(&first.path("work/tools"), &second.path("work/else/tools"));
    let fakes = second.path("home/bin");
    fs::create_dir(&fakes).unwrap();
    for tool in ["gcc", "ld", "make", "objcopy", "depmod"] {
        write_script(&fakes.join(tool), "echo this is not the toolchain >&2; exit 1");
    }
    second.env.insert("PATH".into(), format!("{fakes}:{}", std::env::var("PATH").unwrap()));
    let again = build(&second, "--toolchain oci:else/tools").ok();
    assert_eq!(built.digests(), again.digests());
    let plan = |context: &TestContext, toolchain: &str| {
        let options =
            format!("plan 6.1.7 --fc --source linux --config mini.config --toolchain {toolchain} --json");
        context.run(&options).ok().item()["digest"].clone()
    };
    assert_eq!(plan(&first, "oci:tools:1"), plan(&second, "oci:else/tools"));
    assert_ne!(plan(&first, "oci:tools:1"), plan(&first, "host"));
    // Nothing is unpacked twice.
    assert!(!build(&first, "--toolchain oci:tools:1 --rebuild").ok().stderr.contains("unpacked"));
    first.run("inspect out/firecracker-kernel-bin-amd64").ok();
    first.run("verify out/firecracker-kernel-bin-amd64 --rebuild").ok();
    // A changed file is not used.
    let gcc = glob(&first, "root/usr/bin/gcc");
    fs::remove_file(&gcc).unwrap_or_else(|_| panic!("{gcc}"));
    fs::write(&gcc, "#!/bin/sh\nexit 1\n").unwrap();
    let repaired = build(&first, "--toolchain oci:tools:1 --rebuild").ok();
    assert!(repaired.says("toolchain that was changed; unpacking it again").digests() == built.digests());
}

/// Returns a path below the only unpacked toolchain.
fn glob(context: &TestContext, name: &str) -> camino::Utf8PathBuf {
    let entry = context.path("cache/toolchains").read_dir_utf8().unwrap().next().unwrap().unwrap();
    let path = entry.path().join(name);
    let dir = path.parent().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(dir, mode).unwrap();
    path
}

#[test]
fn unusable_toolchains_are_refused_before_the_build() {
    if !has_tool("bwrap") {
        return;
    }
    let context = TestContext::new();
    let layout = context.path("work/tools");
    let put = |items: &[(&str, Item<'_>)]| {
        let image = put_image_for(&layout, &[layer(items)], host_arch());
        put_index(&layout, &[named(image, "1")]);
    };
    put(&[("usr", Item::Dir), ("usr/bin", Item::Dir), ("usr/bin/tool", Item::File(b"x"))]);
    let refused = |code: i32, options: &str, says: &[&str]| {
        build(&context, options).failed(code, says);
        assert!(!context.path("work/out").exists());
    };
    refused(2, "--toolchain oci:missing", &["--toolchain oci:missing: ", "no such directory"]);
    refused(2, "--toolchain oci:tools:2", &["--toolchain oci:tools:2: "]);
    refused(
        2,
        "--toolchain tools",
        &[
            "`tools` is not a toolchain; expected host, oci:DIR[:TAG], docker://REFERENCE, kernel.org:gcc-VERSION or",
        ],
    );
    refused(2, "--toolchain oci:tools --sandbox off", &["its tools run in a sandbox only"]);
    refused(4, "--toolchain oci:tools:1", &["the toolchain lacks sh"]);
    // Of another architecture.
    let other = if host_arch() == "amd64" { "arm64" } else { "amd64" };
    let image = put_image_for(&layout, &[layer(&[("usr", Item::Dir)])], other);
    put_index(&layout, &[named(image, "1")]);
    refused(2, "--toolchain oci:tools:1", &[&format!("the image is for {other}")]);
    // Links that lead out of the root.
    let up = format!("{}{}", "../".repeat(40), context.path("home").as_str().trim_start_matches('/'));
    put(&[("a", Item::SymLink(&up)), ("a/escaped", Item::File(b"x"))]);
    refused(4, "--toolchain oci:tools:1", &["the toolchain lacks sh"]);
    put(&[("a", Item::SymLink(context.path("home").as_str())), ("a/escaped", Item::File(b"x"))]);
    refused(4, "--toolchain oci:tools:1", &["the toolchain lacks sh"]);
    assert!(!context.path("home/escaped").exists());
    // A damaged layer.
    let damaged = layer(&[("usr", Item::Dir), ("usr/tool", Item::File(b"1"))]);
    let image = put_image_for(&layout, std::slice::from_ref(&damaged), host_arch());
    put_index(&layout, &[named(image, "1")]);
    let blob = layout.join("blobs/sha256").join(sha256(&damaged));
    fs::write(&blob, damaged.iter().map(|byte| byte ^ 1).collect::<Vec<_>>()).unwrap();
    refused(3, "--toolchain oci:tools:1", &["--toolchain oci:tools:1: ", "checksum mismatch"]);
    assert_eq!(context.names("cache/toolchains").len(), 3, "{:?}", context.names("cache/toolchains"));
}

#[test]
fn a_compiler_that_cannot_compile_is_named_before_the_build() {
    if !has_tool("bwrap") {
        return;
    }
    let context = TestContext::new();
    let layout = context.path("work/tools");
    let broken = "#!/bin/sh\ncase \"$*\" in --version) echo 'gcc 12';; *) echo 'cc1: no such program' >&2; exit 1;; esac\n";
    let script = layer(&[
        ("usr", Item::Dir),
        ("usr/bin", Item::Dir),
        ("usr/bin/gcc", Item::Program(broken.as_bytes())),
    ]);
    let image = put_image_for(&layout, &[tools_layer(&context), script], host_arch());
    put_index(&layout, &[named(image, "1")]);
    build(&context, "--toolchain oci:tools:1")
        .failed(4, &["--toolchain oci:tools:1: the compiler gcc cannot compile: cc1: no such program"]);
    assert!(!context.path("work/out").exists());
}

#[test]
fn a_toolchain_of_a_registry_is_pinned() {
    if !has_tool("bwrap") || !has_tool("skopeo") {
        return;
    }
    let context = TestContext::new();
    let layout = write_toolchain(&context);
    context.tree("6.1.7", "work/linux");
    let registry = registry::misbehaving(|request, stream| {
        let is_layer = request.method == "GET" && request.path.contains("/blobs/");
        if is_layer && request.path.contains("/cut/") {
            send_part(stream, &[0; 1 << 20], 1 << 10);
        } else if is_layer && request.path.contains("/forged/") {
            respond(stream, "200 OK", &[], b"other bytes");
        } else {
            return request.path.contains("/dead/");
        }
        true
    });
    let host = registry.host().to_owned();
    registry.allow(&context);
    let push_to = |tag: &str, repository: &str| {
        let (from, to) = (format!("oci:{layout}:{tag}"), format!("docker://{host}/{repository}:1"));
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["--insecure-policy", "copy", "--dest-tls-verify=false", &from, &to]);
        let output = skopeo.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let push = |tag: &str| push_to(tag, "tools");
    push("1");
    let plan = |options: &str| {
        context.run(&format!("plan 6.1.7 --fc --source linux --config mini.config --json {options}"))
    };
    let local = plan("--toolchain oci:tools:1").ok().item()["digest"].clone();
    fs::remove_dir_all(context.path("cache/toolchains")).ok();
    let remote = format!("--toolchain docker://{host}/tools:1");
    assert_eq!(plan(&remote).ok().item()["digest"], local);
    let lock = fs::read_to_string(context.path("cache/kcompile.lock")).unwrap();
    assert!(lock.contains(&format!("docker://{host}/tools:1#{}", host_arch())), "{lock}");
    // The registry is not asked again.
    let requests = registry.server.log.lock().unwrap().len();
    assert_eq!(plan(&format!("{remote} --offline")).ok().item()["digest"], local);
    assert_eq!(registry.server.log.lock().unwrap().len(), requests);

    let other = put_image_for(&layout, &[layer(&[("usr", Item::Dir)])], host_arch());
    put_index(&layout, &[named(other, "2")]);
    push("2");
    assert_eq!(plan(&remote).ok().item()["digest"], local);
    context.run("clean --sources").ok();
    assert!(context.names("cache/toolchains").is_empty());
    plan(&format!("{remote} --offline")).failed(3, &["not in the cache, and --offline is given"]);
    plan(&remote).failed(3, &["the registry serves sha256:", "from its first use", "--update-lock"]);
    plan(&format!("{remote} --update-lock")).failed(4, &["the toolchain lacks sh"]);
    plan(&remote).failed(4, &["the toolchain lacks sh"]);

    plan(&format!("--toolchain docker://{host}/none:1"))
        .failed(3, &["none:1: the registry has no such image", "list-tags"]);
    for repository in ["cut/tools", "forged/tools"] {
        push_to("2", repository);
        let before = context.names("cache/toolchains");
        plan(&format!("--toolchain docker://{host}/{repository}:1")).failed(
            3,
            &[&format!("--toolchain docker://{host}/{repository}:1: skopeo cannot copy the image")],
        );
        assert_eq!(context.names("cache/toolchains"), before);
        assert!(context.names("cache/tmp").is_empty());
    }
    plan(&format!("--toolchain docker://{host}/dead/tools:1")).failed(3, &["skopeo cannot copy the image: "]);
    plan("--toolchain docker://-x").failed(2, &["is not a toolchain"]);
}
