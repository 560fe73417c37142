//! `--image-cache`: takes the images of a build from a registry, if another machine has built the same inputs
//! with the same toolchain image and has pushed them. Nothing is compiled then. Images that are missing or not right are compiled.

mod candidate;

use crate::cache::Cache;
use crate::host::process;
use crate::image::attest::DOCUMENT_SUFFIXES;
use crate::image::pack::{self, PackedImage};
use crate::image::receipt;
use crate::image::signature::RequiredSignature;
use crate::kconfig::requirements::Profile;
use crate::oci::snapshot;
use crate::ops::check_config;
use crate::ops::context::Context;
use crate::ops::fetch::report_plan;
use crate::ops::scheduler::Stage;
use crate::plan::Plan;
use crate::report::Phase;
use crate::util::error::{Kind, Result};
use crate::util::fs::{remove_tree, write_atomically};
use crate::util::text::pluralize;
use camino::Utf8Path;
use candidate::{Candidate, Lookup, WantedImage};

/// The images of a build that were found, now in the output directory.
pub struct FoundImages {
    pub images: Vec<PackedImage>,
    /// `uname -r`.
    pub release: String,
    pub modules: usize,
    /// The plan of the build that made them. It may have had other images too.
    pub plan: String,
}

/// Returns whether the images of `plan` can be looked for already. Without the digest of the source they cannot.
pub fn is_known(plan: &Plan) -> bool {
    wanted_images(plan).is_some()
}

fn wanted_images(plan: &Plan) -> Option<Vec<WantedImage<'_>>> {
    let images = plan.images.iter();
    images
        .map(|image| {
            Some(WantedImage { image, tag: image.tag.as_deref()?, build: plan.build_digest(image)? })
        })
        .collect()
}

/// Looks for the images of `plan` in the image caches of the run. Returns `None`, after saying why, if they have to be
/// built.
///
/// # Errors
///
/// The output directory cannot be written, or kcompile was interrupted.
pub fn find(
    plan: &Plan,
    profiles: &[Profile],
    cache: &Cache,
    ctx: &Context<'_>,
) -> Result<Option<FoundImages>> {
    let Some(caches) = ctx.image_caches.as_ref().filter(|_| ctx.may_reuse()) else { return Ok(None) };
    let Some(wanted) = wanted_images(plan) else { return Ok(None) };
    let _fetching = ctx.acquire(Stage::Fetch)?;
    for prefix in &caches.prefixes {
        let phase = ctx.reporter.start(Phase::Reuse, &format!("images from {prefix}"));
        let scratch = cache.scratch()?;
        let lookup = Lookup { prefix, signature: &caches.signature, dir: &scratch.path, plan, ctx };
        match lookup.fetch(&wanted).and_then(|found| check(found, plan, profiles, ctx)) {
            Ok(Some(candidate)) => {
                let found = install(candidate, &scratch.path, plan, ctx)?;
                report_plan(plan, ctx);
                let count = pluralize(found.images.len(), "image", "images");
                let signed = match caches.signature {
                    RequiredSignature::Key(_) => ", signed",
                    RequiredSignature::None => "",
                };
                phase.finish(&format!("{count} from {prefix}{signed}, nothing compiled"));
                return Ok(Some(found));
            }
            Ok(None) => ctx.reporter.note(&format!("the image cache {prefix} does not have this build")),
            Err(error) if matches!(error.kind, Kind::Interrupted(_)) => return Err(error),
            Err(error) => {
                let warning = format!("the images of the image cache {prefix} are not used: {error}");
                ctx.reporter.warning(warning);
            }
        }
        process::check()?;
    }
    Ok(None)
}

/// Checks the final config of the images against the options and profiles of this build.
fn check(
    found: Option<Candidate>,
    plan: &Plan,
    profiles: &[Profile],
    ctx: &Context<'_>,
) -> Result<Option<Candidate>> {
    if let Some(Candidate { config, config_path, .. }) = &found {
        check_config::check_built(config, config_path.clone(), plan, profiles, ctx.reporter)?;
    }
    Ok(found)
}

/// Moves the images and their documents into the output directory, all images or none.
fn install(candidate: Candidate, dir: &Utf8Path, plan: &Plan, ctx: &Context<'_>) -> Result<FoundImages> {
    let Candidate { mut images, documents, release, modules, plan: built_by, .. } = candidate;
    let output = &ctx.output;
    let _packing = pack::lock_output(output, ctx.reporter)?;
    let store = dir.join("store");
    let tags = snapshot::snapshot_tags(images.iter().map(|image| &image.written), &store)?;
    snapshot::restore(&tags, output, &store)?;
    let receipt = receipt::path(output, plan);
    // Documents of an earlier build that these images do not have.
    DOCUMENT_SUFFIXES.iter().try_for_each(|suffix| remove_tree(&receipt.with_extension(suffix)))?;
    for (name, bytes) in &documents {
        write_atomically(&output.join(name), bytes)?;
    }
    for PackedImage { written, .. } in &mut images {
        written.layout = output.join(written.layout.file_name().expect("a layout has a name"));
    }
    Ok(FoundImages { images, release, modules, plan: built_by })
}
