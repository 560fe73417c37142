//! The receipt: what was built from what, by which tools, how long it took, and how to do it again.

mod read;
pub mod redaction;

pub use read::ReceiptFile;
pub use redaction::Redaction;

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
    #[serde(rename = "source_verified")]
    source_verified: String,
    kernel_release: &'a str,
    /// What the layers of the plan's config are called here, lowest first.
    #[serde(rename = "config_layers")]
    config_layers: Vec<&'a str>,
    config_sha256: Sha256,
    #[serde(rename = "config_differences")]
    config_differences: &'a [Difference],
    /// The profiles that the final config was held against.
    #[serde(rename = "requirements")]
    requirements: Vec<Requirements<'a>>,
    /// What make might do beside building: decides no byte.
    #[serde(rename = "sandbox")]
    sandbox: &'a SandboxReport,
    #[serde(rename = "compiler_warnings")]
    compiler_warnings: u64,
    /// `--launcher`.
    launcher: Option<String>,
    /// What it has done, where it is a cache that tells.
    #[serde(rename = "compiler_cache")]
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
    /// What is not met.
    #[serde(rename = "failures")]
    failures: Vec<&'a RequirementResult>,
}

#[derive(Serialize)]
struct Image<'a> {
    layout: &'a str,
    tag: &'a str,
    digest: String,
    layer_bytes: u64,
}

/// The name of a plan's receipt in the output directory.
pub fn path(output: &Utf8Path, plan: &Plan) -> Utf8PathBuf {
    output.join(file_name(plan.flavor, &plan.version_text(), plan.arch))
}

/// The name of the receipt of this kernel.
pub fn file_name(flavor: Flavor, version: &str, arch: Arch) -> String {
    format!("{}-{version}-{arch}.json", flavor.spec().image_prefix)
}

/// Writes it, and returns its path. It is attached to the images, too, so it holds what `published` lets it.
pub fn write(
    output: &Utf8Path,
    plan: &Plan,
    source: &SourceIdentity,
    (configured, results, compiled): (&Configured, &[RequirementResult], &Compiled),
    images: &[PackedImage],
    reporter: &Reporter,
    redaction: &Redaction,
) -> Result<Utf8PathBuf> {
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
        requirements: requirements::tallies(results)
            .into_iter()
            .map(|counts| Requirements {
                failures: results
                    .iter()
                    .filter(|one| one.profile == counts.profile && one.is_failure())
                    .collect(),
                counts,
            })
            .collect(),
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

/// Adds what came of booting its images to a receipt, in the place of what an earlier boot added.
pub fn add_boot(path: &Utf8Path, boot_report: &impl Serialize) -> Result<()> {
    let message = || format!("cannot add to the receipt {path}");
    let bytes = read_file(path, Links::Refuse, MAX_JSON).context(Kind::Build, message)?;
    let mut receipt: serde_json::Map<_, _> = serde_json::from_slice(&bytes).context(Kind::Build, message)?;
    let boot_report = serde_json::to_value(boot_report).expect("only string keys");
    receipt.insert("boot".to_owned(), boot_report);
    write_atomically(path, text(&receipt).as_bytes())
}

fn text(receipt: &impl Serialize) -> String {
    serde_json::to_string_pretty(receipt).expect("only string keys") + "\n"
}
