//! `kcompile verify` checks every byte and every annotation of an image.

use crate::support::context::{RunResult, TestContext};
use crate::support::fixtures::{Parts, replace, rewrite};
use crate::support::layouts::{copy_of, fails, verified, words};
use camino::{Utf8Path, Utf8PathBuf};
use kcompile::internals::VerifyReport;
use serde_json::{Value, json};
use std::fs;

const BIN: &str = "out/firecracker-kernel-bin-amd64";
const MODULES: &str = "out/firecracker-kernel-modules-amd64";

#[test]
fn verify_accepts_what_was_built() {
    let context = TestContext::new();
    context.build("--legacy --set IKCONFIG=y").ok();
    let before = context.snapshot("work/out");
    let told = context.run(&format!("verify {BIN}:6.1.7 {MODULES} out/flintlock-kernel {BIN}-attest")).ok();
    let said = words(&told.stdout);
    for text in [
        "out/firecracker-kernel-bin-amd64:6.1.7 sha256:",
        "ok index tag 6.1.7, linux on amd64",
        "ok blobs manifest, config, 1 layer, ",
        "ok entries 4 entries, sorted, of user 0, dated as the image",
        "ok kernel Linux 6.1.7, an ELF file for x86-64 with a PVH note",
        "ok config inside bin/vmlinux, as annotated",
        "computed from the kernel, the same in firecracker-kernel-modules-amd64",
        "ok receipt firecracker-6.1.7-amd64.json names this image",
        "ok modules 4 modules for Linux 6.1.7 on amd64",
        "attached to an image: sizes and digests",
    ] {
        assert!(said.contains(text), "`{text}` is not in:\n{}", told.stdout);
    }
    assert!(told.stdout.lines().all(|line| line.chars().count() <= 80), "{}", told.stdout);
    let json: Value =
        serde_json::from_str(&context.run(&format!("verify {BIN} --json")).ok().stdout).unwrap();
    assert_eq!(
        (&json["items"][0]["ok"], &json["items"][0]["checks"][0]["outcome"]),
        (&json!(true), &json!("holds"))
    );
    assert_eq!(context.snapshot("work/out"), before, "nothing was written");
    for kind in ["zstd", "none"] {
        context.build(&format!("--modules-layout flat --compression {kind}")).ok();
        context.run(&format!("verify {BIN} {MODULES}")).ok();
    }
    context.run(&format!("verify {BIN}:6.1.8")).failed(2, &["no image with the tag 6.1.8"]);
    context.run("verify nowhere").failed(2, &["no such directory"]);
}

#[test]
fn one_flipped_byte_anywhere_is_found() {
    let context = TestContext::new();
    context.build("").ok();
    for layout in [BIN, MODULES] {
        let layout = context.path("work").join(layout);
        assert!(verified(&layout).iter().all(VerifyReport::passes));
        for file in walkdir::WalkDir::new(&layout).into_iter().map(Result::unwrap) {
            if !file.file_type().is_file() {
                continue;
            }
            let (path, bytes) = (file.path(), fs::read(file.path()).unwrap());
            // The whole index, which no digest covers, and a sample of the bytes of large files.
            let step = if path.ends_with("index.json") { 1 } else { bytes.len() / 50 + 1 };
            // With another key the tag is a foreign annotation, and the image has no tag.
            let key = b"org.opencontainers.image.ref.name";
            let key_at = bytes.windows(key.len()).position(|window| window == key);
            let is_key = |at: usize| key_at.is_some_and(|from| (from..from + key.len()).contains(&at));
            for at in (0..bytes.len()).step_by(step).filter(|&at| !is_key(at)) {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1;
                fs::write(path, flipped).unwrap();
                let found = match path.ends_with("oci-layout") {
                    true => kcompile::internals::verify(&layout, None, &mut Default::default(), |one| {
                        assert!(!one.passes(), "byte {at} of {}", path.display());
                        Ok(())
                    })
                    .is_ok(),
                    false => !verified(&layout).iter().all(VerifyReport::passes),
                };
                assert!(found, "byte {at} of {} was flipped", path.display());
            }
            fs::write(path, bytes).unwrap();
        }
        assert!(verified(&layout).iter().all(VerifyReport::passes));
    }
}

