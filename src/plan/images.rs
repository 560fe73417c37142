//! The images of a plan: layouts, tags, contents.

use super::annotations::{Planned, planned};
use super::{Contents, ImagePlan};
use crate::plan::request::{KernelLink, Request};
use crate::util::error::{Error, Result};

pub(super) fn plans(request: &Request, known: &Planned<'_>) -> Result<Vec<ImagePlan>> {
    let Request { flavor, arch, images, .. } = request;
    let (prefix, file_name) = (flavor.spec().image_prefix, flavor.kernel_file(*arch));
    let path = format!("bin/{file_name}");
    let image = |layout: String, what: &str, contents: Contents| ImagePlan {
        annotations: planned(known, &layout, what),
        layout,
        tag: known.version.map(|version| version.to_string()),
        contents,
        compression: images.compression,
    };
    let also_at = match &images.kernel_link {
        KernelLink::Boot => Some(format!("boot/{file_name}")),
        KernelLink::None => None,
        KernelLink::At(second) => Some(second.clone()),
    };
    if let Some(second) = also_at.as_deref().filter(|second| collide(second, &path)) {
        return Err(Error::usage(format!("--kernel-link {second}: the kernel lies at {path} already"))
            .hint("choose another path, or `none` for no second name"));
    }
    let mut plans =
        vec![image(format!("{prefix}-kernel-bin-{arch}"), "kernel", Contents::Kernel { path, also_at })];
    if !images.no_modules {
        let contents = Contents::Modules { layout: images.modules_layout };
        plans.push(image(format!("{prefix}-kernel-modules-{arch}"), "kernel modules", contents));
    }
    if images.legacy {
        let legacy_layout = format!("{}{}", flavor.spec().legacy_image, arch.spec().legacy_suffix);
        let file_name = file_name.to_owned();
        plans.push(image(legacy_layout, "kernel and modules", Contents::Combined { file_name }));
    }
    Ok(plans)
}

/// Are they the same path, or is one of them a directory above the other?
fn collide(one: &str, other: &str) -> bool {
    let (one, other) = (format!("{one}/"), format!("{other}/"));
    one.starts_with(&other) || other.starts_with(&one)
}
