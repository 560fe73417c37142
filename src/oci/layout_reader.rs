//! Reads the index and the manifests of an untrusted layout, each once. Checks and
//! errors are those of [`read`](super::read).

use super::blob::{check_blob, check_blobs, check_descriptor, parse, read_blob, read_bounded};
use super::manifest_kind::kind_of;
pub use super::manifest_kind::{ManifestKind, is_attestation};
use super::read::{Image, image_of, index_path, is_index, is_manifest, tag_of, tag_part};
use crate::util::digest::Sha256;
use crate::util::error::{Error, Result};
use camino::{Utf8Path, Utf8PathBuf};
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Indexes of three levels are known.
const MAX_NESTING: usize = 8;
/// The manifests of all tags together. A few kilobytes could name any number of them.
const MAX_MANIFESTS: usize = 100_000;
/// The names that a message lists.
const MAX_NAMES: usize = 20;
/// Bytes of manifests and configs that are kept in memory.
const MAX_CACHED: u64 = 64 << 20;

/// A layout. Nothing of it is read twice.
pub struct LayoutReader {
    path: Utf8PathBuf,
    index: ImageIndex,
    has_unknown_fields: bool,
    /// The name of an image in the index, and the tag at the end of that name → places in the index.
    tags: BTreeMap<String, Vec<usize>>,
    /// By digest and size.
    manifests: RefCell<BTreeMap<(Sha256, u64), Rc<Manifest>>>,
    images: RefCell<BTreeMap<(Sha256, u64), Rc<Image>>>,
    /// Bytes that both may still keep.
    cache_left: Cell<u64>,
    /// Manifests that may still be found.
    manifests_left: Cell<usize>,
}

/// A manifest or an index.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are images")]
enum Manifest {
    Image(ImageManifest),
    Index(ImageIndex),
}

/// A manifest of a layout, or another blob that an index names.
#[derive(Clone, Debug)]
pub struct ManifestRef {
    /// Its name in the layout's index, or the name of the index that it is in.
    pub tag: Option<String>,
    pub descriptor: Descriptor,
    pub kind: ManifestKind,
}

impl LayoutReader {
    /// Reads the index of a layout.
    ///
    /// # Errors
    ///
    /// There is no such layout (exit code 2), or it breaks a rule (3).
    pub fn open(path: &Utf8Path) -> Result<LayoutReader> {
        let file = index_path(path)?;
        let bytes = read_bounded(&file)?;
        // No digest covers the index, so it may be damaged.
        let index: ImageIndex = parse(&file, &bytes).map_err(Error::mark_damaged)?;
        let whole: serde_json::Value = parse(&file, &bytes).map_err(Error::mark_damaged)?;
        let known = serde_json::to_value(&index).expect("only string keys");
        let mut tags: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (at, name) in index.manifests().iter().map(tag_of).enumerate() {
            let Some(name) = name else { continue };
            let tag = tag_part(&name);
            if tag != name {
                tags.entry(tag.to_owned()).or_default().push(at);
            }
            tags.entry(name).or_default().push(at);
        }
        Ok(LayoutReader {
            path: path.to_owned(),
            index,
            has_unknown_fields: whole != known,
            tags,
            manifests: RefCell::default(),
            images: RefCell::default(),
            cache_left: Cell::new(MAX_CACHED),
            manifests_left: Cell::new(MAX_MANIFESTS),
        })
    }

