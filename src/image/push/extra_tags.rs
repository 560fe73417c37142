//! The tags that a push adds to those of the layouts. The tag of a series moves to its newest version, and the tag of
//! a build stays with its image.

use super::{ExtraTags, ImageCopy, Registry, TagKind, skopeo};
use crate::host::Host;
use crate::image::tag::TaggedKernel;
use crate::kernel::KernelVersion;
use crate::oci::annotations::VERSION;
use crate::oci::layout_reader::LayoutReader;
use crate::report::Reporter;
use crate::util::error::Result;
use serde_json::Value;
use std::collections::BTreeMap;

impl ImageCopy {
    /// Returns the copies of the same image under its extra tags. Artifacts have none, because they are found by
    /// the digest of their image.
    pub(super) fn with_extra_tags(&self, extra: ExtraTags, reporter: &Reporter) -> Result<Vec<ImageCopy>> {
        if !extra.series && !extra.build || self.tagged.kind.subject().is_some() {
            return Ok(Vec::new());
        }
        let name = format!("{}:{}", self.layout, self.tagged.tag);
        let reader = LayoutReader::open(&self.layout)?;
        let Some(kernel) = TaggedKernel::read(&reader, &self.tagged)? else {
            reporter
                .note(&format!("{name} gets no other tag, because its tag is not the version of a kernel"));
            return Ok(Vec::new());
        };
        let mut tags = Vec::new();
        if extra.series {
            match kernel.series_tag() {
                Some(tag) => tags.push((tag, TagKind::Series(kernel.version))),
                None => reporter
                    .note(&format!("{name} is a release candidate, so no tag of a series moves to it")),
            }
        }
        if extra.build {
            match kernel.build_tag() {
                Some(tag) => tags.push((tag, TagKind::Build)),
                None => reporter
                    .note(&format!("{name} gets no tag of a build, because its annotations name no plan")),
            }
        }
        Ok(tags.into_iter().map(|(tag, kind)| ImageCopy { tag, kind, ..self.clone() }).collect())
    }
}

/// Keeps, of the copies with the same tag of a series, the one with the newest version.
pub(super) fn newest_of_series(copies: Vec<ImageCopy>) -> Vec<ImageCopy> {
    let mut newest: BTreeMap<String, TagKind> = BTreeMap::new();
    for copy in &copies {
        let known = newest.entry(copy.destination()).or_insert(copy.kind);
        *known = copy.kind.max(*known);
    }
    copies.into_iter().filter(|copy| newest[&copy.destination()] == copy.kind).collect()
}

/// Removes the copies that would move the tag of a series back to an older version, with a note.
pub(super) fn without_older(
    copies: &[ImageCopy],
    registry: &Registry,
    host: &Host,
    reporter: &Reporter,
) -> Result<Vec<ImageCopy>> {
    let mut kept = Vec::new();
    for copy in copies {
        let newer = match copy.kind {
            TagKind::Series(version) => {
                served_version(copy, registry, host)?.filter(|served| *served > version)
            }
            TagKind::Own | TagKind::Build | TagKind::Plan => None,
        };
        match newer {
            Some(newer) => {
                reporter.note(&format!("{} stays at Linux {newer}, which is newer", copy.destination()));
            }
            None => kept.push(copy.clone()),
        }
    }
    Ok(kept)
}

/// Returns the kernel version of the image that the registry serves for a tag, by its annotations.
fn served_version(copy: &ImageCopy, registry: &Registry, host: &Host) -> Result<Option<KernelVersion>> {
    let served = skopeo::served_manifest(copy, registry, host)?;
    let manifest: Option<Value> = served.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    Ok(manifest.and_then(|manifest| manifest["annotations"][VERSION].as_str()?.parse().ok()))
}
