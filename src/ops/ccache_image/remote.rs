//! `--ccache-from` and `--ccache-to`: a build that takes ccache's entries from an image, and leaves them in one.

use super::{ImportSummary, Limit, directory, export, import};
use crate::cache::Cache;
use crate::host::Host;
use crate::image::remote::{self, Pulled};
use crate::oci::annotations::{DESCRIPTION, TITLE};
use crate::oci::layout_reader::LayoutReader;
use crate::oci::read::{Reference, locate, split_reference};
use crate::oci::tags::{self, NewImage};
use crate::oci::{Encoder, ImageSpec, WrittenImage};
use crate::report::Reporter;
use crate::util::error::{Error, Result};
use crate::util::text::{format_size, is_registry_reference, pluralize};
use camino::{Utf8Path, Utf8PathBuf};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The tag of the image on its way to a registry.
const TAG: &str = "ccache";
/// The default of `--max-size`.
pub const MAX_SIZE: u64 = 1_000_000_000;

/// An image of ccache's entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CcacheImage {
    /// `oci:DIR[:TAG]`, or the same without `oci:`.
    Layout(Utf8PathBuf),
    /// `docker://REFERENCE`.
    Registry(String),
}

impl FromStr for CcacheImage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("docker://") {
            Some(name) if is_registry_reference(name) => Ok(CcacheImage::Registry(text.to_owned())),
            Some(_) => Err(format!("`{text}` is not the reference of an image")),
            None => Ok(CcacheImage::Layout(text.strip_prefix("oci:").unwrap_or(text).into())),
        }
    }
}

impl CcacheImage {
    /// Parses an image to write. A layout needs a tag.
    pub fn writable(text: &str) -> Result<CcacheImage, String> {
        let image = text.parse()?;
        let CcacheImage::Layout(reference) = &image else { return Ok(image) };
        match split_reference(reference.as_str()).1 {
            Some(tag) if tags::is_registry_tag(tag) => Ok(image),
            _ => Err(format!("`{text}` has no valid tag; append one, as in oci:warm/ccache:6.1")),
        }
    }
}

impl fmt::Display for CcacheImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CcacheImage::Layout(reference) => write!(f, "oci:{reference}"),
            CcacheImage::Registry(reference) => f.write_str(reference),
        }
    }
}

/// Adds the entries of `image` to ccache's cache before a build. A note says how many there were, or that the
/// image does not exist yet.
///
/// # Errors
///
/// ccache or skopeo is not installed (exit code 4), or the image cannot be copied or is damaged (3).
pub fn warm_up(image: &CcacheImage, cache: &Cache, host: &Host, reporter: &Reporter) -> Result<()> {
    let with_option = |error: Error| error.with_prefix(&format!("--ccache-from {image}"));
    let scratch = cache.scratch()?;
    let found = match image {
        CcacheImage::Layout(reference) => {
            let Reference { layout, tag } = locate(&host.absolute(reference));
            let has_image = layout.exists()
                && LayoutReader::open(&layout)
                    .map_err(with_option)?
                    .names()
                    .any(|name| tag.as_ref().is_none_or(|tag| *tag == name));
            has_image.then_some((layout, tag))
        }
        CcacheImage::Registry(reference) => {
            let layout = scratch.path.join("layout");
            let pulled = remote::pull(reference, &layout, host).map_err(with_option)?;
            (pulled == Pulled::Image).then_some((layout, None))
        }
    };
    let Some((layout, tag)) = found else {
        reporter.note(&format!("{image} does not exist yet; ccache starts without it"));
        return Ok(());
    };
    let dir = directory(host)?;
    let image = LayoutReader::open(&layout).and_then(|reader| reader.open_image(tag.as_deref(), None));
    let ImportSummary { new, known, bytes } =
        image.and_then(|image| import(&image, &dir, host, reporter)).map_err(with_option)?;
    let size = format_size(bytes);
    let new = pluralize(new, "entry", "entries");
    reporter
        .note(&format!("ccache: added {new} ({size}), already had {}", pluralize(known, "entry", "entries")));
    Ok(())
}

/// Writes the newest entries of ccache's cache to `image` after a build.
///
/// # Errors
///
/// ccache or skopeo is not installed (exit code 4), the layout cannot be written (1 or 2), or the registry refuses
/// the image (3).
pub fn save(image: &CcacheImage, cache: &Cache, host: &Host, reporter: &Reporter) -> Result<()> {
    let limit = Limit { bytes: MAX_SIZE, since: None };
    match image {
        CcacheImage::Layout(reference) => {
            write_layout(&host.absolute(reference), limit, host, reporter).map(drop)
        }
        CcacheImage::Registry(reference) => {
            let scratch = cache.scratch()?;
            let layout = scratch.path.join("layout");
            write_layout(&Utf8PathBuf::from(format!("{layout}:{TAG}")), limit, host, reporter)
                .and_then(|_| remote::push(&layout, TAG, reference, host))
        }
    }
    .map_err(|error| error.with_prefix(&format!("--ccache-to {image}")))
}

/// Writes the newest entries of ccache's cache to `reference`, which is `DIR:TAG`.
///
/// # Errors
///
/// It has no valid tag, or there is nothing to export (exit code 2).
pub fn write_layout(
    reference: &Utf8Path,
    limit: Limit,
    host: &Host,
    reporter: &Reporter,
) -> Result<WrittenImage> {
    let NewImage { output, layout, tag } = NewImage::parse(reference, "oci:warm/ccache:6.1")?;
    let annotations = BTreeMap::from([
        (TITLE.to_owned(), "ccache".to_owned()),
        (DESCRIPTION.to_owned(), "what ccache has compiled, for kcompile ccache import".to_owned()),
    ]);
    let spec = ImageSpec { layout, tag, encoder: Encoder::Zstd, annotations: &annotations };
    export(&directory(host)?, limit, output, spec, host.own_arch()?, host.cpus, reporter)
}
