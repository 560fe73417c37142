//! The documents of an image: its receipt and its provenance, as files beside the layout or, where those are not there,
//! as they are attached to the image in the layout `<name>-attest` beside its own.

use super::{ReadCache, ReceiptFound, receipt_path};
use crate::image::attest;
use crate::image::receipt::Known;
use crate::oci;
use crate::oci::blob::read_bounded;
use crate::oci::read::{Image, tag_part};
use crate::util::error::Result;
use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;
use serde_json::Value;

/// What a statement of provenance says of an image.
#[derive(Debug, Serialize)]
pub struct ProvenanceFound {
    /// Where it lies.
    #[serde(rename = "path")]
    pub path: Utf8PathBuf,
    /// What built the image.
    #[serde(rename = "builder")]
    pub builder: Option<String>,
    /// When the build began.
    #[serde(rename = "started")]
    pub started: Option<String>,
    /// When it ended.
    #[serde(rename = "finished")]
    pub finished: Option<String>,
    /// Where the source came from; `None`: from the machine that built it.
    #[serde(rename = "source")]
    pub source: Option<String>,
}

/// Finds the receipt of an image. A file of another build of this version does not count where the right one is
/// attached.
pub fn receipt(image: &Image, cache: &mut ReadCache) -> ReceiptFound {
    let beside = receipt_path(image).map_or(ReceiptFound::Absent, |path| match &*cache.receipt(&path) {
        Err(why) => ReceiptFound::Unreadable { why: why.clone() },
        Ok(None) => ReceiptFound::Absent,
        Ok(Some(known)) => of_image(image, path, known),
    });
    if !matches!(beside, ReceiptFound::Absent | ReceiptFound::OfAnother { .. }) {
        return beside;
    }
    match attached_receipt(image, cache) {
        Ok(Some(found @ ReceiptFound::Of { .. })) => found,
        Ok(_) => beside,
        Err(error) => ReceiptFound::Unreadable { why: error.to_string() },
    }
}

fn attached_receipt(image: &Image, cache: &mut ReadCache) -> Result<Option<ReceiptFound>> {
    let Some((path, bytes)) = attached(image, attest::RECEIPT, cache)? else { return Ok(None) };
    let known = Known::parse(&path, &bytes)?;
    Ok(Some(of_image(image, path, &known)))
}

fn of_image(image: &Image, path: Utf8PathBuf, known: &Known) -> ReceiptFound {
    if !known.images.iter().any(|one| one.digest == image.digest.oci()) {
        return ReceiptFound::OfAnother { path };
    }
    ReceiptFound::Of {
        path,
        tools: known.tools().into_iter().collect(),
        source_verified: known.source_verified.clone(),
        plan: known.plan_digest.clone(),
        release: known.kernel_release.clone(),
        config_sha256: known.config_sha256.clone(),
        command: known.command.clone(),
        findings: known.findings.clone(),
    }
}

/// Finds the statement of provenance about an image. One that cannot be read, or is about other images, is none: it is
/// told, and nothing depends on it.
pub(super) fn provenance(image: &Image, cache: &mut ReadCache) -> Option<ProvenanceFound> {
    let beside = receipt_path(image).map(|path| path.with_extension("provenance.json"));
    let beside = beside.and_then(|path| Some((read_bounded(&path).ok()?, path)));
    let about = beside.and_then(|(bytes, path)| statement(image, path, &bytes));
    about.or_else(|| {
        let (path, bytes) = attached(image, attest::PROVENANCE, cache).ok()??;
        statement(image, path, &bytes)
    })
}

fn statement(image: &Image, path: Utf8PathBuf, bytes: &[u8]) -> Option<ProvenanceFound> {
    let statement: Value = serde_json::from_slice(bytes).ok()?;
    let digest = image.digest.to_string();
    let is_about = |subject: &Value| subject["digest"]["sha256"].as_str() == Some(&digest);
    statement["subject"].as_array()?.iter().find(|subject| is_about(subject))?;
    let predicate = &statement["predicate"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let (build, run) = (&predicate["buildDefinition"], &predicate["runDetails"]);
    Some(ProvenanceFound {
        path,
        builder: text(&run["builder"]["id"]),
        started: text(&run["metadata"]["startedOn"]),
        finished: text(&run["metadata"]["finishedOn"]),
        source: text(&build["resolvedDependencies"][0]["uri"]),
    })
}

/// The file of this type that is attached to an image: alone, or as one of an index over architectures.
fn attached(
    image: &Image,
    media_type: &str,
    cache: &mut ReadCache,
) -> Result<Option<(Utf8PathBuf, Vec<u8>)>> {
    let (Some(tag), Some(layout)) = (&image.tag, oci::attachments(&image.layout)) else { return Ok(None) };
    let layout = cache.layout(&layout)?;
    let tag = tag_part(tag);
    for tag in [tag.to_owned(), format!("{tag}-{}", image.config.architecture())] {
        if let Some(found) = oci::attached(&layout, &tag, image.digest, media_type)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// What a document is called where a person reads it: its file, or what it is attached in.
pub fn document_name(path: &Utf8Path, what: &str) -> String {
    match attached_in(path).and_then(Utf8Path::file_name) {
        Some(layout) => format!("the {what} attached in {layout}"),
        None => path.file_name().unwrap_or_default().to_owned(),
    }
}

/// The layout that a document is attached in; `None`: it is a file beside the layouts.
pub fn attached_in(path: &Utf8Path) -> Option<&Utf8Path> {
    let blobs = path.parent().filter(|dir| dir.ends_with("blobs/sha256"))?;
    blobs.parent()?.parent()
}
