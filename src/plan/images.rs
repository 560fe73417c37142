//! The images of a plan: layouts, tags, contents, annotations.

use super::{Contents, ImagePlan, SourceIdentity};
use crate::kernel::KernelVersion;
use crate::request::Request;
use std::collections::BTreeMap;

/// The kernel's own licence, as an SPDX expression (`COPYING` in its tree).
const KERNEL_LICENCE: &str = "GPL-2.0-only WITH Linux-syscall-note";

pub(super) fn plans(
    request: &Request,
    version: Option<KernelVersion>,
    epoch: Option<u64>,
    source: Option<&SourceIdentity>,
) -> Vec<ImagePlan> {
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
        let file_name = path.rsplit('/').next().expect("split gives at least one").to_owned();
        plans.push(image(
            flavor.legacy_image().into(),
            "kernel and modules",
            Contents::Combined { file_name },
        ));
    }
    plans
}

/// OCI's predefined annotation keys, as far as they are known.
fn annotations(
    request: &Request,
    layout: &str,
    what: &str,
    version: Option<KernelVersion>,
    epoch: Option<u64>,
    source: Option<&SourceIdentity>,
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
    if let Some(source) = source {
        pairs.push(("revision", source.digest.clone()));
        pairs.push(("source", source.name.clone()));
    }
    pairs.into_iter().map(|(key, value)| (format!("org.opencontainers.image.{key}"), value)).collect()
}
