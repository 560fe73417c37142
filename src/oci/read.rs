//! Reading images out of layouts that anybody may have written. Nothing is believed: sizes are
//! bounded before anything is read, every digest is checked before a result is handed on, links and
//! special files are refused, and nothing is written.
//!
//! All errors of a layout that breaks a rule are verification errors (exit code 3) and name the rule.

use super::annotations::{OCI, REF_NAME};
use super::blob::{check_descriptor, read_blob, read_json};
use super::layer_entries::{self, LayerEntry, LayerInfo, Limits};
use super::root::{FileId, RootFs};
use crate::util::digest::Sha256;
use crate::util::error::{Error, Result};
use camino::{Utf8Path, Utf8PathBuf};
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType, ToDockerV2S2};
use std::io::Read;

/// What Docker's storage can stack.
const MAX_LAYERS: usize = 127;

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

/// The layout and the tag of a reference. A directory of this very name is a layout, whatever colon is in it; and what is
/// behind the directory may be the full reference of an image, as `skopeo copy` and `podman save` leave it.
pub fn locate(reference: &Utf8Path) -> (Utf8PathBuf, Option<String>) {
    let text = reference.as_str();
    if reference.is_dir() {
        return (reference.to_owned(), None);
    }
    let colons = text.match_indices(':').map(|(at, _)| (&text[..at], &text[at + 1..]));
    let mut splits = colons.filter(|(path, tag)| !tag.is_empty() && Utf8Path::new(path).is_dir());
    let (layout, tag) = match splits.next_back() {
        Some((path, tag)) => (Utf8Path::new(path), Some(tag)),
        None => split_reference(text),
    };
    (layout.to_owned(), tag.map(str::to_owned))
}

/// The index of a layout, when the directory is one.
pub(crate) fn read_index(layout: &Utf8Path) -> Result<ImageIndex> {
    read_json(&index_path(layout)?)
}

