//! Is an image what it should be? Every byte is read once: sizes, digests and diff_ids; the form of every
//! entry; the kernel file and every module against each other and against what the image says of itself;
//! the receipt. What is wrong is a value, so that all of it can be told.

mod contents;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod image;
mod index;
mod layer_checker;
mod modules;
mod origin;
mod pairing;

use crate::host::process;
use crate::image::inspect::{self, ImageInfo, ReadCache, ReceiptState};
use crate::image::size_limits::SizeLimits;
use crate::oci::layout_reader::{LayoutReader, ManifestKind, ManifestRef};
use crate::oci::read::tag_of;
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result};
use crate::util::text::format_size;
use camino::{Utf8Path, Utf8PathBuf};
use image::ImageChecks;
use index::IndexFacts;
use oci_spec::image::Descriptor;
use serde::Serialize;
use std::collections::BTreeMap;
use std::rc::Rc;

/// So many faults of one kind are told, and the others counted: a hostile image may have 200,000.
const MAX_PROBLEMS: usize = 8;

/// What came of it for one image, or for an artifact that is attached to one.
#[derive(Debug, Serialize)]
pub struct VerifyReport {
    /// The layout's directory.
    pub layout: Utf8PathBuf,
    /// The tag; `None`: it has none, or it is the layout itself that is meant.
    pub tag: Option<String>,
    /// Of the manifest, as its descriptor says.
    pub digest: String,
    /// Where a tag stands for images of several: this one's architecture.
    pub arch: Option<String>,
    /// What was checked, in this order.
    #[serde(rename = "checks")]
    pub checks: Vec<Check>,
    /// What was found in it; `None`: it could not be read, or is no image.
    #[serde(skip)]
    pub inspected: Option<Rc<ImageInfo>>,
    /// Its receipt.
    #[serde(skip)]
    pub receipt: Option<ReceiptState>,
}

/// One thing that was checked.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What.
    #[serde(rename = "name")]
    pub name: CheckName,
    /// What came of it.
    #[serde(flatten)]
    pub result: CheckResult,
}

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckName {
    /// `index.json`.
    #[serde(rename = "index")]
    Index,
    /// Whether it is a kernel image at all.
    #[serde(rename = "image")]
    Image,
    /// Every blob and what it stands for.
    #[serde(rename = "blobs")]
    Blobs,
    /// The entries of the layers.
    #[serde(rename = "entries")]
    Entries,
    /// The kernel file.
    #[serde(rename = "kernel")]
    Kernel,
    /// The modules.
    #[serde(rename = "modules")]
    Modules,
    /// The final `.config`.
    #[serde(rename = "config")]
    Config,
    /// Annotations and labels.
    #[serde(rename = "annotations")]
    Annotations,
    /// Which images are of one build.
    #[serde(rename = "pairing")]
    Pairing,
    /// The receipt beside the layout.
    #[serde(rename = "receipt")]
    Receipt,
    /// How large kernel and modules may be.
    #[serde(rename = "size")]
    Size,
}

impl CheckName {
    /// One word for people.
    pub fn title(self) -> &'static str {
        match self {
            CheckName::Index => "index",
            CheckName::Image => "image",
            CheckName::Blobs => "blobs",
            CheckName::Entries => "entries",
            CheckName::Kernel => "kernel",
            CheckName::Modules => "modules",
            CheckName::Config => "config",
            CheckName::Annotations => "annotations",
            CheckName::Pairing => "pairing",
            CheckName::Receipt => "receipt",
            CheckName::Size => "size",
        }
    }
}

/// What came of a check.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum CheckResult {
    /// It is as it should be.
    #[serde(rename = "holds")]
    Passed {
        /// In words.
        #[serde(rename = "detail")]
        detail: String,
    },
    /// Nothing there says anything about it.
    #[serde(rename = "not-said")]
    NotApplicable {
        /// In words.
        #[serde(rename = "detail")]
        detail: String,
    },
    /// It is not what it should be.
    #[serde(rename = "fails")]
    Failed {
        /// Each thing that is wrong.
        #[serde(rename = "faults")]
        problems: Vec<String>,
    },
    /// Bytes are missing, or others than their digest or size says.
    #[serde(rename = "damaged")]
    Damaged {
        /// Which.
        #[serde(rename = "why")]
        why: String,
    },
    /// It is whole, and breaks a rule that makes it dangerous to read, or that readers understand differently.
    #[serde(rename = "refused")]
    Rejected {
        /// Which rule.
        #[serde(rename = "why")]
        why: String,
    },
}

impl CheckResult {
    fn not_applicable(detail: impl Into<String>) -> CheckResult {
        CheckResult::NotApplicable { detail: detail.into() }
    }

