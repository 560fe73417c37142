//! From a compiled kernel to its images in the output directory, all of them or none.

use crate::cache::{Lock, lock_file};
use crate::error::Result;
use crate::files;
use crate::kbuild::{self, BuildDir, Compiled};
use crate::oci::{self, Written};
use crate::plan::{self, Plan, annotations};
use crate::process;
use crate::report::{Phase, Report};
use crate::staging::Staged;
use crate::words::{counted, size};
use camino::{Utf8Path, Utf8PathBuf};

/// Installs the modules below `root`, where there are any and the plan wants them. Returns `root` then.
pub fn install_modules(
    build_dir: &BuildDir<'_>,
    compiled: &Compiled,
    plan: &Plan,
    root: &Utf8Path,
    report: &Report,
) -> Result<Option<Utf8PathBuf>> {
    match (kbuild::wants_modules(plan), compiled.modules) {
        (false, _) => Ok(None),
        (true, false) => {
            report.note("the config has no modules (CONFIG_MODULES is not set): no modules image");
            Ok(None)
        }
        (true, true) => {
            build_dir.install_modules(root, compiled, report)?;
            Ok(Some(root.to_owned()))
        }
    }
}

/// Waits for the lock of the output directory, which is made where it is not there, and removes what
/// killed runs left in it.
pub fn lock_output(output: &Utf8Path, report: &Report) -> Result<Lock> {
    files::create_dir(output)?;
    let lock = lock_file(&output.join(oci::LOCK), report)?;
    oci::sweep(output)?;
    Ok(lock)
}

/// Writes all images, then tags them all: a failure half-way leaves the old ones in force.
pub fn pack(staged: &Staged<'_>, plan: &Plan, output: &Utf8Path, report: &Report) -> Result<Vec<Written>> {
    let running = report.start(Phase::Pack, output.as_str());
    let epoch = plan.source_date_epoch.expect("known with the source");
    let facts = annotations::Built {
        release: &staged.compiled.release,
        kernel: staged.compiled.kernel_sha256,
        config: staged.config.sha256,
        plan: plan.digest(),
    };
    let without_modules = |image: &&plan::ImagePlan| {
        staged.root.is_some() || !matches!(image.contents, plan::Contents::Modules { .. })
    };
    let prepare = |image: &plan::ImagePlan| {
        let mut image = image.clone();
        image.annotations.extend(annotations::built(facts));
        oci::prepare(output, &image, plan.arch, &staged.entries(&image.contents)?, epoch)
    };
    let ready: Result<Vec<_>> = plan.images.iter().filter(without_modules).map(prepare).collect();
    process::check()?;
    let images = ready?.into_iter().map(oci::Ready::publish).collect::<Result<Vec<_>>>()?;
    let bytes = images.iter().map(|image| image.size).sum();
    running.finish(&format!("{}, {}", counted(images.len(), "image", "images"), size(bytes)));
    Ok(images)
}
