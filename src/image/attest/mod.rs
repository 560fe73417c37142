//! Writes a software bill of materials, a provenance statement and the list of compiled files beside the
//! receipt, and attaches all four to each image. They are OCI 1.1 artifacts in a separate layout, because
//! readers of images do not expect them there.
//!
//! The bill of materials and the list of compiled files depend only on the plan, and their dates are those of
//! the source, so the same plan gives the same bytes. Provenance and receipt have the time of the build and
//! the checks of the source, so no image refers to them. None of the four has a path of the machine.

mod provenance;
mod spdx;
mod tool_packages;

pub(super) use provenance::MEDIA_TYPE as PROVENANCE;
pub use tool_packages::{attach as attach_packages, installed_packages};

use crate::image::receipt::FinishedBuild;
use crate::oci::layout_reader::LayoutReader;
use crate::oci::{self, Artifact};
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::fs::{remove_tree, write_atomically};
use crate::util::read::{Links, MAX_JSON, read_file};
use camino::Utf8Path;
use serde_json::Value;

/// The media type of a receipt.
pub(super) const RECEIPT: &str = "application/vnd.kcompile.receipt.v1+json";

/// The media type of a list of compiled files.
pub(super) const COMPILED_FILES: &str = "application/vnd.kcompile.compiled-files.v1+gzip";

/// The ending of the list of compiled files.
pub const COMPILED_SUFFIX: &str = "compiled.json.gz";

/// The endings of the files that [`write()`] puts beside a receipt. The last one is missing if Kbuild did not
/// record what it compiled.
pub const DOCUMENT_SUFFIXES: [&str; 3] = ["spdx.json", "provenance.json", COMPILED_SUFFIX];

/// Returns the documents that are attached to the image `subject`, with file names that begin with `stem`. They are
/// looked up under the tag `<tag>-attest` of `layout`. They have the order of [`write()`], so the receipt is last.
///
/// # Errors
///
/// Exit code 3: there is no receipt, or the layout breaks a rule.
pub fn read_attached(layout: &LayoutReader, tag: &str, subject: Sha256, stem: &str) -> Result<Vec<Artifact>> {
    let types = [spdx::MEDIA_TYPE, provenance::MEDIA_TYPE, COMPILED_FILES, RECEIPT];
    let suffixes = DOCUMENT_SUFFIXES.into_iter().chain(["json"]);
    let mut documents = Vec::new();
    for (suffix, media_type) in suffixes.zip(types) {
        match oci::find_referrer(layout, tag, subject, media_type)? {
            Some((_, bytes)) => {
                documents.push(Artifact { name: format!("{stem}.{suffix}"), media_type, bytes });
            }
            None if media_type == RECEIPT => {
                return Err(Error::fetch("the image has no receipt attached"));
            }
            None => {}
        }
    }
    Ok(documents)
}

/// The receipt and the time of a build.
pub struct BuildRun<'a> {
    /// The path of the receipt.
    pub receipt: &'a Utf8Path,
    /// The start of the build, in seconds since 1970.
    pub began: u64,
    /// The end of the build, in seconds since 1970.
    pub ended: u64,
}

/// Writes `….spdx.json`, `….provenance.json` and `….compiled.json.gz` beside the receipt `….json`, and attaches
/// all four to each image, in the layout `<image>-attest`. The caller holds the lock of the output directory.
pub fn write(build: &FinishedBuild<'_>, run: &BuildRun<'_>) -> Result<()> {
    let receipt = run.receipt;
    let output = receipt.parent().expect("a receipt lies in the output directory");
    let receipt_bytes = read_file(receipt, Links::Refuse, MAX_JSON)
        .context(Kind::Build, || format!("cannot read {receipt}"))?;
    let stem = receipt.file_stem().expect("a receipt has a name");
    let artifact =
        |end: &str, media_type, bytes| Artifact { name: format!("{stem}.{end}"), media_type, bytes };
    // Indented, for people. The keys of a `Value` are sorted.
    let text = |value: &Value| build.redaction.redact(&format!("{value:#}\n")).into_bytes();
    let statement = provenance::statement(build, run, &receipt_bytes);
    let mut artifacts = vec![
        artifact(DOCUMENT_SUFFIXES[0], spdx::MEDIA_TYPE, text(&spdx::document(build, stem))),
        artifact(DOCUMENT_SUFFIXES[1], provenance::MEDIA_TYPE, text(&statement)),
    ];
    match build.compiled_files {
        Some(files) => artifacts.push(artifact(COMPILED_SUFFIX, COMPILED_FILES, files.to_bytes())),
        // Not that of an earlier build.
        None => remove_tree(&output.join(format!("{stem}.{COMPILED_SUFFIX}")))?,
    }
    for document in &artifacts {
        write_atomically(&output.join(&document.name), &document.bytes)?;
    }
    artifacts.push(artifact("json", RECEIPT, receipt_bytes));
    build.images.iter().try_for_each(|image| oci::write_referrers(output, &image.written, &artifacts))
}
