//! Reading images out of layouts that anybody may have written. Nothing is believed: sizes are
//! bounded before anything is read, every digest is checked before a result is handed on, links and
//! special files are refused, and nothing is written.
//!
//! All errors of a layout that breaks a rule are verification errors (exit code 3) and name the rule.

use super::annotations::{OCI, REF_NAME};
use super::blob::{check_descriptor, read_blob, read_json};
use super::layer_entries::{self, Found, LayerRead, Limits};
use crate::util::digest::Sha256;
use crate::util::error::{Error, Result};
use camino::{Utf8Path, Utf8PathBuf};
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};
use std::io::Read;

/// What Docker's storage can stack.
const MOST_LAYERS: usize = 127;

/// An image of a layout, its manifest and config checked.
#[derive(Clone, Debug)]
pub struct Image {
    /// The layout's directory.
    pub layout: Utf8PathBuf,
    /// Its tag; `None` where the layout has one image, and that has no tag.
    pub tag: Option<String>,
    /// Digest of the manifest.
    pub digest: Sha256,
    /// The manifest.
    pub manifest: ImageManifest,
    /// The image's config.
    pub config: ImageConfiguration,
}

/// Splits `LAYOUT[:TAG]`: the path of a layout ends at its last colon, as OCI tools have it.
pub fn split_reference(text: &str) -> (&Utf8Path, Option<&str>) {
    match text.rsplit_once(':') {
        Some((path, tag)) if !tag.is_empty() && !tag.contains('/') => (Utf8Path::new(path), Some(tag)),
        _ => (Utf8Path::new(text), None),
    }
}

/// The layout and the tag of a reference. A directory of this very name is a layout, whatever colon is in it.
pub fn locate(reference: &Utf8Path) -> (Utf8PathBuf, Option<String>) {
    match reference.is_dir() {
        true => (reference.to_owned(), None),
        false => {
            let (layout, tag) = split_reference(reference.as_str());
            (layout.to_owned(), tag.map(str::to_owned))
        }
    }
}

/// Opens the image of this tag, or the only image of a layout.
///
/// Errors: no such layout or tag, or several images and no tag (exit code 2); a rule is broken (3).
pub fn open(layout: &Utf8Path, tag: Option<&str>) -> Result<Image> {
    open_image(layout, &choose(layout, tag)?)
}

/// The index of a layout, when the directory is one.
pub(crate) fn read_index(layout: &Utf8Path) -> Result<ImageIndex> {
    if !layout.is_dir() {
        return Err(Error::usage(format!("{layout}: no such directory")));
    }
    let marker = layout.join("oci-layout");
    if !marker.exists() {
        return Err(Error::usage(format!("{layout} is not an OCI layout: it has no file oci-layout")));
    }
    let version: serde_json::Value = read_json(&marker)?;
    if version.get("imageLayoutVersion").and_then(serde_json::Value::as_str) != Some("1.0.0") {
        return Err(Error::fetch(format!("{marker}: not an OCI layout of version 1.0.0")));
    }
    for dir in ["blobs", "blobs/sha256"].map(|dir| layout.join(dir)) {
        if !dir.symlink_metadata().is_ok_and(|dir| dir.is_dir()) {
            return Err(Error::fetch(format!("{dir} is not a directory")));
        }
    }
    read_json(&layout.join("index.json"))
}

/// The image that a descriptor of the layout stands for.
pub(super) fn open_image(layout: &Utf8Path, descriptor: &Descriptor) -> Result<Image> {
    let digest = check_descriptor(layout, descriptor)?;
    if *descriptor.media_type() != MediaType::ImageManifest {
        return Err(Error::fetch(format!(
            "{layout}: sha256:{} is of type {}, not an image manifest",
            digest.short(),
            descriptor.media_type()
        )));
    }
    let (_, manifest): (_, ImageManifest) = read_blob(layout, descriptor)?;
    let (path, config): (_, ImageConfiguration) = read_blob(layout, manifest.config())?;
    let (layers, diff_ids) = (manifest.layers().len(), config.rootfs().diff_ids().len());
    if layers > MOST_LAYERS {
        return Err(Error::fetch(format!("{path}: {layers} layers are more than any reader takes")));
    }
    if layers != diff_ids {
        return Err(Error::fetch(format!("{path}: {layers} layers, but {diff_ids} diff_ids")));
    }
    Ok(Image { layout: layout.to_owned(), tag: tag_of(descriptor), digest, manifest, config })
}

