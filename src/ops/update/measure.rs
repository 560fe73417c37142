//! Builds and boots the kernels before and after an update, and measures them.

use super::prepare::Side;
use super::{PreparedUpdate, Proof, explained};
use crate::boot;
use crate::cve::CompiledFiles;
use crate::image::inspect::{self, ReadCache};
use crate::image::pack::PackedImage;
use crate::kernel::Arch;
use crate::oci::layout_reader::LayoutReader;
use crate::ops::build;
use crate::ops::context::Context;
use crate::plan::request::Request;
use crate::util::error::Result;
use serde::Serialize;

/// The kernels of one architecture.
#[derive(Debug, Serialize)]
pub struct Build {
    pub arch: Arch,
    /// `None` if the kernel before cannot be built.
    pub before: Option<Measured>,
    /// Why there is nothing to compare with.
    pub why_not_before: Option<String>,
    pub after: Measured,
}

/// The sizes and the boot time of a kernel.
#[derive(Debug, Default, Serialize)]
pub struct Measured {
    pub kernel_bytes: u64,
    pub modules: usize,
    /// Their uncompressed size.
    pub module_bytes: u64,
    /// The kernel's clock when its first process started, if it was booted.
    pub seconds_to_init: Option<f64>,
    #[serde(skip)]
    pub compiled: Option<CompiledFiles>,
}

/// Builds both kernels for each architecture, and boots them for [`Proof::Boot`].
///
/// # Errors
///
/// The new kernel cannot be built or does not boot. A failure of the old one is only a reason.
pub fn prove(prepared: &PreparedUpdate, proof: Proof, ctx: &Context<'_>) -> Result<Vec<Build>> {
    let before_ctx = prepared.context(Side::Before, ctx);
    let after_ctx = prepared.context(Side::After, ctx);
    let both = |new: &Request| {
        let old = prepared.old_requests.iter().find(|old| old.arch == new.arch);
        let before = match old {
            Some(old) => explained(measure(old, proof, &before_ctx))?,
            None => Err("its source is not known or cannot be fetched any more".to_owned()),
        };
        let after = measure(new, proof, &after_ctx)?;
        let why_not_before = before.as_ref().err().cloned();
        Ok(Build { arch: new.arch, before: before.ok(), why_not_before, after })
    };
    prepared.new_requests.iter().map(both).collect()
}

fn measure(request: &Request, proof: Proof, ctx: &Context<'_>) -> Result<Measured> {
    // A receipt has the warnings and the times of its own build only.
    let reporter = ctx.reporter.for_kernel(&format!("{} {}", request.version, request.arch));
    let ctx = &Context { reporter: &reporter, ..ctx.clone() };
    let images = build::build(request, ctx)?;
    let mut measured = Measured::default();
    for image in &images {
        add_sizes(image, &mut measured)?;
    }
    if proof == Proof::Boot {
        let report = build::boot_built(&images, &boot::Options::default(), ctx)?;
        report.require()?;
        measured.seconds_to_init = report.seconds_to_init;
    }
    Ok(measured)
}

fn add_sizes(image: &PackedImage, measured: &mut Measured) -> Result<()> {
    let reader = LayoutReader::open(&image.written.layout)?;
    let image = reader.open_image(Some(&image.written.tag), None)?;
    let found = inspect::inspect(&image)?;
    measured.kernel_bytes += found.kernels.iter().map(|kernel| kernel.bytes).sum::<u64>();
    if let Some(modules) = &found.modules {
        measured.modules += modules.count;
        measured.module_bytes += modules.bytes;
    }
    if measured.compiled.is_none() {
        let compiled = inspect::compiled_files(&image, &mut ReadCache::default())?;
        measured.compiled = compiled.map(|(_, files)| files);
    }
    Ok(())
}
