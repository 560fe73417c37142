//! A kernel's image and that of its modules lie beside each other, in layouts whose names tell.

use super::{ImageInfo, ReadCache};
use crate::oci::read::{Image, tag_part};
use crate::plan::annotations;
use crate::util::error::{Error, Kind, Result};
use camino::{Utf8Path, Utf8PathBuf};

/// The image that belongs to this one, where it lies beside it: the modules of a kernel, the kernel of
/// modules; `None`: there is no such layout, or it has no image of this tag.
///
/// Errors (exit code 3): it breaks a rule.
pub fn counterpart(image: &ImageInfo) -> Result<Option<ImageInfo>> {
    let cache = &mut ReadCache::default();
    let other = counterpart_image(&image.layout, image.tag.as_deref(), &image.arch, cache)?;
    other.map(|other| cache.inspect(&other)).transpose()
}

/// The image of this tag and architecture in the layout that belongs to `layout`; its layers are not read.
///
/// Errors (exit code 3): it breaks a rule.
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

/// The layout of the modules of a kernel's layout, and the other way round, where there is one.
pub fn counterpart_layout(layout: &Utf8Path) -> Option<Utf8PathBuf> {
    let (kernel, modules) = ("-kernel-bin", "-kernel-modules");
    let name = layout.file_name()?;
    let other = match name.contains(kernel) {
        true => name.replace(kernel, modules),
        false if name.contains(modules) => name.replace(modules, kernel),
        false => return None,
    };
    Some(layout.with_file_name(other)).filter(|layout| layout.is_dir())
}

/// Do a kernel and modules belong together? By what both say of their build, else by their release.
///
/// Errors (exit code 1): they do not.
pub fn check_pair(kernel: &ImageInfo, modules: &ImageInfo) -> Result<()> {
    let pairing = |image: &ImageInfo| image.annotation(annotations::PAIRING).map(str::to_owned);
    let message = |why: String| {
        let (kernel, modules) = (&kernel.layout, &modules.layout);
        Err(Error::build(format!("{kernel} and {modules} do not belong together: {why}")))
    };
    match (pairing(kernel), pairing(modules)) {
        (Some(one), Some(other)) if one != other => {
            return message("they say that they are of two builds".into());
        }
        _ => {}
    }
    match (&kernel.release, &modules.release) {
        (Some(one), Some(other)) if one != other => {
            message(format!("the kernel is {one}, the modules are for {other}"))
        }
        _ => Ok(()),
    }
}
