//! What the tags of a layout stand for: an image, an index over images of several architectures, or
//! an attachment to an image; and whether all of it is there and whole. Nothing is believed, as in
//! [`read`](super::read), whose errors these are.

use super::blob::{check_blob, check_descriptor, read_blob};
use super::layout_reader::{LayoutReader, is_attestation};
use super::read::{open_image, read_index, tag_of};
use crate::util::digest::Sha256;
use crate::util::error::{Error, Result};
use camino::Utf8Path;
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use std::collections::BTreeSet;

/// A tag of a layout and what it stands for.
#[derive(Clone, Debug)]
pub struct Tagged {
    /// The tag.
    pub tag: String,
    /// Of the manifest or index.
    pub digest: Sha256,
    /// Which of them it is.
    pub kind: TaggedKind,
    pub(super) descriptor: Descriptor,
}

impl Tagged {
    /// The digests of the manifests that it stands for: its own, or those of an index.
    pub fn images(&self, layout: &Utf8Path) -> Result<Vec<Sha256>> {
        let manifest_refs = LayoutReader::open(layout)?.manifest_refs(&self.descriptor)?;
        manifest_refs.iter().map(|manifest_ref| check_descriptor(layout, &manifest_ref.descriptor)).collect()
    }
}

/// The kinds, in the order in which a registry should get them: what refers to another after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaggedKind {
    /// An image.
    Image,
    /// An index over images of several architectures.
    Index,
    /// An artifact attached to the manifest of this digest: its OCI 1.1 `subject`.
    Referrer(Sha256),
    /// An index over such artifacts of one subject.
    ReferrersIndex(Sha256),
}

impl TaggedKind {
    /// The digest of what it is attached to; `None`: it is no attachment.
    pub fn subject(self) -> Option<Sha256> {
        match self {
            TaggedKind::Referrer(subject) | TaggedKind::ReferrersIndex(subject) => Some(subject),
            TaggedKind::Image | TaggedKind::Index => None,
        }
    }
}

/// Whether registries take `tag`: the grammar of the OCI distribution specification.
pub fn is_registry_tag(tag: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=128).contains(&tag.len()) && !tag.starts_with(['.', '-']) && tag.bytes().all(fits)
}

/// The tags of a layout, in the order of its index. What has no tag is left out.
///
/// Errors: no such layout (exit code 2); a rule is broken, or two tags are the same (3).
pub fn tags(layout: &Utf8Path) -> Result<Vec<Tagged>> {
    let index = read_index(layout)?;
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for descriptor in index.manifests() {
        let Some(tag) = tag_of(descriptor) else { continue };
        if !seen.insert(tag.clone()) {
            return Err(Error::fetch(format!("{layout} has several images of the tag {tag}")));
        }
        let digest = check_descriptor(layout, descriptor)?;
        let kind = kind(layout, descriptor)?;
        all.push(Tagged { tag, digest, kind, descriptor: descriptor.clone() });
    }
    Ok(all)
}

fn kind(layout: &Utf8Path, descriptor: &Descriptor) -> Result<TaggedKind> {
    match descriptor.media_type() {
        MediaType::ImageIndex => {
            let (path, index): (_, ImageIndex) = read_blob(layout, descriptor)?;
            let subjects = index.manifests().iter().map(|manifest| subject(layout, manifest));
            let subjects = subjects.collect::<Result<BTreeSet<_>>>()?;
            match subjects.into_iter().collect::<Vec<_>>()[..] {
                [] | [None] => Ok(TaggedKind::Index),
                [Some(subject)] => Ok(TaggedKind::ReferrersIndex(subject)),
                _ => Err(Error::fetch(format!("{path}: an index over attachments to several images"))),
            }
        }
        MediaType::ImageManifest => Ok(match subject(layout, descriptor)? {
            Some(subject) => TaggedKind::Referrer(subject),
            None => TaggedKind::Image,
        }),
        other => Err(Error::fetch(format!("{layout}: a tag stands for something of type {other}"))),
    }
}

/// The digest of what a manifest is attached to.
fn subject(layout: &Utf8Path, descriptor: &Descriptor) -> Result<Option<Sha256>> {
    if *descriptor.media_type() != MediaType::ImageManifest {
        let other = descriptor.media_type();
        return Err(Error::fetch(format!("{layout}: an index over something of type {other}")));
    }
    let (path, manifest): (_, ImageManifest) = read_blob(layout, descriptor)?;
    manifest.subject().as_ref().map(|subject| check_descriptor(&path, subject)).transpose()
}

/// Reads all that `tagged` stands for: every blob has the size and digest that its descriptor says,
/// every layer of an image its diff_id. Returns how many bytes that are, as stored.
pub fn check(layout: &Utf8Path, tagged: &Tagged) -> Result<u64> {
    match tagged.kind {
        TaggedKind::Image => check_image(layout, &tagged.descriptor),
        TaggedKind::Referrer(_) => check_referrer(layout, &tagged.descriptor),
        TaggedKind::Index | TaggedKind::ReferrersIndex(_) => {
            let (_, index): (_, ImageIndex) = read_blob(layout, &tagged.descriptor)?;
            let manifest_refs = index.manifests().iter().map(|manifest| match tagged.kind {
                TaggedKind::Index if !is_attestation(manifest) => check_image(layout, manifest),
                _ => check_referrer(layout, manifest),
            });
            Ok(tagged.descriptor.size() + manifest_refs.sum::<Result<u64>>()?)
        }
    }
}

/// Reads all of an attached artifact, and returns how many bytes that are, as stored.
pub fn check_referrer(layout: &Utf8Path, descriptor: &Descriptor) -> Result<u64> {
    let (_, manifest): (_, ImageManifest) = read_blob(layout, descriptor)?;
    let blobs = std::iter::once(manifest.config()).chain(manifest.layers());
    let sizes = blobs.map(|blob| check_blob(layout, blob).map(|()| blob.size()));
    Ok(descriptor.size() + sizes.sum::<Result<u64>>()?)
}

fn check_image(layout: &Utf8Path, descriptor: &Descriptor) -> Result<u64> {
    let image = open_image(layout, descriptor)?;
    image.visit_layers(|_, _| Ok(()))?;
    let blobs = std::iter::once(image.manifest.config()).chain(image.manifest.layers());
    Ok(descriptor.size() + blobs.map(Descriptor::size).sum::<u64>())
}