#[test]
fn a_damaged_blob_is_named_by_what_it_is() {
    let context = TestContext::new();
    context.build("").ok();
    let layout = context.path("work").join(BIN);
    let blob = |digest: &Value| layout.join("blobs").join(digest.as_str().unwrap().replace(':', "/"));
    let json = |path: &Utf8Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let index = json(&layout.join("index.json"));
    let manifest_path = blob(&index["manifests"][0]["digest"]);
    let manifest = json(&manifest_path);
    let damaged = |path: &Utf8Path, says: &[&str]| {
        let bytes = fs::read(path).unwrap();
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 0x10;
        fs::write(path, flipped).unwrap();
        let RunResult { code, stdout, .. } = context.run(&format!("verify {BIN}"));
        fs::write(path, bytes).unwrap();
        assert_eq!(code, 3, "{stdout}");
        let (said, name) = (stdout.replace(['\n', ' '], ""), path.file_name().unwrap());
        assert!(said.contains(name), "{name} is not in:\n{stdout}");
        says.iter().for_each(|says| assert!(words(&stdout).contains(says), "`{says}` is not in:\n{stdout}"));
    };
    damaged(&manifest_path, &["DAMAGED blobs", "checksum mismatch: expected"]);
    damaged(&blob(&manifest["config"]["digest"]), &["DAMAGED blobs", "checksum mismatch: expected"]);
    damaged(&blob(&manifest["layers"][0]["digest"]), &["DAMAGED blobs", "checksum mismatch: expected"]);
    fs::write(layout.join("index.json"), b"{").unwrap();
    let told = context.run(&format!("verify {BIN} {MODULES}"));
    assert_eq!(told.code, 3);
    let said = words(&told.stdout);
    assert!(
        said.contains("DAMAGED index")
            && said
                .contains("index.json does not have the content that the OCI image specification requires")
    );
    assert!(said.contains("ok modules 4 modules"), "the other layout is verified all the same: {said}");
}

#[test]
fn modules_that_the_kernel_would_refuse_are_listed() {
    let context = TestContext::new();
    context.build("--compression none").ok();
    let edited = |change: fn(&mut Parts)| {
        let copy = copy_of(&context, MODULES);
        rewrite(&copy, change);
        copy.into_string()
    };
    let other = edited(|parts| replace(&mut parts.tar, b"\0vermagic=6.1.7 ", b"\0vermagic=6.1.8 "));
    fails(&context, &other, &["FAILED modules lib/modules/6.1.7/kernel/", " is for Linux 6.1.8, not 6.1.7"]);
    let mute = edited(|parts| replace(&mut parts.tar, b"\0vermagic=", b"\0vermagix="));
    fails(&context, &mute, &["has no vermagic, so its kernel is unknown"]);
    let machine = edited(|parts| replace(&mut parts.tar, b"\x7fELF\x02\x01", b"\x7fELF\x01\x01"));
    fails(&context, &machine, &["is not a module for amd64: it is an ELF file, but not a 64-bit"]);
    let config = edited(|parts| replace(&mut parts.tar, b"CONFIG_DUMMY=m", b"CONFIG_DUMMY=y"));
    fails(
        &context,
        &config,
        &["FAILED config lib/modules/6.1.7/config has the digest sha256:", "but the annotation says"],
    );
}

#[test]
fn kernel_files_are_checked_for_their_hypervisor() {
    let context = TestContext::new();
    context.tree("6.1.7", "work/linux");
    context.run("6.1.7 --ch --source linux --config mini.config --compression none").ok();
    let layout = "out/cloudhypervisor-kernel-bin-amd64";
    let edited = |change: fn(&mut Parts)| {
        let copy = copy_of(&context, layout);
        rewrite(&copy, change);
        copy.into_string()
    };
    let note = edited(|parts| replace(&mut parts.tar, b"\x12\0\0\0Xen\0", b"\x11\0\0\0Xen\0"));
    fails(
        &context,
        &note,
        &["FAILED kernel bin/vmlinux.bin has no PVH note, so Cloud Hypervisor would not load it"],
    );
    fails(&context, &note, &["FAILED pairing", "which does not follow from kernel and config"]);
    let small = edited(|parts| replace(&mut parts.tar, b"\x7fELF\x02", b"\x7fELF\x01"));
    fails(
        &context,
        &small,
        &["bin/vmlinux.bin is not an ELF file for x86-64: it is an ELF file, but not a 64-bit"],
    );
    let none = edited(|parts| replace(&mut parts.tar, b"\x7fELF", b"\x7fELG"));
    fails(&context, &none, &["it is a raw binary, as objcopy -O binary writes it"]);
}

