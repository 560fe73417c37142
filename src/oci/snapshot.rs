//! Keeps copies of tagged images outside of their layouts, checks whether an output directory still
//! has them whole, and restores them.

use super::REFERRERS_SUFFIX;
use super::blob::{blob_path, check_descriptor, check_digest, open_blob, open_file, read_blob};
use super::layout::{Layout, TaggedLayout, WrittenImage, is_canonical};
use super::read::{read_index, tag_of};
use crate::host::process::Interruptible;
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result, ResultExt, cannot};
use crate::util::file_stamp::{self, FileStamp};
use crate::util::fs::create_dir;
use camino::{Utf8Path, Utf8PathBuf};
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};

/// A tag of a layout, and the descriptor of an image or of an index of attached artifacts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TagSnapshot {
    /// The name of the layout.
    layout: String,
    tag: String,
    descriptor: Descriptor,
}

/// Blobs that had the right digest when they were read, with their file stamps from before that. A blob is
/// not read again while its stamp is the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedBlobs(BTreeMap<Utf8PathBuf, BlobStamp>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct BlobStamp {
    #[serde(rename = "fingerprint")]
    stamp: FileStamp,
    /// When the reading began.
    at: i64,
}

/// Enough for the blobs of one plan in about ten output directories.
const MAX_VERIFIED: usize = 128;

/// Copies `images` and the artifacts that are attached to them into the directory `store`.
pub fn snapshot_tags<'a>(
    images: impl IntoIterator<Item = &'a WrittenImage>,
    store: &Utf8Path,
) -> Result<Vec<TagSnapshot>> {
    create_dir(&store.join("blobs/sha256"))?;
    let mut all = Vec::new();
    for image in images {
        let referrers = Utf8PathBuf::from(format!("{}{REFERRERS_SUFFIX}", image.layout));
        all.push(snapshot_tag(&image.layout, &image.tag, store)?);
        if referrers.is_dir() {
            all.push(snapshot_tag(&referrers, &format!("{}{REFERRERS_SUFFIX}", image.tag), store)?);
        }
    }
    Ok(all)
}

fn snapshot_tag(layout: &Utf8Path, tag: &str, store: &Utf8Path) -> Result<TagSnapshot> {
    let descriptor =
        find(&read_index(layout)?, tag).ok_or_else(|| Error::build(format!("{layout} has no tag {tag}")))?;
    for blob in reachable_blobs(layout, &descriptor)? {
        let digest = check_descriptor(layout, &blob)?;
        let (from, to) = (blob_path(layout, digest), blob_path(store, digest));
        let (mut blob, _) = open_file(&from)?;
        let copied =
            File::create(&to).and_then(|mut copy| io::copy(&mut Interruptible(&mut blob), &mut copy));
        copied.context(Kind::Build, || format!("cannot copy {from} to {to}"))?;
    }
    let name = layout.file_name().unwrap_or_default().to_owned();
    Ok(TagSnapshot { layout: name, tag: tag.to_owned(), descriptor })
}

/// Returns the descriptor of a tag, or `None` if there is none or more than one.
fn find(index: &ImageIndex, tag: &str) -> Option<Descriptor> {
    let mut fitting = index.manifests().iter().filter(|one| tag_of(one).as_deref() == Some(tag));
    fitting.next().filter(|_| fitting.next().is_none()).cloned()
}

/// Returns all blobs of a tag. Manifests and indexes are read and checked. `layout` is a layout or a store.
fn reachable_blobs(layout: &Utf8Path, tagged: &Descriptor) -> Result<Vec<Descriptor>> {
    let mut all = vec![tagged.clone()];
    let manifests = match tagged.media_type() {
        MediaType::ImageIndex => {
            let (_, index): (_, ImageIndex) = read_blob(layout, tagged)?;
            all.extend(index.manifests().iter().cloned());
            index.manifests().clone()
        }
        _ => vec![tagged.clone()],
    };
    for descriptor in manifests {
        let (_, manifest): (_, ImageManifest) = read_blob(layout, &descriptor)?;
        all.extend(manifest.layers().iter().chain([manifest.config()]).cloned());
    }
    Ok(all)
}

