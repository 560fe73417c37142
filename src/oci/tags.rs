//! What the tags of a layout stand for: an image, an index over images of several architectures, or
//! an attachment to an image; and whether all of it is there and whole. Nothing is believed, as in
//! [`read`](super::read), whose errors these are.

use super::blob::{check_descriptor, check_digest, open_blob, read_blob};
use super::read::{Image, choose, chosen, open_image, read_index, tag_of};
use crate::host::process::Interruptible;
use crate::util::digest::Sha256;
use crate::util::error::{Context, Error, Kind, Result};
use camino::Utf8Path;
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use std::collections::BTreeSet;
use std::io::Read;

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
        let parts = parts(layout, &self.descriptor)?;
        parts.iter().map(|part| check_descriptor(layout, &part.descriptor)).collect()
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
    Attachment(Sha256),
    /// An index over such artifacts of one subject.
    Attachments(Sha256),
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

/// One manifest that a layout holds.
#[derive(Clone, Debug)]
pub struct Part {
    /// The tag that leads to it; `None`: it has none.
    pub tag: Option<String>,
    /// What leads to it.
    pub descriptor: Descriptor,
    /// Is it an image, or an artifact that is attached to one?
    pub is_image: bool,
}

/// The manifests that a descriptor of the layout's index leads to: itself, or those of an index.
pub fn parts(layout: &Utf8Path, descriptor: &Descriptor) -> Result<Vec<Part>> {
    let kind = kind(layout, descriptor)?;
    let is_image = matches!(kind, TaggedKind::Image | TaggedKind::Index);
    let part = |one: &Descriptor| Part {
        tag: tag_of(descriptor),
        descriptor: one.clone(),
        is_image: is_image && !is_attestation(one),
    };
    match kind {
        TaggedKind::Image | TaggedKind::Attachment(_) => Ok(vec![part(descriptor)]),
        TaggedKind::Index | TaggedKind::Attachments(_) => {
            let (_, index): (_, ImageIndex) = read_blob(layout, descriptor)?;
            Ok(index.manifests().iter().map(part).collect())
        }
    }
}

/// The images of this tag, or all of a layout, without what is attached to them.
///
/// Errors: no such layout, tag or image (exit code 2); a rule is broken (3).
pub fn images(layout: &Utf8Path, tag: Option<&str>) -> Result<Vec<Part>> {
    let mut images = Vec::new();
    for descriptor in chosen(layout, tag)? {
        images.extend(parts(layout, &descriptor)?.into_iter().filter(|part| part.is_image));
    }
    match images.is_empty() {
        true => Err(Error::usage(format!("{layout} has no image, only what is attached to one"))),
        false => Ok(images),
    }
}

/// Is it what BuildKit puts beside an image into its index, with an annotation in the place of a `subject`?
fn is_attestation(part: &Descriptor) -> bool {
    let annotations = part.annotations().as_ref();
    annotations
        .and_then(|all| all.get("vnd.docker.reference.type"))
        .is_some_and(|kind| kind == "attestation-manifest")
}

/// Opens the image of this tag, or the only one of a layout; where that is an index, the image in it for
/// `architecture`, as OCI names it.
///
/// Errors: no such layout or tag, several images and no tag, none for `architecture` (exit code 2); a rule is
/// broken (3).
pub fn open(layout: &Utf8Path, tag: Option<&str>, architecture: Option<&str>) -> Result<Image> {
    let descriptor = choose(layout, tag)?;
    if *descriptor.media_type() != MediaType::ImageIndex {
        return open_image(layout, &descriptor);
    }
    let mut others = Vec::new();
    for part in parts(layout, &descriptor)?.into_iter().filter(|part| part.is_image) {
        let image = part.open(layout)?;
        let found = image.config.architecture().to_string();
        if architecture == Some(&found) {
            return Ok(image);
        }
        others.push(found);
    }
    match (architecture, others.join(", ")) {
        (_, others) if others.is_empty() => {
            Err(Error::usage(format!("{layout} has no image under this tag")))
        }
        (Some(wanted), others) => {
            Err(Error::usage(format!("{layout} has no image for {wanted}, only for {others}")))
        }
        (None, others) => {
            Err(Error::usage(format!("{layout} has images for {others}")).hint("choose one with --arch"))
        }
    }
}

impl Part {
    /// Opens it as an image.
    pub fn open(&self, layout: &Utf8Path) -> Result<Image> {
        Ok(Image { tag: self.tag.clone(), ..open_image(layout, &self.descriptor)? })
    }
}

fn kind(layout: &Utf8Path, descriptor: &Descriptor) -> Result<TaggedKind> {
    match descriptor.media_type() {
        MediaType::ImageIndex => {
            let (path, index): (_, ImageIndex) = read_blob(layout, descriptor)?;
            let subjects = index.manifests().iter().map(|manifest| subject(layout, manifest));
            let subjects = subjects.collect::<Result<BTreeSet<_>>>()?;
            match subjects.into_iter().collect::<Vec<_>>()[..] {
                [] | [None] => Ok(TaggedKind::Index),
                [Some(subject)] => Ok(TaggedKind::Attachments(subject)),
                _ => Err(Error::fetch(format!("{path}: an index over attachments to several images"))),
            }
        }
        MediaType::ImageManifest => Ok(match subject(layout, descriptor)? {
            Some(subject) => TaggedKind::Attachment(subject),
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
        TaggedKind::Attachment(_) => check_attachment(layout, &tagged.descriptor),
        TaggedKind::Index | TaggedKind::Attachments(_) => {
            let (_, index): (_, ImageIndex) = read_blob(layout, &tagged.descriptor)?;
            let parts = index.manifests().iter().map(|manifest| match tagged.kind {
                TaggedKind::Index if !is_attestation(manifest) => check_image(layout, manifest),
                _ => check_attachment(layout, manifest),
            });
            Ok(tagged.descriptor.size() + parts.sum::<Result<u64>>()?)
        }
    }
}

/// Reads all of an attached artifact, and returns how many bytes that are, as stored.
pub fn check_attachment(layout: &Utf8Path, descriptor: &Descriptor) -> Result<u64> {
    let (_, manifest): (_, ImageManifest) = read_blob(layout, descriptor)?;
    let blobs = std::iter::once(manifest.config()).chain(manifest.layers());
    let sizes = blobs.map(|blob| check_blob(layout, blob).map(|()| blob.size()));
    Ok(descriptor.size() + sizes.sum::<Result<u64>>()?)
}

fn check_image(layout: &Utf8Path, descriptor: &Descriptor) -> Result<u64> {
    let image = open_image(layout, descriptor)?;
    image.visit(|_, _| Ok(()))?;
    let blobs = std::iter::once(image.manifest.config()).chain(image.manifest.layers());
    Ok(descriptor.size() + blobs.map(Descriptor::size).sum::<u64>())
}

/// A blob of any kind: no more of it is read than its descriptor says.
fn check_blob(layout: &Utf8Path, descriptor: &Descriptor) -> Result<()> {
    let (path, digest, file) = open_blob(layout, descriptor)?;
    let found = Sha256::of_reader(Interruptible(file.take(descriptor.size())));
    check_digest(&path, digest, found.context(Kind::Fetch, || format!("cannot read {path}"))?)
}
