//! The source of a plan: its identity, which is the same on every machine, and how to get it here.

use super::{Inputs, LocalSource};
use crate::catalog::kernels::Catalog;
use crate::catalog::lockfile::{self, LockFile};
use crate::kernel::{KernelVersion, SourceDigest, SourceSpec, VersionRequest, source_package};
use crate::plan::request::Request;
use crate::util::digest::Sha256;
use crate::util::error::{Error, Result};
use crate::util::openpgp::Signer;
use crate::util::text::file_name;
use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

/// The repository with Cloud Hypervisor's kernel branches.
const CLOUD_HYPERVISOR_LINUX: &str = "https://github.com/cloud-hypervisor/linux.git";
/// The beginning of the names of those branches, before the version.
pub const DEFAULT_BRANCH: &str = "ch-";
/// kernel.org's file server, which is the default mirror.
pub const KERNEL_ORG: &str = "https://cdn.kernel.org";
/// Packs release candidates on request, which are not on the file server.
const GIT_KERNEL_ORG: &str = "https://git.kernel.org";

/// The origin and digest of the source, and how to get it.
#[derive(Clone, Debug, Serialize)]
pub struct SourcePlan {
    /// kernel.org's URL (for mirrors, too), `URL#REF` or `apt:PACKAGE=VERSION`. `None` for local files, and
    /// for a series whose newest release is not known yet.
    pub origin: Option<String>,
    /// `None` if it is known only after the fetch.
    pub digest: Option<SourceDigest>,
    /// The name for messages.
    #[serde(skip)]
    pub name: String,
    #[serde(skip)]
    pub location: SourceLocation,
}

/// How to get a source.
#[derive(Clone, Debug)]
pub enum SourceLocation {
    /// kernel.org or its mirrors, the first one to try first. The URLs have no trailing slash.
    KernelOrg { mirrors: Vec<String> },
    /// A branch, tag or commit of a git repository, which is a URL or a path on this machine.
    Git { url: String, reference: String },
    /// A source package. Its version and the digest of its .deb are known if apt's lists have them.
    Apt { package: String, version: Option<String>, pin: Option<Sha256> },
    /// The absolute path of a tarball, and its digest when the plan was made.
    Tarball { path: Utf8PathBuf, sha256: Sha256 },
    /// The absolute path of a directory, which is used in place.
    Directory { path: Utf8PathBuf },
}

impl SourceLocation {
    /// Returns the name of the kind.
    pub fn kind(&self) -> &'static str {
        match self {
            SourceLocation::KernelOrg { .. } => "kernel.org",
            SourceLocation::Git { .. } => "git",
            SourceLocation::Apt { .. } => "apt",
            SourceLocation::Tarball { .. } => "tarball",
            SourceLocation::Directory { .. } => "directory",
        }
    }

    /// Returns whether the source comes from a network.
    pub fn is_remote(&self) -> bool {
        match self {
            SourceLocation::KernelOrg { .. } | SourceLocation::Apt { .. } => true,
            SourceLocation::Git { url, .. } => !url.starts_with('/') && !url.starts_with("file://"),
            SourceLocation::Tarball { .. } | SourceLocation::Directory { .. } => false,
        }
    }
}

/// The identity of a source that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceIdentity {
    /// As [`SourcePlan::origin`].
    pub origin: Option<String>,
    /// As [`SourcePlan::digest`].
    pub digest: SourceDigest,
    /// The version in its top Makefile.
    pub version: KernelVersion,
    /// The date of the commit, or of the top Makefile in the archive, in seconds since 1970.
    pub date: u64,
    /// The verification steps, the most important one first.
    pub checks: Vec<Check>,
}

impl SourceIdentity {
    /// Returns whether a check authenticates it.
    pub fn is_authenticated(&self) -> bool {
        self.checks.iter().any(|check| check.status == StepStatus::Authenticated)
    }

    /// Describes in one line what was verified, and what could not be.
    pub fn verified(&self) -> String {
        let details = |missing: bool| {
            let details = self.checks.iter().filter(|check| (check.status == StepStatus::Missing) == missing);
            details.map(|check| check.detail.as_str()).collect::<Vec<_>>().join(", ")
        };
        match (details(false), details(true)) {
            (present, missing) if missing.is_empty() => present,
            (present, missing) if present.is_empty() => missing,
            (present, missing) => format!("{present}; {missing}"),
        }
    }
}

