//! Images that buildah, podman, umoci and skopeo make or copy.

use crate::support::context::{TestContext, has_tool, skipped};
use crate::support::fixtures::kernel;
use serde_json::{Value, json};
use std::fs;
use std::process::{Command, Output};

const BIN: &str = "firecracker-kernel-bin-amd64";

/// Runs a tool in the context's working directory without the user's settings.
fn output(context: &TestContext, words: &[&str]) -> Output {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(context.path("work")).env("HOME", context.path("home"));
    command.env_remove("XDG_RUNTIME_DIR").output().unwrap()
}

/// Returns its standard output.
#[track_caller]
fn run(context: &TestContext, words: &[&str]) -> String {
    let output = output(context, words);
    assert!(output.status.success(), "{}:\n{}", words.join(" "), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Runs buildah or podman with its own storage. Returns `None` if it is missing or does not work
/// here.
fn with_storage<'a>(context: &'a TestContext, tool: &'a str) -> Option<impl Fn(&[&str]) -> String + 'a> {
    if !has_tool(tool) {
        return None;
    }
    // podman refuses paths of sockets with more than 50 characters.
    let [root, run_root] =
        [format!("{tool}-root"), "r".to_owned()].map(|name| context.path(&name).into_string());
    let own =
        move || [tool, "--storage-driver", "vfs", "--root", &root, "--runroot", &run_root].map(str::to_owned);
    let info: Vec<String> = own().into_iter().chain(["info".to_owned()]).collect();
    let works = output(context, &info.iter().map(String::as_str).collect::<Vec<_>>()).status.success();
    if !works {
        skipped(&format!("{tool} does not work here"));
        return None;
    }
    Some(move |args: &[&str]| {
        let own = own();
        let words: Vec<&str> = own.iter().map(String::as_str).chain(args.iter().copied()).collect();
        run(context, &words)
    })
}

fn inspected(context: &TestContext, image: &str) -> Value {
    context.run(&format!("inspect {image} --json")).ok().item()
}

/// Returns verify's output as one line.
#[track_caller]
fn verified(context: &TestContext, image: &str, code: i32) -> String {
    let ran = context.run(&format!("verify {image}"));
    assert_eq!(ran.code, code, "{}{}", ran.stdout, ran.stderr);
    assert!(!ran.stdout.contains("DAMAGED"), "{}", ran.stdout);
    ran.stdout.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Writes two kernels to the working directory, `old` and `new`.
fn kernels(context: &TestContext) {
    fs::write(context.path("work/old"), kernel("6.1.7")).unwrap();
    // With another size, since tools that compare times may miss a change within a second.
    fs::write(context.path("work/new"), [kernel("6.1.8"), vec![0; 100]].concat()).unwrap();
    fs::write(context.path("work/text"), "System.map").unwrap();
}

#[test]
fn buildah_images_are_read() {
    let context = TestContext::new();
    let Some(buildah) = with_storage(&context, "buildah") else { return };
    kernels(&context);
    let container = buildah(&["from", "scratch"]);
    buildah(&["copy", &container, "old", "/bin/vmlinux"]);
    buildah(&["copy", &container, "text", "/boot/System.map"]);
    buildah(&["config", "--annotation", "io.github.kcompile.flavor=firecracker", &container]);
    for format in ["oci", "docker"] {
        buildah(&["commit", "-q", "--format", format, &container, &format!("oci:{format}:1")]);
        assert!(verified(&context, format, 0).contains("ok kernel Linux 6.1.7, an ELF file for x86-64"));
    }
    assert_eq!(inspected(&context, "oci")["flavor"], "firecracker");
    // A second layer has another file at the kernel's path.
    buildah(&["commit", "-q", &container, "base"]);
    let second = buildah(&["from", "--pull-never", "base"]);
    buildah(&["copy", &second, "new", "/bin/vmlinux"]);
    buildah(&["commit", "-q", "--format", "oci", &second, "oci:two:1"]);
    assert!(verified(&context, "two", 0).contains("2 layers"));
    let found = inspected(&context, "two");
    assert_eq!((&found["release"], &found["kernels"].as_array().unwrap().len()), (&json!("6.1.8"), &1));
    if !rustix::process::geteuid().is_root() {
        return skipped("buildah mounts for root only");
    }
    // A third layer hides the kernel.
    buildah(&["commit", "-q", &second, "base-2"]);
    let third = buildah(&["from", "--pull-never", "base-2"]);
    let mounted = buildah(&["mount", &third]);
    fs::remove_dir_all(format!("{mounted}/bin")).unwrap();
    buildah(&["umount", &third]);
    buildah(&["commit", "-q", "--format", "oci", &third, "oci:three:1"]);
    assert!(verified(&context, "three", 0).contains("- image not a kernel image"));
}

#[test]
fn images_that_buildah_derives_are_not_kcompile_images() {
    let context = TestContext::new();
    let Some(buildah) = with_storage(&context, "buildah") else { return };
    kernels(&context);
    context.build("").ok();
    let container = buildah(&["from", &format!("oci:out/{BIN}:6.1.7")]);
    buildah(&["copy", &container, "new", "/bin/vmlinux"]);
    buildah(&["commit", "-q", "--format", "oci", &container, &format!("oci:{BIN}:6.1.7")]);
    let said = verified(&context, BIN, 1);
    for text in [
        "there are 2 layers, but an image of kcompile has one",
        "bin/vmlinux is Linux 6.1.8, but the annotation says 6.1.7",
    ] {
        assert!(said.contains(text), "`{text}` is not in:\n{said}");
    }
}

#[test]
fn podman_images_are_read() {
    let context = TestContext::new();
    let Some(podman) = with_storage(&context, "podman") else { return };
    kernels(&context);
    fs::write(
        context.path("work/Containerfile"),
        "FROM scratch\nCOPY old /opt/kernel\nCOPY new /bin/vmlinux\nLABEL a=b\n",
    )
    .unwrap();
    podman(&["build", "-q", "--layers", "-t", "kernel:latest", "."]);
    podman(&["save", "-q", "--format", "oci-dir", "-o", "saved", "localhost/kernel:latest"]);
    // The index has the full reference, and that or its tag is the image's name.
    let index = fs::read_to_string(context.path("work/saved/index.json")).unwrap();
    assert!(index.contains("localhost/kernel:latest"), "{index}");
    for name in ["saved", "saved:latest", "saved:localhost/kernel:latest"] {
        let found = inspected(&context, name);
        assert_eq!(found["kernels"].as_array().unwrap().len(), 2, "{found:#}");
        verified(&context, name, 0);
    }
    if !has_tool("skopeo") {
        return;
    }
    podman(&["save", "-q", "--format", "docker-archive", "-o", "saved.tar", "localhost/kernel:latest"]);
    run(&context, &["skopeo", "--insecure-policy", "copy", "-q", "docker-archive:saved.tar", "oci:back:1"]);
    assert_eq!(inspected(&context, "back")["kernels"], inspected(&context, "saved")["kernels"]);
    verified(&context, "back", 0);
}

#[test]
fn umoci_images_are_read() {
    if !has_tool("umoci") {
        return;
    }
    let context = TestContext::new();
    kernels(&context);
    run(&context, &["umoci", "init", "--layout", "u"]);
    run(&context, &["umoci", "new", "--image", "u:1"]);
    run(&context, &["umoci", "unpack", "--rootless", "--image", "u:1", "bundle"]);
    let root = context.path("work/bundle/rootfs");
    for dir in ["usr/bin", "boot"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    std::os::unix::fs::symlink("usr/bin", root.join("bin")).unwrap();
    fs::copy(context.path("work/old"), root.join("usr/bin/vmlinux")).unwrap();
    fs::hard_link(root.join("usr/bin/vmlinux"), root.join("boot/vmlinux")).unwrap();
    run(&context, &["umoci", "repack", "--refresh-bundle", "--image", "u:1", "bundle"]);
    let found = inspected(&context, "u:1");
    assert_eq!(found["kernels"][0]["path"], "boot/vmlinux");
    assert_eq!(found["kernels"][0]["also_at"], json!(["usr/bin/vmlinux"]));
    verified(&context, "u", 0);
    fs::remove_file(root.join("usr/bin/vmlinux")).unwrap();
    fs::copy(context.path("work/new"), root.join("usr/bin/vmlinux")).unwrap();
    fs::remove_file(root.join("boot/vmlinux")).unwrap();
    run(&context, &["umoci", "repack", "--refresh-bundle", "--image", "u:2", "bundle"]);
    let found = inspected(&context, "u:2");
    assert_eq!((&found["release"], &found["kernels"].as_array().unwrap().len()), (&json!("6.1.8"), &1));
    verified(&context, "u", 0);
    run(&context, &["umoci", "insert", "--rootless", "--image", "u:2", "text", "/usr/bin/vmlinux"]);
    assert_eq!(inspected(&context, "u:2")["kind"], "other");
}

#[test]
fn images_copied_by_skopeo_keep_their_kernel() {
    if !has_tool("skopeo") {
        return;
    }
    let context = TestContext::new();
    context.build("").ok();
    let skopeo = |from: &str, to: &str, format: &[&str]| {
        run(&context, &[&["skopeo", "--insecure-policy", "copy", "-q"], format, &[from, to]].concat());
    };
    let ours = inspected(&context, &format!("out/{BIN}"));
    for (via, format) in [
        ("docker-archive:x.tar:kernel:6.1.7", &[][..]),
        ("dir:x", &[]),
        ("dir:y", &["--format", "v2s2"]),
        ("oci-archive:y.tar:6.1.7", &[]),
    ] {
        let back = format!("back-{}/{BIN}", via.replace([':', '/'], "-"));
        skopeo(&format!("oci:out/{BIN}:6.1.7"), via, format);
        fs::create_dir_all(context.path("work").join(&back)).unwrap();
        skopeo(via, &format!("oci:{back}:6.1.7"), &[]);
        let found = inspected(&context, &back);
        assert_eq!(found["kernels"], ours["kernels"], "{via}");
        assert_eq!((&found["flavor"], &found["version"]), (&json!("firecracker"), &json!("6.1.7")), "{via}");
        let said = verified(&context, &back, 0);
        assert!(said.contains(", computed from the kernel"), "{via}: {said}");
    }
}
