//! Verifies images. Every byte is read once. The checks are of sizes, digests and diff_ids, of every entry,
//! of the kernel and its modules against each other and the annotations, and of the receipt. Problems are
//! values, so that all of them are reported.

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

/// The problems of one check that are listed. The others are counted, because a
/// hostile image may have 200,000.
const MAX_PROBLEMS: usize = 8;

/// The checks of one image, or of an artifact that is attached to an image.
#[derive(Debug, Serialize)]
pub struct VerifyReport {
    pub layout: Utf8PathBuf,
    /// The tag. `None` also if the report is about the whole layout.
    pub tag: Option<String>,
    /// The digest of the manifest, from its descriptor.
    pub digest: String,
    /// The architecture, if the tag has images for several.
    pub arch: Option<String>,
    /// The checks, in their order.
    pub checks: Vec<Check>,
    /// The content of the image, if it could be read.
    #[serde(skip)]
    pub inspected: Option<Rc<ImageInfo>>,
    #[serde(skip)]
    pub receipt: Option<ReceiptState>,
}

/// A check and its result.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub name: CheckName,
    #[serde(flatten)]
    pub result: CheckResult,
}

/// The names of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckName {
    Index,
    /// Whether it is a kernel image.
    Image,
    /// Every blob, by its size and digest.
    Blobs,
    /// The entries of the layers.
    Entries,
    Kernel,
    Modules,
    /// The final `.config`.
    Config,
    Annotations,
    /// Whether two images are of one build.
    Pairing,
    Receipt,
    /// The limits for kernel and modules.
    Size,
}

impl CheckName {
    /// Returns one word, for people.
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

/// The result of a check.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum CheckResult {
    #[serde(rename = "holds")]
    Passed { detail: String },
    /// There is nothing to check.
    #[serde(rename = "not-said")]
    NotApplicable { detail: String },
    #[serde(rename = "fails")]
    Failed {
        #[serde(rename = "faults")]
        problems: Vec<String>,
    },
    /// Bytes are missing, or do not match their digest or size.
    #[serde(rename = "damaged")]
    Damaged { why: String },
    /// The image is whole, but is dangerous to read, or readers understand it differently.
    #[serde(rename = "refused")]
    Rejected { why: String },
}

impl CheckResult {
    fn not_applicable(detail: impl Into<String>) -> CheckResult {
        CheckResult::NotApplicable { detail: detail.into() }
    }

    /// Converts a verification error. Returns other errors.
    fn from_error(error: Error) -> Result<CheckResult> {
        match error.kind {
            Kind::Fetch if error.is_damage() => Ok(CheckResult::Damaged { why: error.to_string() }),
            Kind::Fetch => Ok(CheckResult::Rejected { why: error.to_string() }),
            _ => Err(error),
        }
    }
}

/// The first problems of a check, and the number of the others.
#[derive(Debug, Default)]
pub(super) struct Problems {
    texts: Vec<String>,
    more: usize,
}

impl Problems {
    fn add(&mut self, text: String) {
        if self.texts.len() < MAX_PROBLEMS {
            self.texts.push(text);
        } else {
            self.more += 1;
        }
    }

    fn into_texts(mut self) -> Vec<String> {
        self.texts.extend((self.more > 0).then(|| format!("and {} more", self.more)));
        self.texts
    }

    fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    fn result(self, detail: impl Into<String>) -> CheckResult {
        if self.is_empty() {
            CheckResult::Passed { detail: detail.into() }
        } else {
            CheckResult::Failed { problems: self.into_texts() }
        }
    }
}

impl VerifyReport {
    /// Returns whether no check failed.
    pub fn passes(&self) -> bool {
        !self.is_damaged() && !self.checks.iter().any(|one| matches!(one.result, CheckResult::Failed { .. }))
    }

    /// Returns whether the image is damaged or was refused.
    pub fn is_damaged(&self) -> bool {
        let is_damage = |check: &Check| {
            matches!(check.result, CheckResult::Damaged { .. } | CheckResult::Rejected { .. })
        };
        self.checks.iter().any(is_damage)
    }

    /// Adds the check of its size, if there is a limit.
    pub fn check_size_limits(&mut self, size_limits: &SizeLimits) {
        let is_kernel_image = |image: &&Rc<ImageInfo>| !image.kernels.is_empty() || image.modules.is_some();
        let inspected = self.inspected.as_ref().filter(is_kernel_image);
        let Some(inspected) = inspected.filter(|_| size_limits.is_set()) else { return };
        let mut problems = Problems::default();
        size_limits.exceeded(inspected).into_iter().for_each(|text| problems.add(text));
        self.add(CheckName::Size, problems.result("within the limits"));
    }

    fn new(layout: &Utf8Path, tag: Option<String>, digest: String) -> VerifyReport {
        let layout = layout.to_owned();
        VerifyReport { layout, tag, digest, arch: None, checks: Vec::new(), inspected: None, receipt: None }
    }

    fn add(&mut self, name: CheckName, result: CheckResult) {
        self.checks.push(Check { name, result });
    }
}

/// Caches what one run has verified. Nothing is read twice, even if many tags lead to it.
#[derive(Default)]
pub struct VerifyCache {
    read: ReadCache,
    /// By layout, digest and size of the manifest.
    images: BTreeMap<(Utf8PathBuf, Sha256, u64), ImageResult>,
    /// The number of files of all images in the cache.
    files: usize,
}

/// The checks of an image that do not depend on its tag, or why it could not be read.
type ImageResult = std::result::Result<Rc<ImageChecks>, CheckResult>;

/// The files of all images in the cache, which are as many as one image may have.
const MAX_FILES: usize = 200_000;

/// Verifies the images of this tag, or the whole layout. `each` gets one report after the other.
///
/// # Errors
///
/// There is no such layout or tag (exit code 2), `each` fails, or a signal arrives.
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
    /// Verifies a manifest. `outer` is the descriptor in the layout's index, of the manifest or of
    /// an index that has it.
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
        report.add(CheckName::Index, index.check(checks, reader, manifest_ref, outer));
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

/// Reports a blob that is not an image. This is a problem if it has kcompile's annotations or
/// another type than the index says.
fn artifact(reader: &LayoutReader, manifest_ref: &ManifestRef) -> CheckResult {
    let title = manifest_ref.kind.title();
    let kind = manifest_ref.descriptor.media_type().to_string();
    let problem = match &manifest_ref.kind {
        ManifestKind::Blob(_) => {
            let own = reader.embedded_media_type(manifest_ref).filter(|own| *own != kind);
            own.map(|own| format!("the media type is {own}, but {kind} in the index"))
        }
        _ => {
            let manifest = reader.image_manifest(manifest_ref).ok().flatten();
            let is_ours = manifest.is_some_and(|manifest| origin::is_ours(&manifest));
            is_ours.then(|| format!("its annotations are of a kcompile image, but it is {title}"))
        }
    };
    match problem {
        Some(problem) => CheckResult::Failed { problems: vec![problem] },
        None => CheckResult::not_applicable(format!("not a kernel image: {title}")),
    }
}

/// Checks an artifact, or another blob that is not an image.
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
