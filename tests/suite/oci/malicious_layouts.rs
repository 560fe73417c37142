//! Malicious layouts for every command that reads one. Each is refused with the broken rule, and
//! nothing is written.

use crate::support::context::{TestContext, compress};
use crate::support::fixtures::{Parts, craft, kernel, rewrite, tar_with};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use tar::EntryType::{Regular, Symlink};

/// Checks that inspect, verify, diff and check refuse the layout with this message.
#[track_caller]
fn refused(context: &TestContext, layout: &Utf8Path, says: &str) {
    let before = context.snapshot("work");
    for args in ["inspect", "inspect --json", "verify", "verify --json"] {
        let told = context.run(&format!("{args} {layout}"));
        all_refuse(&told, says, args);
    }
    let told = context.run(&format!("diff {layout} {layout}"));
    all_refuse(&told, says, "diff");
    assert_eq!(context.snapshot("work"), before, "something was written");
}

#[track_caller]
fn all_refuse(told: &crate::support::context::RunResult, says: &str, args: &str) {
    assert_eq!(told.code, 3, "{args}: {}{}", told.stdout, told.stderr);
    let words = |text: &str| text.split_whitespace().collect::<String>();
    let said = words(&format!("{}{}", told.stdout, told.stderr));
    assert!(said.contains(&words(says)), "{args}: `{says}` is not in:\n{}{}", told.stdout, told.stderr);
    let is_plain = |text: &str| !text.chars().any(|c| c.is_control() && c != '\n');
    assert!(is_plain(&told.stdout) && is_plain(&told.stderr), "{args}: {}", told.stderr);
}

/// Makes a small valid layout without compression.
fn good(context: &TestContext) -> Utf8PathBuf {
    let tar = tar_with(&[("bin/vmlinux", Regular, b"Linux version 6.1.7 (x)\0")]);
    craft(context, &tar, &tar, "layer.v1.tar");
    context.path("work/crafted")
}

fn layer_of(layout: &Utf8Path) -> Utf8PathBuf {
    let json = |path: &Utf8Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let blob = |digest: &Value| layout.join("blobs").join(digest.as_str().unwrap().replace(':', "/"));
    let index = json(&layout.join("index.json"));
    blob(&json(&blob(&index["manifests"][0]["digest"]))["layers"][0]["digest"])
}

#[test]
fn oversized_deep_or_special_indexes_are_refused() {
    let context = TestContext::new();
    let layout = good(&context);
    let index = layout.join("index.json");
    let whole = fs::read(&index).unwrap();
    fs::write(&index, vec![b' '; 5 << 20]).unwrap();
    refused(&context, &layout, "index.json: larger than 4 MiB");
    fs::write(&index, "[".repeat(1 << 20)).unwrap();
    refused(
        &context,
        &layout,
        "index.json does not have the content that the OCI image specification requires",
    );
    fs::write(&index, format!("{{\"schemaVersion\":2,\"x\":{}", "[".repeat(1 << 20))).unwrap();
    refused(
        &context,
        &layout,
        "index.json does not have the content that the OCI image specification requires",
    );
    fs::remove_file(&index).unwrap();
    fs::write(context.path("work/elsewhere"), &whole).unwrap();
    symlink("../elsewhere", &index).unwrap();
    refused(&context, &layout, "cannot read");
    fs::remove_file(&index).unwrap();
    fs::create_dir(&index).unwrap();
    refused(&context, &layout, "index.json: not a regular file, but a directory");
}

#[test]
fn too_many_indexes_or_layers_are_refused() {
    let context = TestContext::new();
    let layout = good(&context);
    let mut index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    for _ in 0..10 {
        let bytes = index.to_string();
        let digest = crate::support::context::sha256(bytes.as_bytes());
        fs::write(layout.join("blobs/sha256").join(&digest), &bytes).unwrap();
        let kind = "application/vnd.oci.image.index.v1+json";
        let inner = json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len()});
        index = json!({"schemaVersion": 2, "manifests": [inner]});
    }
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    refused(&context, &layout, "indexes are nested more than 8 levels deep");

    let layout = good(&context);
    let tower = |parts: &mut Parts| {
        let (layer, id) =
            (parts.manifest["layers"][0].clone(), parts.config["rootfs"]["diff_ids"][0].clone());
        parts.manifest["layers"].as_array_mut().unwrap().resize(200, layer);
        parts.config["rootfs"]["diff_ids"].as_array_mut().unwrap().resize(200, id);
    };
    rewrite(&layout, tower);
    refused(&context, &layout, "the image has 200 layers, but at most 127 are supported");
}

