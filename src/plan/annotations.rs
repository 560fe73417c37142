//! The annotations of an image, which are also the labels in its config. They depend only on the plan and the
//! build, so that the same plan gives the same digest.
//!
//! A key is OCI's predefined one, or else kcompile's. docs/reference/annotations.md lists them.

use super::{SourcePlan, Toolchain};
use crate::kernel::{KernelVersion, Variant};
use crate::oci::annotations::OCI;
use crate::plan::request::{ModuleMode, Request, TagSuffix};
use crate::util::digest::Sha256;
use std::collections::BTreeMap;

/// `firecracker` or `cloud-hypervisor`.
pub const FLAVOR: &str = "io.github.kcompile.flavor";
/// `amd64` or `arm64`.
pub const ARCHITECTURE: &str = "io.github.kcompile.architecture";
/// `uname -r`.
pub const KERNEL_RELEASE: &str = "io.github.kcompile.kernel.release";
/// `sha256:…` of the final `.config`, which is the file `config` beside the modules.
pub const CONFIG_DIGEST: &str = "io.github.kcompile.config.digest";
/// `sha256:…` of the source archive, or `content:…` of the source directory.
pub const SOURCE_DIGEST: &str = "io.github.kcompile.source.digest";
/// The commit of a git source.
pub const SOURCE_COMMIT: &str = "io.github.kcompile.source.commit";
/// The tools and their versions, as text.
pub const TOOLCHAIN: &str = "io.github.kcompile.toolchain";
/// `sha256:…` of the plan, which the receipt contains.
pub const PLAN: &str = "io.github.kcompile.plan";
/// `sha256:…` of what decides the image, if its toolchain is an image, see [`Plan::build_digest`](super::Plan::build_digest).
pub const BUILD: &str = "io.github.kcompile.build";
/// The same for all images of one build, see [`pairing`].
pub const PAIRING: &str = "io.github.kcompile.pairing";

/// `builtin` if the kernel has everything built in and loads no modules. Other images do not have the key.
pub const MODULES: &str = "io.github.kcompile.modules";
/// The value of [`MODULES`].
pub const BUILTIN: &str = "builtin";

/// What the kernel is for, if that is not a node: `minimal`.
pub const VARIANT: &str = "io.github.kcompile.variant";

/// Returns what the tag of an image has behind the version. `get` returns the value of a key.
pub fn tag_suffix<'a>(get: impl Fn(&str) -> Option<&'a str>) -> TagSuffix {
    let is_builtin = get(MODULES) == Some(BUILTIN);
    let module_mode = if is_builtin { ModuleMode::Builtin } else { ModuleMode::Loadable };
    TagSuffix::of(variant(get(VARIANT)), module_mode)
}

/// Reads the value of [`VARIANT`]. A kernel of another program or version is taken for that of a node.
pub fn variant(value: Option<&str>) -> Variant {
    value.and_then(|value| value.parse().ok()).unwrap_or_default()
}

/// The kernel's licence as an SPDX expression, from `COPYING` in its tree.
pub const KERNEL_LICENCE: &str = "GPL-2.0-only WITH Linux-syscall-note";

/// What a plan knows of its images. `None` means unknown until the source is there.
pub(super) struct PlanFacts<'a> {
    pub version: Option<KernelVersion>,
    pub epoch: Option<u64>,
    pub source: &'a SourcePlan,
    pub toolchain: &'a Toolchain,
}

/// Returns the annotations that the plan knows for the image in this layout. `what` describes the image.
pub(super) fn plan_annotations(
    request: &Request,
    facts: &PlanFacts<'_>,
    layout: &str,
    what: &str,
) -> BTreeMap<String, String> {
    let (Request { flavor, arch, .. }, source) = (request, facts.source);
    let version = facts.version.map(|version| version.to_string());
    let described = version.as_deref().unwrap_or("of the series asked for");
    let oci = |key: &str, value: String| (format!("{OCI}{key}"), value);
    let ours = |key: &str, value: String| (key.to_owned(), value);
    let mut pairs = vec![
        oci("title", layout.to_owned()),
        oci("description", format!("Linux {described} {what} for {} on {arch}", flavor.spec().title)),
        oci("licenses", KERNEL_LICENCE.to_owned()),
        oci("vendor", "kcompile".to_owned()),
        ours(FLAVOR, flavor.to_string()),
        ours(ARCHITECTURE, arch.to_string()),
        ours(TOOLCHAIN, facts.toolchain.description()),
    ];
    if request.images.module_mode == ModuleMode::Builtin {
        pairs.push(ours(MODULES, BUILTIN.to_owned()));
    }
    if !request.variant.is_default() {
        pairs.push(ours(VARIANT, request.variant.to_string()));
    }
    pairs.extend(version.map(|version| oci("version", version)));
    pairs.extend(facts.epoch.map(|epoch| oci("created", crate::util::time::rfc3339(epoch))));
    pairs.extend(source.origin.clone().map(|origin| oci("source", origin)));
    if let Some(digest) = &source.digest {
        let (key, revision) = match digest.commit() {
            Some(commit) => (SOURCE_COMMIT, commit.to_string()),
            None => (SOURCE_DIGEST, digest.to_string()),
        };
        pairs.extend([ours(key, revision.clone()), oci("revision", revision)]);
    }
    pairs.into_iter().collect()
}

/// What is known only after the build.
#[derive(Clone, Copy, Debug)]
pub struct BuildFacts<'a> {
    /// `uname -r`.
    pub release: &'a str,
    /// The digest of the kernel file in the image.
    pub kernel: Sha256,
    /// The digest of the final `.config`.
    pub config: Sha256,
    /// The digest of the plan.
    pub plan: Sha256,
    /// The build digest of the image, if others may use it for the same inputs.
    pub build: Option<Sha256>,
}

/// Returns the annotations of a finished build, which are added to those of the plan.
pub fn build_annotations(built: BuildFacts<'_>) -> impl Iterator<Item = (String, String)> {
    let BuildFacts { release, kernel, config, plan, build } = built;
    let pairs = [
        (KERNEL_RELEASE, release.to_owned()),
        (CONFIG_DIGEST, config.oci()),
        (PLAN, plan.oci()),
        (PAIRING, pairing(release, kernel, config).oci()),
    ];
    let build = build.map(|build| (BUILD, build.oci()));
    pairs.into_iter().chain(build).map(|(key, value)| (key.to_owned(), value))
}

/// Returns the digest that a kernel image and its modules image share. It is the digest of three lines: the
/// kernel release, the digest of the kernel file and the digest of the final `.config`.
///
/// Anyone with both images can compute it. One has the kernel file, the other the config and the release.
/// Modules for another config or another signing key have another digest, even if the version is the same.
pub fn pairing(release: &str, kernel: Sha256, config: Sha256) -> Sha256 {
    Sha256::of(format!("{release}\n{}\n{}\n", kernel.oci(), config.oci()))
}
