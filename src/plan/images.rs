//! The images of a plan: layouts, tags, contents.

use super::annotations::{PlanFacts, plan_annotations};
use super::{Contents, ImagePlan};
use crate::plan::request::{KernelLink, Request, TagSuffix};
use crate::util::error::{Error, Result};

pub(super) fn plans(request: &Request, facts: &PlanFacts<'_>) -> Result<Vec<ImagePlan>> {
    let Request { flavor, arch, images, .. } = request;
    let (prefix, file_name) = (flavor.spec().image_prefix, flavor.kernel_file(*arch));
    let path = format!("bin/{file_name}");
    let image = |layout: String, what: &str, contents: Contents| ImagePlan {
        annotations: plan_annotations(request, facts, &layout, what),
        layout,
        tag: facts.version.map(|version| request.tag_suffix().add_to(&version.to_string())),
        contents,
        compression: images.compression,
    };
    let kernel_link = match &images.kernel_link {
        KernelLink::Boot => Some(format!("boot/{file_name}")),
        KernelLink::None => None,
        KernelLink::At(second) => Some(second.clone()),
    };
    if let Some(second) = kernel_link.as_deref().filter(|second| collide(second, &path)) {
        return Err(Error::usage(format!("--kernel-link {second}: the kernel is already at {path}"))
            .hint("choose another path, or `none` for no second name"));
    }
    let (kernel, combined) = match request.tag_suffix() {
        TagSuffix::None => ("kernel", "kernel and modules"),
        TagSuffix::Builtin => ("kernel without modules", "kernel without modules"),
        TagSuffix::Minimal => ("minimal kernel", "minimal kernel"),
    };
    let mut plans =
        vec![image(format!("{prefix}-kernel-bin-{arch}"), kernel, Contents::Kernel { path, kernel_link })];
    if images.has_modules() {
        let contents = Contents::Modules { layout: images.modules_layout };
        plans.push(image(format!("{prefix}-kernel-modules-{arch}"), "kernel modules", contents));
    }
    if images.combined_image {
        for name in flavor.spec().combined_images {
            let layout = format!("{name}{}", arch.spec().combined_suffix);
            plans.push(image(layout, combined, Contents::Combined { file_name: file_name.to_owned() }));
        }
    }
    Ok(plans)
}

/// Returns whether the paths are the same, or one is a directory above the other.
fn collide(one: &str, other: &str) -> bool {
    let (one, other) = (format!("{one}/"), format!("{other}/"));
    one.starts_with(&other) || other.starts_with(&one)
}
