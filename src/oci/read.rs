//! Reads images from untrusted layouts. Sizes are limited before anything is read, every digest is checked
//! before a result is returned, links and special files are refused, and nothing is written.
//!
//! If a layout breaks a rule, the error names the rule and has exit code 3.

use super::annotations::{OCI, REF_NAME};
use super::archive;
use super::blob::{check_descriptor, read_blob, read_json};
use super::layer_entries::{self, LayerEntry, LayerInfo, Limits};
use super::root::{FileId, RootFs};
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result, ResultExt};
use camino::{Utf8Path, Utf8PathBuf};
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType, ToDockerV2S2};
use std::io::Read;

/// The limit of Docker's storage.
const MAX_LAYERS: usize = 127;

/// An image of a layout, with its manifest and config checked.
#[derive(Clone, Debug)]
pub struct Image {
    pub layout: Utf8PathBuf,
    /// The tag, if it has one.
    pub tag: Option<String>,
    /// The digest of the manifest.
    pub digest: Sha256,
    pub manifest: ImageManifest,
    pub config: ImageConfiguration,
}

/// Splits `LAYOUT[:TAG]` at its last colon.
pub fn split_reference(text: &str) -> (&Utf8Path, Option<&str>) {
    match text.rsplit_once(':') {
        Some((path, tag)) if !tag.is_empty() && !tag.contains('/') => (Utf8Path::new(path), Some(tag)),
        _ => (Utf8Path::new(text), None),
    }
}

/// The images that a user names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The directory of a layout, or an archive of one.
    pub layout: Utf8PathBuf,
    /// A tag, the full reference of an image, or `@` and a digest. `None` stands for all images.
    pub tag: Option<String>,
}

/// Splits `LAYOUT[:TAG]` or `LAYOUT@DIGEST`. If the whole text is a file or directory, it is the layout, even with a
/// colon in it. The tag may be the full reference of an image, as `skopeo copy` and `podman save` write it.
pub fn locate(reference: &Utf8Path) -> Reference {
    let text = reference.as_str();
    if reference.exists() {
        return Reference { layout: reference.to_owned(), tag: None };
    }
    let with_digest = text.rsplit_once('@').filter(|(_, digest)| {
        digest.strip_prefix("sha256:").is_some_and(|digits| digits.parse::<Sha256>().is_ok())
    });
    if let Some((layout, digest)) = with_digest.filter(|(layout, _)| Utf8Path::new(layout).exists()) {
        return Reference { layout: layout.into(), tag: Some(format!("@{digest}")) };
    }
    let colons = text.match_indices(':').map(|(at, _)| (&text[..at], &text[at + 1..]));
    let mut splits = colons.filter(|(path, tag)| !tag.is_empty() && Utf8Path::new(path).exists());
    let (layout, tag) = match splits.next_back() {
        Some((path, tag)) => (Utf8Path::new(path), Some(tag)),
        None => split_reference(text),
    };
    Reference { layout: layout.to_owned(), tag: tag.map(str::to_owned) }
}

/// Returns the layouts directly below `dir`, sorted by name.
///
/// # Errors
///
/// Exit code 2 if `dir` cannot be read or has no layout.
pub fn layouts_in(dir: &Utf8Path) -> Result<Vec<Utf8PathBuf>> {
    let hint = "build a kernel first, or name a layout";
    let entries = dir
        .read_dir_utf8()
        .context(Kind::Usage, || format!("cannot read the output directory {dir}"))
        .map_err(|error| error.hint(hint))?;
    let mut layouts: Vec<Utf8PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.into_path()))
        // A name with a dot is of a layout that is being written.
        .filter(|path| {
            path.join("oci-layout").is_file() && path.file_name().is_some_and(|name| !name.starts_with('.'))
        })
        .collect();
    layouts.sort();
    if layouts.is_empty() {
        return Err(Error::usage(format!("{dir} has no OCI layout")).hint(hint));
    }
    Ok(layouts)
}

/// Checks that the directory is a layout, and reads its index.
pub(crate) fn read_index(layout: &Utf8Path) -> Result<ImageIndex> {
    read_json(&index_path(layout)?)
}

/// Checks that the path is a layout or an archive of one, and returns the path of its index.
pub(super) fn index_path(layout: &Utf8Path) -> Result<Utf8PathBuf> {
    let marker = layout.join("oci-layout");
    if layout.is_file() {
        archive::check(layout)?;
        check_version(&marker)?;
        return Ok(layout.join("index.json"));
    }
    if !layout.is_dir() {
        let what = if layout.exists() { "not a directory" } else { "no such directory" };
        return Err(Error::usage(format!("{layout}: {what}")).hint("name the directory of an OCI layout"));
    }
    if !marker.exists() {
        let error = Error::usage(format!("{layout} is not an OCI layout: the file oci-layout is missing"));
        return Err(error.hint("name the directory of one image, such as out/firecracker-kernel-bin-amd64"));
    }
    check_version(&marker)?;
    for dir in ["blobs", "blobs/sha256"].map(|dir| layout.join(dir)) {
        if !dir.symlink_metadata().is_ok_and(|dir| dir.is_dir()) {
            return Err(Error::fetch(format!("{dir} is not a directory")));
        }
    }
    Ok(layout.join("index.json"))
}

fn check_version(marker: &Utf8Path) -> Result<()> {
    let version: serde_json::Value = read_json(marker)?;
    if version.get("imageLayoutVersion").and_then(serde_json::Value::as_str) != Some("1.0.0") {
        return Err(Error::fetch(format!("{marker}: not an OCI layout of version 1.0.0")));
    }
    Ok(())
}

