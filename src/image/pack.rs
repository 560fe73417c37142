//! Packs a compiled kernel into its images in the output directory, all of them or none.

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
    #[serde(flatten)]
    pub written: WrittenImage,
    /// Whether the image has the kernel.
    pub holds_kernel: bool,
}

/// Installs the modules below `root` and returns it, if the kernel has modules and the plan wants them.
pub fn install_modules(
    build_dir: &BuildDir<'_>,
    compiled: &Compiled,
    plan: &Plan,
    root: &Utf8Path,
    reporter: &Reporter,
) -> Result<Option<Utf8PathBuf>> {
    if !kbuild::wants_modules(plan) {
        return Ok(None);
    }
    if !compiled.modules {
        reporter.note("no image of modules is written, because CONFIG_MODULES is not set");
        return Ok(None);
    }
    build_dir.install_modules(root, compiled, reporter)?;
    Ok(Some(root.to_owned()))
}

/// Creates the output directory if it is missing, locks it, and removes the temporary files of killed runs.
pub fn lock_output(output: &Utf8Path, reporter: &Reporter) -> Result<Lock> {
    create_dir(output)?;
    let lock = lock_file(&output.join(oci::LOCK), reporter)?;
    oci::remove_temporary_files(output)?;
    Ok(lock)
}

/// Writes all images by up to `jobs` threads, and then tags all of them. After a failure the
/// old images are still there.
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
        build: None,
    };
    let without_modules = |image: &&plan::ImagePlan| {
        inputs.root.is_some() || !matches!(image.contents, plan::Contents::Modules { .. })
    };
    let prepare = |image: &plan::ImagePlan| {
        let mut annotations = image.annotations.clone();
        let build = plan.build_digest(image).filter(|_| inputs.are_planned);
        annotations.extend(annotations::build_annotations(annotations::BuildFacts { build, ..facts }));
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
    let images = prepared?
        .into_iter()
        .map(|(prepared, holds_kernel)| Ok(PackedImage { written: prepared.publish()?, holds_kernel }));
    let images = images.collect::<Result<Vec<_>>>()?;
    let bytes = images.iter().map(|image| image.written.size).sum();
    phase.finish(&format!("{}, {}", pluralize(images.len(), "image", "images"), format_size(bytes)));
    Ok(images)
}

/// Joins the images of one run that differ only in their architecture, by [`oci::write_multi_arch`].
pub fn write_multi_arch(
    images: &[WrittenImage],
    output: &Utf8Path,
    reporter: &Reporter,
) -> Result<Vec<MultiArchIndex>> {
    let arches: BTreeSet<&str> = images.iter().map(|image| image.architecture.as_str()).collect();
    if arches.len() < 2 {
        for index in oci::find_outdated(output, images) {
            reporter.warning(format!(
                "the multi-architecture index {index} still has an older image; build all architectures together to \
                 update it"
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

/// Checks, before a build, that [`write_multi_arch`] can write the indexes of these kernels.
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
