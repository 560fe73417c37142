//! Is an image what it should be? Every byte is read once: sizes, digests and diff_ids; the form of every
//! entry; the kernel file and every module against each other and against what the image says of itself;
//! the receipt. What is wrong is a value, so that all of it can be told.

mod contents;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod image;
mod index;
mod layer_form;
mod modules;
mod origin;
mod pairing;

use crate::host::process;
use crate::image::inspect::{self, Inspected, ReadCache, ReceiptFound};
use crate::image::size_limits::Budget;
use crate::oci::layout_reader::{LayoutReader, Part, PartKind};
use crate::oci::read::tag_of;
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result};
use crate::util::text::size;
use camino::{Utf8Path, Utf8PathBuf};
use image::ImageChecks;
use index::IndexFacts;
use oci_spec::image::Descriptor;
use serde::Serialize;
use std::collections::BTreeMap;
use std::rc::Rc;

/// So many faults of one kind are told, and the others counted: a hostile image may have 200,000.
const MOST_FAULTS: usize = 8;

/// What came of it for one image, or for an artifact that is attached to one.
#[derive(Debug, Serialize)]
pub struct Verified {
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
    pub inspected: Option<Rc<Inspected>>,
    /// Its receipt.
    #[serde(skip)]
    pub receipt: Option<ReceiptFound>,
}

/// One thing that was checked.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What.
    #[serde(rename = "name")]
    pub name: Subject,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
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

impl Subject {
    /// One word for people.
    pub fn title(self) -> &'static str {
        match self {
            Subject::Index => "index",
            Subject::Image => "image",
            Subject::Blobs => "blobs",
            Subject::Entries => "entries",
            Subject::Kernel => "kernel",
            Subject::Modules => "modules",
            Subject::Config => "config",
            Subject::Annotations => "annotations",
            Subject::Pairing => "pairing",
            Subject::Receipt => "receipt",
            Subject::Size => "size",
        }
    }
}

/// What came of a check.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// It is as it should be.
    #[serde(rename = "holds")]
    Holds {
        /// In words.
        #[serde(rename = "detail")]
        detail: String,
    },
    /// Nothing there says anything about it.
    #[serde(rename = "not-said")]
    NotSaid {
        /// In words.
        #[serde(rename = "detail")]
        detail: String,
    },
    /// It is not what it should be.
    #[serde(rename = "fails")]
    Fails {
        /// Each thing that is wrong.
        #[serde(rename = "faults")]
        faults: Vec<String>,
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
    Refused {
        /// Which rule.
        #[serde(rename = "why")]
        why: String,
    },
}

impl Outcome {
    fn not_said(detail: impl Into<String>) -> Outcome {
        Outcome::NotSaid { detail: detail.into() }
    }

