//! How commands accept the name of an image: layouts, digests, full references, and archives of layouts.

use crate::support::context::{TestContext, has_tool, sha256, tar_of};
use crate::support::qemu;
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

const BIN: &str = "out/firecracker-kernel-bin-amd64";
const MODULES: &str = "out/firecracker-kernel-modules-amd64";

fn digest(context: &TestContext, image: &str) -> Value {
    context.run(&format!("inspect {image} --json")).ok().item()["digest"].clone()
}

/// Writes an archive of a layout of the output directory.
fn archive(context: &TestContext, layout: &str, name: &str) {
    let archive = tar_of(&context.path("work").join(layout), ".");
    fs::write(context.path("work").join(name), archive).unwrap();
}

fn index(context: &TestContext, layout: &str) -> Value {
    serde_json::from_slice(&fs::read(context.path("work").join(layout).join("index.json")).unwrap()).unwrap()
}

#[test]
fn an_image_has_several_names() {
    let context = TestContext::new();
    context.build("").ok();
    let expected = digest(&context, &format!("{BIN}:6.1.7"));
    let text = expected.as_str().unwrap();
    for name in [
        format!("oci:{BIN}:6.1.7"),
        format!("oci:{BIN}"),
        format!("{BIN}@{text}"),
        format!("oci:{BIN}@{text}"),
    ] {
        assert_eq!(digest(&context, &name), expected, "{name}");
        context.run(&format!("verify {name}")).ok();
        context.run(&format!("extract {name} -o vmlinux")).ok();
        assert!(context.run(&format!("diff {name} {BIN}")).ok().stdout.contains("identical"), "{name}");
    }
    let missing = format!("{BIN}@sha256:{}", "0".repeat(64));
    context.run(&format!("inspect {missing}")).failed(2, &["no image with the digest sha256:000"]);
    context.run(&format!("inspect {BIN}@sha256:00")).failed(2, &["no such directory"]);
    context.run(&format!("push registry.example/x --dry-run {BIN}@{text}")).ok();
    // The image of an index is found, too.
    context.run(&format!("inspect {BIN} --as flintlock")).ok();
}

#[test]
fn a_full_reference_in_a_layout_ends_in_its_tag() {
    let mut context = TestContext::new();
    context.build("").ok();
    for layout in [BIN, MODULES] {
        let mut index = index(&context, layout);
        let name = layout.trim_start_matches("out/");
        index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] =
            json!(format!("docker.io/foobar/{name}:6.1.7"));
        fs::write(context.path("work").join(layout).join("index.json"), index.to_string()).unwrap();
    }
    let full = format!("{BIN}:docker.io/foobar/firecracker-kernel-bin-amd64:6.1.7");
    assert_eq!(digest(&context, &full), digest(&context, &format!("{BIN}:6.1.7")));
    context.run(&format!("check {MODULES}:6.1.7 --for firecracker")).ok();
    context.run("extract 6.1 --fc -o vmlinux --modules root").ok();
    let pushed = context.run("push registry.example/x --dry-run --tag-series --no-attest").ok().stdout;
    for says in [
        "oci:out/firecracker-kernel-bin-amd64:docker.io/foobar/firecracker-kernel-bin-amd64:6.1.7",
        "docker://registry.example/x/firecracker-kernel-bin-amd64:6.1.7",
        "docker://registry.example/x/firecracker-kernel-bin-amd64:6.1\n",
    ] {
        assert!(pushed.contains(says), "`{says}` is not in:\n{pushed}");
    }
    if has_tool("gcc") && has_tool("mke2fs") {
        qemu::install(&mut context);
        context.run("boot 6.1 --fc --accel tcg").ok();
    }
}

