//! What is attached to an image: OCI 1.1 artifacts that name it as their subject, in a layout beside its own.

use super::blob::{check_descriptor, read_blob, read_bytes};
use super::layout::{Layout, WrittenImage};
use super::layout_reader::{LayoutReader, ManifestRef};
use super::tags::{self, Tagged, TaggedKind};
use super::{Blob, REFERRERS_SUFFIX};
use crate::oci::annotations::TITLE;
use crate::util::digest::Sha256;
use crate::util::error::Result;
use camino::{Utf8Path, Utf8PathBuf};
use canon_json::CanonJsonSerialize;
use oci_spec::image::{Descriptor, ImageIndexBuilder, ImageManifest, ImageManifestBuilder, MediaType};
use serde_json::{Value, json};
use std::collections::HashMap;

/// The config of an artifact that has none, as the image specification gives it.
const EMPTY: &[u8] = b"{}";
/// So many artifacts of one tag are looked at: an image of ours has three, and an index three for each architecture.
const MAX_ARTIFACTS: usize = 64;

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
pub fn write_referrers(output: &Utf8Path, image: &WrittenImage, artifacts: &[Artifact]) -> Result<()> {
    let name = image.layout.file_name().expect("a layout has a name");
    let layout = Layout::open(output, &format!("{name}{REFERRERS_SUFFIX}"))?;
    let empty = layout.add_bytes(EMPTY)?;
    let subject = image.manifest().descriptor(MediaType::ImageManifest);
    let referrers = artifacts.iter().map(|artifact| write_referrer(&layout, empty, &subject, artifact));
    let referrers = referrers.collect::<Result<Vec<_>>>()?;
    tag_referrers(layout, &image.tag, referrers)
}

/// Attaches what is attached to each of `images` to the index over them, which is `index` and has their tag in the
/// layout `name`, too: clients that ask for the tag look there. Those that choose an image of the index first find
/// its own under `<tag>-<arch>-attest`, as they lie beside the layout of that image.
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
        let (from, tag) = referrers_place(&image.layout, &image.tag);
        let Some(referrers) = find(&from, &tag, image.digest)? else { continue };
        let layout = open()?;
        all.extend(layout.copy_index(&from, &referrers)?);
        layout.tag(&format!("{}-{}{REFERRERS_SUFFIX}", image.tag, image.architecture), referrers)?;
    }
    let (Some(tag), false) = (images.first().map(|image| &image.tag), all.is_empty()) else { return Ok(()) };
    let layout = open()?;
    let referrers = all.into_iter().map(|mut manifest| {
        manifest.set_subject(Some(subject.clone()));
        add_manifest(&layout, &manifest)
    });
    let referrers = referrers.collect::<Result<Vec<_>>>()?;
    tag_referrers(layout, tag, referrers)
}

/// The artifacts that a tag stands for, as a list of what refers to their subject has them: with their types.
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

/// The layout of what is attached to the images of `layout`; `None`: there is none.
pub fn referrers_layout(layout: &Utf8Path) -> Option<Utf8PathBuf> {
    let referrers = Utf8PathBuf::from(format!("{layout}{REFERRERS_SUFFIX}"));
    referrers.join("oci-layout").is_file().then_some(referrers)
}

/// The file of the type `media_type` that is attached to `subject` under the tag `<tag>-attest` of `layout`, and where it
/// lies. `None`: there is no such tag or file.
///
/// Errors (exit code 3): the layout breaks a rule, or the file has another digest than it is named by.
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

/// Writes a new layout `name` in `dir` in which `tag` stands for this index, without what that names. Returns its place.
pub fn write_index(dir: &Utf8Path, name: &str, tag: &str, index: &[u8]) -> Result<Utf8PathBuf> {
    let layout = Layout::open(dir, name)?;
    let path = layout.path().to_owned();
    let index = layout.add_bytes(index)?.descriptor(MediaType::ImageIndex);
    layout.tag(tag, index)?;
    Ok(path)
}

/// The layout and the tag of what is attached to the image of this tag.
fn referrers_place(layout: &Utf8Path, tag: &str) -> (Utf8PathBuf, String) {
    (format!("{layout}{REFERRERS_SUFFIX}").into(), format!("{tag}{REFERRERS_SUFFIX}"))
}

/// The index over what is attached to `subject` that this tag stands for.
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
    let index = ImageIndexBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageIndex)
        .manifests(referrers)
        .build()
        .expect("all fields are set");
    let index = layout.add_bytes(&index.to_canon_json_vec().expect("only string keys"))?;
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

/// Its descriptor has no title: a client that unpacks by titles would take it for a second file of that name. It has
/// no artifact type either: skopeo before 1.15 does not keep that field, and refuses to copy such an index.
fn add_manifest(layout: &Layout, manifest: &ImageManifest) -> Result<Descriptor> {
    let manifest = layout.add_bytes(&manifest.to_canon_json_vec().expect("only string keys"))?;
    Ok(manifest.descriptor(MediaType::ImageManifest))
}