#[test]
fn blobs_that_are_links_or_have_a_wrong_size_are_refused() {
    let context = TestContext::new();
    let layout = good(&context);
    let layer = layer_of(&layout);
    let bytes = fs::read(&layer).unwrap();
    fs::rename(&layer, context.path("work/elsewhere")).unwrap();
    symlink(context.path("work/elsewhere"), &layer).unwrap();
    refused(&context, &layout, "cannot read");
    fs::remove_file(&layer).unwrap();
    fs::write(&layer, &bytes[..bytes.len() - 512]).unwrap();
    refused(&context, &layout, "size mismatch: expected");
    fs::rename(layout.join("blobs"), context.path("work/blobs")).unwrap();
    symlink("../blobs", layout.join("blobs")).unwrap();
    refused(&context, &layout, "blobs is not a directory");
}

#[test]
fn escaping_entries_and_bombs_in_layers_are_refused() {
    let context = TestContext::new();
    let given = |entries: &[(&str, tar::EntryType, &[u8])], kind: &str, says: &str| {
        let tar = tar_with(entries);
        let stored = if kind.is_empty() { tar.clone() } else { compress(&tar, kind) };
        let suffix = match kind {
            "gz" => "+gzip",
            "zst" => "+zstd",
            _ => "",
        };
        craft(&context, &tar, &stored, &format!("layer.v1.tar{suffix}"));
        refused(&context, &context.path("work/crafted"), says);
    };
    given(&[("../../etc/passwd", Regular, b"x")], "", "`../../etc/passwd` is not a path inside the image");
    given(&[("/etc/passwd", Regular, b"x")], "gz", "`/etc/passwd` is not a path inside the image");
    given(&[("../\x1b[2J\x07", Regular, b"x")], "zst", "\\u{1b}[2J");
    given(&[("bin/a", Regular, b"x"), ("./bin/a", Regular, b"y")], "", "two entries have the name bin/a");
    given(&[("a", Symlink, b"x")], "", "is not a file, but has 1 bytes");
    // A few kilobytes in place of the kernel's config that decompress to 17 MB.
    let inside = [b"IKCFG_ST", &compress(&vec![b'\n'; 17 << 20], "gz")[..]].concat();
    let tar = tar_with(&[("bin/vmlinux", Regular, &inside)]);
    craft(&context, &tar, &tar, "layer.v1.tar");
    let told = context.run("verify crafted --json");
    assert!(
        told.code == 1 && told.stdout.contains("it is larger than 16777216 bytes when decompressed"),
        "{}",
        told.stdout
    );
}

#[test]
fn escaping_links_and_setuid_files_are_reported() {
    let context = TestContext::new();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(Symlink);
    header.set_size(0);
    tar.append_link(&mut header, "lib", "/usr/lib").unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(1);
    header.set_mode(0o4755);
    tar.append_data(&mut header, "x", &b"x"[..]).unwrap();
    let kernel = kernel("6.1.7");
    let mut header = tar::Header::new_ustar();
    header.set_size(kernel.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "bin/vmlinux", &kernel[..]).unwrap();
    let tar = tar.into_inner().unwrap();
    craft(&context, &tar, &tar, "layer.v1.tar");
    let told = context.run("verify crafted");
    let said = told.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(told.code, 1, "{said}");
    assert!(said.contains("FAILED entries lib is a symbolic link that leaves the image: /usr/lib"), "{said}");
    assert!(said.contains("x has the mode 4755, with setuid, setgid or sticky"), "{said}");
}

#[test]
fn multi_member_layers_are_read_completely() {
    let context = TestContext::new();
    let kernel = [&b"Linux version 6.1.7 (x)\0"[..], &[0; 3000]].concat();
    let tar = tar_with(&[
        ("bin/vmlinux", Regular, &kernel),
        ("boot/vmlinux", Regular, b"Linux version 6.1.7 (y)\0"),
    ]);
    for (kind, suffix) in [("gz", "gzip"), ("zst", "zstd")] {
        let parts: Vec<u8> = tar.chunks(1000).flat_map(|part| compress(part, kind)).collect();
        craft(&context, &tar, &parts, &format!("layer.v1.tar+{suffix}"));
        let inspected = context.run("inspect crafted --json").ok().item();
        assert_eq!(inspected["layers"][0]["plain_bytes"], json!(tar.len()), "{kind}");
        assert_eq!(inspected["kernels"].as_array().unwrap().len(), 2, "{kind}");
    }
}