/// The file of a layout's index, when the directory is one.
pub(super) fn index_path(layout: &Utf8Path) -> Result<Utf8PathBuf> {
    if !layout.is_dir() {
        let what = if layout.exists() { "not a directory" } else { "no such directory" };
        return Err(Error::usage(format!("{layout}: {what}")).hint("an OCI layout is a directory"));
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
    Ok(layout.join("index.json"))
}

/// The image that a descriptor of the layout stands for.
pub(super) fn open_image(layout: &Utf8Path, descriptor: &Descriptor) -> Result<Image> {
    let digest = check_descriptor(layout, descriptor)?;
    if !is_manifest(descriptor.media_type()) {
        return Err(Error::fetch(format!(
            "{layout}: sha256:{} is of type {}, not an image manifest",
            digest.short(),
            descriptor.media_type()
        )));
    }
    let (_, manifest): (_, ImageManifest) = read_blob(layout, descriptor)?;
    image_of(layout, digest, manifest, tag_of(descriptor))
}

/// The image of a manifest that was read.
pub(super) fn image_of(
    layout: &Utf8Path,
    digest: Sha256,
    manifest: ImageManifest,
    tag: Option<String>,
) -> Result<Image> {
    let (path, config): (_, ImageConfiguration) = read_blob(layout, manifest.config())?;
    let (layers, diff_ids) = (manifest.layers().len(), config.rootfs().diff_ids().len());
    if layers > MAX_LAYERS {
        return Err(Error::fetch(format!("{path}: {layers} layers are more than any reader takes")));
    }
    if layers != diff_ids {
        return Err(Error::fetch(format!("{path}: {layers} layers, but {diff_ids} diff_ids")));
    }
    Ok(Image { layout: layout.to_owned(), tag, digest, manifest, config })
}

/// Is it the type of a manifest, of OCI's or of Docker's?
pub(super) fn is_manifest(media_type: &MediaType) -> bool {
    *media_type == MediaType::ImageManifest || is_docker_type(media_type, &MediaType::ImageManifest)
}

/// Is it the type of an index, of OCI's or of Docker's?
pub(super) fn is_index(media_type: &MediaType) -> bool {
    *media_type == MediaType::ImageIndex || is_docker_type(media_type, &MediaType::ImageIndex)
}

/// Is it the type of an image's config, of OCI's or of Docker's?
pub(crate) fn is_image_config(media_type: &MediaType) -> bool {
    *media_type == MediaType::ImageConfig || is_docker_type(media_type, &MediaType::ImageConfig)
}

/// Is it what Docker called this before there was OCI? The files have the same fields.
fn is_docker_type(media_type: &MediaType, oci: &MediaType) -> bool {
    oci.to_docker_v2s2().is_ok_and(|docker| docker == media_type.as_ref())
}

impl Image {
    /// What the image says of itself, by the end of OCI's predefined key: `version`, `title`.
    pub fn oci_annotation(&self, key: &str) -> Option<&str> {
        self.annotation(&format!("{OCI}{key}"))
    }

    /// What the image says of itself under a key: the annotation of its manifest, or the label of its config, which
    /// stays where an image goes through Docker's format.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        let annotation = self.manifest.annotations().as_ref().and_then(|all| all.get(key));
        let labels = || self.config.config().as_ref()?.labels().as_ref()?.get(key);
        annotation.or_else(labels).map(String::as_str)
    }

    /// How many layers it has.
    pub fn layer_count(&self) -> usize {
        self.manifest.layers().len()
    }

    /// Shows every entry of a layer to `visit`, with a reader of its bytes. The digests of the
    /// layer, compressed and plain, are known to be right only when this has returned.
    ///
    /// Errors: whatever `visit` returns; a layer that breaks a rule (exit code 3).
    pub(crate) fn visit_layer(
        &self,
        layer: usize,
        limits: &mut Limits,
        mut visit: impl FnMut(&LayerEntry, &mut dyn Read) -> Result<()>,
    ) -> Result<LayerInfo> {
        let (descriptor, diff_id) = (&self.manifest.layers()[layer], &self.config.rootfs().diff_ids()[layer]);
        layer_entries::visit_layer(&self.layout, descriptor, diff_id, limits, &mut visit)
    }

    /// The same for all layers, the lowest first: they are not merged.
    pub fn visit_layers(
        &self,
        mut visit: impl FnMut(&LayerEntry, &mut dyn Read) -> Result<()>,
    ) -> Result<()> {
        let mut limits = Limits::default();
        (0..self.layer_count())
            .try_for_each(|layer| self.visit_layer(layer, &mut limits, &mut visit).map(drop))
    }

    /// The root file system that the layers make together.
    ///
    /// Errors (exit code 3): a layer breaks a rule.
    pub fn root(&self) -> Result<RootFs> {
        let mut limits = Limits::default();
        let mut layers = Vec::new();
        for layer in 0..self.layer_count() {
            let mut entries = Vec::new();
            self.visit_layer(layer, &mut limits, |found, _| {
                entries.push(found.clone());
                Ok(())
            })?;
            layers.push(entries);
        }
        self.merge(layers.iter().map(Vec::as_slice))
    }

    /// Merges the entries of its layers.
    pub(crate) fn merge<'a>(&self, layers: impl IntoIterator<Item = &'a [LayerEntry]>) -> Result<RootFs> {
        let digest = self.digest.short();
        RootFs::merge(layers).map_err(|why| Error::fetch(format!("{}: sha256:{digest}: {why}", self.layout)))
    }

    /// Shows every file of `root`, which is that of this image, to `visit` once: its names, its size, its bytes. The
    /// digests of a layer are known to be right only when this has returned.
    ///
    /// Errors: whatever `visit` returns; a layer that breaks a rule (exit code 3).
    pub fn visit_files(
        &self,
        root: &RootFs,
        mut visit: impl FnMut(&[&str], u64, &mut dyn Read) -> Result<()>,
    ) -> Result<()> {
        let mut limits = Limits::default();
        let files = root.files();
        for layer in 0..self.layer_count() {
            let mut entries = 0..;
            self.visit_layer(layer, &mut limits, |found, reader| {
                let id = FileId { layer, entry: entries.next().expect("without end") };
                files.get(&id).map_or(Ok(()), |names| visit(names, found.size, reader))
            })?;
        }
        Ok(())
    }
}

/// What is behind the last colon of a full reference; else the whole.
pub(crate) fn tag_part(reference: &str) -> &str {
    let name = reference.split('@').next().unwrap_or(reference);
    match name.rsplit_once('/') {
        Some((_, last)) => last.split_once(':').map_or(reference, |(_, tag)| tag),
        None => reference,
    }
}

/// What the index of a layout calls an image: its tag, or its full reference.
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

    #[test]
    fn a_full_reference_has_a_tag_at_its_end() {
        for (reference, tag) in [
            ("6.1.7", "6.1.7"),
            ("docker.io/x/y:6.1.7", "6.1.7"),
            ("localhost:5000/y:latest@sha256:00", "latest"),
            ("docker.io/x/y", "docker.io/x/y"),
            ("6/1.7", "6/1.7"),
        ] {
            assert_eq!(tag_part(reference), tag);
        }
    }
}