impl TagSnapshot {
    /// Returns the name of its layout.
    pub fn layout(&self) -> &str {
        &self.layout
    }

    /// Returns whether `output` still has the tag and all its blobs. Manifests and indexes are read, and
    /// other blobs only if their stamp is not in `verified`.
    pub fn is_intact(&self, output: &Utf8Path, verified: &mut VerifiedBlobs) -> bool {
        let layout = output.join(&self.layout);
        let mut check = || -> Result<bool> {
            let index = read_index(&layout)?;
            if find(&index, &self.tag).as_ref() != Some(&self.descriptor) || !is_canonical(&layout, &index)? {
                return Ok(false);
            }
            reachable_blobs(&layout, &self.descriptor)?
                .iter()
                .try_for_each(|blob| verified.check(&layout, blob))?;
            Ok(true)
        };
        check().unwrap_or(false)
    }

    /// Copies missing and damaged blobs from `store` to the layout in `output`. The tag is not published yet.
    fn prepare(&self, output: &Utf8Path, store: &Utf8Path) -> Result<TaggedLayout> {
        let layout = Layout::open(output, &self.layout)?;
        for blob in reachable_blobs(store, &self.descriptor)? {
            put(&layout, store, check_descriptor(store, &blob)?)?;
        }
        layout.prepare_tag(&self.tag, self.descriptor.clone())
    }
}

/// Restores the tags from `store` in `output`, all of them or none. The caller holds the
/// lock of the output directory.
///
/// # Errors
///
/// A blob is missing in the store or damaged, or `output` cannot be written.
pub fn restore(snapshots: &[TagSnapshot], output: &Utf8Path, store: &Utf8Path) -> Result<()> {
    let prepared: Result<Vec<_>> = snapshots.iter().map(|tag| tag.prepare(output, store)).collect();
    prepared?.into_iter().try_for_each(TaggedLayout::publish)
}

impl VerifiedBlobs {
    /// Checks a blob, which is read only if its stamp has changed.
    fn check(&mut self, layout: &Utf8Path, descriptor: &Descriptor) -> Result<()> {
        let at = file_stamp::now();
        let (path, digest, file) = open_blob(layout, descriptor)?;
        let stamp = FileStamp::of(&file.metadata().context(Kind::Fetch, cannot("read", &path))?);
        let known = self.0.get(&path).copied();
        if known.is_some_and(|known| known.stamp == stamp && !stamp.is_racy(known.at)) {
            return Ok(());
        }
        let found = Sha256::of_reader(Interruptible(file.take(descriptor.size())))
            .context(Kind::Fetch, cannot("read", &path))?;
        check_digest(&path, digest, found)?;
        if self.0.len() >= MAX_VERIFIED {
            self.0.clear();
        }
        self.0.insert(path, BlobStamp { stamp, at });
        Ok(())
    }
}

fn put(layout: &Layout, store: &Utf8Path, digest: Sha256) -> Result<()> {
    let from = blob_path(store, digest);
    let (mut file, size) = open_file(&from)?;
    // A file of another size is not read, because it may have any size.
    let existing = open_file(&layout.blob_path(digest)).ok().filter(|(_, found)| *found == size);
    let existing = existing.and_then(|(file, _)| Sha256::of_reader(Interruptible(file)).ok());
    if existing == Some(digest) {
        return Ok(());
    }
    let mut blob = layout.add_blob()?;
    let copied = io::copy(&mut Interruptible(&mut file), &mut blob);
    copied.context(Kind::Build, || format!("cannot copy {from}"))?;
    if !blob.finish_with_digest(digest)? {
        return Err(Error::build(format!("{from} is damaged")));
    }
    Ok(())
}
