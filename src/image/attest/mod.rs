//! Where an image comes from, in the formats that others read: a software bill of materials and a statement
//! of provenance. Both lie beside the receipt, and all three are attached to each image: as OCI 1.1 artifacts
//! with the image as their subject, in a layout of their own, since readers of images do not expect them.
//!
//! The bill of materials follows from the plan alone and has no time but the source's date: the same plan gives the
//! same bytes. Provenance and receipt tell when it was built and how its source was verified, so nothing of an image
//! refers to any of them. None of the three names a place of the machine.

mod provenance;
mod spdx;

pub(super) use provenance::MEDIA_TYPE as PROVENANCE;

use crate::image::pack::PackedImage;
use crate::image::receipt::Redaction;
use crate::kbuild::{Compiled, Configured};
use crate::oci::{self, Artifact};
use crate::plan::{Plan, SourceIdentity};
use crate::util::error::{Kind, Result, ResultExt};
use crate::util::fs::write_atomically;
use crate::util::read::{Links, MAX_JSON, read_file};
use camino::Utf8Path;
use serde_json::Value;

/// The media type of a receipt.
pub(super) const RECEIPT: &str = "application/vnd.kcompile.receipt.v1+json";

/// The endings of what [`write`] leaves beside a receipt.
pub const DOCUMENT_SUFFIXES: [&str; 2] = ["spdx.json", "provenance.json"];

/// A finished build, its images and its receipt.
pub struct Build<'a> {
    /// What was to be built.
    pub plan: &'a Plan,
    /// What the source is.
    pub source: &'a SourceIdentity,
    /// The final `.config`.
    pub configured: &'a Configured,
    /// The kernel.
    pub compiled: &'a Compiled,
    /// What was written.
    pub images: &'a [PackedImage],
    /// Where the receipt lies.
    pub receipt: &'a Utf8Path,
    /// How the build is told to others.
    pub redaction: &'a Redaction,
    /// When the build began, seconds since 1970.
    pub began: u64,
    /// When it ended.
    pub ended: u64,
}

/// Writes `….spdx.json` and `….provenance.json` beside the receipt `….json`, and attaches all three to
/// each image, in the layout `<image>-attest` beside its own. The caller holds the lock of the output directory.
pub fn write(build: &Build<'_>) -> Result<()> {
    let Build { receipt, redaction, .. } = build;
    let output = receipt.parent().expect("a receipt lies in the output directory");
    let receipt_bytes = read_file(receipt, Links::Refuse, MAX_JSON)
        .context(Kind::Build, || format!("cannot read {receipt}"))?;
    let stem = receipt.file_stem().expect("a receipt has a name");
    let artifact =
        |end: &str, media_type, bytes| Artifact { name: format!("{stem}.{end}"), media_type, bytes };
    // For people, too. Keys of a `Value` are sorted.
    let text = |value: &Value| redaction.redact(&format!("{value:#}\n")).into_bytes();
    let artifacts = [
        artifact(DOCUMENT_SUFFIXES[0], spdx::MEDIA_TYPE, text(&spdx::document(build))),
        artifact(
            DOCUMENT_SUFFIXES[1],
            provenance::MEDIA_TYPE,
            text(&provenance::statement(build, &receipt_bytes)),
        ),
        artifact("json", RECEIPT, receipt_bytes),
    ];
    for new in &artifacts[..2] {
        write_atomically(&output.join(&new.name), &new.bytes)?;
    }
    build.images.iter().try_for_each(|image| oci::write_referrers(output, &image.written, &artifacts))
}
