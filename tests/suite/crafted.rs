//! Layouts that no honest tool writes, with digests that are right.

use crate::world::{World, sha256};
use camino::Utf8Path;
use serde_json::{Value, json};
use std::fs;

/// A layout with one layer, of these bytes and this type.
pub(crate) fn craft(world: &World, plain: &[u8], stored: &[u8], media_type: &str) {
    let dir = world.path("work/crafted");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    let put = |bytes: &[u8], media_type: &str| {
        fs::write(dir.join("blobs/sha256").join(sha256(bytes)), bytes).unwrap();
        json!({"mediaType": media_type, "digest": format!("sha256:{}", sha256(bytes)), "size": bytes.len()})
    };
    let oci = |kind: &str| format!("application/vnd.oci.image.{kind}");
    let layer = put(stored, &oci(media_type));
    let rootfs = json!({"type": "layers", "diff_ids": [format!("sha256:{}", sha256(plain))]});
    let config = json!({"architecture": "amd64", "os": "linux", "rootfs": rootfs});
    let config = put(config.to_string().as_bytes(), &oci("config.v1+json"));
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
    let manifest = put(manifest.to_string().as_bytes(), &oci("manifest.v1+json"));
    fs::write(dir.join("index.json"), json!({"schemaVersion": 2, "manifests": [manifest]}).to_string())
        .unwrap();
    fs::write(dir.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
}

/// A tar with these entries, whatever they are called.
pub(crate) fn tar_with(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, kind, data) in entries {
        let mut header = tar::Header::new_ustar();
        // As it is: the builder would refuse what these tests are about.
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, *data).unwrap();
    }
    tar.into_inner().unwrap()
}

/// The parts of the only image of a layout, whose layer is not compressed.
pub(crate) struct Parts {
    pub index: Value,
    pub manifest: Value,
    pub config: Value,
    pub tar: Vec<u8>,
}

/// Changes the only image of a layout, and makes all sizes and digests right again.
pub(crate) fn rewrite(layout: &Utf8Path, change: impl FnOnce(&mut Parts)) {
    let blob = |descriptor: &Value| {
        layout.join("blobs").join(descriptor["digest"].as_str().unwrap().replace(':', "/"))
    };
    let json = |path: &Utf8Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let index = json(&layout.join("index.json"));
    let manifest = json(&blob(&index["manifests"][0]));
    let config = json(&blob(&manifest["config"]));
    let tar = fs::read(blob(&manifest["layers"][0])).unwrap();
    let mut parts = Parts { index, manifest, config, tar };
    change(&mut parts);
    let put = |descriptor: &mut Value, bytes: &[u8]| {
        descriptor["digest"] = json!(format!("sha256:{}", sha256(bytes)));
        descriptor["size"] = json!(bytes.len());
        fs::write(blob(descriptor), bytes).unwrap();
    };
    let Parts { mut index, mut manifest, mut config, tar } = parts;
    put(&mut manifest["layers"][0], &tar);
    config["rootfs"]["diff_ids"][0] = json!(format!("sha256:{}", sha256(&tar)));
    put(&mut manifest["config"], config.to_string().as_bytes());
    put(&mut index["manifests"][0], manifest.to_string().as_bytes());
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
}

/// Puts `new` in the place of the only `old` in a tar; they are of one length.
pub(crate) fn replace(tar: &mut [u8], old: &[u8], new: &[u8]) {
    let at = tar.windows(old.len()).position(|bytes| bytes == old).unwrap();
    tar[at..at + new.len()].copy_from_slice(new);
}
