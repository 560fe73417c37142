//! The source of a plan: what it is for everybody, and how to get it here.

use super::{Inputs, LocalSource};
use crate::digest::Sha256;
use crate::kernel::{KernelVersion, VersionRequest};
use crate::request::{Request, SourceSpec, source_package};
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
    /// `sha256:…` of the archive, `commit:…`, or `content:…` of a directory; `None`: known when fetched.
    pub digest: Option<String>,
    /// What to call it when talking to the user.
    #[serde(skip)]
    pub name: String,
    /// How to get it.
    #[serde(skip)]
    pub locator: Locator,
}

/// How to get a source.
#[derive(Clone, Debug)]
pub enum Locator {
    /// From kernel.org or a mirror.
    KernelOrg {
        /// The servers, in the order in which they are tried, without a trailing slash;
        /// `/pub/linux/kernel/v6.x/…` follows each.
        mirrors: Vec<String>,
        /// The pinned digest of the archive.
        pin: Option<Sha256>,
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

impl Locator {
    /// Does getting it need a network?
    pub fn is_remote(&self) -> bool {
        match self {
            Locator::KernelOrg { .. } | Locator::Apt { .. } => true,
            Locator::Git { url, .. } => !url.starts_with('/') && !url.starts_with("file://"),
            Locator::Tarball { .. } | Locator::Directory { .. } => false,
        }
    }
}

/// What a source has shown once it was at hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceIdentity {
    /// As [`SourcePlan::origin`].
    pub origin: Option<String>,
    /// As [`SourcePlan::digest`].
    pub digest: String,
    /// From its top Makefile.
    pub version: KernelVersion,
    /// Its date, seconds since 1970: of the commit, or of the top Makefile in the archive.
    pub date: u64,
    /// What was checked, and what could not be, in one line.
    pub verified: String,
    /// Was it checked against something that its sender could not have changed?
    pub trusted: bool,
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
) -> SourcePlan {
    let known = found.map(|found| found.digest.clone());
    match &request.source {
        SourceSpec::KernelOrg => {
            let name = match (version, request.version) {
                (Some(version), _) => file_name(&release_url(KERNEL_ORG, version)).to_owned(),
                (None, series) => format!("linux-{series}.*.tar.xz"),
            };
            let pin = match request.version {
                VersionRequest::Exact(exact) => inputs.catalog.pin(exact),
                VersionRequest::Series(..) => None,
            };
            let mirrors = match &request.mirrors[..] {
                [] => vec![KERNEL_ORG.to_owned()],
                mirrors => mirrors.iter().map(|mirror| mirror.trim_end_matches('/').to_owned()).collect(),
            };
            SourcePlan {
                origin: version.map(|version| release_url(KERNEL_ORG, version)),
                digest: known.or(pin.map(Sha256::oci)),
                name,
                locator: Locator::KernelOrg { mirrors, pin },
            }
        }
        SourceSpec::Git { url, reference } => {
            let url = url.clone().unwrap_or_else(|| CLOUD_HYPERVISOR_LINUX.to_owned());
            let reference = reference.clone().unwrap_or_else(|| format!("ch-{}", request.version));
            let name = format!("{url}#{reference}");
            let locator = Locator::Git { url, reference };
            SourcePlan { origin: locator.is_remote().then(|| name.clone()), digest: known, name, locator }
        }
        SourceSpec::Apt { package } => {
            let package = package.clone().unwrap_or_else(|| source_package(request.version));
            let candidate = inputs.local.as_ref().and_then(LocalSource::package);
            let (version, pin) =
                candidate.map_or((None, None), |(version, pin)| (Some(version.to_owned()), pin));
            SourcePlan {
                origin: version.as_ref().map(|version| format!("apt:{package}={version}")),
                digest: known.or(pin.map(Sha256::oci)),
                name: version
                    .as_ref()
                    .map_or_else(|| package.clone(), |version| format!("{package} {version}")),
                locator: Locator::Apt { package, version, pin },
            }
        }
        SourceSpec::Path(path) => {
            let (digest, locator) = match &inputs.local {
                Some(LocalSource::Tarball { sha256 }) => {
                    (Some(sha256.oci()), Locator::Tarball { path: path.clone(), sha256: *sha256 })
                }
                _ => (None, Locator::Directory { path: path.clone() }),
            };
            let name = path.file_name().unwrap_or(path.as_str()).to_owned();
            SourcePlan { origin: None, digest: known.or(digest), name, locator }
        }
    }
}

fn file_name(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}
