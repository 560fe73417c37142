//! Artifacts that are attached to an image. They are OCI 1.1 artifacts with the image as their subject, in a
//! layout beside that of the image.

use super::blob::{check_descriptor, read_blob, read_bytes};
use super::layout::{Layout, WrittenImage, index_of, text_of};
use super::layout_reader::{LayoutReader, ManifestRef};
use super::read::{Image, tag_part};
use super::tags::{self, Tagged, TaggedKind};
use super::{Blob, REFERRERS_SUFFIX};
use crate::oci::annotations::TITLE;
use crate::util::digest::Sha256;
use crate::util::error::{Error, Result};
use camino::{Utf8Path, Utf8PathBuf};
use canon_json::CanonJsonSerialize;
use oci_spec::image::{Descriptor, ImageManifest, ImageManifestBuilder, MediaType};
use serde_json::{Value, json};
use std::collections::HashMap;

/// The empty config of an artifact, from the image specification.
const EMPTY: &[u8] = b"{}";
/// The artifacts of one tag that are searched. An image of kcompile has five, and an
/// index as many for each architecture.
const MAX_ARTIFACTS: usize = 64;

#[derive(Clone, Debug)]
pub struct Artifact {
    /// Its name when it is unpacked.
    pub name: String,
    /// The type of the file and of the artifact.
    pub media_type: &'static str,
    pub bytes: Vec<u8>,
}

/// Attaches `artifacts` to `image`, in place of earlier ones. `<tag>-attest` in the layout `<image>-attest`
/// becomes an index of them, so that one copy takes all. The caller holds the lock of the output directory.
pub fn write_referrers(output: &Utf8Path, image: &WrittenImage, artifacts: &[Artifact]) -> Result<()> {
    let name = image.layout.file_name().expect("a layout has a name");
    let layout = Layout::open(output, &format!("{name}{REFERRERS_SUFFIX}"))?;
    let empty = layout.add_bytes(EMPTY)?;
    let subject = image.manifest().descriptor(MediaType::ImageManifest);
    let referrers = artifacts.iter().map(|artifact| write_referrer(&layout, empty, &subject, artifact));
    let referrers = referrers.collect::<Result<Vec<_>>>()?;
    tag_referrers(layout, &image.tag, referrers)
}

/// Attaches `artifact` to `image` in place of one of the same type. Other artifacts stay. An index over several
/// architectures keeps its own. The caller holds the lock of the output directory. Returns the layout of the
/// artifacts.
pub fn add_referrer(image: &Image, artifact: &Artifact) -> Result<Utf8PathBuf> {
    let reader = LayoutReader::open(&image.layout)?;
    let images = reader.images(image.tag.as_deref())?;
    let is_image =
        |one: &&ManifestRef| check_descriptor(&image.layout, &one.descriptor).ok() == Some(image.digest);
    let (Some(tag), Some(found)) = (image.tag.as_deref().map(tag_part), images.iter().find(is_image)) else {
        return Err(Error::usage(format!("{}: only an image with a tag can have attachments", image.layout)));
    };
    let is_alone = images.len() == 1;
    let tag = if is_alone { tag.to_owned() } else { format!("{tag}-{}", image.config.architecture()) };
    let found = &found.descriptor;
    let subject = Descriptor::new(found.media_type().clone(), found.size(), found.digest().clone());
    let (dir, name) = (image.layout.parent(), image.layout.file_name());
    let (dir, name) = (dir.unwrap_or("/".into()), name.unwrap_or_default());
    let layout = Layout::open(dir, &format!("{name}{REFERRERS_SUFFIX}"))?;
    let path = layout.path().to_owned();
    let mut referrers = Vec::new();
    if let Some(index) = find(&path, &format!("{tag}{REFERRERS_SUFFIX}"), image.digest)? {
        for one in LayoutReader::open(&path)?.manifest_refs(&index)? {
            let (_, manifest): (_, ImageManifest) = read_blob(&path, &one.descriptor)?;
            let kind = manifest.artifact_type().as_ref().map(ToString::to_string);
            if kind.as_deref() != Some(artifact.media_type) {
                referrers.push(one.descriptor);
            }
        }
    }
    let empty = layout.add_bytes(EMPTY)?;
    referrers.push(write_referrer(&layout, empty, &subject, artifact)?);
    tag_referrers(layout, &tag, referrers)?;
    Ok(path)
}

/// Attaches the artifacts of `images` to the index over them too. `index` has the tag of the images in the
/// layout `name`. Clients that resolve the tag find the artifacts of the index. Clients that select an image
/// of the index first find those of the image, under `<tag>-<arch>-attest`.
pub(super) fn write_index_referrers(
    output: &Utf8Path,
    name: &str,
    index: Blob,
    images: &[&WrittenImage],
) -> Result<()> {
    let open = || Layout::open(output, &format!("{name}{REFERRERS_SUFFIX}"));
    let subject = index.descriptor(MediaType::ImageIndex);
    let mut all = Vec::new();
    for image in images {
        let from = Utf8PathBuf::from(format!("{}{REFERRERS_SUFFIX}", image.layout));
        let tag = format!("{}{REFERRERS_SUFFIX}", image.tag);
        let Some(referrers) = find(&from, &tag, image.digest)? else { continue };
        let layout = open()?;
        all.extend(layout.copy_index(&from, &referrers)?);
        layout.tag(&format!("{}-{}{REFERRERS_SUFFIX}", image.tag, image.architecture), referrers)?;
    }
    let Some(image) = images.first().filter(|_| !all.is_empty()) else { return Ok(()) };
    let layout = open()?;
    let referrers = all.into_iter().map(|mut manifest| {
        manifest.set_subject(Some(subject.clone()));
        add_manifest(&layout, &manifest)
    });
    let referrers = referrers.collect::<Result<Vec<_>>>()?;
    tag_referrers(layout, &image.tag, referrers)
}