    /// What an error means that names a rule; an error of another kind comes back.
    fn of_error(error: Error) -> Result<Outcome> {
        match error.kind {
            Kind::Fetch if error.is_damage() => Ok(Outcome::Damaged { why: error.to_string() }),
            Kind::Fetch => Ok(Outcome::Refused { why: error.to_string() }),
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
        match self.texts.len() < MOST_FAULTS {
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
    fn outcome(self, detail: impl Into<String>) -> Outcome {
        match self.texts.is_empty() {
            true => Outcome::Holds { detail: detail.into() },
            false => Outcome::Fails { faults: self.into_texts() },
        }
    }
}

impl Verified {
    /// Does nothing fail?
    pub fn is_right(&self) -> bool {
        !self.is_damaged() && !self.checks.iter().any(|one| matches!(one.outcome, Outcome::Fails { .. }))
    }

    /// Are bytes missing or wrong, or is a rule broken?
    pub fn is_damaged(&self) -> bool {
        let is_damage =
            |check: &Check| matches!(check.outcome, Outcome::Damaged { .. } | Outcome::Refused { .. });
        self.checks.iter().any(is_damage)
    }

    /// Adds what came of a limit of its size, where there is one.
    pub fn hold_to(&mut self, budget: &Budget) {
        let is_kernel_image = |image: &&Rc<Inspected>| !image.kernels.is_empty() || image.modules.is_some();
        let inspected = self.inspected.as_ref().filter(is_kernel_image);
        let Some(inspected) = inspected.filter(|_| budget.is_set()) else { return };
        let mut faults = Problems::default();
        budget.exceeded(inspected).into_iter().for_each(|text| faults.add(text));
        self.add(Subject::Size, faults.outcome("within the budget"));
    }

    fn new(layout: &Utf8Path, tag: Option<String>, digest: String) -> Verified {
        let layout = layout.to_owned();
        Verified { layout, tag, digest, arch: None, checks: Vec::new(), inspected: None, receipt: None }
    }

    fn add(&mut self, name: Subject, outcome: Outcome) {
        self.checks.push(Check { name, outcome });
    }
}

/// What one run has verified: nothing is read twice, however many tags lead to it.
#[derive(Default)]
pub struct VerifyCache {
    read: ReadCache,
    /// By layout, digest and size of the manifest; or what the error means that reading one of them ended with.
    images: BTreeMap<(Utf8PathBuf, Sha256, u64), Verdict>,
    /// Files of the images that are kept.
    files: usize,
}

/// What came of an image, whatever its tag; or why it could not be read.
type Verdict = std::result::Result<Rc<ImageChecks>, Outcome>;

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
    mut each: impl FnMut(Verified) -> Result<()>,
) -> Result<()> {
    let reader = match cache.read.layout(layout) {
        Ok(reader) => reader,
        Err(error) => {
            let mut verified = Verified::new(layout, tag.map(str::to_owned), String::new());
            verified.add(Subject::Index, Outcome::of_error(error)?);
            return each(verified);
        }
    };
    let index = IndexFacts::of(&reader);
    for descriptor in &reader.chosen(tag)? {
        process::check()?;
        match reader.parts(descriptor) {
            Ok(parts) => {
                for part in &parts {
                    let mut verified = cache.verify_part(&reader, &index, part, descriptor)?;
                    verified.arch = verified.arch.filter(|_| parts.len() > 1);
                    each(verified)?;
                }
            }
            Err(error) => {
                let digest = descriptor.digest().to_string();
                let mut verified = Verified::new(layout, tag_of(descriptor), digest);
                verified.add(Subject::Blobs, Outcome::of_error(error)?);
                each(verified)?;
            }
        }
    }
    Ok(())
}

impl VerifyCache {
    /// `outer` is the descriptor in the layout's own index: that of the part, or of an index over it.
    fn verify_part(
        &mut self,
        reader: &LayoutReader,
        index: &IndexFacts,
        part: &Part,
        outer: &Descriptor,
    ) -> Result<Verified> {
        let digest = part.descriptor.digest().to_string();
        let mut verified = Verified::new(reader.path(), part.tag.clone(), digest);
        if part.kind != PartKind::Image {
            check_artifact(reader, part, &mut verified)?;
            return Ok(verified);
        }
        match self.image(reader, part)? {
            Ok(checks) => self.add_image(reader, index, part, outer, &checks, &mut verified)?,
            Err(outcome) => verified.add(Subject::Blobs, outcome),
        }
        Ok(verified)
    }

    /// Adds the checks of an image, and those that depend on its tag.
    fn add_image(
        &mut self,
        reader: &LayoutReader,
        index: &IndexFacts,
        part: &Part,
        outer: &Descriptor,
        checks: &ImageChecks,
        verified: &mut Verified,
    ) -> Result<()> {
        let inspected = checks.inspected.clone();
        verified.add(Subject::Index, index.check(checks, part, outer));
        verified.checks.extend(checks.checks.iter().cloned());
        if let Some(pairing) = &checks.pairing {
            let outcome = pairing.check(&inspected, part.tag.as_deref(), &mut self.read);
            verified.add(Subject::Pairing, outcome);
            let receipt = inspect::receipt(&reader.image(part)?, &mut self.read);
            verified.add(Subject::Receipt, contents::receipt(&inspected, &receipt));
            verified.receipt = Some(receipt);
        }
        verified.arch = Some(inspected.arch.clone());
        verified.inspected = Some(inspected);
        Ok(())
    }

    fn image(&mut self, reader: &LayoutReader, part: &Part) -> Result<Verdict> {
        let digest = part.descriptor.digest().digest().parse();
        let Ok(digest) = digest.map_err(|_: String| ()) else {
            return self.read_image(reader, part);
        };
        let key = (reader.path().to_owned(), digest, part.descriptor.size());
        if let Some(verdict) = self.images.get(&key) {
            return Ok(verdict.clone());
        }
        let verdict = self.read_image(reader, part)?;
        self.files += verdict.as_ref().map_or(0, |checks| checks.inspected.survey.files.len());
        if self.files > MAX_FILES {
            self.files = 0;
            self.images.clear();
        }
        self.images.insert(key, verdict.clone());
        Ok(verdict)
    }

    fn read_image(&mut self, reader: &LayoutReader, part: &Part) -> Result<Verdict> {
        match reader.image(part).and_then(|image| ImageChecks::of(&image, &mut self.read)) {
            Ok(checks) => Ok(Ok(Rc::new(checks))),
            Err(error) => Outcome::of_error(error).map(Err),
        }
    }
}

/// No kernel image; but an image of kcompile's, or a manifest under another type, should be one.
fn artifact(reader: &LayoutReader, part: &Part) -> Outcome {
    let title = part.kind.title();
    let kind = part.descriptor.media_type().to_string();
    let problem = match &part.kind {
        PartKind::Blob(_) => {
            let own = reader.own_media_type(part).filter(|own| *own != kind);
            own.map(|own| format!("the index says that it is of type {kind}, it says itself {own}"))
        }
        _ => {
            let manifest = reader.image_manifest(part).ok().flatten();
            let is_ours = manifest.is_some_and(|manifest| origin::is_ours(&manifest));
            is_ours.then(|| format!("it says that it is an image of kcompile's, and is {title}"))
        }
    };
    match problem {
        Some(problem) => Outcome::Fails { faults: vec![problem] },
        None => Outcome::not_said(format!("not a kernel image: {title}")),
    }
}

/// An artifact, or a blob that is no manifest: no root file system can be made of it.
fn check_artifact(reader: &LayoutReader, part: &Part, verified: &mut Verified) -> Result<()> {
    let is_attached = part.kind == PartKind::Attachment;
    if !is_attached {
        verified.add(Subject::Image, artifact(reader, part));
    }
    let outcome = match reader.check_artifact(part) {
        Ok(bytes) => {
            let attached = if is_attached { " attached to an image" } else { "" };
            Outcome::Holds { detail: format!("{}{attached}: sizes and digests", size(bytes)) }
        }
        Err(error) => Outcome::of_error(error)?,
    };
    verified.add(Subject::Blobs, outcome);
    Ok(())
}
