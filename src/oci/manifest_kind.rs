//! What a manifest of a layout is.

use super::layer_entries::is_layer;
use super::read::is_image_config;
use oci_spec::image::{Descriptor, ImageManifest};

/// The kinds of manifests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestKind {
    Image,
    /// An artifact that is attached to an image.
    Referrer,
    /// An artifact of this type, or an image with a layer of this type. It has no root file system.
    Artifact(String),
    /// Another blob, of this type.
    Blob(String),
}

impl ManifestKind {
    /// Returns the name of the kind, for people.
    pub fn title(&self) -> String {
        match self {
            ManifestKind::Image => "an image".to_owned(),
            ManifestKind::Referrer => "an artifact that is attached to an image".to_owned(),
            ManifestKind::Artifact(kind) => format!("an artifact of type {kind}"),
            ManifestKind::Blob(kind) => format!("a blob of type {kind}"),
        }
    }
}

/// Returns whether it is an attestation manifest of BuildKit, which has an annotation instead of a `subject`.
pub fn is_attestation(manifest: &Descriptor) -> bool {
    let annotations = manifest.annotations().as_ref();
    annotations
        .and_then(|all| all.get("vnd.docker.reference.type"))
        .is_some_and(|kind| kind == "attestation-manifest")
}

pub(super) fn kind_of(manifest: &ImageManifest) -> ManifestKind {
    if manifest.subject().is_some() {
        return ManifestKind::Referrer;
    }
    let config = manifest.config().media_type();
    let mut layers = manifest.layers().iter().map(Descriptor::media_type);
    let other_layer = layers.find(|media_type| !is_layer(media_type));
    let other = match other_layer {
        _ if !is_image_config(config) => config,
        Some(layer) => layer,
        None => return ManifestKind::Image,
    };
    ManifestKind::Artifact(manifest.artifact_type().as_ref().unwrap_or(other).to_string())
}