/// Returns the descriptors of the artifacts of a tag, with their types, as in a registry's list of referrers.
pub fn referrers(layout: &Utf8Path, tagged: &Tagged) -> Result<Vec<Value>> {
    let manifest_refs = LayoutReader::open(layout)?.manifest_refs(&tagged.descriptor)?;
    let descriptor = |manifest_ref: &ManifestRef| {
        let (_, manifest): (_, ImageManifest) = read_blob(layout, &manifest_ref.descriptor)?;
        let kind = manifest.artifact_type().as_ref().unwrap_or(manifest.config().media_type());
        let mut referrer = json!({
            "mediaType": manifest_ref.descriptor.media_type(),
            "digest": manifest_ref.descriptor.digest().to_string(),
            "size": manifest_ref.descriptor.size(),
            "artifactType": kind,
        });
        if let Some(annotations) = manifest.annotations() {
            referrer["annotations"] = json!(annotations);
        }
        Ok(referrer)
    };
    manifest_refs.iter().map(descriptor).collect()
}

/// Returns the layout of the artifacts that are attached to the images of `layout`, if it exists.
pub fn referrers_layout(layout: &Utf8Path) -> Option<Utf8PathBuf> {
    let referrers = Utf8PathBuf::from(format!("{layout}{REFERRERS_SUFFIX}"));
    referrers.join("oci-layout").is_file().then_some(referrers)
}

/// Returns the path and the bytes of the file of type `media_type` that is attached to `subject`. It is
/// looked up under the tag `<tag>-attest` of `layout`.
///
/// # Errors
///
/// Exit code 3 if the layout breaks a rule, or the digest of the file is wrong.
pub fn find_referrer(
    layout: &LayoutReader,
    tag: &str,
    subject: Sha256,
    media_type: &str,
) -> Result<Option<(Utf8PathBuf, Vec<u8>)>> {
    let Some(tagged) = layout.find(&format!("{tag}{REFERRERS_SUFFIX}")) else { return Ok(None) };
    for manifest in layout.index_manifests(tagged, MAX_ARTIFACTS)? {
        let of = manifest.subject().as_ref().map(|one| check_descriptor(layout.path(), one)).transpose()?;
        let kind = manifest.artifact_type().as_ref().map(ToString::to_string);
        if (of, kind.as_deref()) != (Some(subject), Some(media_type)) {
            continue;
        }
        let Some(file) = manifest.layers().first() else { continue };
        return read_bytes(layout.path(), file).map(Some);
    }
    Ok(None)
}

/// Writes a new layout `name` in `dir` that has only this index, with the tag `tag`. Returns its path.
pub fn write_index(dir: &Utf8Path, name: &str, tag: &str, index: &[u8]) -> Result<Utf8PathBuf> {
    let layout = Layout::open(dir, name)?;
    let path = layout.path().to_owned();
    let index = layout.add_bytes(index)?.descriptor(MediaType::ImageIndex);
    layout.tag(tag, index)?;
    Ok(path)
}

/// Returns the descriptor of this tag, if it is an index of artifacts that are attached to `subject`.
fn find(layout: &Utf8Path, tag: &str, subject: Sha256) -> Result<Option<Descriptor>> {
    if !layout.is_dir() {
        return Ok(None);
    }
    let tags = tags::tags(layout)?;
    let found =
        tags.into_iter().find(|one| one.tag == tag && one.kind == TaggedKind::ReferrersIndex(subject));
    Ok(found.map(|one| one.descriptor))
}

fn tag_referrers(layout: Layout, tag: &str, referrers: Vec<Descriptor>) -> Result<()> {
    let index = layout.add_bytes(&text_of(&index_of(referrers)))?;
    layout.tag(&format!("{tag}{REFERRERS_SUFFIX}"), index.descriptor(MediaType::ImageIndex))
}

fn write_referrer(
    layout: &Layout,
    empty: Blob,
    subject: &Descriptor,
    artifact: &Artifact,
) -> Result<Descriptor> {
    let title = HashMap::from([(TITLE.to_owned(), artifact.name.clone())]);
    let kind = MediaType::from(artifact.media_type);
    let mut file = layout.add_bytes(&artifact.bytes)?.descriptor(kind.clone());
    file.set_annotations(Some(title));
    let manifest = ImageManifestBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageManifest)
        .artifact_type(kind)
        .config(empty.descriptor(MediaType::EmptyJSON))
        .layers(vec![file])
        .subject(subject.clone())
        .build()
        .expect("all fields are set");
    add_manifest(layout, &manifest)
}

/// Adds a manifest. Its descriptor has no title, because clients that unpack by titles would take it for a
/// second file of that name. It has no artifact type, because skopeo before 1.15 drops that field and then
/// refuses to copy the index.
fn add_manifest(layout: &Layout, manifest: &ImageManifest) -> Result<Descriptor> {
    let manifest = layout.add_bytes(&manifest.to_canon_json_vec().expect("only string keys"))?;
    Ok(manifest.descriptor(MediaType::ImageManifest))
}
