//! The build digest of an image. It covers all that decides the kernel, the modules and the other files of an
//! image, and nothing else. Other machines find the image in a registry by it, before they have the source.
//!
//! The plan's digest also covers the version of kcompile and the other images of the build.

use super::request::Request;
use super::{ConfigLayer, Contents, ImagePlan, MakePlan, Plan, SourcePlan, Toolchain, make_plan};
use crate::catalog::toolchain_quirks::Applied;
use crate::kernel::{Arch, Flavor, KernelVersion, SourceDigest};
use crate::oci::annotations::CREATED;
use crate::oci::{Compression, LAYER_FORMAT};
use crate::plan::request::ModuleMode;
use crate::util::digest::Sha256;
use canon_json::CanonJsonSerialize;
use serde::Serialize;
use std::collections::BTreeMap;

/// The version of what kcompile does with a plan. It increases if the same plan gives other files in the images.
const FORMAT: u32 = 1;

/// What decides all images of a plan.
#[derive(Serialize)]
struct BuildInputs<'a> {
    format: u32,
    layer_format: u32,
    version: KernelVersion,
    flavor: Flavor,
    arch: Arch,
    source: &'a SourcePlan,
    /// The date of a file or commit follows from its digest. That of a directory does not.
    date: Option<u64>,
    config: &'a [ConfigLayer],
    patches: Option<Sha256>,
    toolchain: &'a Toolchain,
    /// The rules for this version and these tools. The source decides which of them apply.
    rules: &'a [Applied],
    make: MakePlan,
    modules: ModuleMode,
}

/// What decides one image.
#[derive(Serialize)]
struct ImageInputs<'a> {
    build: Sha256,
    config_files: &'a BTreeMap<String, Sha256>,
    contents: &'a Contents,
    compression: Compression,
    annotations: BTreeMap<&'a str, &'a str>,
}

/// Returns the digest of what decides all images of a plan. `rules` are those that its source may need. Returns
/// `None` if the source is not known yet, or if tools of this host compile the kernel. They are known by their
/// versions only, which is not enough to take their output from others.
pub(super) fn of_inputs(plan: &Plan, request: &Request, rules: &[Applied]) -> Option<Sha256> {
    let digest = plan.source.digest.as_ref()?;
    if plan.toolchain.root.is_none() || !request.toolchain.spec.has_all_tools() {
        return None;
    }
    let date = match digest {
        SourceDigest::Sha256(_) | SourceDigest::Commit(_) => request.source_date_epoch,
        SourceDigest::Content(_) => plan.source_date_epoch,
    };
    Some(digest_of(&BuildInputs {
        format: FORMAT,
        layer_format: LAYER_FORMAT,
        version: plan.version?,
        flavor: plan.flavor,
        arch: plan.arch,
        source: &plan.source,
        date,
        config: &plan.config,
        patches: plan.patches_digest(),
        toolchain: &plan.toolchain,
        rules,
        make: make_plan(request, None, &plan.toolchain, &[]),
        modules: plan.module_mode,
    }))
}

impl Plan {
    /// Returns the build digest of an image of this plan, or `None` if its output cannot be shared with others.
    pub fn build_digest(&self, image: &ImagePlan) -> Option<Sha256> {
        let annotations = image.annotations.iter().filter(|(key, _)| *key != CREATED);
        Some(digest_of(&ImageInputs {
            build: self.build_inputs?,
            config_files: &self.config_files,
            contents: &image.contents,
            compression: image.compression,
            annotations: annotations.map(|(key, value)| (key.as_str(), value.as_str())).collect(),
        }))
    }
}

fn digest_of(inputs: &impl Serialize) -> Sha256 {
    Sha256::of(inputs.to_canon_json_vec().expect("inputs have only string keys"))
}

#[cfg(test)]
mod tests;
