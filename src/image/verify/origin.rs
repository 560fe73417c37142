//! The origin of an image, by its annotations.

use crate::oci::annotations::VENDOR;
use crate::oci::read::Image;
use oci_spec::image::ImageManifest;

/// The program that made an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// kcompile, by the annotations. The title tells what the image should have.
    Kcompile(Claim),
    Other,
}

/// The expected content of a kcompile image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// A kernel, and in a combined image modules too.
    Kernel,
    Modules,
}

/// Returns whether the annotations are of a kcompile image. Labels do not count, because images that are
/// built on top of it inherit them.
pub(super) fn is_ours(manifest: &ImageManifest) -> bool {
    let vendor = manifest.annotations().as_ref().and_then(|all| all.get(VENDOR));
    vendor.is_some_and(|vendor| vendor == "kcompile")
}

impl Origin {
    pub(super) fn of(image: &Image) -> Origin {
        let title = image.oci_annotation("title").unwrap_or_default();
        if !is_ours(&image.manifest) {
            return Origin::Other;
        }
        let claim = if title.contains("-kernel-modules") { Claim::Modules } else { Claim::Kernel };
        Origin::Kcompile(claim)
    }

    pub(super) fn is_ours(self) -> bool {
        matches!(self, Origin::Kcompile(_))
    }
}
