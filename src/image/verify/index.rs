//! `index.json` is the one file of a layout that no digest vouches for: it is held against what it leads to.

use super::{Faults, Outcome, raw_index};
use crate::oci::read::{Image, read_index, tag_of};
use crate::oci::tags::Part;
use crate::util::error::Result;
use oci_spec::image::{Descriptor, MediaType};
use std::collections::BTreeSet;

/// Checks what the layout's index says of an image; `outer` is its descriptor there.
pub(super) fn check(image: &Image, part: &Part, outer: &Descriptor, is_ours: bool) -> Result<Outcome> {
    let mut faults = Faults::default();
    let index = read_index(&image.layout)?;
    if index.schema_version() != 2 {
        faults.add(format!("index.json has the schemaVersion {}, not 2", index.schema_version()));
    }
    if index.media_type().as_ref().is_some_and(|kind| *kind != MediaType::ImageIndex) {
        faults.add("index.json says that it is something else than an index".into());
    }
    let mut tags = BTreeSet::new();
    if let Some(twice) = index.manifests().iter().filter_map(tag_of).find(|tag| !tags.insert(tag.clone())) {
        faults.add(format!("index.json has the tag {twice} twice"));
    }
    check_platform(image, &part.descriptor, &mut faults);
    let has_annotations = outer.annotations().as_ref().is_some_and(|all| !all.is_empty());
    match (tag_of(outer), image.annotation("version")) {
        (Some(tag), Some(version)) if is_ours && tag != version => {
            faults.add(format!("the tag is {tag}, the image says that it is version {version}"));
        }
        (None, _) if has_annotations => {
            faults.add("the image has annotations in index.json and no tag".into());
        }
        _ => {}
    }
    if is_ours {
        // What the types of an index leave out would not come back.
        let known = serde_json::to_value(&index).expect("only string keys");
        if raw_index(&image.layout)? != known {
            faults.add("index.json has fields that no index has".into());
        }
    }
    let schema = image.manifest.schema_version();
    if schema != 2 {
        faults.add(format!("the manifest has the schemaVersion {schema}, not 2"));
    }
    let config = image.manifest.config().media_type();
    if *config != MediaType::ImageConfig {
        faults.add(format!("the manifest says that its config is of type {config}"));
    }
    let tag = tag_of(outer).map_or_else(|| "no tag".to_owned(), |tag| format!("tag {tag}"));
    Ok(faults.outcome(format!("{tag}, {} on {}", image.config.os(), image.config.architecture())))
}

fn check_platform(image: &Image, descriptor: &Descriptor, faults: &mut Faults) {
    let Some(platform) = descriptor.platform() else { return };
    let said = (platform.os().to_string(), platform.architecture().to_string());
    let (os, arch) = (image.config.os().to_string(), image.config.architecture().to_string());
    if said != (os.clone(), arch.clone()) {
        faults.add(format!("the index says {} on {}, the image's config {os} on {arch}", said.0, said.1));
    }
}
