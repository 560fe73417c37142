//! From a compiled kernel to its images in the output directory, all of them or none.

use crate::cache::{Lock, lock_file};
use crate::host::process;
use crate::image::contents::ImageInputs;
use crate::kbuild::{self, BuildDir, Compiled};
use crate::kernel::{Arch, Flavor};
use crate::oci::{self, ImageSpec, MultiArchIndex, WrittenImage};
use crate::plan::request::Request;
use crate::plan::{self, Plan, annotations};
use crate::report::{Phase, Reporter};
use crate::util::error::Result;
use crate::util::fs::create_dir;
use crate::util::text::{format_size, pluralize};
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// An image of a kernel that was written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PackedImage {
    /// Where it is, and its digest.
    #[serde(flatten)]
    pub written: WrittenImage,
    /// Is the kernel in it?
    #[serde(rename = "holds_kernel")]
    pub holds_kernel: bool,
}

/// Installs the modules below `root`, where there are any and the plan wants them. Returns `root` then.
pub fn install_modules(
    build_dir: &BuildDir<'_>,
    compiled: &Compiled,
    plan: &Plan,
    root: &Utf8Path,
    reporter: &Reporter,
) -> Result<Option<Utf8PathBuf>> {
    match (kbuild::wants_modules(plan), compiled.modules) {
        (false, _) => Ok(None),
        (true, false) => {
            reporter.note("the config has no modules (CONFIG_MODULES is not set): no modules image");
            Ok(None)
        }
        (true, true) => {
            build_dir.install_modules(root, compiled, reporter)?;
            Ok(Some(root.to_owned()))
        }
    }
}

/// Waits for the lock of the output directory, which is made where it is not there, and removes what
/// killed runs left in it.
pub fn lock_output(output: &Utf8Path, reporter: &Reporter) -> Result<Lock> {
    create_dir(output)?;
    let lock = lock_file(&output.join(oci::LOCK), reporter)?;
    oci::remove_temporary_files(output)?;
    Ok(lock)
}

/// Writes all images by up to `jobs` threads, then tags them all: a failure half-way leaves the old ones in force.
pub fn pack(
    inputs: &ImageInputs<'_>,
    plan: &Plan,
    output: &Utf8Path,
    jobs: usize,
    reporter: &Reporter,
) -> Result<Vec<PackedImage>> {
    let phase = reporter.start(Phase::Pack, output.as_str());
    let epoch = plan.source_date_epoch.expect("known with the source");
    let facts = annotations::BuildFacts {
        release: &inputs.compiled.release,
        kernel: inputs.compiled.kernel_sha256,
        config: inputs.config.sha256,
        plan: plan.digest(),
    };
    let without_modules = |image: &&plan::ImagePlan| {
        inputs.root.is_some() || !matches!(image.contents, plan::Contents::Modules { .. })
    };
    let prepare = |image: &plan::ImagePlan| {
        let mut annotations = image.annotations.clone();
        annotations.extend(annotations::build_annotations(facts));
        let spec = ImageSpec {
            layout: &image.layout,
            tag: image.tag.as_deref().expect("the version is known by now"),
            encoder: image.compression.into(),
            annotations: &annotations,
        };
        let entries = inputs.entries(&image.contents)?;
        let prepared = oci::prepare(output, spec, plan.arch.name(), &entries, epoch, jobs)?;
        Ok((prepared, !matches!(image.contents, plan::Contents::Modules { .. })))
    };
    let prepared: Result<Vec<_>> = plan.images.iter().filter(without_modules).map(prepare).collect();
    process::check()?;
    let publish = |(prepared, holds_kernel): (oci::PreparedImage, bool)| {
        Ok(PackedImage { written: prepared.publish()?, holds_kernel })
    };
    let images = prepared?.into_iter().map(publish).collect::<Result<Vec<_>>>()?;
    let bytes = images.iter().map(|image| image.written.size).sum();
    phase.finish(&format!("{}, {}", pluralize(images.len(), "image", "images"), format_size(bytes)));
    Ok(images)
}

/// Joins the images of one run that differ in nothing but their architecture; see [`oci::write_multi_arch`].
pub fn write_multi_arch(
    images: &[WrittenImage],
    output: &Utf8Path,
    reporter: &Reporter,
) -> Result<Vec<MultiArchIndex>> {
    let arches: BTreeSet<&str> = images.iter().map(|image| image.architecture.as_str()).collect();
    if arches.len() < 2 {
        for index in oci::find_outdated(output, images) {
            reporter.warning(format!(
                "{index}, the index over architectures, has another image than this one: build them together to renew it"
            ));
        }
        return Ok(Vec::new());
    }
    let arches = Vec::from_iter(arches).join(" and ");
    let phase = reporter.start(Phase::Pack, &format!("one tag for {arches}"));
    let _packing = lock_output(output, reporter)?;
    let indexes = oci::write_multi_arch(output, images)?;
    phase.finish(&pluralize(indexes.len(), "index", "indexes"));
    Ok(indexes)
}

/// Is there a place for what [`join`] will make of these? Says so before anything is built.
pub fn check_multi_arch_output(requests: &[Request], output: &Utf8Path) -> Result<()> {
    let arches: BTreeSet<Arch> = requests.iter().map(|request| request.arch).collect();
    if arches.len() < 2 {
        return Ok(());
    }
    let flavors: BTreeSet<Flavor> = requests.iter().map(|request| request.flavor).collect();
    let prefixes = flavors.into_iter().map(|flavor| flavor.spec().image_prefix);
    let names: Vec<String> = prefixes
        .flat_map(|prefix| ["bin", "modules"].map(|what| format!("{prefix}-kernel-{what}")))
        .collect();
    oci::check_output(output, names.iter().map(String::as_str))
}
