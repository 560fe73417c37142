//! Finds the receipt and the provenance of an image, which are files beside the layout, or
//! artifacts in the layout `<name>-attest`.

use super::{ReadCache, ReceiptState, receipt_path};
use crate::cve::CompiledFiles;
use crate::image::attest;
use crate::image::receipt::ReceiptFile;
use crate::oci;
use crate::oci::blob::read_bounded;
use crate::oci::read::{Image, tag_part};
use crate::plan::annotations;
use crate::util::digest::Sha256;
use crate::util::error::Result;
use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;
use serde_json::Value;

/// The provenance of an image.
#[derive(Debug, Serialize)]
pub struct ProvenanceInfo {
    /// The path of the statement.
    pub path: Utf8PathBuf,
    pub builder: Option<String>,
    /// The start of the build.
    pub started: Option<String>,
    /// The end of the build.
    pub finished: Option<String>,
    /// The origin of the source, unless it was on the machine that built the image.
    pub source: Option<String>,
}

/// Finds the receipt of an image. An attached receipt of the image comes before a file of another build.
pub fn receipt(image: &Image, cache: &mut ReadCache) -> ReceiptState {
    let sibling = receipt_path(image).map_or(ReceiptState::Missing, |path| match &*cache.receipt(&path) {
        Err(why) => ReceiptState::Unreadable { why: why.clone() },
        Ok(None) => ReceiptState::Missing,
        Ok(Some(receipt)) => of_image(image, path, receipt),
    });
    if !matches!(sibling, ReceiptState::Missing | ReceiptState::Mismatched { .. }) {
        return sibling;
    }
    match attached_receipt(image, cache) {
        Ok(Some(found @ ReceiptState::Matching { .. })) => found,
        Ok(_) => sibling,
        Err(error) => ReceiptState::Unreadable { why: error.to_string() },
    }
}

fn attached_receipt(image: &Image, cache: &mut ReadCache) -> Result<Option<ReceiptState>> {
    let Some((path, bytes)) = find_referrer(image, attest::RECEIPT, cache)? else { return Ok(None) };
    let receipt = ReceiptFile::parse(&path, &bytes)?;
    Ok(Some(of_image(image, path, &receipt)))
}

fn of_image(image: &Image, path: Utf8PathBuf, receipt: &ReceiptFile) -> ReceiptState {
    if !receipt.images.iter().any(|one| one.digest == image.digest.oci()) {
        return ReceiptState::Mismatched { path };
    }
    ReceiptState::Matching {
        path,
        tools: receipt.tools().into_iter().collect(),
        source_verified: receipt.source_verified.clone(),
        plan: receipt.plan_digest.clone(),
        release: receipt.kernel_release.clone(),
        config_sha256: receipt.config_sha256.clone(),
        command: receipt.command.clone(),
        image_cache: receipt.image_cache.clone().map(Box::new),
        warnings: receipt.warnings.clone(),
    }
}

/// Finds the provenance of an image. A statement that cannot be read, or that is about other images, is
/// ignored, because nothing depends on it.
pub(super) fn provenance(image: &Image, cache: &mut ReadCache) -> Option<ProvenanceInfo> {
    let sibling = receipt_path(image).map(|path| path.with_extension("provenance.json"));
    let sibling = sibling.and_then(|path| Some((read_bounded(&path).ok()?, path)));
    let about = sibling.and_then(|(bytes, path)| statement(image, path, &bytes));
    about.or_else(|| {
        let (path, bytes) = find_referrer(image, attest::PROVENANCE, cache).ok()??;
        statement(image, path, &bytes)
    })
}

/// Finds the list of files that were compiled for an image. A file beside the layout must have the plan of the
/// image, and an attached one the image as its subject.
///
/// # Errors
///
/// Exit code 3: the list is damaged.
pub fn compiled_files(image: &Image, cache: &mut ReadCache) -> Result<Option<(Utf8PathBuf, CompiledFiles)>> {
    let sibling = receipt_path(image).map(|path| path.with_extension(attest::COMPILED_SUFFIX));
    if let Some(path) = sibling.filter(|path| path.exists()) {
        let files = CompiledFiles::from_bytes(path.as_str(), &read_bounded(&path)?)?;
        let plan = image.annotation(annotations::PLAN).and_then(|plan| plan.parse::<Sha256>().ok());
        if plan == Some(files.plan) {
            return Ok(Some((path, files)));
        }
    }
    let Some((path, bytes)) = find_referrer(image, attest::COMPILED_FILES, cache)? else { return Ok(None) };
    let files = CompiledFiles::from_bytes(path.as_str(), &bytes)?;
    Ok(Some((path, files)))
}

fn statement(image: &Image, path: Utf8PathBuf, bytes: &[u8]) -> Option<ProvenanceInfo> {
    let statement: Value = serde_json::from_slice(bytes).ok()?;
    let digest = image.digest.to_string();
    let is_about = |subject: &Value| subject["digest"]["sha256"].as_str() == Some(&digest);
    statement["subject"].as_array()?.iter().find(|subject| is_about(subject))?;
    let predicate = &statement["predicate"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let (build, run) = (&predicate["buildDefinition"], &predicate["runDetails"]);
    Some(ProvenanceInfo {
        path,
        builder: text(&run["builder"]["id"]),
        started: text(&run["metadata"]["startedOn"]),
        finished: text(&run["metadata"]["finishedOn"]),
        source: text(&build["resolvedDependencies"][0]["uri"]),
    })
}

/// Returns the file of this type that is attached to an image, which may be part
/// of an index over architectures.
fn find_referrer(
    image: &Image,
    media_type: &str,
    cache: &mut ReadCache,
) -> Result<Option<(Utf8PathBuf, Vec<u8>)>> {
    let (Some(tag), Some(layout)) = (&image.tag, oci::referrers_layout(&image.layout)) else {
        return Ok(None);
    };
    let layout = cache.layout(&layout)?;
    let tag = tag_part(tag);
    for tag in [tag.to_owned(), format!("{tag}-{}", image.config.architecture())] {
        if let Some(found) = oci::find_referrer(&layout, &tag, image.digest, media_type)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Returns the name of a document for people, which is its file or the layout that it is attached in.
pub fn document_name(path: &Utf8Path, what: &str) -> String {
    match referrers_layout_of(path).and_then(Utf8Path::file_name) {
        Some(layout) => format!("the {what} attached in {layout}"),
        None => path.file_name().unwrap_or_default().to_owned(),
    }
}

/// Returns the layout that a document is attached in, unless it is a file beside the layouts.
pub fn referrers_layout_of(path: &Utf8Path) -> Option<&Utf8Path> {
    let blobs = path.parent().filter(|dir| dir.ends_with("blobs/sha256"))?;
    blobs.parent()?.parent()
}
