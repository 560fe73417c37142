//! The source of a plan: what it is for everybody, and how to get it here.

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

/// Where Cloud Hypervisor's kernel branches live.
const CLOUD_HYPERVISOR_LINUX: &str = "https://github.com/cloud-hypervisor/linux.git";
/// kernel.org's file server, unless a mirror is named.
pub const KERNEL_ORG: &str = "https://cdn.kernel.org";

/// The source: where it comes from, its digest, and how to get it.
#[derive(Clone, Debug, Serialize)]
pub struct SourcePlan {
    /// The same for everybody: kernel.org's own URL whatever the mirror, `URL#REF`, `apt:PACKAGE=VERSION`;
    /// `None` for what lies on this machine, and for a series whose newest release is not known yet.
    pub origin: Option<String>,
    /// `None`: known when fetched.
    pub digest: Option<SourceDigest>,
    /// What to call it when talking to the user.
    #[serde(skip)]
    pub name: String,
    /// How to get it.
    #[serde(skip)]
    pub location: SourceLocation,
}

/// How to get a source.
#[derive(Clone, Debug)]
pub enum SourceLocation {
    /// From kernel.org or a mirror.
    KernelOrg {
        /// The servers, in the order in which they are tried, without a trailing slash;
        /// `/pub/linux/kernel/v6.x/…` follows each.
        mirrors: Vec<String>,
    },
    /// One reference of a git repository.
    Git {
        /// A URL, or the path of a repository on this machine.
        url: String,
        /// A branch, tag or commit.
        reference: String,
    },
    /// A source package of the distribution.
    Apt {
        /// Its name.
        package: String,
        /// Its version, where apt's lists know it.
        version: Option<String>,
        /// The digest of the .deb, where apt's lists know it.
        pin: Option<Sha256>,
    },
    /// A tarball on this machine.
    Tarball {
        /// Absolute.
        path: Utf8PathBuf,
        /// Digest of the file as it was when the plan was made.
        sha256: Sha256,
    },
    /// A directory on this machine, used in place.
    Directory {
        /// Absolute.
        path: Utf8PathBuf,
    },
}

impl SourceLocation {
    /// Does getting it need a network?
    pub fn is_remote(&self) -> bool {
        match self {
            SourceLocation::KernelOrg { .. } | SourceLocation::Apt { .. } => true,
            SourceLocation::Git { url, .. } => !url.starts_with('/') && !url.starts_with("file://"),
            SourceLocation::Tarball { .. } | SourceLocation::Directory { .. } => false,
        }
    }
}

/// What a source has shown once it was at hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceIdentity {
    /// As [`SourcePlan::origin`].
    pub origin: Option<String>,
    /// As [`SourcePlan::digest`].
    pub digest: SourceDigest,
    /// From its top Makefile.
    pub version: KernelVersion,
    /// Its date, seconds since 1970: of the commit, or of the top Makefile in the archive.
    pub date: u64,
    /// What was checked, and what could not be, in the order in which they count.
    pub checks: Vec<Check>,
}

impl SourceIdentity {
    /// Was it checked against something that its sender could not have changed?
    pub fn is_authenticated(&self) -> bool {
        self.checks.iter().any(|check| check.status == StepStatus::Authenticated)
    }

    /// What verified and what could not be, in one line.
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

/// One link of the chain between those who made a source and the bytes at hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Which one.
    #[serde(rename = "link")]
    pub step: VerificationStep,
    /// What came of it.
    #[serde(rename = "outcome")]
    pub status: StepStatus,
    /// In words, for people.
    pub detail: String,
    /// The developers' signature, where it is that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

/// A signature that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Of the key that made it, as in [`Signer`].
    pub fingerprint: String,
    /// Digest of the signature's file.
    pub sha256: Sha256,
}

impl Check {
    /// A link that proves where the bytes come from.
    pub fn authenticated(step: VerificationStep, detail: impl Into<String>) -> Check {
        Check { step, status: StepStatus::Authenticated, detail: detail.into(), signature: None }
    }

    /// The developers' signature, the text `signature`, which is by `signer`.
    pub fn signed(signer: &Signer, signature: &str) -> Check {
        let (fingerprint, sha256) = (signer.fingerprint.clone(), Sha256::of(signature));
        let check = Check::authenticated(VerificationStep::Signature, format!("signed by {signer}"));
        Check { signature: Some(Signature { fingerprint, sha256 }), ..check }
    }

    /// A link that holds, and could have been forged with the bytes.
    pub fn consistent(step: VerificationStep, detail: impl Into<String>) -> Check {
        Check { step, status: StepStatus::Consistent, detail: detail.into(), signature: None }
    }

    /// A link that is not there. One that is there and does not hold is an error, never a check.
    pub fn missing(step: VerificationStep, detail: impl Into<String>) -> Check {
        Check { step, status: StepStatus::Missing, detail: detail.into(), signature: None }
    }
}