#[test]
fn annotations_must_match_the_image() {
    let context = TestContext::new();
    context.build("--compression none").ok();
    let edited = |change: fn(&mut Parts)| {
        let copy = copy_of(&context, BIN);
        rewrite(&copy, change);
        copy.into_string()
    };
    let ours = "io.github.kcompile.";
    let both = |parts: &mut Parts, key: &str, value: &str| {
        parts.manifest["annotations"][key] = json!(value);
        parts.config["config"]["Labels"][key] = json!(value);
    };
    fails(
        &context,
        &edited(|parts| parts.config["config"]["Labels"]["x"] = json!("y")),
        &["the label x has no annotation"],
    );
    let tag = edited(|parts| {
        parts.index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] = json!("6.1.9");
    });
    fails(&context, &tag, &["FAILED index the tag is 6.1.9, but the image has the version 6.1.7"]);
    let platform = edited(|parts| parts.index["manifests"][0]["platform"]["architecture"] = json!("arm64"));
    fails(&context, &platform, &["the index has linux on arm64, the image's config linux on amd64"]);
    let copy = copy_of(&context, BIN);
    rewrite(&copy, |parts| both(parts, &format!("{ours}kernel.release"), "6.1.8"));
    fails(&context, copy.as_str(), &["bin/vmlinux is Linux 6.1.7, but the annotation says 6.1.8"]);
    let copy = copy_of(&context, BIN);
    rewrite(&copy, |parts| both(parts, &format!("{ours}pairing"), "sha256:0"));
    fails(
        &context,
        copy.as_str(),
        &["FAILED pairing the annotation says sha256:0, which does not follow from kernel"],
    );
    let date = edited(|parts| parts.config["created"] = json!("2020-01-01T00:00:00Z"));
    fails(
        &context,
        &date,
        &["has the date", "which is not that of the image", "the date in the annotations is not that"],
    );
}

#[test]
fn kernel_and_modules_of_different_builds_are_detected() {
    let context = TestContext::new();
    context.build("").ok();
    let kept = copy_of(&context, MODULES);
    context.build("--set PSI=y").ok();
    let modules = context.path("work").join(MODULES);
    fs::remove_dir_all(&modules).unwrap();
    fs::rename(kept, &modules).unwrap();
    fails(&context, BIN, &["FAILED pairing", "firecracker-kernel-modules-amd64 is of another build"]);
    fails(&context, MODULES, &["FAILED pairing", "firecracker-kernel-bin-amd64 is of another build"]);
    let receipt = context.path("work/out/firecracker-6.1.7-amd64.json");
    fs::remove_dir_all(&modules).unwrap();
    let text = fs::read_to_string(&receipt)
        .unwrap()
        .replace("\"kernel_release\": \"6.1.7\"", "\"kernel_release\": \"6\"");
    fs::write(&receipt, text).unwrap();
    fails(&context, BIN, &["FAILED receipt the receipt has the release 6, the image 6.1.7"]);
}

#[test]
fn foreign_images_are_only_checked_against_the_oci_rules() {
    let context = TestContext::new();
    context.build("--compression none").ok();
    let copy = copy_of(&context, BIN);
    rewrite(&copy, |parts| {
        for all in [&mut parts.manifest["annotations"], &mut parts.config["config"]["Labels"]] {
            all.as_object_mut().unwrap().retain(|key, _| !key.contains("kcompile"));
            all["org.opencontainers.image.vendor"] = json!("somebody");
        }
        parts.config["created"] = json!("2020-01-01T00:00:00Z");
    });
    let told = context.run(&format!("verify {copy}")).ok();
    let said = words(&told.stdout);
    assert!(said.contains("ok entries 4 entries, none is dangerous"), "{said}");
    assert!(said.contains("- pairing the image has no annotation about its build"), "{said}");
}