/// A verification step and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    #[serde(rename = "link")]
    pub step: VerificationStep,
    #[serde(rename = "outcome")]
    pub status: StepStatus,
    /// A description for people.
    pub detail: String,
    /// The developers' signature, if this is the step that checked it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// The fingerprint of its key, as in [`Signer`].
    pub fingerprint: String,
    /// The digest of the signature file.
    pub sha256: Sha256,
}

impl Check {
    /// Returns a check that proves the origin of the bytes.
    pub fn authenticated(step: VerificationStep, detail: impl Into<String>) -> Check {
        Check { step, status: StepStatus::Authenticated, detail: detail.into(), signature: None }
    }

    /// Returns a check of the developers' signature with the text `signature`.
    pub fn signed(signer: &Signer, signature: &str) -> Check {
        let (fingerprint, sha256) = (signer.fingerprint.clone(), Sha256::of(signature));
        let check = Check::authenticated(VerificationStep::Signature, format!("signed by {signer}"));
        Check { signature: Some(Signature { fingerprint, sha256 }), ..check }
    }

    /// Returns a check that succeeded, but whoever forged the bytes could have forged it, too.
    pub fn consistent(step: VerificationStep, detail: impl Into<String>) -> Check {
        Check { step, status: StepStatus::Consistent, detail: detail.into(), signature: None }
    }

    /// Returns a check with nothing to check. A failed check is an error and never a value.
    pub fn missing(step: VerificationStep, detail: impl Into<String>) -> Check {
        Check { step, status: StepStatus::Missing, detail: detail.into(), signature: None }
    }
}

/// What a source is verified against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerificationStep {
    /// A digest in the catalog.
    #[serde(rename = "catalog")]
    Catalog,
    /// A digest in the user's lock file.
    #[serde(rename = "lock-file")]
    LockFile,
    #[serde(rename = "signature")]
    Signature,
    /// The server's list of checksums.
    #[serde(rename = "sums")]
    ChecksumList,
    /// The signed lists of apt.
    #[serde(rename = "apt")]
    Apt,
    /// The connection to the server.
    #[serde(rename = "transport")]
    Transport,
    /// The user's own file.
    #[serde(rename = "user")]
    User,
    /// Written by a newer kcompile.
    #[serde(other, rename = "unknown")]
    Unknown,
}

/// The result of a verification step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepStatus {
    /// It succeeded, and the sender could not have forged it.
    #[serde(rename = "proves")]
    Authenticated,
    /// It succeeded.
    #[serde(rename = "holds")]
    Consistent,
    /// There was nothing to check.
    #[serde(rename = "absent")]
    Missing,
    /// Written by a newer kcompile.
    #[serde(other, rename = "unknown")]
    Unknown,
}

/// Whether sources of this kind are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signable {
    /// Releases of kernel.org, packages.
    Yes,
    /// Release candidates, branches.
    No,
}

/// The digest that the archive of a release must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    pub sha256: Sha256,
    /// The check of an archive with this digest.
    pub check: Check,
}

impl Pin {
    /// Returns whether the pin authenticates an archive with this digest.
    pub fn is_authenticated(&self) -> bool {
        self.check.status == StepStatus::Authenticated
    }
}

/// Returns the pin of a release from the catalog, else from the lock file.
///
/// # Errors
///
/// Exit code 3: the two do not agree.
pub fn pin(catalog: &Catalog, lock: &LockFile, version: KernelVersion) -> Result<Option<Pin>> {
    let origin = release_url(KERNEL_ORG, version);
    let locked = lock.of(&origin).and_then(|locked| Some((locked.digest.sha256()?, locked.unverified)));
    match (catalog.pin(version), locked) {
        (Some(pinned), Some((locked, false))) if pinned != locked => Err(Error::fetch(format!(
            "the catalog pins {} to {pinned}, but {} pins it to {locked}",
            file_name(&origin),
            lockfile::NAME
        ))
        .hint("if the catalog is right, accept its digest with --update-lock")),
        (Some(sha256), _) => Ok(Some(Pin {
            sha256,
            check: Check::authenticated(VerificationStep::Catalog, "sha256 pinned by the catalog"),
        })),
        (None, Some((sha256, false))) => {
            let check =
                Check::authenticated(VerificationStep::LockFile, format!("sha256 as in {}", lockfile::NAME));
            Ok(Some(Pin { sha256, check }))
        }
        (None, Some((sha256, true))) => {
            let detail = format!("sha256 as at its first use ({}), which nothing verified", lockfile::NAME);
            Ok(Some(Pin { sha256, check: Check::consistent(VerificationStep::LockFile, detail) }))
        }
        (None, None) => Ok(None),
    }
}

