//! Checks `index.json`, the only file of a layout without a digest, against the images that it names.

use super::image::ImageChecks;
use super::{CheckResult, Problems};
use crate::image::tag::{KernelTag, build_of};
use crate::kernel::KernelVersion;
use crate::oci::layout_reader::{LayoutReader, ManifestRef};
use crate::oci::read::{is_image_config, tag_of, tag_part};
use crate::plan::annotations;
use crate::plan::request::TagSuffix;
use oci_spec::image::{Descriptor, MediaType, Platform};
use std::collections::BTreeSet;

/// The oldest major version in use. A tag with a lower number is not the version of a kernel.
const OLDEST_MAJOR: u32 = 3;

/// The problems of an index that do not depend on its images.
pub(super) struct IndexFacts {
    problems: Vec<String>,
    has_unknown_fields: bool,
}

impl IndexFacts {
    pub(super) fn of(reader: &LayoutReader) -> IndexFacts {
        let index = reader.index();
        let mut problems = Vec::new();
        if index.schema_version() != 2 {
            problems.push(format!("index.json has the schemaVersion {}, not 2", index.schema_version()));
        }
        if index.media_type().as_ref().is_some_and(|kind| *kind != MediaType::ImageIndex) {
            problems.push("the media type of index.json is not that of an index".into());
        }
        let mut tags = BTreeSet::new();
        if let Some(twice) = reader.names().find(|tag| !tags.insert(tag.clone())) {
            problems.push(format!("index.json has the tag {twice} twice"));
        }
        IndexFacts { problems, has_unknown_fields: reader.has_unknown_fields() }
    }

    /// Checks the entry of an image in the layout's index, which is `outer`.
    pub(super) fn check(
        &self,
        image: &ImageChecks,
        reader: &LayoutReader,
        manifest_ref: &ManifestRef,
        outer: &Descriptor,
    ) -> CheckResult {
        let mut problems = Problems::default();
        self.problems.iter().for_each(|problem| problems.add(problem.clone()));
        let arch = &image.inspected.arch;
        if let Some(problem) =
            manifest_ref.descriptor.platform().as_ref().and_then(|platform| platform_problem(platform, image))
        {
            problems.add(problem);
        }
        let name = tag_of(outer);
        if image.origin.is_ours() {
            if let Some(problem) = name.as_deref().and_then(|name| tag_problem(name, image)) {
                problems.add(problem);
            }
            if let Some(problem) = name.as_deref().and_then(|name| build_problem(name, reader, outer)) {
                problems.add(problem);
            }
            if self.has_unknown_fields {
                problems.add("index.json has unknown fields".into());
            }
        }
        if image.manifest.schema_version() != 2 {
            let schema = image.manifest.schema_version();
            problems.add(format!("the manifest has the schemaVersion {schema}, not 2"));
        }
        let config = image.manifest.config().media_type();
        if !is_image_config(config) {
            problems.add(format!("the manifest has a config of type {config}"));
        }
        let kind = manifest_ref.descriptor.media_type();
        if let Some(own) = image.manifest.media_type().as_ref().filter(|own| *own != kind) {
            problems.add(format!("the media type of the manifest is {own}, but {kind} in the index"));
        }
        let tag = name.map_or_else(|| "no tag".to_owned(), |tag| format!("tag {tag}"));
        problems.result(format!("{tag}, {} on {arch}", image.os))
    }
}

/// Returns the problem of the name of a kcompile image. It may be any tag or a full reference, as `podman
/// save` writes it, but not the version of another kernel.
fn tag_problem(name: &str, image: &ImageChecks) -> Option<String> {
    let tag = tag_part(name);
    if tag.is_empty() || tag.contains('/') {
        return Some(format!("the name {name} has no tag in it"));
    }
    let version = image.inspected.version.as_ref()?;
    let kernel: KernelVersion = version.parse().ok()?;
    let KernelTag { version: named, suffix, .. } = KernelTag::parse(tag)?;
    let own = annotations::tag_suffix(|key| image.inspected.annotation(key));
    if suffix != TagSuffix::None && suffix != own {
        return Some(format!("the tag is {tag}, but the image was not built with {}", suffix.option()));
    }
    let is_kernels = (OLDEST_MAJOR..=kernel.major + 1).contains(&named.floor().major);
    let differs = is_kernels && !named.admits(kernel);
    differs.then(|| format!("the tag is {tag}, but the image has the version {version}"))
}

/// Returns the problem of a tag that names another build than that of its images.
fn build_problem(name: &str, reader: &LayoutReader, outer: &Descriptor) -> Option<String> {
    let named = KernelTag::parse(tag_part(name))?.build?;
    let build = build_of(reader, outer)?.to_string();
    (!build.starts_with(named)).then(|| {
        format!(
            "the tag names the build {named}, but the image is of the build {}; copy a tag of several architectures \
             with all of them",
            &build[..named.len()]
        )
    })
}

fn platform_problem(platform: &Platform, image: &ImageChecks) -> Option<String> {
    let (os, arch) = (platform.os().to_string(), platform.architecture().to_string());
    let (own_os, own_arch) = (&image.os, &image.inspected.arch);
    let differs = os != *own_os || arch != *own_arch;
    differs.then(|| format!("the index has {os} on {arch}, the image's config {own_os} on {own_arch}"))
}
