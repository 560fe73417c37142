//! Malformed layouts with correct digests.

use crate::support::context::{TestContext, sha256};
use crate::support::layouts::add_blob;
use camino::Utf8Path;
use serde_json::{Value, json};
use std::fs;

/// Makes a layout with one layer of these bytes and this media type.
pub(crate) fn craft(context: &TestContext, plain: &[u8], stored: &[u8], media_type: &str) {
    let dir = context.path("work/crafted");
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

/// Returns a tar with these entries under any names.
pub(crate) fn tar_with(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, kind, data) in entries {
        let mut header = tar::Header::new_ustar();
        // Written directly, since the builder refuses such names.
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, *data).unwrap();
    }
    tar.into_inner().unwrap()
}

/// The parts of the only image in a layout with an uncompressed layer.
pub(crate) struct Parts {
    pub index: Value,
    pub manifest: Value,
    pub config: Value,
    pub tar: Vec<u8>,
}

/// Changes the only image of a layout, and corrects all sizes and digests.
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

/// Replaces the only `old` in a tar by `new` of the same length.
pub(crate) fn replace(tar: &mut [u8], old: &[u8], new: &[u8]) {
    let at = tar.windows(old.len()).position(|bytes| bytes == old).unwrap();
    tar[at..at + new.len()].copy_from_slice(new);
}

/// The content of a path in a layer.
#[derive(Clone, Copy)]
pub(crate) enum Item<'a> {
    Dir,
    File(&'a [u8]),
    Program(&'a [u8]),
    SymLink(&'a str),
    HardLink(&'a str),
    /// An empty entry of this type.
    Other(tar::EntryType),
}

/// Returns a tar of these entries, as another tool would write it.
pub(crate) fn layer(items: &[(&str, Item<'_>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, item) in items {
        let mut header = tar::Header::new_gnu();
        header.set_mode(if matches!(item, Item::Dir | Item::Program(_)) { 0o755 } else { 0o644 });
        header.set_size(0);
        let (kind, link, bytes) = match item {
            Item::Dir => (tar::EntryType::Directory, None, &b""[..]),
            Item::File(bytes) | Item::Program(bytes) => (tar::EntryType::Regular, None, *bytes),
            Item::SymLink(to) => (tar::EntryType::Symlink, Some(to), &b""[..]),
            Item::HardLink(to) => (tar::EntryType::Link, Some(to), &b""[..]),
            Item::Other(kind) => (*kind, None, &b""[..]),
        };
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        match link {
            Some(to) => tar.append_link(&mut header, path, to).unwrap(),
            None => tar.append_data(&mut header, path, bytes).unwrap(),
        }
    }
    tar.into_inner().unwrap()
}

/// Adds an image of these uncompressed layers to a layout. Returns the descriptor of its manifest.
pub(crate) fn put_image(layout: &Utf8Path, layers: &[Vec<u8>], annotations: &Value) -> Value {
    put_manifest(layout, &blobs_of(layout, layers), "amd64", annotations)
}

/// Does the same for this architecture.
pub(crate) fn put_image_for(layout: &Utf8Path, layers: &[Vec<u8>], arch: &str) -> Value {
    put_manifest(layout, &blobs_of(layout, layers), arch, &Value::Null)
}

fn blobs_of(layout: &Utf8Path, layers: &[Vec<u8>]) -> Vec<(Value, String)> {
    let tar = json!("application/vnd.oci.image.layer.v1.tar");
    layers.iter().map(|bytes| (add_blob(layout, bytes, &tar), format!("sha256:{}", sha256(bytes)))).collect()
}

/// Does the same with layers that are already blobs, given with their diff_ids.
pub(crate) fn put_manifest(
    layout: &Utf8Path,
    layers: &[(Value, String)],
    arch: &str,
    annotations: &Value,
) -> Value {
    let diff_ids: Vec<&String> = layers.iter().map(|(_, diff_id)| diff_id).collect();
    let rootfs = json!({"type": "layers", "diff_ids": diff_ids});
    let config = json!({"architecture": arch, "os": "linux", "rootfs": rootfs}).to_string();
    let config = add_blob(layout, config.as_bytes(), &json!("application/vnd.oci.image.config.v1+json"));
    let layers: Vec<&Value> = layers.iter().map(|(layer, _)| layer).collect();
    let kind = json!("application/vnd.oci.image.manifest.v1+json");
    let mut manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers});
    if !annotations.is_null() {
        manifest["annotations"] = annotations.clone();
    }
    add_blob(layout, manifest.to_string().as_bytes(), &kind)
}

/// Writes the index of a layout with these descriptors.
pub(crate) fn put_index(layout: &Utf8Path, manifests: &[Value]) {
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
}

/// Returns a descriptor with this name.
pub(crate) fn named(mut descriptor: Value, name: &str) -> Value {
    descriptor["annotations"]["org.opencontainers.image.ref.name"] = json!(name);
    descriptor
}

/// Returns the inspected parts of an x86-64 kernel, which are an ELF file with a PVH note and a
/// banner.
pub(crate) fn kernel(release: &str) -> Vec<u8> {
    let note =
        [&4u32.to_le_bytes()[..], &8u32.to_le_bytes(), &18u32.to_le_bytes(), b"Xen\0", &[0; 8]].concat();
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(120, 0);
    // e_machine, e_phoff, e_phentsize, e_phnum; p_type PT_NOTE, p_offset, p_filesz, p_align.
    for (at, byte) in
        [(18, 62), (32, 64), (54, 56), (56, 1), (64, 4), (72, 120), (96, note.len() as u8), (112, 4)]
    {
        file[at] = byte;
    }
    file.extend(note);
    file.extend(format!("Linux version {release} (me@here) (gcc) #1 SMP\0").bytes());
    file
}
