//! Finds the image of a kernel's modules, or of the modules' kernel, in the layout beside it.

use super::{ImageInfo, ReadCache};
use crate::oci::read::{Image, tag_part};
use crate::plan::annotations;
use crate::util::error::{Error, Kind, Result};
use camino::{Utf8Path, Utf8PathBuf};

/// Inspects the image of the modules of a kernel, or of the kernel of modules, if it is beside this one.
///
/// # Errors
///
/// Exit code 3 if it breaks a rule.
pub fn counterpart(image: &ImageInfo) -> Result<Option<ImageInfo>> {
    let cache = &mut ReadCache::default();
    let other = counterpart_image(&image.layout, image.tag.as_deref(), &image.arch, cache)?;
    other.map(|other| cache.inspect(&other)).transpose()
}

/// Opens the image with this tag and architecture in the counterpart of `layout`, without reading its layers.
///
/// # Errors
///
/// Exit code 3 if it breaks a rule.
pub fn counterpart_image(
    layout: &Utf8Path,
    tag: Option<&str>,
    arch: &str,
    cache: &mut ReadCache,
) -> Result<Option<Image>> {
    let Some(layout) = counterpart_layout(layout) else { return Ok(None) };
    let layout = cache.layout(&layout)?;
    let manifest_refs = match layout.images(tag.map(tag_part)) {
        Ok(manifest_refs) => manifest_refs,
        Err(error) if error.kind == Kind::Usage => return Ok(None),
        Err(error) => return Err(error),
    };
    for manifest_ref in manifest_refs {
        let other = layout.image(&manifest_ref)?;
        if other.config.architecture().to_string() == arch {
            return Ok(Some(other));
        }
    }
    Ok(None)
}

/// Returns the layout of the modules of a kernel's layout, or the other way round, if it exists.
pub fn counterpart_layout(layout: &Utf8Path) -> Option<Utf8PathBuf> {
    let (kernel, modules) = ("-kernel-bin", "-kernel-modules");
    let name = layout.file_name()?;
    let other = if name.contains(kernel) {
        name.replace(kernel, modules)
    } else if name.contains(modules) {
        name.replace(modules, kernel)
    } else {
        return None;
    };
    Some(layout.with_file_name(other)).filter(|layout| layout.is_dir())
}

/// Checks, by their annotations and releases, that a kernel and modules belong together.
///
/// # Errors
///
/// Exit code 1 if they do not.
pub fn check_pair(kernel: &ImageInfo, modules: &ImageInfo) -> Result<()> {
    let pairing = |image: &ImageInfo| image.annotation(annotations::PAIRING).map(str::to_owned);
    let pairings = pairing(kernel).zip(pairing(modules));
    let releases = kernel.release.as_ref().zip(modules.release.as_ref());
    let why = if pairings.is_some_and(|(one, other)| one != other) {
        "their annotations are from two different builds".to_owned()
    } else if let Some((one, other)) = releases.filter(|(one, other)| one != other) {
        format!("the kernel is {one}, the modules are for {other}")
    } else {
        return Ok(());
    };
    let (kernel, modules) = (&kernel.layout, &modules.layout);
    Err(Error::build(format!("{kernel} and {modules} do not belong together: {why}")))
}
