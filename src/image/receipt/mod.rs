//! Writes the receipt of a build, with its inputs, tools, results, durations and command.

mod read;
pub mod redaction;

pub use read::{ImageCacheOrigin, ReceiptFile};
pub use redaction::Redaction;

use crate::cve::CompiledFiles;
use crate::image::pack::PackedImage;
use crate::kbuild::sandbox::SandboxReport;
use crate::kbuild::{Compiled, Configured};
use crate::kconfig::Difference;
use crate::kconfig::requirements::{self, RequirementResult, Tally};
use crate::kernel::{Arch, Flavor};
use crate::plan::{Plan, SourceIdentity};
use crate::report::{CompilerCacheStats, Reporter};
use crate::util::digest::Sha256;
use crate::util::error::{Kind, Result, ResultExt};
use crate::util::fs::write_atomically;
use crate::util::read::{Links, MAX_JSON, read_file};
use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;
use std::collections::BTreeMap;

/// The content of `<flavor>-<version>-<arch>.json`. Field names are part of the contract.
#[derive(Serialize)]
struct Receipt<'a> {
    kcompile: &'static str,
    plan_digest: Sha256,
    plan: Plan,
    source: &'a SourceIdentity,
    /// The checks of the source in one line.
    source_verified: String,
    kernel_release: &'a str,
    /// The names of the plan's config layers, the lowest first.
    config_layers: Vec<&'a str>,
    config_sha256: Sha256,
    config_differences: &'a [Difference],
    /// The profiles that the final config was checked against.
    requirements: Vec<Requirements<'a>>,
    /// How make was confined. This does not affect the output.
    sandbox: &'a SandboxReport,
    compiler_warnings: u64,
    launcher: Option<String>,
    /// The statistics of the launcher, if it is a compiler cache that has them.
    compiler_cache: Option<CompilerCacheStats>,
    #[serde(rename = "findings")]
    warnings: Vec<String>,
    images: Vec<Image<'a>>,
    seconds: BTreeMap<&'static str, f64>,
    /// Of kcompile itself, without make and its children.
    peak_memory_bytes: Option<u64>,
    command: &'a str,
}

#[derive(Serialize)]
struct Requirements<'a> {
    #[serde(flatten)]
    counts: Tally,
    failures: Vec<&'a RequirementResult>,
}

#[derive(Serialize)]
struct Image<'a> {
    layout: &'a str,
    tag: &'a str,
    digest: String,
    layer_bytes: u64,
}

/// Returns the path of a plan's receipt in the output directory.
pub fn path(output: &Utf8Path, plan: &Plan) -> Utf8PathBuf {
    output.join(file_name(plan.flavor, &plan.tag(), plan.arch))
}

/// Returns the file name of the receipt of the images with this tag.
pub fn file_name(flavor: Flavor, tag: &str, arch: Arch) -> String {
    format!("{}-{tag}-{arch}.json", flavor.spec().image_prefix)
}

/// A finished build, for its receipt.
pub struct FinishedBuild<'a> {
    pub plan: &'a Plan,
    pub source: &'a SourceIdentity,
    pub configured: &'a Configured,
    /// The results of the requirement profiles.
    pub results: &'a [RequirementResult],
    pub compiled: &'a Compiled,
    /// The files that were compiled, if Kbuild recorded them.
    pub compiled_files: Option<&'a CompiledFiles>,
    pub images: &'a [PackedImage],
    pub redaction: &'a Redaction,
}

/// Writes the receipt of a build, and returns its path. The receipt is attached to the
/// images, so it is redacted.
pub fn write(output: &Utf8Path, build: &FinishedBuild<'_>, reporter: &Reporter) -> Result<Utf8PathBuf> {
    let FinishedBuild { plan, source, configured, results, compiled, images, redaction, .. } = build;
    let requirements = requirements::tallies(results).into_iter().map(|counts| {
        let is_failure = |one: &&RequirementResult| one.profile == counts.profile && one.is_failure();
        Requirements { failures: results.iter().filter(is_failure).collect(), counts }
    });
    let receipt = Receipt {
        kcompile: env!("CARGO_PKG_VERSION"),
        plan_digest: plan.digest(),
        plan: redaction::plan(plan),
        source,
        source_verified: source.verified(),
        kernel_release: &compiled.release,
        config_layers: plan.config.iter().map(|layer| layer.name.as_str()).collect(),
        config_sha256: configured.sha256,
        config_differences: &configured.differences,
        requirements: requirements.collect(),
        sandbox: &compiled.sandbox,
        compiler_warnings: compiled.warnings,
        launcher: plan.toolchain.launcher.as_deref().map(redaction::strip_tool_path),
        compiler_cache: compiled.cache_stats,
        warnings: reporter.warnings(),
        images: images
            .iter()
            .map(|image| Image {
                layout: image.written.layout.file_name().unwrap_or_default(),
                tag: &image.written.tag,
                digest: image.written.digest.oci(),
                layer_bytes: image.written.size,
            })
            .collect(),
        seconds: reporter
            .times()
            .into_iter()
            .map(|(phase, took)| (phase.title(), took.as_secs_f64()))
            .collect(),
        peak_memory_bytes: crate::util::rusage::peak_memory(),
        command: &redaction.command,
    };
    let path = path(output, plan);
    write_atomically(&path, redaction.redact(&text(&receipt)).as_bytes())?;
    Ok(path)
}

/// Adds the result of a boot to a receipt, in place of an earlier result.
pub fn add_boot(path: &Utf8Path, boot_report: &impl Serialize) -> Result<()> {
    add(path, "boot", boot_report)
}

/// Adds to a receipt that its images are from an image cache.
pub fn add_image_cache(path: &Utf8Path, origin: &ImageCacheOrigin) -> Result<()> {
    add(path, "image_cache", origin)
}

fn add(path: &Utf8Path, key: &str, value: &impl Serialize) -> Result<()> {
    let message = || format!("cannot add to the receipt {path}");
    let bytes = read_file(path, Links::Refuse, MAX_JSON).context(Kind::Build, message)?;
    let mut receipt: serde_json::Map<_, _> = serde_json::from_slice(&bytes).context(Kind::Build, message)?;
    receipt.insert(key.to_owned(), serde_json::to_value(value).expect("only string keys"));
    write_atomically(path, text(&receipt).as_bytes())
}

fn text(receipt: &impl Serialize) -> String {
    serde_json::to_string_pretty(receipt).expect("only string keys") + "\n"
}
