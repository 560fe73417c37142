//! Writes a software bill of materials and a provenance statement beside the receipt, and attaches
//! all three to each image. They are OCI 1.1 artifacts in a separate layout, because readers of
//! images do not expect them there.
//!
//! The bill of materials depends only on the plan, and its date is that of the source, so the same plan gives
//! the same bytes. Provenance and receipt have the time of the build and the checks of the source, so no
//! image refers to them. None of the three has a path of the machine.

mod provenance;
mod spdx;

pub(super) use provenance::MEDIA_TYPE as PROVENANCE;

use crate::image::receipt::FinishedBuild;
use crate::oci::{self, Artifact};
use crate::util::error::{Kind, Result, ResultExt};
use crate::util::fs::write_atomically;
use crate::util::read::{Links, MAX_JSON, read_file};
use camino::Utf8Path;
use serde_json::Value;

/// The media type of a receipt.
pub(super) const RECEIPT: &str = "application/vnd.kcompile.receipt.v1+json";

/// The endings of the files that [`write()`] puts beside a receipt.
pub const DOCUMENT_SUFFIXES: [&str; 2] = ["spdx.json", "provenance.json"];

/// The receipt and the time of a build.
pub struct BuildRun<'a> {
    /// The path of the receipt.
    pub receipt: &'a Utf8Path,
    /// The start of the build, in seconds since 1970.
    pub began: u64,
    /// The end of the build, in seconds since 1970.
    pub ended: u64,
}

/// Writes `….spdx.json` and `….provenance.json` beside the receipt `….json`, and attaches all three to each
/// image, in the layout `<image>-attest`. The caller holds the lock of the output directory.
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
    let artifacts = [
        artifact(DOCUMENT_SUFFIXES[0], spdx::MEDIA_TYPE, text(&spdx::document(build, stem))),
        artifact(DOCUMENT_SUFFIXES[1], provenance::MEDIA_TYPE, text(&statement)),
        artifact("json", RECEIPT, receipt_bytes),
    ];
    for document in &artifacts[..2] {
        write_atomically(&output.join(&document.name), &document.bytes)?;
    }
    build.images.iter().try_for_each(|image| oci::write_referrers(output, &image.written, &artifacts))
}