/// Opens the image of a descriptor.
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

/// Reads the config of an image, whose manifest was read.
pub(super) fn image_of(
    layout: &Utf8Path,
    digest: Sha256,
    manifest: ImageManifest,
    tag: Option<String>,
) -> Result<Image> {
    let (path, config): (_, ImageConfiguration) = read_blob(layout, manifest.config())?;
    let (layers, diff_ids) = (manifest.layers().len(), config.rootfs().diff_ids().len());
    if layers > MAX_LAYERS {
        let message =
            format!("{path}: the image has {layers} layers, but at most {MAX_LAYERS} are supported");
        return Err(Error::fetch(message));
    }
    if layers != diff_ids {
        return Err(Error::fetch(format!("{path}: the image has {layers} layers, but {diff_ids} diff_ids")));
    }
    Ok(Image { layout: layout.to_owned(), tag, digest, manifest, config })
}

/// Returns whether it is OCI's or Docker's type of a manifest.
pub(super) fn is_manifest(media_type: &MediaType) -> bool {
    *media_type == MediaType::ImageManifest || is_docker_type(media_type, &MediaType::ImageManifest)
}

/// Returns whether it is OCI's or Docker's type of an index.
pub(super) fn is_index(media_type: &MediaType) -> bool {
    *media_type == MediaType::ImageIndex || is_docker_type(media_type, &MediaType::ImageIndex)
}

/// Returns whether it is OCI's or Docker's type of an image's config.
pub(crate) fn is_image_config(media_type: &MediaType) -> bool {
    *media_type == MediaType::ImageConfig || is_docker_type(media_type, &MediaType::ImageConfig)
}

/// Returns whether it is Docker's type for the same fields.
fn is_docker_type(media_type: &MediaType, oci: &MediaType) -> bool {
    oci.to_docker_v2s2().is_ok_and(|docker| docker == media_type.as_ref())
}

impl Image {
    /// Returns the annotation of a predefined key, such as `version` or `title`.
    pub fn oci_annotation(&self, key: &str) -> Option<&str> {
        self.annotation(&format!("{OCI}{key}"))
    }

    /// Returns the annotation of the manifest, or the label of the config. Docker's format keeps only labels.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        let annotation = self.manifest.annotations().as_ref().and_then(|all| all.get(key));
        let labels = || self.config.config().as_ref()?.labels().as_ref()?.get(key);
        annotation.or_else(labels).map(String::as_str)
    }

    /// Returns the image ID, the digest of the config. It stays the same if layers are compressed in another way.
    pub fn id(&self) -> Result<Sha256> {
        check_descriptor(&self.layout, self.manifest.config())
    }

    pub fn layer_count(&self) -> usize {
        self.manifest.layers().len()
    }

    /// Calls `visit` for each entry of a layer, with a reader of its bytes. The digests of the layer are
    /// checked only when this returns.
    ///
    /// # Errors
    ///
    /// The errors of `visit`, and exit code 3 if the layer breaks a rule.
    pub(crate) fn visit_layer(
        &self,
        layer: usize,
        limits: &mut Limits,
        mut visit: impl FnMut(&LayerEntry, &mut dyn Read) -> Result<()>,
    ) -> Result<LayerInfo> {
        let (descriptor, diff_id) = (&self.manifest.layers()[layer], &self.config.rootfs().diff_ids()[layer]);
        layer_entries::visit_layer(&self.layout, descriptor, diff_id, limits, &mut visit)
    }

    /// Calls `visit` for each entry of all layers, the lowest first. The layers are not merged.
    pub fn visit_layers(
        &self,
        mut visit: impl FnMut(&LayerEntry, &mut dyn Read) -> Result<()>,
    ) -> Result<()> {
        let mut limits = Limits::default();
        (0..self.layer_count())
            .try_for_each(|layer| self.visit_layer(layer, &mut limits, &mut visit).map(drop))
    }

    /// Returns the root file system, from all layers.
    ///
    /// # Errors
    ///
    /// Exit code 3 if a layer breaks a rule.
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

    /// Calls `visit` once for each file of the image's `root`, with its names, its entry and its bytes. The
    /// digests of a layer are checked only when this returns.
    ///
    /// # Errors
    ///
    /// The errors of `visit`, and exit code 3 if a layer breaks a rule.
    pub fn visit_files(
        &self,
        root: &RootFs,
        mut visit: impl FnMut(&[&str], &LayerEntry, &mut dyn Read) -> Result<()>,
    ) -> Result<()> {
        let mut limits = Limits::default();
        let files = root.files();
        for layer in 0..self.layer_count() {
            let mut entries = 0..;
            self.visit_layer(layer, &mut limits, |found, reader| {
                let id = FileId { layer, entry: entries.next().expect("without end") };
                files.get(&id).map_or(Ok(()), |names| visit(names, found, reader))
            })?;
        }
        Ok(())
    }
}

/// Returns the tag of a full reference, or the whole text if it is not one.
pub(crate) fn tag_part(reference: &str) -> &str {
    let name = reference.split('@').next().unwrap_or(reference);
    match name.rsplit_once('/') {
        Some((_, last)) => last.split_once(':').map_or(reference, |(_, tag)| tag),
        None => reference,
    }
}

/// Returns the name of an image in a layout's index, which is a tag or a full reference.
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
