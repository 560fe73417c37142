//! The images of a plan: layouts, tags, contents, annotations.

use super::{Contents, ImagePlan, SourcePlan};
use crate::error::{Error, Result};
use crate::kernel::{Arch, KernelVersion};
use crate::request::Request;
use std::collections::BTreeMap;

/// The kernel's own licence, as an SPDX expression (`COPYING` in its tree).
const KERNEL_LICENCE: &str = "GPL-2.0-only WITH Linux-syscall-note";

pub(super) fn plans(
    request: &Request,
    version: Option<KernelVersion>,
    epoch: Option<u64>,
    source: &SourcePlan,
) -> Result<Vec<ImagePlan>> {
    let Request { flavor, arch, images, .. } = request;
    let prefix = flavor.image_prefix();
    let path = flavor.kernel_path(*arch);
    let image = |layout: String, what: &str, contents: Contents| ImagePlan {
        annotations: annotations(request, &layout, what, version, epoch, source),
        layout,
        tag: version.map(|version| version.to_string()),
        contents,
        compression: images.compression,
    };
    if let Some(second) = images.also_at.as_deref().filter(|second| collide(second, path)) {
        return Err(Error::usage(format!(
            "--also-at {second}: the kernel lies at {path} already, one of the two cannot be"
        )));
    }
    let mut plans = vec![image(
        format!("{prefix}-kernel-bin-{arch}"),
        "kernel",
        Contents::Kernel { path: path.to_owned(), also_at: images.also_at.clone() },
    )];
    if !images.no_modules {
        let contents = Contents::Modules { layout: images.modules_layout };
        plans.push(image(format!("{prefix}-kernel-modules-{arch}"), "kernel modules", contents));
    }
    if images.legacy {
        // The consumers of this image know only its name for amd64.
        let legacy_layout = match arch {
            Arch::Amd64 => flavor.legacy_image().to_owned(),
            Arch::Arm64 => format!("{}-{arch}", flavor.legacy_image()),
        };
        let file_name = path.rsplit('/').next().expect("split gives at least one").to_owned();
        plans.push(image(legacy_layout, "kernel and modules", Contents::Combined { file_name }));
    }
    Ok(plans)
}

/// Are they the same path, or is one of them a directory above the other?
fn collide(one: &str, other: &str) -> bool {
    let (one, other) = (format!("{one}/"), format!("{other}/"));
    one.starts_with(&other) || other.starts_with(&one)
}

/// OCI's predefined annotation keys, as far as they are known.
fn annotations(
    request: &Request,
    layout: &str,
    what: &str,
    version: Option<KernelVersion>,
    epoch: Option<u64>,
    source: &SourcePlan,
) -> BTreeMap<String, String> {
    let version = version.map(|version| version.to_string());
    let described = version.as_deref().unwrap_or("of the series asked for");
    let mut pairs = vec![
        ("title", layout.to_owned()),
        (
            "description",
            format!("Linux {described} {what} for {} on {}", request.flavor.title(), request.arch),
        ),
        ("licenses", KERNEL_LICENCE.to_owned()),
        ("vendor", "kcompile".to_owned()),
    ];
    pairs.extend(version.map(|version| ("version", version)));
    pairs.extend(epoch.map(|epoch| ("created", crate::date::rfc3339(epoch))));
    pairs.extend(source.digest.clone().map(|digest| ("revision", digest)));
    pairs.extend(source.origin.clone().map(|origin| ("source", origin)));
    pairs.into_iter().map(|(key, value)| (format!("org.opencontainers.image.{key}"), value)).collect()
}