/// Returns kernel.org's server that has this version.
fn kernel_org_server(version: KernelVersion) -> &'static str {
    if version.candidate().is_some() { GIT_KERNEL_ORG } else { KERNEL_ORG }
}

/// Returns the URL of a release on `server`, which has kernel.org's layout.
pub fn release_url(server: &str, version: KernelVersion) -> String {
    match version.candidate() {
        Some(_) => {
            let server = if server == KERNEL_ORG { GIT_KERNEL_ORG } else { server };
            format!("{server}/torvalds/t/linux-{version}.tar.gz")
        }
        None => format!("{server}/pub/linux/kernel/v{}.x/linux-{version}.tar.xz", version.major),
    }
}

/// Returns the repository and the reference of a git source, with their defaults.
pub fn git_branch(url: Option<&str>, reference: Option<&str>, version: VersionRequest) -> (String, String) {
    let reference = reference.map_or_else(|| format!("{DEFAULT_BRANCH}{version}"), str::to_owned);
    (url.unwrap_or(CLOUD_HYPERVISOR_LINUX).to_owned(), reference)
}

/// Returns the source of a plan. `version` and `found` are what is known of it.
pub(super) fn plan(
    request: &Request,
    inputs: &Inputs,
    version: Option<KernelVersion>,
    found: Option<&SourceIdentity>,
) -> Result<SourcePlan> {
    let mut plan = match &request.source {
        SourceSpec::KernelOrg => kernel_org(request, inputs, version)?,
        SourceSpec::Git { url, reference } => {
            let (url, reference) = git_branch(url.as_deref(), reference.as_deref(), request.version);
            let name = format!("{url}#{reference}");
            let location = SourceLocation::Git { url, reference };
            let origin = location.is_remote().then(|| name.clone());
            let locked = inputs.lock.of(&name).filter(|_| origin.is_some());
            SourcePlan { origin, digest: locked.map(|locked| locked.digest.clone()), name, location }
        }
        SourceSpec::Apt { package } => {
            let package = package.clone().unwrap_or_else(|| source_package(request.version));
            let (version, pin) = inputs.local.as_ref().and_then(LocalSource::package).unzip();
            let (version, pin) = (version.map(str::to_owned), pin.flatten());
            let versioned =
                |separator: char| version.as_ref().map(|version| format!("{package}{separator}{version}"));
            SourcePlan {
                origin: versioned('=').map(|versioned| format!("apt:{versioned}")),
                digest: pin.map(SourceDigest::Sha256),
                name: versioned(' ').unwrap_or_else(|| package.clone()),
                location: SourceLocation::Apt { package, version, pin },
            }
        }
        SourceSpec::Path(path) => {
            let name = path.file_name().unwrap_or(path.as_str()).to_owned();
            let path = path.clone();
            let (digest, location) = match inputs.local {
                Some(LocalSource::Tarball { sha256 }) => {
                    (Some(SourceDigest::Sha256(sha256)), SourceLocation::Tarball { path, sha256 })
                }
                _ => (None, SourceLocation::Directory { path }),
            };
            SourcePlan { origin: None, digest, name, location }
        }
    };
    plan.digest = found.map(|found| found.digest.clone()).or(plan.digest);
    Ok(plan)
}

fn kernel_org(request: &Request, inputs: &Inputs, version: Option<KernelVersion>) -> Result<SourcePlan> {
    let origin = version.map(|version| release_url(KERNEL_ORG, version));
    let pin = match request.version {
        VersionRequest::Exact(exact) => pin(&inputs.catalog, &inputs.lock, exact)?,
        VersionRequest::Series(..) => None,
    };
    let mirrors = match &request.mirrors[..] {
        [] => vec![version.map_or(KERNEL_ORG, kernel_org_server).to_owned()],
        mirrors => mirrors.iter().map(|mirror| mirror.trim_end_matches('/').to_owned()).collect(),
    };
    Ok(SourcePlan {
        name: origin
            .as_deref()
            .map_or_else(|| format!("linux-{}.*.tar.xz", request.version), |url| file_name(url).to_owned()),
        origin,
        digest: pin.map(|pin| SourceDigest::Sha256(pin.sha256)),
        location: SourceLocation::KernelOrg { mirrors },
    })
}
