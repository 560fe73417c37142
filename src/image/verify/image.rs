//! What is checked of an image whatever its tag.

use super::layer_form::LayerForm;
use super::origin::Origin;
use super::pairing::PairingClaim;
use super::{Check, Outcome, Problems, Subject, contents};
use crate::image::inspect::scan::LayerScan;
use crate::image::inspect::{ImageKind, Inspected, ReadCache, summarize};
use crate::image::kernel_image;
use crate::kernel::Arch;
use crate::oci::annotations::TITLE;
use crate::oci::read::Image;
use crate::util::error::Result;
use crate::util::text::{counted, size};
use oci_spec::image::ImageManifest;
use std::rc::Rc;

/// What came of an image.
pub(super) struct ImageChecks {
    pub manifest: ImageManifest,
    pub os: String,
    pub inspected: Rc<Inspected>,
    pub origin: Origin,
    /// Without those of its index, its pairing and its receipt.
    pub checks: Vec<Check>,
    /// `None`: it is no kernel image.
    pub pairing: Option<PairingClaim>,
}

impl ImageChecks {
    /// Reads all of an image.
    ///
    /// Errors (exit code 3): it is damaged, or breaks a rule.
    pub(super) fn of(image: &Image, cache: &mut ReadCache) -> Result<ImageChecks> {
        let origin = Origin::of(image);
        let layers = cache.scan(image)?;
        let inspected = summarize(image, &layers)?;
        let mut checks = Vec::new();
        let mut add = |name: Subject, outcome: Outcome| checks.push(Check { name, outcome });
        let stored = layers.iter().map(|layer| layer.read.size).sum::<u64>();
        let blobs =
            format!("manifest, config, {}, {}", counted(layers.len(), "layer", "layers"), size(stored));
        let blobs = Outcome::Holds { detail: format!("{blobs}: sizes, digests, diff_ids") };
        let is_kernel_image = inspected.kind != ImageKind::Other || origin.is_ours();
        if !is_kernel_image {
            add(Subject::Image, not_a_kernel_image(&inspected));
        }
        add(Subject::Blobs, blobs);
        if is_kernel_image {
            add(Subject::Entries, entries(&inspected, &layers, origin));
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

/// Whole images of anything may lie in a layout. One that is called a kernel image has to be one.
fn not_a_kernel_image(found: &Inspected) -> Outcome {
    let names = [found.layout.file_name(), found.says(TITLE)];
    let mut names = names.into_iter().flatten();
    let is_kernels = |name: &str| ["-kernel-bin", "-kernel-modules"].iter().any(|part| name.contains(part));
    if let Some(name) = names.find(|name| is_kernels(name)) {
        let problem = format!("it is called {name}, and holds neither a kernel nor modules");
        return Outcome::Fails { faults: vec![problem] };
    }
    let what = found.description.as_ref().map_or_else(String::new, |what| format!(": {what}"));
    Outcome::not_said(format!("not a kernel image{what}"))
}

fn entries(found: &Inspected, layers: &[Rc<LayerScan>], origin: Origin) -> Outcome {
    let count = counted(layers.iter().map(|layer| layer.entries.len()).sum(), "entry", "entries");
    if origin == Origin::Other && is_root_file_system(found) {
        return Outcome::not_said(format!(
            "{count}: a root file system, in which setuid files, devices and links out are as they should be"
        ));
    }
    let date = found.created.as_deref().and_then(crate::util::time::epoch);
    let kernel_path = found.flavor.zip(found.arch.parse::<Arch>().ok());
    let kernel_path = kernel_path.map(|(flavor, arch)| kernel_image::kernel_path(flavor, arch));
    let mut problems = Problems::default();
    if origin.is_ours() && layers.len() != 1 {
        let count = counted(layers.len(), "layer", "layers");
        problems.add(format!("it has {count}: an image of kcompile's has one"));
    }
    for layer in layers {
        let mut form = LayerForm::new(date, origin, kernel_path.as_deref(), &mut problems);
        layer.entries.iter().for_each(|found| form.add(found));
        form.finish(&layer.read.global_records);
    }
    for (path, to) in &found.survey.dangling {
        problems.add(format!("{path} is a hard link to {to}, which is no file before it"));
    }
    let form =
        if origin.is_ours() { "sorted, of user 0, dated as the image" } else { "none that could do harm" };
    problems.outcome(format!("{count}, {form}"))
}

/// Has it what only the root file system of a whole system has?
fn is_root_file_system(found: &Inspected) -> bool {
    let files = &found.survey.files;
    ["etc/passwd", "etc/os-release", "usr/lib/os-release"].iter().any(|path| files.contains_key(*path))
}
