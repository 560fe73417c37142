//! One tag for several machines: an index over the images of one name for all architectures, in a layout of its
//! own that shares their blobs.

use super::layout::{Layout, WrittenImage};
use super::layout_reader::LayoutReader;
use super::referrers::write_index_referrers;
use super::tags::{self, TaggedKind};
use crate::oci::annotations::TITLE;
use crate::util::digest::Sha256;
use crate::util::error::Result;
use camino::{Utf8Path, Utf8PathBuf};
use canon_json::CanonJsonSerialize;
use oci_spec::image::{ImageIndexBuilder, ImageManifest, MediaType};
use std::collections::{BTreeMap, HashMap};

/// An index that was written.
#[derive(Clone, Debug)]
pub struct MultiArchIndex {
    /// The layout's directory.
    pub layout: Utf8PathBuf,
    /// The tag.
    pub tag: String,
    /// Of the index.
    pub digest: Sha256,
}

/// Joins the images that differ in nothing but their architecture: `<name>-amd64` and `<name>-arm64` of one tag
/// become an index of that tag in the layout `<name>`, and what is attached to them is attached to that. Returns the
/// indexes; a kernel that was built for one architecture only has none. The caller holds the lock of the output directory.
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
    let index = ImageIndexBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageIndex)
        .manifests(descriptors)
        .annotations(common_annotations(name, annotations))
        .build()
        .expect("all fields are set");
    let index = layout.add_bytes(&index.to_canon_json_vec().expect("only string keys"))?;
    layout.tag(tag, index.descriptor(MediaType::ImageIndex))?;
    write_index_referrers(output, name, index, images)?;
    Ok(MultiArchIndex { layout: path, tag: tag.to_owned(), digest: index.digest })
}

/// The indexes of earlier runs in which one of these images still has its predecessor: `LAYOUT:TAG`. A layout of
/// such a name that is somebody else's has none.
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

/// What all of them say, under their common name.
fn common_annotations(name: &str, mut all: Vec<HashMap<String, String>>) -> HashMap<String, String> {
    let mut annotations = all.pop().unwrap_or_default();
    annotations.retain(|key, value| all.iter().all(|other| other.get(key) == Some(value)));
    annotations.insert(TITLE.to_owned(), name.to_owned());
    annotations
}
