//! Kernels of built images in the loader crate of Firecracker and Cloud Hypervisor. The crate loads ELF files and
//! bzImages on x86-64 only.

#![cfg(target_arch = "x86_64")]

use crate::support::context::{CONFIG, TestContext};
use crate::support::layouts::descriptor;
use crate::support::loader::{Loaded, load};
use camino::{Utf8Path, Utf8PathBuf};
use object::{Object, ObjectSymbol};
use serde_json::Value;
use std::fs;
use std::io::Read;

/// The difference between the addresses of symbols and those in memory.
const MAP: u64 = 0xffff_ffff_8000_0000;

fn blob(layout: &Utf8Path, descriptor: &Value) -> Vec<u8> {
    let name = descriptor["digest"].as_str().unwrap().replace(':', "/");
    fs::read(layout.join("blobs").join(name)).unwrap()
}

/// Writes the first file of an image whose path has this end, and returns its path.
fn file_of(context: &TestContext, layout: &str, end: &str) -> Utf8PathBuf {
    let layout = context.path("work/out").join(layout);
    let manifest: Value = serde_json::from_slice(&blob(&layout, &descriptor(&layout, "6.1.7"))).unwrap();
    let layer = blob(&layout, &manifest["layers"][0]);
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(&layer[..]));
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        if path.ends_with(end) && entry.header().entry_type().is_file() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            let to = context.path(&format!("work/{}", path.replace('/', "-")));
            fs::write(&to, bytes).unwrap();
            return to;
        }
    }
    panic!("{layout} has no {end}");
}

fn loaded(path: &Utf8Path) -> Result<Loaded, String> {
    load(path.as_std_path())
}

#[test]
fn kernels_load_as_their_hypervisors_load_them() {
    let context = TestContext::new();
    context.build("").ok();
    let vmlinux = file_of(&context, "firecracker-kernel-bin-amd64", "vmlinux");
    let bytes = fs::read(&vmlinux).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let address = |name: &str| file.symbols().find(|one| one.name() == Ok(name)).unwrap().address() - MAP;
    let pvh = address("pvh_start_xen");
    assert_eq!(loaded(&vmlinux), Ok(Loaded::Elf { entry: file.entry(), pvh: Some(pvh) }));
    // Cloud Hypervisor enters the stripped file at the same address.
    context.run("6.1.7 --ch --source linux --config mini.config").ok();
    let stripped = file_of(&context, "cloudhypervisor-kernel-bin-amd64", "vmlinux.bin");
    assert_eq!(loaded(&stripped), Ok(Loaded::Elf { entry: file.entry(), pvh: Some(pvh) }));
    // Firecracker also loads a kernel without PVH.
    fs::write(context.path("work/mini.config"), CONFIG.replace("CONFIG_PVH=y\n", "")).unwrap();
    context.build("--require none").ok();
    let without = file_of(&context, "firecracker-kernel-bin-amd64", "vmlinux");
    let Ok(Loaded::Elf { pvh: None, .. }) = loaded(&without) else { panic!("{:?}", loaded(&without)) };
}

#[test]
fn loaders_refuse_what_is_no_kernel_for_them() {
    let context = TestContext::new();
    context.build("").ok();
    let vmlinux = file_of(&context, "firecracker-kernel-bin-amd64", "vmlinux");
    let whole = fs::read(&vmlinux).unwrap();
    let refused = |path: &Utf8Path, says: &str| {
        let error = loaded(path).unwrap_err();
        assert!(error.contains(says), "{path}: {error}");
    };
    let changed = |bytes: &[u8], says: &str| {
        fs::write(&vmlinux, bytes).unwrap();
        refused(&vmlinux, says);
    };
    changed(&whole[..4096 + 16], "Unable to read kernel image");
    changed(&whole[..40], "Unable to read elf header");
    changed(b"#!/bin/sh\n", "Unable to read elf header");
    changed(&[&b"\x1f\x8b"[..], &whole[2..]].concat(), "Invalid bzImage");
    let mut below = whole.clone();
    // The entry address, below the first megabyte.
    below[24..32].copy_from_slice(&0x1000_u64.to_le_bytes());
    changed(&below, "Invalid entry address");
    let module = file_of(&context, "firecracker-kernel-modules-amd64", ".ko");
    refused(&module, "Invalid program header size");
}

#[test]
fn a_bzimage_loads_and_an_arm64_image_does_not() {
    let context = TestContext::new();
    let path = context.path("work/image");
    let mut image = vec![0; 4096];
    image[0x1f1] = 1; // setup sectors
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
    image[0x211] = 1; // loaded high
    image[0x214..0x218].copy_from_slice(&0x10_0000_u32.to_le_bytes());
    fs::write(&path, &image).unwrap();
    assert_eq!(loaded(&path), Ok(Loaded::BzImage { protocol: (2, 15), entry: 0x10_0000 }));
    image[0x38..0x3c].copy_from_slice(b"ARM\x64");
    image[0x202] = 0;
    fs::write(&path, &image).unwrap();
    assert!(loaded(&path).unwrap_err().contains("Invalid bzImage"));
}
