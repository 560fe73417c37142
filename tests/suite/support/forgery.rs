//! Forges images and attachments in a registry.

use crate::support::context::sha256;
use crate::support::registry::{Registry, Store};
use camino::Utf8Path;
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

/// Renames tags in all repositories below `prefix`.
pub(crate) fn move_repositories(store: &Store, prefix: &str, tags: &[(&str, &str)]) {
    let mut store = store.lock().unwrap();
    let start = format!("/v2/{prefix}/");
    let all: Vec<String> = store.keys().filter(|path| path.starts_with(&start)).cloned().collect();
    for path in all {
        let renamed = tags.iter().fold(path.clone(), |path, (old, new)| path.replace(old, new));
        if renamed != path {
            let bytes = store.remove(&path).unwrap();
            store.insert(renamed, bytes);
        }
    }
}

/// Copies all repositories below `from` to `to`.
pub(crate) fn copy_repositories(store: &Store, from: &str, to: &str) {
    let mut store = store.lock().unwrap();
    let (from, to) = (format!("/v2/{from}/"), format!("/v2/{to}/"));
    let all: Vec<_> = store.iter().filter(|(path, _)| path.starts_with(&from)).collect();
    let all: Vec<_> =
        all.into_iter().map(|(path, bytes)| (path.replace(&from, &to), bytes.clone())).collect();
    store.extend(all);
}

/// Returns the digits of the digest of the first manifest.
pub(crate) fn manifest_digest(layout: &Utf8Path) -> String {
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    index["manifests"][0]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned()
}

/// Copies the image `6.1.7` of a layout to a registry.
pub(crate) fn skopeo_push(registry: &Registry, layout: &Utf8Path, to: &str) {
    let (from, to) = (format!("oci:{layout}:6.1.7"), format!("docker://{}/{to}", registry.host()));
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["--insecure-policy", "copy", "--preserve-digests", "--dest-tls-verify=false", &from, &to]);
    let output = skopeo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Replaces a digest in the documents that are attached to `build`, and corrects all other digests.
pub(crate) fn forge_attachments(store: &Store, repository: &str, build: &str, old: &str, new: &str) {
    let mut store = store.lock().unwrap();
    let place = format!("{repository}/manifests/{build}-attest");
    let mut index: Value = serde_json::from_slice(&store[&place]).unwrap();
    for descriptor in index["manifests"].as_array_mut().unwrap() {
        let digest = descriptor["digest"].as_str().unwrap().to_owned();
        let text = String::from_utf8(store[&format!("{repository}/manifests/{digest}")].clone()).unwrap();
        let mut manifest: Value = serde_json::from_str(&text.replace(old, new)).unwrap();
        let file = &mut manifest["layers"][0];
        let bytes = store[&format!("{repository}/blobs/{}", file["digest"].as_str().unwrap())].clone();
        let bytes = match String::from_utf8(bytes) {
            Ok(text) => text.replace(old, new).into_bytes(),
            Err(binary) => binary.into_bytes(),
        };
        let mut put = |kind: &str, descriptor: &mut Value, bytes: Vec<u8>| {
            let digest = format!("sha256:{}", sha256(&bytes));
            descriptor["digest"] = json!(digest);
            descriptor["size"] = json!(bytes.len());
            store.insert(format!("{repository}/{kind}/{digest}"), bytes);
        };
        put("blobs", file, bytes);
        put("manifests", descriptor, manifest.to_string().into_bytes());
    }
    store.insert(place, index.to_string().into_bytes());
}

/// Corrects the checksum of a header of a tar.
pub(crate) fn correct_checksum(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}