/// What can vouch for a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerificationStep {
    /// A digest in the catalog.
    #[serde(rename = "catalog")]
    Catalog,
    /// A digest in the user's lock file.
    #[serde(rename = "lock-file")]
    LockFile,
    /// The developers' signature.
    #[serde(rename = "signature")]
    Signature,
    /// The server's list of checksums.
    #[serde(rename = "sums")]
    ChecksumList,
    /// The signed lists of apt.
    #[serde(rename = "apt")]
    Apt,
    /// The connection that it came by.
    #[serde(rename = "transport")]
    Transport,
    /// The user, whose own file it is.
    #[serde(rename = "user")]
    User,
    /// A newer kcompile knows it.
    #[serde(other, rename = "unknown")]
    Unknown,
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepStatus {
    /// It holds, and its sender could not have forged it.
    #[serde(rename = "proves")]
    Authenticated,
    /// It holds.
    #[serde(rename = "holds")]
    Consistent,
    /// There was nothing to check.
    #[serde(rename = "absent")]
    Missing,
    /// A newer kcompile knows it.
    #[serde(other, rename = "unknown")]
    Unknown,
}

/// Does anybody sign such a source?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signable {
    /// Releases of kernel.org, packages.
    Yes,
    /// Release candidates, branches.
    No,
}

/// A digest that the archive of a release must have, and who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The digest.
    pub sha256: Sha256,
    /// The check that it comes to where it holds.
    pub check: Check,
}

impl Pin {
    /// Returns whether an archive with this digest is authenticated by that.
    pub fn is_authenticated(&self) -> bool {
        self.check.status == StepStatus::Authenticated
    }
}

/// The pin of a release: the catalog's, else the lock file's.
///
/// Errors (exit code 3): the two do not agree.
pub fn pin(catalog: &Catalog, lock: &LockFile, version: KernelVersion) -> Result<Option<Pin>> {
    let origin = release_url(KERNEL_ORG, version);
    let locked = lock.of(&origin).and_then(|locked| Some((locked.digest.sha256()?, locked.unverified)));
    match (catalog.pin(version), locked) {
        (Some(pinned), Some((locked, false))) if pinned != locked => Err(Error::fetch(format!(
            "the catalog pins {} to {pinned}, and {} to {locked}",
            file_name(&origin),
            lockfile::NAME
        ))
        .hint("if the catalog is right, --update-lock takes its digest")),
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

/// The URL of a release on `server`, kernel.org's or one with its layout. Release candidates are not
/// in kernel.org's archive: git.kernel.org packs them on request.
pub fn release_url(server: &str, version: KernelVersion) -> String {
    match version.candidate() {
        Some(_) if server == KERNEL_ORG => {
            format!("https://git.kernel.org/torvalds/t/linux-{version}.tar.gz")
        }
        Some(_) => format!("{server}/torvalds/t/linux-{version}.tar.gz"),
        None => format!("{server}/pub/linux/kernel/v{}.x/linux-{version}.tar.xz", version.major),
    }
}

pub(super) fn plan(
    request: &Request,
    inputs: &Inputs,
    version: Option<KernelVersion>,
    found: Option<&SourceIdentity>,
) -> Result<SourcePlan> {
    let known = found.map(|found| found.digest.clone());
    Ok(match &request.source {
        SourceSpec::KernelOrg => {
            let name = match (version, request.version) {
                (Some(version), _) => file_name(&release_url(KERNEL_ORG, version)).to_owned(),
                (None, series) => format!("linux-{series}.*.tar.xz"),
            };
            let pin = match request.version {
                VersionRequest::Exact(exact) => pin(&inputs.catalog, &inputs.lock, exact)?,
                VersionRequest::Series(..) => None,
            };
            let mirrors = match &request.mirrors[..] {
                [] => vec![KERNEL_ORG.to_owned()],
                mirrors => mirrors.iter().map(|mirror| mirror.trim_end_matches('/').to_owned()).collect(),
            };
            SourcePlan {
                origin: version.map(|version| release_url(KERNEL_ORG, version)),
                digest: known.or(pin.map(|pin| SourceDigest::Sha256(pin.sha256))),
                name,
                location: SourceLocation::KernelOrg { mirrors },
            }
        }
        SourceSpec::Git { url, reference } => {
            let url = url.clone().unwrap_or_else(|| CLOUD_HYPERVISOR_LINUX.to_owned());
            let reference = reference.clone().unwrap_or_else(|| format!("ch-{}", request.version));
            let name = format!("{url}#{reference}");
            let location = SourceLocation::Git { url, reference };
            let origin = location.is_remote().then(|| name.clone());
            let locked =
                inputs.lock.of(&name).filter(|_| origin.is_some()).map(|locked| locked.digest.clone());
            SourcePlan { origin, digest: known.or(locked), name, location }
        }
        SourceSpec::Apt { package } => {
            let package = package.clone().unwrap_or_else(|| source_package(request.version));
            let candidate = inputs.local.as_ref().and_then(LocalSource::package);
            let (version, pin) =
                candidate.map_or((None, None), |(version, pin)| (Some(version.to_owned()), pin));
            SourcePlan {
                origin: version.as_ref().map(|version| format!("apt:{package}={version}")),
                digest: known.or(pin.map(SourceDigest::Sha256)),
                name: version
                    .as_ref()
                    .map_or_else(|| package.clone(), |version| format!("{package} {version}")),
                location: SourceLocation::Apt { package, version, pin },
            }
        }
        SourceSpec::Path(path) => {
            let (digest, location) = match &inputs.local {
                Some(LocalSource::Tarball { sha256 }) => (
                    Some(SourceDigest::Sha256(*sha256)),
                    SourceLocation::Tarball { path: path.clone(), sha256: *sha256 },
                ),
                _ => (None, SourceLocation::Directory { path: path.clone() }),
            };
            let name = path.file_name().unwrap_or(path.as_str()).to_owned();
            SourcePlan { origin: None, digest: known.or(digest), name, location }
        }
    })
}