    /// Returns the directory of the layout.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    pub fn index(&self) -> &ImageIndex {
        &self.index
    }

    /// Returns whether the index has fields that the specification does not know.
    pub fn has_unknown_fields(&self) -> bool {
        self.has_unknown_fields
    }

    /// Returns the names of its images.
    pub fn names(&self) -> impl Iterator<Item = String> {
        self.index.manifests().iter().filter_map(tag_of)
    }

    /// Returns the descriptors of this tag, or all of them. The tag may also be the end of a full reference, or
    /// `@` and a digest.
    ///
    /// # Errors
    ///
    /// Exit code 2 if there is no such tag, or nothing at all.
    pub fn select_all(&self, tag: Option<&str>) -> Result<Vec<Descriptor>> {
        let all = self.index.manifests();
        let Some(tag) = tag else {
            if all.is_empty() {
                return Err(Error::usage(format!("{} has no image", self.path)));
            }
            return Ok(all.clone());
        };
        if let Some(digest) = tag.strip_prefix('@') {
            return self.select_by_digest(digest).map(|found| vec![found]);
        }
        let found = self.tags.get(tag).map(Vec::as_slice).unwrap_or_default();
        // An exact name comes before one that ends in the tag.
        let exact = found.iter().filter(|&&at| tag_of(&all[at]).as_deref() == Some(tag));
        let exact: Vec<Descriptor> = exact.map(|&at| all[at].clone()).collect();
        let selected =
            if exact.is_empty() { found.iter().map(|&at| all[at].clone()).collect() } else { exact };
        if selected.is_empty() {
            return Err(Error::usage(format!("{} has no image with the tag {tag}", self.path))
                .hint(format!("its tags are {}", list_names(all))));
        }
        Ok(selected)
    }

    /// Returns the descriptor of a manifest in the layout's index, or in an index that it leads to.
    fn select_by_digest(&self, digest: &str) -> Result<Descriptor> {
        let has_digest = |descriptor: &Descriptor| descriptor.digest().to_string() == digest;
        let all = self.index.manifests();
        if let Some(found) = all.iter().find(|descriptor| has_digest(descriptor)) {
            return Ok(found.clone());
        }
        for descriptor in all {
            let mut inner = self.manifest_refs(descriptor)?.into_iter().map(|inner| inner.descriptor);
            if let Some(found) = inner.find(&has_digest) {
                return Ok(found);
            }
        }
        Err(Error::usage(format!("{} has no image with the digest {digest}", self.path)))
    }

    /// Returns the first descriptor with exactly this name.
    pub fn find(&self, name: &str) -> Option<&Descriptor> {
        let all = self.index.manifests();
        let mut found = self.tags.get(name)?.iter().map(|&at| &all[at]);
        found.find(|descriptor| tag_of(descriptor).as_deref() == Some(name))
    }

    /// Returns the first manifests of an index, or none if the descriptor is not of an index.
    pub(super) fn index_manifests(&self, index: &Descriptor, most: usize) -> Result<Vec<ImageManifest>> {
        let index = self.manifest(index)?;
        let Some(Manifest::Index(index)) = index.as_deref() else { return Ok(Vec::new()) };
        let manifests = index.manifests().iter().take(most).map(|descriptor| self.manifest(descriptor));
        manifests
            .filter_map(|manifest| match manifest.map(|manifest| manifest.as_deref().cloned()) {
                Ok(Some(Manifest::Image(manifest))) => Some(Ok(manifest)),
                Ok(_) => None,
                Err(error) => Some(Err(error)),
            })
            .collect()
    }

    /// Returns the only descriptor of this tag, or of the layout.
    fn select_one(&self, tag: Option<&str>) -> Result<Descriptor> {
        let layout = &self.path;
        match (&self.select_all(tag)?[..], tag) {
            ([one], _) => Ok(one.clone()),
            (_, Some(tag)) => Err(Error::fetch(format!("{layout} has several images with the tag {tag}"))),
            (several, None) => {
                let names = list_names(several);
                Err(Error::usage(format!("{layout} has several images"))
                    .hint(format!("select one with {layout}:TAG; its tags are {names}")))
            }
        }
    }

    /// Returns the manifests that a descriptor of the layout's index leads to, directly
    /// or through indexes, each once.
    ///
    /// # Errors
    ///
    /// Exit code 3 if the layout breaks a rule.
    pub fn manifest_refs(&self, descriptor: &Descriptor) -> Result<Vec<ManifestRef>> {
        let mut manifest_refs = Vec::new();
        self.collect(descriptor, tag_of(descriptor).as_ref(), 0, &mut BTreeSet::new(), &mut manifest_refs)?;
        Ok(manifest_refs)
    }

    fn collect(
        &self,
        descriptor: &Descriptor,
        tag: Option<&String>,
        depth: usize,
        seen: &mut BTreeSet<Sha256>,
        manifest_refs: &mut Vec<ManifestRef>,
    ) -> Result<()> {
        let digest = check_descriptor(&self.path, descriptor)?;
        if !seen.insert(digest) {
            return Ok(());
        }
        let left = self.manifests_left.get().checked_sub(1);
        self.manifests_left.set(left.ok_or_else(|| {
            Error::fetch(format!("{}: the layout has more than {MAX_MANIFESTS} manifests", self.path))
        })?);
        let kind = match self.manifest(descriptor)?.as_deref() {
            None => ManifestKind::Blob(descriptor.media_type().to_string()),
            Some(Manifest::Index(_)) if depth == MAX_NESTING => {
                let message =
                    format!("{}: indexes are nested more than {MAX_NESTING} levels deep", self.path);
                return Err(Error::fetch(message));
            }
            Some(Manifest::Index(index)) => {
                let mut inner = index.manifests().iter();
                return inner.try_for_each(|inner| self.collect(inner, tag, depth + 1, seen, manifest_refs));
            }
            Some(Manifest::Image(_)) if is_attestation(descriptor) => ManifestKind::Referrer,
            Some(Manifest::Image(manifest)) => kind_of(manifest),
        };
        manifest_refs.push(ManifestRef { tag: tag.cloned(), descriptor: descriptor.clone(), kind });
        Ok(())
    }

    /// Reads a manifest or an index. Returns `None` for another kind of blob.
    fn manifest(&self, descriptor: &Descriptor) -> Result<Option<Rc<Manifest>>> {
        let media_type = descriptor.media_type();
        if !is_index(media_type) && !is_manifest(media_type) {
            return Ok(None);
        }
        let key = (check_descriptor(&self.path, descriptor)?, descriptor.size());
        let fits = |cached: &&Rc<Manifest>| matches!(***cached, Manifest::Index(_)) == is_index(media_type);
        if let Some(cached) = self.manifests.borrow().get(&key).filter(fits) {
            return Ok(Some(cached.clone()));
        }
        let read = Rc::new(if is_index(media_type) {
            Manifest::Index(read_blob(&self.path, descriptor)?.1)
        } else {
            Manifest::Image(read_blob(&self.path, descriptor)?.1)
        });
        if self.reserve_cache(descriptor.size()) {
            self.manifests.borrow_mut().insert(key, read.clone());
        }
        Ok(Some(read))
    }

    /// Reads the manifest. Returns `None` for another kind of blob.
    pub fn image_manifest(&self, manifest_ref: &ManifestRef) -> Result<Option<ImageManifest>> {
        Ok(match self.manifest(&manifest_ref.descriptor)?.as_deref() {
            Some(Manifest::Image(manifest)) => Some(manifest.clone()),
            _ => None,
        })
    }

    /// Returns the `mediaType` inside a blob that is not a manifest by its descriptor.
    pub fn embedded_media_type(&self, manifest_ref: &ManifestRef) -> Option<String> {
        let (_, value): (_, serde_json::Value) = read_blob(&self.path, &manifest_ref.descriptor).ok()?;
        value.get("mediaType")?.as_str().map(str::to_owned)
    }

    fn reserve_cache(&self, bytes: u64) -> bool {
        let left = self.cache_left.get().checked_sub(bytes);
        self.cache_left.set(left.unwrap_or(self.cache_left.get()));
        left.is_some()
    }

    /// Opens a manifest as an image.
    pub fn image(&self, manifest_ref: &ManifestRef) -> Result<Image> {
        let key = (check_descriptor(&self.path, &manifest_ref.descriptor)?, manifest_ref.descriptor.size());
        let cached = self.images.borrow().get(&key).cloned();
        let image = match cached {
            Some(image) => image,
            None => {
                let Some(manifest) = self.image_manifest(manifest_ref)? else {
                    let kind = manifest_ref.descriptor.media_type();
                    return Err(Error::fetch(format!(
                        "{}: a blob of type {kind} is not an image",
                        self.path
                    )));
                };
                let image = Rc::new(image_of(&self.path, key.0, manifest, None)?);
                if self.reserve_cache(key.1 + image.manifest.config().size()) {
                    self.images.borrow_mut().insert(key, image.clone());
                }
                image
            }
        };
        Ok(Image { tag: manifest_ref.tag.clone(), ..(*image).clone() })
    }

    /// Returns the images of this tag, or all of the layout, without the artifacts that are attached to them.
    ///
    /// # Errors
    ///
    /// There is no such tag or image (exit code 2), or the layout breaks a rule (3).
    pub fn images(&self, tag: Option<&str>) -> Result<Vec<ManifestRef>> {
        let (mut images, mut others) = (Vec::new(), BTreeSet::new());
        for descriptor in self.select_all(tag)? {
            for manifest_ref in self.manifest_refs(&descriptor)? {
                match &manifest_ref.kind {
                    ManifestKind::Image => images.push(manifest_ref),
                    other => drop(others.insert(other.title())),
                }
            }
        }
        if images.is_empty() {
            let others = others.into_iter().collect::<Vec<_>>().join(", ");
            return Err(Error::usage(format!("{} has no image of this name, only {others}", self.path)));
        }
        Ok(images)
    }

    /// Opens the image of this tag, or the only image of the layout. Of an index, opens the image for `arch`
    /// (OCI's name) or the only image.
    ///
    /// # Errors
    ///
    /// There is no such tag, no image for `arch`, or more than one image (exit code 2). Or the
    /// layout breaks a rule (3).
    pub fn open_image(&self, tag: Option<&str>, arch: Option<&str>) -> Result<Image> {
        let descriptor = self.select_one(tag)?;
        let manifest_refs = self.manifest_refs(&descriptor)?;
        let is_image = |manifest_ref: &&ManifestRef| manifest_ref.kind == ManifestKind::Image;
        let images = manifest_refs.iter().filter(is_image).map(|manifest_ref| self.image(manifest_ref));
        let mut images = images.collect::<Result<Vec<_>>>()?;
        if images.is_empty() {
            // Its error lists what there is.
            self.images(tag)?;
        }
        let found: Vec<String> = images.iter().map(|image| image.config.architecture().to_string()).collect();
        if let Some(at) = arch.and_then(|arch| found.iter().position(|found| found == arch)) {
            return Ok(images.swap_remove(at));
        }
        if !is_index(descriptor.media_type()) || (arch.is_none() && images.len() == 1) {
            return Ok(images.swap_remove(0));
        }
        let (layout, found) = (&self.path, found.join(", "));
        Err(match arch {
            Some(arch) => Error::usage(format!("{layout} has no image for {arch}, only for {found}")),
            None => Error::usage(format!("{layout} has images for {found}")).hint("select one with --arch"),
        })
    }

    /// Reads a whole artifact or another blob, and returns its size.
    pub fn check_artifact(&self, manifest_ref: &ManifestRef) -> Result<u64> {
        let Some(manifest) = self.image_manifest(manifest_ref)? else {
            return check_blob(&self.path, &manifest_ref.descriptor);
        };
        Ok(manifest_ref.descriptor.size() + check_blobs(&self.path, &manifest)?)
    }
}

/// Returns the names of the first images, for a message.
fn list_names(descriptors: &[Descriptor]) -> String {
    let mut names: Vec<String> = descriptors.iter().take(MAX_NAMES).filter_map(tag_of).collect();
    let more = descriptors.len().saturating_sub(MAX_NAMES);
    names.extend((more > 0).then(|| format!("{more} more")));
    names.join(", ")
}