impl Image {
    /// An annotation of the manifest, by the end of OCI's predefined key: `version`, `title`.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        let annotations = self.manifest.annotations().as_ref()?;
        annotations.get(&format!("{OCI}{key}")).map(String::as_str)
    }

    /// An annotation by its whole key.
    pub fn own_annotation(&self, key: &str) -> Option<&str> {
        self.manifest.annotations().as_ref()?.get(key).map(String::as_str)
    }

    /// Shows every entry of every layer to `visit`, with a reader of its bytes. The digests of a
    /// layer, compressed and plain, are known to be right only when this has returned.
    ///
    /// Errors: whatever `visit` returns; a layer that breaks a rule (exit code 3).
    pub fn visit(
        &self,
        mut visit: impl FnMut(&Found, &mut dyn Read) -> Result<()>,
    ) -> Result<Vec<LayerRead>> {
        let mut limits = Limits::default();
        let mut layers = Vec::new();
        for (layer, diff_id) in self.manifest.layers().iter().zip(self.config.rootfs().diff_ids()) {
            layers.push(layer_entries::visit_layer(&self.layout, (layer, diff_id), &mut limits, &mut visit)?);
        }
        Ok(layers)
    }
}

/// What this tag stands for, or all that the index of a layout names.
///
/// Errors: no such layout or tag (exit code 2); a rule is broken (3).
pub fn chosen(layout: &Utf8Path, tag: Option<&str>) -> Result<Vec<Descriptor>> {
    let index = read_index(layout)?;
    let all = index.manifests();
    let wanted = |one: &&Descriptor| tag.is_none() || tag_of(one).as_deref() == tag;
    let chosen: Vec<Descriptor> = all.iter().filter(wanted).cloned().collect();
    match (chosen.is_empty(), tag) {
        (false, _) => Ok(chosen),
        (true, Some(tag)) => Err(Error::usage(format!("{layout} has no image of the tag {tag}"))
            .hint(format!("it has {}", tags_of(all)))),
        (true, None) => Err(Error::usage(format!("{layout} has no image"))),
    }
}

/// What this tag stands for, or the only thing in a layout.
pub(super) fn choose(layout: &Utf8Path, tag: Option<&str>) -> Result<Descriptor> {
    match (&chosen(layout, tag)?[..], tag) {
        ([one], _) => Ok(one.clone()),
        (_, Some(tag)) => Err(Error::fetch(format!("{layout} has several images of the tag {tag}"))),
        (several, None) => Err(Error::usage(format!("{layout} has several images"))
            .hint(format!("choose one with {layout}:TAG, of {}", tags_of(several)))),
    }
}

fn tags_of(descriptors: &[Descriptor]) -> String {
    descriptors.iter().filter_map(tag_of).collect::<Vec<_>>().join(", ")
}

pub(crate) fn tag_of(descriptor: &Descriptor) -> Option<String> {
    descriptor.annotations().as_ref()?.get(REF_NAME).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_ends_in_its_tag() {
        let split = |text| {
            let (path, tag) = split_reference(text);
            (path.as_str().to_owned(), tag.map(str::to_owned))
        };
        let with = |path: &str, tag: &str| (path.to_owned(), Some(tag.to_owned()));
        assert_eq!(split("out/x:6.1.7"), with("out/x", "6.1.7"));
        assert_eq!(split("a:b/x:6.1.7"), with("a:b/x", "6.1.7"));
        assert_eq!(split("a:b/x"), ("a:b/x".to_owned(), None));
        assert_eq!(split("x:"), ("x:".to_owned(), None));
    }
}