#[test]
fn an_archive_is_read_like_its_layout() {
    let mut context = TestContext::new();
    context.build("").ok();
    archive(&context, BIN, "kernel.tar");
    archive(&context, MODULES, "modules.oci.tar");
    let before = context.snapshot("work");
    for name in ["kernel.tar", "kernel.tar:6.1.7", "oci-archive:kernel.tar:6.1.7"] {
        assert_eq!(digest(&context, name), digest(&context, BIN), "{name}");
        context.run(&format!("verify {name}")).ok();
        assert!(context.run(&format!("diff {name} {BIN}")).ok().stdout.contains("identical"), "{name}");
    }
    assert_eq!(context.snapshot("work"), before, "nothing is unpacked");
    assert!(context.run("inspect kernel.tar").ok().stdout.starts_with("kernel.tar:6.1.7\n"));
    context.run("check modules.oci.tar --for firecracker").ok();
    context.run("extract kernel.tar -o from-archive").ok();
    context.run(&format!("extract {BIN} -o from-layout")).ok();
    let bytes = |name: &str| sha256(&fs::read(context.path("work").join(name)).unwrap());
    assert_eq!(bytes("from-archive"), bytes("from-layout"));
    context.run("extract modules.oci.tar --modules root").ok();
    context.run(&format!("config diff modules.oci.tar {MODULES}")).ok();
    let pushed = context.run("push registry.example/x --dry-run kernel.tar modules.oci.tar").ok().stdout;
    assert!(
        pushed.contains("oci-archive:kernel.tar:6.1.7 docker://registry.example/x/kernel:6.1.7"),
        "{pushed}"
    );
    assert!(pushed.contains("docker://registry.example/x/modules:6.1.7"), "{pushed}");
    if has_tool("gcc") && has_tool("mke2fs") {
        qemu::install(&mut context);
        context.run("boot kernel.tar --modules modules.oci.tar --accel tcg").ok();
    }
    if has_tool("skopeo") {
        let copied = Command::new("skopeo")
            .args(["copy", "--insecure-policy", &format!("oci:{BIN}:6.1.7"), "oci-archive:skopeo.tar:6.1.7"])
            .current_dir(context.path("work"))
            .output()
            .unwrap();
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        assert_eq!(digest(&context, "skopeo.tar:6.1.7"), digest(&context, BIN));
    }
}

#[test]
fn a_hostile_archive_is_refused() {
    let context = TestContext::new();
    context.build("").ok();
    archive(&context, BIN, "good.tar");
    let good = fs::read(context.path("work/good.tar")).unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(context.path("work").join(name), bytes).unwrap();
    write("short.tar", &good[..good.len() / 2]);
    let short = context.run("verify short.tar");
    assert_eq!(short.code, 3);
    assert!(format!("{}{}", short.stdout, short.stderr).contains("truncated"), "{}", short.stdout);
    write("empty.tar", &[]);
    context.run("verify empty.tar").failed(2, &["neither an OCI layout nor an uncompressed tar"]);
    let mut builder = tar::Builder::new(Vec::new());
    let mut link = tar::Header::new_ustar();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    builder.append_link(&mut link, "index.json", "/etc/passwd").unwrap();
    write("link.tar", &builder.into_inner().unwrap());
    context.run("inspect link.tar").failed(3, &["index.json is not a regular file"]);
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(2);
    header.set_mode(0o644);
    builder.append_data(&mut header, "manifest.json", &b"[]"[..]).unwrap();
    write("docker.tar", &builder.into_inner().unwrap());
    context.run("inspect docker.tar").failed(2, &["is not an oci-archive", "docker-archive:"]);
    // A flipped bit of a blob is found, as in a layout.
    let mut flipped = good;
    let layer = flipped.windows(4).position(|bytes| bytes == [0x1f, 0x8b, 8, 0]).unwrap();
    flipped[layer + 100] ^= 1;
    write("flipped.tar", &flipped);
    assert_eq!(context.run("verify flipped.tar").code, 3);
    // A `.config` is no archive.
    context.run("check mini.config --for firecracker --arch amd64 --kernel 6.1.7").ok();
}

#[test]
fn without_names_all_images_of_the_output_directory_are_taken() {
    let context = TestContext::new();
    context.run("verify").failed(2, &["cannot read the output directory", "hint: "]);
    context.build("--timings=html,json").ok();
    let inspected = context.run("inspect --json").ok().json();
    assert_eq!(inspected["items"].as_array().unwrap().len(), 2, "{inspected:#}");
    let verified = context.run("verify --json").ok().json();
    assert!(verified["items"].as_array().unwrap().len() >= 2, "{verified:#}");
    // A shell gives receipts and reports for `out/*`, too.
    let names = context.names("work/out").into_iter();
    let all: Vec<String> =
        names.filter(|name| !name.starts_with('.')).map(|name| format!("out/{name}")).collect();
    assert!(all.iter().any(|name| name.ends_with(".json")) && all.iter().any(|name| name.ends_with(".html")));
    for command in ["inspect", "verify", "push registry.example/x --dry-run"] {
        context.run(&format!("{command} {}", all.join(" "))).ok();
    }
    let receipt = all.iter().find(|name| name.ends_with("amd64.json")).unwrap();
    context.run(&format!("inspect {receipt}")).failed(2, &["neither an OCI layout"]);
    fs::rename(context.path("work/out"), context.path("work/images")).unwrap();
    fs::write(context.path("work/kcompile.toml"), "output = \"images\"\n").unwrap();
    assert_eq!(context.run("inspect --json").ok().json()["items"].as_array().unwrap().len(), 2);
}
