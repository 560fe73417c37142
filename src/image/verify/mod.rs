//! Is an image what it should be? Every byte is read once: sizes, digests and diff_ids; the form of every
//! entry; the kernel file and every module against each other and against what the image says of itself;
//! the receipt. What is wrong is a value, so that all of it can be told.

mod contents;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod index;
mod layer_form;

use crate::image::inspect::{self, Inspected, Survey};
use crate::image::size_limits::Budget;
use crate::oci::blob;
use crate::oci::read::{self, tag_of};
use crate::oci::tags::{self, Part};
use crate::util::error::{Kind, Result};
use crate::util::text::{counted, size};
use camino::{Utf8Path, Utf8PathBuf};
use layer_form::Form;
use oci_spec::image::Descriptor;
use serde::Serialize;

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
    /// What was found in it; `None`: it could not be read.
    #[serde(skip)]
    pub inspected: Option<Inspected>,
}

/// One thing that was checked.
#[derive(Debug, Serialize)]
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
#[derive(Debug, Serialize)]
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
    /// A rule is broken, so that nothing of it can be believed.
    #[serde(rename = "damaged")]
    Damaged {
        /// Which.
        #[serde(rename = "why")]
        why: String,
    },
}

/// Things that are wrong, as many as a person reads.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    texts: Vec<String>,
    more: usize,
}

impl Faults {
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

    /// Is a rule broken?
    pub fn is_damaged(&self) -> bool {
        self.checks.iter().any(|check| matches!(check.outcome, Outcome::Damaged { .. }))
    }

    /// Adds what came of a limit of its size, where there is one.
    pub fn hold_to(&mut self, budget: &Budget) {
        let Some(inspected) = self.inspected.as_ref().filter(|_| budget.is_set()) else { return };
        let mut faults = Faults::default();
        budget.exceeded(inspected).into_iter().for_each(|text| faults.add(text));
        self.add(Subject::Size, faults.outcome("within the budget"));
    }

    fn new(layout: &Utf8Path, tag: Option<String>, digest: String) -> Verified {
        let layout = layout.to_owned();
        Verified { layout, tag, digest, arch: None, checks: Vec::new(), inspected: None }
    }

    fn add(&mut self, name: Subject, outcome: Outcome) {
        self.checks.push(Check { name, outcome });
    }
}

/// Verifies the images of this tag, or all that is in a layout, one after the other; `each` gets what came
/// of it.
///
/// Errors: no such layout or tag (exit code 2); what `each` returns; a signal.
pub fn verify(
    layout: &Utf8Path,
    tag: Option<&str>,
    mut each: impl FnMut(Verified) -> Result<()>,
) -> Result<()> {
    let chosen = match read::chosen(layout, tag) {
        Ok(chosen) => chosen,
        Err(error) if error.kind == Kind::Fetch => {
            let mut verified = Verified::new(layout, tag.map(str::to_owned), String::new());
            verified.add(Subject::Index, Outcome::Damaged { why: error.to_string() });
            return each(verified);
        }
        Err(error) => return Err(error),
    };
    for descriptor in &chosen {
        let (tag, digest) = (tag_of(descriptor), descriptor.digest().to_string());
        match tags::parts(layout, descriptor) {
            Ok(parts) => {
                let several = parts.len() > 1;
                for part in &parts {
                    let mut verified = verify_part(layout, part, descriptor)?;
                    verified.arch = verified.arch.filter(|_| several);
                    each(verified)?;
                }
            }
            Err(error) if error.kind == Kind::Fetch => {
                let mut verified = Verified::new(layout, tag, digest);
                verified.add(Subject::Blobs, Outcome::Damaged { why: error.to_string() });
                each(verified)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// `outer` is the descriptor in the layout's own index: that of the part, or of an index over it.
fn verify_part(layout: &Utf8Path, part: &Part, outer: &Descriptor) -> Result<Verified> {
    let mut verified = Verified::new(layout, part.tag.clone(), part.descriptor.digest().to_string());
    let done = match part.is_image {
        true => verify_image(layout, part, outer, &mut verified),
        false => tags::check_attachment(layout, &part.descriptor).map(|bytes| {
            let detail = format!("{} attached to an image: sizes and digests", size(bytes));
            verified.add(Subject::Blobs, Outcome::Holds { detail });
        }),
    };
    match done {
        Ok(()) => Ok(verified),
        Err(error) if error.kind == Kind::Fetch => {
            verified.add(Subject::Blobs, Outcome::Damaged { why: error.to_string() });
            Ok(verified)
        }
        Err(error) => Err(error),
    }
}

fn verify_image(layout: &Utf8Path, part: &Part, outer: &Descriptor, verified: &mut Verified) -> Result<()> {
    let image = part.open(layout)?;
    let is_ours = image.annotation("vendor") == Some("kcompile");
    let date = image.config.created().as_deref().and_then(crate::util::time::epoch);
    let (mut survey, mut form) = (Survey::default(), Form::new(date, is_ours));
    let layers = image.visit(|found, reader| {
        form.see(found);
        survey.see(layout.as_str(), found, reader)
    })?;
    let stored = layers.iter().map(|layer| layer.size).sum::<u64>();
    verified.arch = Some(image.config.architecture().to_string());
    verified.add(Subject::Index, index::check(&image, part, outer, is_ours)?);
    let blobs = format!("manifest, config, {}, {}", counted(layers.len(), "layer", "layers"), size(stored));
    verified.add(Subject::Blobs, Outcome::Holds { detail: format!("{blobs}: sizes, digests, diff_ids") });
    let (count, faults) = form.finish();
    let form = if is_ours { "sorted, of user 0, dated as the image" } else { "none that could do harm" };
    verified.add(Subject::Entries, faults.outcome(format!("{}, {form}", counted(count, "entry", "entries"))));
    let inspected = inspect::summed_up(&image, &layers, survey);
    contents::check(&image, &inspected, is_ours, verified);
    verified.inspected = Some(inspected);
    Ok(())
}

/// The whole of an index, read again for what its types leave out.
fn raw_index(layout: &Utf8Path) -> Result<serde_json::Value> {
    blob::read_json(&layout.join("index.json"))
}