    /// What an error means that names a rule; an error of another kind comes back.
    fn from_error(error: Error) -> Result<CheckResult> {
        match error.kind {
            Kind::Fetch if error.is_damage() => Ok(CheckResult::Damaged { why: error.to_string() }),
            Kind::Fetch => Ok(CheckResult::Rejected { why: error.to_string() }),
            _ => Err(error),
        }
    }
}

/// Things that are wrong, as many as a person reads.
#[derive(Debug, Default)]
pub(super) struct Problems {
    texts: Vec<String>,
    more: usize,
}

impl Problems {
    fn add(&mut self, text: String) {
        match self.texts.len() < MAX_PROBLEMS {
            true => self.texts.push(text),
            false => self.more += 1,
        }
    }

    fn into_texts(mut self) -> Vec<String> {
        self.texts.extend((self.more > 0).then(|| format!("and {} more", self.more)));
        self.texts
    }

    fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Without any, the check holds.
    fn result(self, detail: impl Into<String>) -> CheckResult {
        match self.texts.is_empty() {
            true => CheckResult::Passed { detail: detail.into() },
            false => CheckResult::Failed { problems: self.into_texts() },
        }
    }
}

impl VerifyReport {
    /// Does nothing fail?
    pub fn passes(&self) -> bool {
        !self.is_damaged() && !self.checks.iter().any(|one| matches!(one.result, CheckResult::Failed { .. }))
    }

    /// Are bytes missing or wrong, or is a rule broken?
    pub fn is_damaged(&self) -> bool {
        let is_damage = |check: &Check| {
            matches!(check.result, CheckResult::Damaged { .. } | CheckResult::Rejected { .. })
        };
        self.checks.iter().any(is_damage)
    }

    /// Adds what came of a limit of its size, where there is one.
    pub fn check_size_limits(&mut self, size_limits: &SizeLimits) {
        let is_kernel_image = |image: &&Rc<ImageInfo>| !image.kernels.is_empty() || image.modules.is_some();
        let inspected = self.inspected.as_ref().filter(is_kernel_image);
        let Some(inspected) = inspected.filter(|_| size_limits.is_set()) else { return };
        let mut problems = Problems::default();
        size_limits.exceeded(inspected).into_iter().for_each(|text| problems.add(text));
        self.add(CheckName::Size, problems.result("within the budget"));
    }

    fn new(layout: &Utf8Path, tag: Option<String>, digest: String) -> VerifyReport {
        let layout = layout.to_owned();
        VerifyReport { layout, tag, digest, arch: None, checks: Vec::new(), inspected: None, receipt: None }
    }

    fn add(&mut self, name: CheckName, result: CheckResult) {
        self.checks.push(Check { name, result });
    }
}

/// What one run has verified: nothing is read twice, however many tags lead to it.
#[derive(Default)]
pub struct VerifyCache {
    read: ReadCache,
    /// By layout, digest and size of the manifest; or what the error means that reading one of them ended with.
    images: BTreeMap<(Utf8PathBuf, Sha256, u64), ImageResult>,
    /// Files of the images that are kept.
    files: usize,
}

/// What came of an image, whatever its tag; or why it could not be read.
type ImageResult = std::result::Result<Rc<ImageChecks>, CheckResult>;

/// Verdicts are kept as long as their images have no more files together: as many as one may have.
const MAX_FILES: usize = 200_000;

/// Verifies the images of this tag, or all that is in a layout, one after the other; `each` gets what came
/// of it.
///
/// Errors: no such layout or tag (exit code 2); what `each` returns; a signal.
pub fn verify(
    layout: &Utf8Path,
    tag: Option<&str>,
    cache: &mut VerifyCache,
    mut each: impl FnMut(VerifyReport) -> Result<()>,
) -> Result<()> {
    let reader = match cache.read.layout(layout) {
        Ok(reader) => reader,
        Err(error) => {
            let mut report = VerifyReport::new(layout, tag.map(str::to_owned), String::new());
            report.add(CheckName::Index, CheckResult::from_error(error)?);
            return each(report);
        }
    };
    let index = IndexFacts::of(&reader);
    for descriptor in &reader.select_all(tag)? {
        process::check()?;
        match reader.manifest_refs(descriptor) {
            Ok(manifest_refs) => {
                for manifest_ref in &manifest_refs {
                    let mut report = cache.verify_manifest(&reader, &index, manifest_ref, descriptor)?;
                    report.arch = report.arch.filter(|_| manifest_refs.len() > 1);
                    each(report)?;
                }
            }
            Err(error) => {
                let digest = descriptor.digest().to_string();
                let mut report = VerifyReport::new(layout, tag_of(descriptor), digest);
                report.add(CheckName::Blobs, CheckResult::from_error(error)?);
                each(report)?;
            }
        }
    }
    Ok(())
}

