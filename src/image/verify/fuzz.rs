//! Hostile layouts around arbitrary bytes, for the fuzzer and for the properties in this file.

use super::{VerifyCache, verify};
use crate::catalog::ConfigLibrary;
use crate::image::diff::diff;
use crate::image::inspect::inspect;
use crate::kconfig::explain::Renames;
use crate::kernel::binary::{ElfSections, Kernel, Module};
use crate::oci::layout_reader::LayoutReader;
use crate::oci::read::Image;
use crate::util::digest::Sha256;
use camino::Utf8Path;
use serde_json::json;
use std::fs;

/// Puts `bytes` into a layout with correct digests, and gives the layout to inspect, verify and
/// diff. The first byte chooses the place of the others. The layout must be reported on or refused,
/// without a panic and without writing.
pub fn examine(bytes: &[u8]) {
    let Some((&place, bytes)) = bytes.split_first() else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let layout = Utf8Path::from_path(dir.path()).expect("UTF-8").join("firecracker-kernel-bin-amd64");
    write_layout(&layout, place, bytes);
    let before = files_of(dir.path());
    let _ = verify(&layout, None, &mut VerifyCache::default(), |report| {
        assert!(!report.checks.is_empty(), "the report is empty");
        Ok(())
    });
    let images = LayoutReader::open(&layout).and_then(|reader| {
        let manifest_refs = reader.images(None)?;
        Ok(manifest_refs.iter().filter_map(|manifest_ref| reader.image(manifest_ref).ok()).collect())
    });
    let images: Vec<Image> = images.unwrap_or_default();
    for image in images {
        let Ok(found) = inspect(&image) else { continue };
        let renames = Renames::read(&ConfigLibrary::built_in()).expect("the built-in table");
        let same = diff((&image, &image), (&found, &found), &renames).expect("it was read before");
        assert!(same.equal && same.files.is_empty());
    }
    // diff reads files that differ in this way.
    let _ = (Kernel::read(bytes), Module::read("a.ko.xz", bytes), ElfSections::of(bytes));
    assert_eq!(files_of(dir.path()), before, "something was written");
}

fn write_layout(layout: &Utf8Path, place: u8, bytes: &[u8]) {
    fs::create_dir_all(layout.join("blobs/sha256")).expect("an empty directory");
    let put = |bytes: &[u8], kind: &str| {
        let digest = Sha256::of(bytes);
        fs::write(layout.join("blobs/sha256").join(digest.to_string()), bytes).expect("an empty directory");
        json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest.oci(), "size": bytes.len() })
    };
    let file = |path: &str| {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, path, bytes).expect("into memory");
        tar.into_inner().expect("into memory")
    };
    let (layer, kind) = match place % 8 {
        0 => (bytes.to_vec(), "layer.v1.tar"),
        1 => (bytes.to_vec(), "layer.v1.tar+gzip"),
        2 => (bytes.to_vec(), "layer.v1.tar+zstd"),
        3 => (file("bin/vmlinux"), "layer.v1.tar"),
        4 => (file("lib/modules/6.1.7/kernel/a.ko"), "layer.v1.tar"),
        _ => (file("lib/modules/6.1.7/config"), "layer.v1.tar"),
    };
    let layer = put(&layer, kind);
    // Half of the layouts have a lower layer with files and links of the same names.
    let lower = (place & 8 != 0).then(|| put(&lower_layer(), "layer.v1.tar"));
    let layers: Vec<_> = lower.into_iter().chain([layer]).collect();
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer["digest"].clone()).collect();
    let rootfs = json!({ "type": "layers", "diff_ids": diff_ids });
    let config = json!({ "architecture": "amd64", "os": "linux", "rootfs": rootfs }).to_string();
    let config = put(if place % 8 == 5 { bytes } else { config.as_bytes() }, "config.v1+json");
    let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers }).to_string();
    let manifest = put(if place % 8 == 6 { bytes } else { manifest.as_bytes() }, "manifest.v1+json");
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string();
    let index = if place % 8 == 7 { bytes } else { index.as_bytes() };
    fs::write(layout.join("index.json"), index).expect("an empty directory");
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("an empty directory");
}

fn lower_layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, link) in
        [("bin", "usr/bin"), ("boot", "/bin"), ("lib/modules/6.1.7", "../../boot"), ("x", "x")]
    {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, path, link).expect("into memory");
    }
    let mut header = tar::Header::new_ustar();
    header.set_size(1);
    tar.append_data(&mut header, "usr/bin/vmlinux", &b"x"[..]).expect("into memory");
    tar.into_inner().expect("into memory")
}

fn files_of(dir: &std::path::Path) -> Vec<String> {
    let found = walkdir::WalkDir::new(dir).sort_by_file_name().into_iter().flatten();
    found
        .map(|entry| format!("{} {:?}", entry.path().display(), entry.metadata().ok().map(|m| m.len())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A small layer, an ELF file with a note, a config and a manifest: what random bytes never come near.
    fn seeds() -> Vec<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, bytes) in [
            ("bin/vmlinux", &b"Linux version 6.1.7 (a@b) (gcc) #1\0"[..]),
            ("boot/config-6", b"CONFIG_A=y\n"),
        ] {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, path, bytes).unwrap();
        }
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(256, 0);
        for (at, byte) in
            [(18, 62), (32, 64), (54, 56), (56, 1), (64, 4), (72, 120), (96, 24), (120, 4), (128, 18)]
        {
            elf[at] = byte;
        }
        let mut upper = tar::Builder::new(Vec::new());
        for (path, kind) in [
            ("bin/.wh.vmlinux", tar::EntryType::Regular),
            ("usr/.wh..wh..opq", tar::EntryType::Regular),
            ("boot/vmlinux", tar::EntryType::Link),
            ("x/y", tar::EntryType::Symlink),
        ] {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(kind);
            header.set_size(0);
            upper.append_link(&mut header, path, "usr/bin/vmlinux").unwrap();
        }
        let index = br#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:00","size":2,"annotations":{"org.opencontainers.image.ref.name":"x"}}]}"#;
        vec![
            tar.into_inner().unwrap(),
            upper.into_inner().unwrap(),
            elf,
            index.to_vec(),
            b"\0vermagic=6.1.7 SMP \0IKCFG_ST\x1f\x8b\x08".to_vec(),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn nothing_that_is_given_makes_it_panic_or_write(
            place in 0u8..16,
            seed in 0usize..5,
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = seeds().swap_remove(seed);
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            // The whole, as often as a part of it.
            let length = (cut.index(2 * bytes.len()) + 1).min(bytes.len());
            bytes.truncate(length);
            bytes.insert(0, place);
            examine(&bytes);
        }
    }
}
