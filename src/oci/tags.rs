//! Reads the tags of an untrusted layout, and checks their blobs. A tag stands for an image, for an
//! index over images of several architectures, or for artifacts that are attached to an image.
//! Errors are those of `read.rs`.

use super::blob::{check_blobs, check_descriptor, read_blob};
use super::layout_reader::{LayoutReader, is_attestation};
use super::read::{open_image, read_index, split_reference, tag_of};
use crate::util::digest::Sha256;
use crate::util::error::{Error, Result};
use camino::Utf8Path;
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use std::collections::BTreeSet;

/// A tag of a layout.
#[derive(Clone, Debug)]
pub struct Tagged {
    pub tag: String,
    /// The digest of the manifest or index.
    pub digest: Sha256,
    pub kind: TaggedKind,
    pub(super) descriptor: Descriptor,
}

impl Tagged {
    /// Returns the digest of the manifest, or the digests of an index's manifests.
    pub fn images(&self, layout: &Utf8Path) -> Result<Vec<Sha256>> {
        let manifest_refs = LayoutReader::open(layout)?.manifest_refs(&self.descriptor)?;
        manifest_refs.iter().map(|manifest_ref| check_descriptor(layout, &manifest_ref.descriptor)).collect()
    }
}

/// The kinds of tags, in the order in which a registry should get them. A referrer comes after its subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaggedKind {
    Image,
    /// An index over images of several architectures.
    Index,
    /// An artifact with an OCI 1.1 `subject` of this digest.
    Referrer(Sha256),
    /// An index over artifacts of one subject.
    ReferrersIndex(Sha256),
}

impl TaggedKind {
    /// Returns the digest of the subject, if it has one.
    pub fn subject(self) -> Option<Sha256> {
        match self {
            TaggedKind::Referrer(subject) | TaggedKind::ReferrersIndex(subject) => Some(subject),
            TaggedKind::Image | TaggedKind::Index => None,
        }
    }
}

/// Returns whether registries accept `tag`, by the grammar of the OCI distribution specification.
pub fn is_registry_tag(tag: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=128).contains(&tag.len()) && !tag.starts_with(['.', '-']) && tag.bytes().all(fits)
}

/// The place of an image to write.
#[derive(Clone, Copy, Debug)]
pub struct NewImage<'a> {
    /// The directory of the layout's directory.
    pub output: &'a Utf8Path,
    /// The name of the layout's directory.
    pub layout: &'a str,
    pub tag: &'a str,
}

impl<'a> NewImage<'a> {
    /// Parses `DIR:TAG`.
    ///
    /// # Errors
    ///
    /// It has no valid tag, or is the root directory (exit code 2). The hint has `example`.
    pub fn parse(reference: &'a Utf8Path, example: &str) -> Result<NewImage<'a>> {
        let (path, tag) = split_reference(reference.as_str());
        let tag = tag.filter(|tag| is_registry_tag(tag)).ok_or_else(|| {
            Error::usage(format!("{reference} has no valid tag"))
                .hint(format!("append a tag, as in {example}"))
        })?;
        let (Some(output), Some(layout)) = (path.parent(), path.file_name()) else {
            return Err(Error::usage(format!("{path} cannot be a layout: it is the root directory")));
        };
        Ok(NewImage { output, layout, tag })
    }
}

/// Returns the tags of a layout, in the order of its index. Descriptors without a tag are left out.
///
/// # Errors
///
/// There is no such layout (exit code 2), it breaks a rule, or it has a tag twice (3).
pub fn tags(layout: &Utf8Path) -> Result<Vec<Tagged>> {
    let index = read_index(layout)?;
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for descriptor in index.manifests() {
        let Some(tag) = tag_of(descriptor) else { continue };
        if !seen.insert(tag.clone()) {
            return Err(Error::fetch(format!("{layout} has several images with the tag {tag}")));
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
                _ => Err(Error::fetch(format!("{path}: the index has artifacts of several images"))),
            }
        }
        MediaType::ImageManifest => Ok(match subject(layout, descriptor)? {
            Some(subject) => TaggedKind::Referrer(subject),
            None => TaggedKind::Image,
        }),
        other => Err(Error::fetch(format!("{layout}: a tag stands for a blob of type {other}"))),
    }
}

/// Returns the digest of a manifest's subject.
fn subject(layout: &Utf8Path, descriptor: &Descriptor) -> Result<Option<Sha256>> {
    if *descriptor.media_type() != MediaType::ImageManifest {
        let other = descriptor.media_type();
        return Err(Error::fetch(format!("{layout}: an index has a blob of type {other}")));
    }
    let (path, manifest): (_, ImageManifest) = read_blob(layout, descriptor)?;
    manifest.subject().as_ref().map(|subject| check_descriptor(&path, subject)).transpose()
}

/// Reads all blobs of `tagged`, checks their sizes and digests and the diff_ids of
/// layers, and returns their size.
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

/// Reads a whole artifact, and returns its size.
fn check_referrer(layout: &Utf8Path, descriptor: &Descriptor) -> Result<u64> {
    let (_, manifest): (_, ImageManifest) = read_blob(layout, descriptor)?;
    Ok(descriptor.size() + check_blobs(layout, &manifest)?)
}

fn check_image(layout: &Utf8Path, descriptor: &Descriptor) -> Result<u64> {
    let image = open_image(layout, descriptor)?;
    image.visit_layers(|_, _| Ok(()))?;
    let blobs = std::iter::once(image.manifest.config()).chain(image.manifest.layers());
    Ok(descriptor.size() + blobs.map(Descriptor::size).sum::<u64>())
}
