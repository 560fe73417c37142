//! Writes and checks image layouts.

use crate::support::context::{TestContext, sha256};
use camino::{Utf8Path, Utf8PathBuf};
use kcompile::internals::{VerifyReport, tags};
use serde_json::{Value, json};
use std::fs;

/// Returns the descriptor of a tag in a layout, without the tag.
pub(crate) fn descriptor(layout: &Utf8Path, tag: &str) -> Value {
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let all = index["manifests"].as_array().unwrap();
    let found =
        all.iter().find(|one| one["annotations"]["org.opencontainers.image.ref.name"] == tag).unwrap();
    json!({ "mediaType": found["mediaType"], "digest": found["digest"], "size": found["size"] })
}

/// Returns the annotations of an image.
pub(crate) fn image_annotations(layout: &Utf8Path, tag: &str) -> Value {
    let digest = descriptor(layout, tag)["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/");
    let manifest: Value = serde_json::from_slice(&fs::read(layout.join(digest)).unwrap()).unwrap();
    manifest["annotations"].clone()
}

/// Writes a layout with these manifests or indexes under these tags. Returns their digests.
pub(crate) fn write_layout(layout: &Utf8Path, tagged: &[(&str, Value)]) -> Vec<String> {
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let mut manifests = Vec::new();
    for (tag, manifest) in tagged {
        let mut descriptor = add_blob(layout, manifest.to_string().as_bytes(), &manifest["mediaType"]);
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
        manifests.push(descriptor);
    }
    let digests = manifests.iter().map(|one| one["digest"].as_str().unwrap().to_owned()).collect();
    let index = json!({ "schemaVersion": 2, "manifests": manifests });
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    digests
}

/// Adds a blob to a layout. Returns its descriptor.
pub(crate) fn add_blob(layout: &Utf8Path, bytes: &[u8], media_type: &Value) -> Value {
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    fs::write(layout.join("blobs/sha256").join(sha256(bytes)), bytes).unwrap();
    json!({ "mediaType": media_type, "digest": format!("sha256:{}", sha256(bytes)), "size": bytes.len() })
}

/// Checks that every layout in this output directory is complete, so that each tag's blobs exist
/// with the right digest.
pub(crate) fn layouts_are_whole(output: &Utf8Path, case: &str) {
    for entry in output.read_dir_utf8().into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name().starts_with('.') {
            continue;
        }
        if !path.is_dir() {
            // A receipt, or the list of compiled files.
            let file = fs::File::open(path).unwrap();
            let read = match path.extension() {
                Some("gz") => serde_json::from_reader::<_, Value>(flate2::read::GzDecoder::new(file)),
                _ => serde_json::from_reader(file),
            };
            read.unwrap_or_else(|error| panic!("{case}: {path}: {error}"));
            continue;
        }
        let tags = tags::tags(path).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert!(!tags.is_empty(), "{case}: {path} has no tag");
        for tagged in tags {
            tags::check(path, &tagged).unwrap_or_else(|error| panic!("{case}: {error}"));
        }
    }
}

/// Verifies each image of a layout in this process.
pub(crate) fn verified(layout: &Utf8Path) -> Vec<VerifyReport> {
    let mut all = Vec::new();
    kcompile::internals::verify(layout, None, &mut Default::default(), |verified| {
        all.push(verified);
        Ok(())
    })
    .unwrap();
    all
}

pub(crate) fn copy_of(context: &TestContext, layout: &str) -> Utf8PathBuf {
    let copy = context.path("work/copy").join(Utf8Path::new(layout).file_name().unwrap());
    let _ = fs::remove_dir_all(&copy);
    crate::support::context::copy(&context.path("work").join(layout), &copy);
    copy
}

/// Returns the failed checks of the only image, each with its first problem.
#[track_caller]
pub(crate) fn fails(context: &TestContext, layout: &str, says: &[&str]) {
    let told = context.run(&format!("verify {layout}"));
    assert_eq!(told.code, 1, "{}{}", told.stdout, told.stderr);
    let words = words(&told.stdout);
    for said in says {
        assert!(words.contains(said), "`{said}` is not in:\n{}", told.stdout);
    }
}

/// Returns a table as one line without padding.
pub(crate) fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
