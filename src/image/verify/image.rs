//! The checks of an image that do not depend on its tag.

use super::layer_checker::LayerChecker;
use super::origin::Origin;
use super::pairing::PairingClaim;
use super::{Check, CheckName, CheckResult, Problems, contents};
use crate::image::inspect::scan::LayerScan;
use crate::image::inspect::{ImageInfo, ImageKind, ReadCache, summarize};
use crate::image::kernel_image;
use crate::kernel::Arch;
use crate::oci::annotations::TITLE;
use crate::oci::read::Image;
use crate::util::error::Result;
use crate::util::text::{format_size, pluralize};
use oci_spec::image::ImageManifest;
use std::rc::Rc;

/// The checks of an image that do not depend on its tag, and what the others need.
pub(super) struct ImageChecks {
    pub manifest: ImageManifest,
    pub os: String,
    pub inspected: Rc<ImageInfo>,
    pub origin: Origin,
    /// The checks, without index, pairing and receipt.
    pub checks: Vec<Check>,
    /// `None` for an image that is not a kernel image.
    pub pairing: Option<PairingClaim>,
}

impl ImageChecks {
    /// Reads and checks an image.
    ///
    /// # Errors
    ///
    /// Exit code 3 if the image is damaged or breaks a rule.
    pub(super) fn of(image: &Image, cache: &mut ReadCache) -> Result<ImageChecks> {
        let origin = Origin::of(image);
        let layers = cache.scan(image)?;
        let inspected = summarize(image, &layers)?;
        let mut checks = Vec::new();
        let mut add = |name: CheckName, result: CheckResult| checks.push(Check { name, result });
        let stored = layers.iter().map(|layer| layer.info.size).sum::<u64>();
        let blobs = format!(
            "manifest, config, {}, {}",
            pluralize(layers.len(), "layer", "layers"),
            format_size(stored)
        );
        let blobs = CheckResult::Passed { detail: format!("{blobs}: sizes, digests, diff_ids") };
        let is_kernel_image = inspected.kind != ImageKind::Other || origin.is_ours();
        if !is_kernel_image {
            add(CheckName::Image, not_a_kernel_image(&inspected));
        }
        add(CheckName::Blobs, blobs);
        if is_kernel_image {
            add(CheckName::Entries, entries(&inspected, &layers, origin));
            contents::check(&inspected, origin, &mut add);
        }
        Ok(ImageChecks {
            manifest: image.manifest.clone(),
            os: image.config.os().to_string(),
            origin,
            checks,
            pairing: is_kernel_image.then(|| PairingClaim::of(&inspected)),
            inspected: Rc::new(inspected),
        })
    }
}

/// Reports an image that is not a kernel image. This is a problem only if its name is that of a kernel image.
fn not_a_kernel_image(info: &ImageInfo) -> CheckResult {
    let names = [info.layout.file_name(), info.annotation(TITLE)];
    let mut names = names.into_iter().flatten();
    let is_kernels = |name: &str| ["-kernel-bin", "-kernel-modules"].iter().any(|part| name.contains(part));
    if let Some(name) = names.find(|name| is_kernels(name)) {
        let problem = format!("the name is {name}, but the image has neither a kernel nor modules");
        return CheckResult::Failed { problems: vec![problem] };
    }
    let what = info.description.as_ref().map_or_else(String::new, |what| format!(": {what}"));
    CheckResult::not_applicable(format!("not a kernel image{what}"))
}

fn entries(info: &ImageInfo, layers: &[Rc<LayerScan>], origin: Origin) -> CheckResult {
    let count = pluralize(layers.iter().map(|layer| layer.entries.len()).sum(), "entry", "entries");
    if origin == Origin::Other && is_root_file_system(info) {
        return CheckResult::not_applicable(format!(
            "{count} of a root file system, which may have setuid files, devices and links that leave it"
        ));
    }
    let date = info.created.as_deref().and_then(crate::util::time::epoch);
    let kernel_path = info.flavor.zip(info.arch.parse::<Arch>().ok());
    let kernel_path = kernel_path.map(|(flavor, arch)| kernel_image::kernel_path(flavor, arch));
    let mut problems = Problems::default();
    if origin.is_ours() && layers.len() != 1 {
        let count = pluralize(layers.len(), "layer", "layers");
        problems.add(format!("there are {count}, but an image of kcompile has one"));
    }
    for layer in layers {
        let mut checker = LayerChecker::new(date, origin, kernel_path.as_deref(), &mut problems);
        layer.entries.iter().for_each(|info| checker.add(info));
        checker.finish(&layer.info.global_records);
    }
    for (path, to) in &info.scan.dangling {
        problems.add(format!("{path} is a hard link to {to}, which is not an earlier file"));
    }
    let detail = if origin.is_ours() { "sorted, of user 0, dated as the image" } else { "none is dangerous" };
    problems.result(format!("{count}, {detail}"))
}

/// Returns whether the image has files of a whole operating system.
fn is_root_file_system(info: &ImageInfo) -> bool {
    let files = &info.scan.files;
    ["etc/passwd", "etc/os-release", "usr/lib/os-release"].iter().any(|path| files.contains_key(*path))
}
