//! The annotations of an image: what it is and what it was made from. They stand on its manifest, and
//! as labels in its config. Nothing in them depends on anything but the plan and what is built from it, so
//! that the same plan gives the same digest.
//!
//! Keys are OCI's predefined ones where there is one for it, else our own; docs/reference/annotations.md lists them.

use super::{SourcePlan, Toolchain};
use crate::kernel::{Arch, Flavor, KernelVersion};
use crate::oci::annotations::OCI;
use crate::util::digest::Sha256;
use std::collections::BTreeMap;

/// `firecracker` or `cloud-hypervisor`.
pub const FLAVOR: &str = "io.github.kcompile.flavor";
/// `amd64` or `arm64`.
pub const ARCHITECTURE: &str = "io.github.kcompile.architecture";
/// `uname -r`.
pub const KERNEL_RELEASE: &str = "io.github.kcompile.kernel.release";
/// `sha256:…` of the final `.config`, which is `config` beside the modules.
pub const CONFIG_DIGEST: &str = "io.github.kcompile.config.digest";
/// `sha256:…` of the archive that the source came in, `content:…` of a directory.
pub const SOURCE_DIGEST: &str = "io.github.kcompile.source.digest";
/// The commit, of a source from git.
pub const SOURCE_COMMIT: &str = "io.github.kcompile.source.commit";
/// The tools and their versions, in words.
pub const TOOLCHAIN: &str = "io.github.kcompile.toolchain";
/// `sha256:…` of the plan, which the receipt has in full.
pub const PLAN: &str = "io.github.kcompile.plan";
/// The same for all images of one build: see [`pairing`].
pub const PAIRING: &str = "io.github.kcompile.pairing";

/// The kernel's own licence, as an SPDX expression (`COPYING` in its tree).
pub const KERNEL_LICENCE: &str = "GPL-2.0-only WITH Linux-syscall-note";

/// What a plan knows of its images; what is `None` is known when the source is at hand.
pub(super) struct PlanFacts<'a> {
    pub version: Option<KernelVersion>,
    pub flavor: Flavor,
    pub arch: Arch,
    pub epoch: Option<u64>,
    pub source: &'a SourcePlan,
    pub toolchain: &'a Toolchain,
}

/// The annotations that the plan knows, of the image in this layout; `what` it is, for people.
pub(super) fn plan_annotations(facts: &PlanFacts<'_>, layout: &str, what: &str) -> BTreeMap<String, String> {
    let PlanFacts { flavor, arch, source, .. } = facts;
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

/// What only the build shows.
#[derive(Clone, Copy, Debug)]
pub struct BuildFacts<'a> {
    /// `uname -r`.
    pub release: &'a str,
    /// Of the file that goes into the image.
    pub kernel: Sha256,
    /// Of the final `.config`.
    pub config: Sha256,
    /// Of the plan.
    pub plan: Sha256,
}

/// The annotations of a finished build, which join those of the plan.
pub fn build_annotations(built: BuildFacts<'_>) -> impl Iterator<Item = (String, String)> {
    let BuildFacts { release, kernel, config, plan } = built;
    let pairs = [
        (KERNEL_RELEASE, release.to_owned()),
        (CONFIG_DIGEST, config.oci()),
        (PLAN, plan.oci()),
        (PAIRING, pairing(release, kernel, config).oci()),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value))
}

/// What a kernel image and a modules image that belong together have in common: the digest of three
/// lines, which are the kernel release, the digest of the kernel file and that of the final `.config`.
///
/// Anyone who holds both images can compute it: the kernel file is in the one, the config and the name
/// of the release in the other. Modules that were made with another config, or for a kernel with another
/// key in it, have another one, whatever their version says.
pub fn pairing(release: &str, kernel: Sha256, config: Sha256) -> Sha256 {
    Sha256::of(format!("{release}\n{}\n{}\n", kernel.oci(), config.oci()))
}
