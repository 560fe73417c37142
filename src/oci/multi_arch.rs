//! Writes an index over the images of one name for several architectures, in a
//! layout that shares their blobs.

use super::layout::{Layout, WrittenImage, index_of, text_of};
use super::layout_reader::LayoutReader;
use super::referrers::write_index_referrers;
use super::tags::{self, TaggedKind};
use crate::oci::annotations::TITLE;
use crate::util::digest::Sha256;
use crate::util::error::Result;
use camino::{Utf8Path, Utf8PathBuf};
use oci_spec::image::{ImageManifest, MediaType};
use std::collections::{BTreeMap, HashMap};

/// An index that was written.
#[derive(Clone, Debug)]
pub struct MultiArchIndex {
    pub layout: Utf8PathBuf,
    pub tag: String,
    /// The digest of the index.
    pub digest: Sha256,
}

/// Joins images that differ only in their architecture. `<name>-amd64` and `<name>-arm64` with one tag become
/// an index with that tag in the layout `<name>`. Their artifacts are attached to the index too. Returns the
/// indexes. The caller holds the lock of the output directory.
pub fn write_multi_arch(output: &Utf8Path, images: &[WrittenImage]) -> Result<Vec<MultiArchIndex>> {
    let mut groups: BTreeMap<(&str, &str), BTreeMap<_, &WrittenImage>> = BTreeMap::new();
    for image in images {
        let name = image.layout.file_name().unwrap_or_default();
        if let Some(name) = name.strip_suffix(&format!("-{}", image.architecture)) {
            groups.entry((name, &image.tag)).or_default().insert(&*image.architecture, image);
        }
    }
    let groups = groups.into_iter().filter(|(_, images)| images.len() > 1);
    groups
        .map(|((name, tag), images)| {
            write_index(output, name, tag, &images.into_values().collect::<Vec<_>>())
        })
        .collect()
}

fn write_index(output: &Utf8Path, name: &str, tag: &str, images: &[&WrittenImage]) -> Result<MultiArchIndex> {
    let layout = Layout::open(output, name)?;
    let path = layout.path().to_owned();
    let (mut descriptors, mut annotations) = (Vec::new(), Vec::new());
    for image in images {
        let descriptor = image.manifest().image(&image.architecture);
        let manifest: ImageManifest = layout.copy_image(&image.layout, &descriptor)?;
        annotations.push(manifest.annotations().clone().unwrap_or_default());
        descriptors.push(descriptor);
    }
    let mut index = index_of(descriptors);
    index.set_annotations(Some(common_annotations(name, annotations)));
    let index = layout.add_bytes(&text_of(&index))?;
    layout.tag(tag, index.descriptor(MediaType::ImageIndex))?;
    write_index_referrers(output, name, index, images)?;
    Ok(MultiArchIndex { layout: path, tag: tag.to_owned(), digest: index.digest })
}

/// Returns, as `LAYOUT:TAG`, the indexes of earlier runs that have an older image in place of one of these.
pub fn find_outdated(output: &Utf8Path, images: &[WrittenImage]) -> Vec<String> {
    let mut outdated = Vec::new();
    for image in images {
        let layout = image.layout.file_name().unwrap_or_default();
        let name = layout.strip_suffix(&format!("-{}", image.architecture)).map(|name| output.join(name));
        let Some(index) = name.filter(|index| index.join("oci-layout").is_file()) else { continue };
        let tags = tags::tags(&index).unwrap_or_default();
        if !tags.iter().any(|known| known.tag == image.tag && known.kind == TaggedKind::Index) {
            continue;
        }
        let manifest_refs = LayoutReader::open(&index).and_then(|index| index.images(Some(&image.tag)));
        let Ok(manifest_refs) = manifest_refs else { continue };
        let digest = image.digest.oci();
        if !manifest_refs.iter().any(|manifest_ref| manifest_ref.descriptor.digest().to_string() == digest) {
            outdated.push(format!("{index}:{}", image.tag));
        }
    }
    outdated
}

/// Returns the annotations that all images have, with `name` as the title.
fn common_annotations(name: &str, mut all: Vec<HashMap<String, String>>) -> HashMap<String, String> {
    let mut annotations = all.pop().unwrap_or_default();
    annotations.retain(|key, value| all.iter().all(|other| other.get(key) == Some(value)));
    annotations.insert(TITLE.to_owned(), name.to_owned());
    annotations
}
