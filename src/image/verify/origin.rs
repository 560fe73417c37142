//! Who made an image, as it says itself.

use crate::oci::annotations::VENDOR;
use crate::oci::read::Image;
use oci_spec::image::ImageManifest;

/// Who made an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// kcompile, as its annotations say. What it holds, by its title, which is the name of its layout.
    Kcompile(Claim),
    /// Anybody else.
    Other,
}

/// What an image of kcompile's should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// A kernel, and in a combined image modules too.
    Kernel,
    /// Modules.
    Modules,
}

/// Does a manifest say that kcompile made it? Labels do not count: they are taken over by whatever is built upon an image.
pub(super) fn is_ours(manifest: &ImageManifest) -> bool {
    let vendor = manifest.annotations().as_ref().and_then(|all| all.get(VENDOR));
    vendor.is_some_and(|vendor| vendor == "kcompile")
}

impl Origin {
    pub(super) fn of(image: &Image) -> Origin {
        let title = image.oci_annotation("title").unwrap_or_default();
        match (is_ours(&image.manifest), title.contains("-kernel-modules")) {
            (false, _) => Origin::Other,
            (true, true) => Origin::Kcompile(Claim::Modules),
            (true, false) => Origin::Kcompile(Claim::Kernel),
        }
    }

    pub(super) fn is_ours(self) -> bool {
        matches!(self, Origin::Kcompile(_))
    }
}