#[test]
fn all_depmod_files_are_required() {
    let context = TestContext::new();
    context.build("--compression none").ok();
    let modules = context.path("work").join(MODULES);
    assert!(verified(&modules).iter().all(VerifyReport::passes));
    let names = |at: &str| -> Vec<String> {
        let layer = fs::read(largest_blob(&context.path("work").join(at))).unwrap();
        let mut archive = tar::Archive::new(&layer[..]);
        let entries = archive.entries().unwrap().map(Result::unwrap);
        entries.map(|entry| entry.path().unwrap().display().to_string()).collect()
    };
    let files: Vec<String> = names(MODULES).into_iter().filter(|path| path.contains("/modules.")).collect();
    assert!(files.len() >= 13, "{files:?}");
    for file in files.iter().chain(["lib/modules/6.1.7/config".to_owned()].iter()) {
        let copy = copy_of(&context, MODULES);
        rewrite(&copy, |parts| parts.tar = without(&parts.tar, file));
        let told = context.run(&format!("verify {copy}"));
        let said = words(&told.stdout);
        assert!(told.code == 1 && said.contains("FAILED modules"), "{file}: {said}");
        assert!(said.contains(&format!("there is no {file}")), "{file}: {said}");
    }
    context.build("--modules-layout flat --compression none").ok();
    assert!(verified(&modules).iter().all(VerifyReport::passes));
    let copy = copy_of(&context, MODULES);
    rewrite(&copy, |parts| parts.tar = without(&parts.tar, "modules.alias"));
    fails(&context, copy.as_str(), &["there is no modules.alias"]);
    // Before Linux 5.2 there was no modules.builtin.modinfo.
    context.tree("4.19.7", "work/old");
    context.run("4.19.7 --fc --source old --config mini.config --compression none -o old-out").ok();
    let old = context.path("work/old-out/firecracker-kernel-modules-amd64");
    assert!(
        verified(&old).iter().all(VerifyReport::passes),
        "{}",
        context.run(&format!("verify {old}")).stdout
    );
    rewrite(&old, |parts| parts.tar = without(&parts.tar, "lib/modules/4.19.7/modules.builtin.modinfo"));
    assert!(
        verified(&old).iter().all(VerifyReport::passes),
        "{}",
        context.run(&format!("verify {old}")).stdout
    );
}

/// Returns the largest blob of a layout, which is its layer.
fn largest_blob(layout: &Utf8Path) -> Utf8PathBuf {
    let blobs = layout.join("blobs/sha256").read_dir_utf8().unwrap().map(|blob| blob.unwrap().into_path());
    blobs.max_by_key(|blob| blob.metadata().unwrap().len()).unwrap()
}

/// Returns a tar without one of its entries.
fn without(tar: &[u8], path: &str) -> Vec<u8> {
    let mut left = tar::Builder::new(Vec::new());
    for entry in tar::Archive::new(tar).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().to_str() != Some(path) {
            let header = entry.header().clone();
            left.append(&header, &mut entry).unwrap();
        }
    }
    left.into_inner().unwrap()
}

#[test]
fn kcompile_images_must_have_the_kernel_at_its_path() {
    let context = TestContext::new();
    context.build("--compression none --legacy").ok();
    for (layout, path) in [(BIN, "bin/vmlinux"), ("out/flintlock-kernel", "boot/vmlinux")] {
        let copy = copy_of(&context, layout);
        rewrite(&copy, |parts| parts.tar = without(&parts.tar, path));
        let told = context.run(&format!("verify {copy}"));
        // A combined image still has its kernel without the second name.
        assert_eq!(told.code, i32::from(layout == BIN), "{}", told.stdout);
    }
    let copy = copy_of(&context, BIN);
    rewrite(&copy, |parts| replace(&mut parts.tar, b"bin/vmlinux\0\0", b"bin/vmlinuz\0\0"));
    rewrite(&copy, |parts| fix_checksums(&mut parts.tar));
    fails(
        &context,
        copy.as_str(),
        &["FAILED kernel there is no kernel at bin/vmlinux: there is no bin/vmlinux"],
    );
    let copy = copy_of(&context, BIN);
    rewrite(&copy, |parts| parts.tar = without(&parts.tar, "bin/vmlinux"));
    fails(&context, copy.as_str(), &["FAILED kernel there is no kernel"]);
}

/// Corrects the checksums of all headers after a change.
fn fix_checksums(tar: &mut [u8]) {
    for at in (0..tar.len()).step_by(512) {
        if tar[at..].get(257..262) == Some(b"ustar") {
            let mut header = tar::Header::new_ustar();
            header.as_mut_bytes().copy_from_slice(&tar[at..at + 512]);
            header.set_cksum();
            tar[at..at + 512].copy_from_slice(header.as_bytes());
        }
    }
}

#[test]
fn kcompile_images_must_not_be_artifacts() {
    let context = TestContext::new();
    context.build("--compression none").ok();
    let copy = copy_of(&context, BIN);
    rewrite(&copy, |parts| {
        parts.manifest["config"]["mediaType"] = json!("application/vnd.oci.empty.v1+json");
    });
    fails(
        &context,
        copy.as_str(),
        &["FAILED image its annotations are of a kcompile image, but it is an artifact"],
    );
}

#[test]
fn verify_accepts_a_second_path_of_the_kernel() {
    let context = TestContext::new();
    for second in ["boot/vmlinux", "a/first/vmlinux"] {
        context.build(&format!("--also-at {second} --legacy")).ok();
        context.run(&format!("verify {BIN} {MODULES} out/flintlock-kernel")).ok();
    }
}
