//! What is attached to an image: OCI 1.1 artifacts that name it as their subject, in a layout beside its own.

use super::layout::{Layout, Written};
use super::{ATTACHMENTS, Blob};
use crate::oci::annotations::TITLE;
use crate::util::error::Result;
use camino::Utf8Path;
use canon_json::CanonJsonSerialize;
use oci_spec::image::{Descriptor, ImageIndexBuilder, ImageManifestBuilder, MediaType};
use std::collections::HashMap;

/// The config of an artifact that has none, as the image specification gives it.
const EMPTY: &[u8] = b"{}";

/// A file to attach.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// What it is called where somebody unpacks it.
    pub name: String,
    /// What it is, and the type of the artifact.
    pub media_type: &'static str,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Attaches `artifacts`, and nothing else, to `image`: `<tag>-attest` in the layout `<image>-attest` stands for an
/// index over them, so that one copy takes them all, and the next image of the tag replaces them. The caller holds
/// the lock of the output directory.
pub fn attach(output: &Utf8Path, image: &Written, artifacts: &[Artifact]) -> Result<()> {
    let name = image.layout.file_name().expect("a layout has a name");
    let layout = Layout::open(output, &format!("{name}{ATTACHMENTS}"))?;
    let empty = layout.add_bytes(EMPTY)?;
    let subject = image.manifest().descriptor(MediaType::ImageManifest);
    let attached = artifacts.iter().map(|artifact| attach_one(&layout, empty, &subject, artifact));
    let index = ImageIndexBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageIndex)
        .manifests(attached.collect::<Result<Vec<_>>>()?)
        .build()
        .expect("all fields are set");
    let index = layout.add_bytes(&index.to_canon_json_vec().expect("only string keys"))?;
    layout.tag(&format!("{}{ATTACHMENTS}", image.tag), index.descriptor(MediaType::ImageIndex))
}

fn attach_one(layout: &Layout, empty: Blob, subject: &Descriptor, artifact: &Artifact) -> Result<Descriptor> {
    let title = HashMap::from([(TITLE.to_owned(), artifact.name.clone())]);
    let kind = MediaType::from(artifact.media_type);
    let mut file = layout.add_bytes(&artifact.bytes)?.descriptor(kind.clone());
    file.set_annotations(Some(title.clone()));
    let manifest = ImageManifestBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageManifest)
        .artifact_type(kind)
        .config(empty.descriptor(MediaType::EmptyJSON))
        .layers(vec![file])
        .subject(subject.clone())
        .build()
        .expect("all fields are set");
    let manifest = layout.add_bytes(&manifest.to_canon_json_vec().expect("only string keys"))?;
    let mut descriptor = manifest.descriptor(MediaType::ImageManifest);
    // Not the type: skopeo 1.9 does not know that field here, and would write another index.
    descriptor.set_annotations(Some(title));
    Ok(descriptor)
}
