//! One tag for several machines: an index over the images of one name for all architectures, in a layout of its
//! own that shares their blobs.

use super::layout::{Layout, Written};
use super::layout_reader::LayoutReader;
use super::referrers::attach_to_index;
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
pub struct Joined {
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
pub fn join(output: &Utf8Path, images: &[Written]) -> Result<Vec<Joined>> {
    let mut groups: BTreeMap<(&str, &str), BTreeMap<_, &Written>> = BTreeMap::new();
    for image in images {
        let name = image.layout.file_name().unwrap_or_default();
        if let Some(name) = name.strip_suffix(&format!("-{}", image.architecture)) {
            groups.entry((name, &image.tag)).or_default().insert(&*image.architecture, image);
        }
    }
    let groups = groups.into_iter().filter(|(_, images)| images.len() > 1);
    groups
        .map(|((name, tag), images)| join_one(output, name, tag, &images.into_values().collect::<Vec<_>>()))
        .collect()
}

fn join_one(output: &Utf8Path, name: &str, tag: &str, images: &[&Written]) -> Result<Joined> {
    let layout = Layout::open(output, name)?;
    let path = layout.path().to_owned();
    let (mut descriptors, mut annotations) = (Vec::new(), Vec::new());
    for image in images {
        let descriptor = image.manifest().image(&image.architecture);
        let manifest: ImageManifest = layout.take_image(&image.layout, &descriptor)?;
        annotations.push(manifest.annotations().clone().unwrap_or_default());
        descriptors.push(descriptor);
    }
    let index = ImageIndexBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageIndex)
        .manifests(descriptors)
        .annotations(common(name, annotations))
        .build()
        .expect("all fields are set");
    let index = layout.add_bytes(&index.to_canon_json_vec().expect("only string keys"))?;
    layout.tag(tag, index.descriptor(MediaType::ImageIndex))?;
    attach_to_index(output, name, index, images)?;
    Ok(Joined { layout: path, tag: tag.to_owned(), digest: index.digest })
}

/// The indexes of earlier runs in which one of these images still has its predecessor: `LAYOUT:TAG`. A layout of
/// such a name that is somebody else's has none.
pub fn outdated(output: &Utf8Path, images: &[Written]) -> Vec<String> {
    let mut outdated = Vec::new();
    for image in images {
        let layout = image.layout.file_name().unwrap_or_default();
        let name = layout.strip_suffix(&format!("-{}", image.architecture)).map(|name| output.join(name));
        let Some(joined) = name.filter(|joined| joined.join("oci-layout").is_file()) else { continue };
        let tags = tags::tags(&joined).unwrap_or_default();
        if !tags.iter().any(|known| known.tag == image.tag && known.kind == TaggedKind::Index) {
            continue;
        }
        let parts = LayoutReader::open(&joined).and_then(|joined| joined.images(Some(&image.tag)));
        let Ok(parts) = parts else { continue };
        let digest = image.digest.oci();
        if !parts.iter().any(|part| part.descriptor.digest().to_string() == digest) {
            outdated.push(format!("{joined}:{}", image.tag));
        }
    }
    outdated
}

/// What all of them say, under their common name.
fn common(name: &str, mut all: Vec<HashMap<String, String>>) -> HashMap<String, String> {
    let mut common = all.pop().unwrap_or_default();
    common.retain(|key, value| all.iter().all(|other| other.get(key) == Some(value)));
    common.insert(TITLE.to_owned(), name.to_owned());
    common
}