impl VerifyCache {
    /// `outer` is the descriptor in the layout's own index: that of the part, or of an index over it.
    fn verify_manifest(
        &mut self,
        reader: &LayoutReader,
        index: &IndexFacts,
        manifest_ref: &ManifestRef,
        outer: &Descriptor,
    ) -> Result<VerifyReport> {
        let digest = manifest_ref.descriptor.digest().to_string();
        let mut report = VerifyReport::new(reader.path(), manifest_ref.tag.clone(), digest);
        if manifest_ref.kind != ManifestKind::Image {
            check_artifact(reader, manifest_ref, &mut report)?;
            return Ok(report);
        }
        match self.image(reader, manifest_ref)? {
            Ok(checks) => self.add_image(reader, index, manifest_ref, outer, &checks, &mut report)?,
            Err(result) => report.add(CheckName::Blobs, result),
        }
        Ok(report)
    }

    /// Adds the checks of an image, and those that depend on its tag.
    fn add_image(
        &mut self,
        reader: &LayoutReader,
        index: &IndexFacts,
        manifest_ref: &ManifestRef,
        outer: &Descriptor,
        checks: &ImageChecks,
        report: &mut VerifyReport,
    ) -> Result<()> {
        let inspected = checks.inspected.clone();
        report.add(CheckName::Index, index.check(checks, manifest_ref, outer));
        report.checks.extend(checks.checks.iter().cloned());
        if let Some(pairing) = &checks.pairing {
            let result = pairing.check(&inspected, manifest_ref.tag.as_deref(), &mut self.read);
            report.add(CheckName::Pairing, result);
            let receipt = inspect::receipt(&reader.image(manifest_ref)?, &mut self.read);
            report.add(CheckName::Receipt, contents::receipt(&inspected, &receipt));
            report.receipt = Some(receipt);
        }
        report.arch = Some(inspected.arch.clone());
        report.inspected = Some(inspected);
        Ok(())
    }

    fn image(&mut self, reader: &LayoutReader, manifest_ref: &ManifestRef) -> Result<ImageResult> {
        let digest = manifest_ref.descriptor.digest().digest().parse();
        let Ok(digest) = digest.map_err(|_: String| ()) else {
            return self.read_image(reader, manifest_ref);
        };
        let key = (reader.path().to_owned(), digest, manifest_ref.descriptor.size());
        if let Some(result) = self.images.get(&key) {
            return Ok(result.clone());
        }
        let result = self.read_image(reader, manifest_ref)?;
        self.files += result.as_ref().map_or(0, |checks| checks.inspected.scan.files.len());
        if self.files > MAX_FILES {
            self.files = 0;
            self.images.clear();
        }
        self.images.insert(key, result.clone());
        Ok(result)
    }

    fn read_image(&mut self, reader: &LayoutReader, manifest_ref: &ManifestRef) -> Result<ImageResult> {
        match reader.image(manifest_ref).and_then(|image| ImageChecks::of(&image, &mut self.read)) {
            Ok(checks) => Ok(Ok(Rc::new(checks))),
            Err(error) => CheckResult::from_error(error).map(Err),
        }
    }
}

/// No kernel image; but an image of kcompile's, or a manifest under another type, should be one.
fn artifact(reader: &LayoutReader, manifest_ref: &ManifestRef) -> CheckResult {
    let title = manifest_ref.kind.title();
    let kind = manifest_ref.descriptor.media_type().to_string();
    let problem = match &manifest_ref.kind {
        ManifestKind::Blob(_) => {
            let own = reader.embedded_media_type(manifest_ref).filter(|own| *own != kind);
            own.map(|own| format!("the index says that it is of type {kind}, it says itself {own}"))
        }
        _ => {
            let manifest = reader.image_manifest(manifest_ref).ok().flatten();
            let is_ours = manifest.is_some_and(|manifest| origin::is_ours(&manifest));
            is_ours.then(|| format!("it says that it is an image of kcompile's, and is {title}"))
        }
    };
    match problem {
        Some(problem) => CheckResult::Failed { problems: vec![problem] },
        None => CheckResult::not_applicable(format!("not a kernel image: {title}")),
    }
}

/// An artifact, or a blob that is no manifest: no root file system can be made of it.
fn check_artifact(
    reader: &LayoutReader,
    manifest_ref: &ManifestRef,
    report: &mut VerifyReport,
) -> Result<()> {
    let is_attached = manifest_ref.kind == ManifestKind::Referrer;
    if !is_attached {
        report.add(CheckName::Image, artifact(reader, manifest_ref));
    }
    let result = match reader.check_artifact(manifest_ref) {
        Ok(bytes) => {
            let attached = if is_attached { " attached to an image" } else { "" };
            CheckResult::Passed { detail: format!("{}{attached}: sizes and digests", format_size(bytes)) }
        }
        Err(error) => CheckResult::from_error(error)?,
    };
    report.add(CheckName::Blobs, result);
    Ok(())
}
