//! The pivot: everything that decides the bytes of a build, as one plain value.
//!
//! [`Plan::new`] is pure. It is called twice in a build: before the source is at hand, with what the
//! request, the catalog and the host tell; and again when the source has shown its exact version,
//! digest and date. The digest of that second plan names the build everywhere.

mod config;
mod images;
mod inputs;

pub use inputs::{Inputs, LocalSource, Text, Toolchain};

use crate::digest::Sha256;
use crate::error::{Error, Result};
use crate::kconfig::{self, Config};
use crate::kernel::{Arch, Catalog, Flavor, KernelVersion, VersionRequest};
use crate::patches::{self, PatchFile};
use crate::request::{Compression, ModulesLayout, Request, SourceSpec};
use camino::Utf8PathBuf;
use canon_json::CanonJsonSerialize;
use serde::Serialize;
use std::collections::BTreeMap;

/// Where Cloud Hypervisor's kernel branches live.
const CLOUD_HYPERVISOR_LINUX: &str = "https://github.com/cloud-hypervisor/linux.git";
/// kernel.org's file server, unless a mirror is named.
const KERNEL_ORG: &str = "https://cdn.kernel.org";

/// All that decides the bytes. Serialised in full, it is what the digest is taken of; what only
/// helps to carry it out (paths, mirrors, texts that a digest stands for) is left out of that.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// kcompile's own version: how bytes are laid out is part of it.
    pub kcompile: &'static str,
    /// What was asked for.
    pub requested: VersionRequest,
    /// The exact version, once it is known.
    pub version: Option<KernelVersion>,
    /// The hypervisor.
    pub flavor: Flavor,
    /// The machine.
    pub arch: Arch,
    /// Where the kernel's source comes from.
    pub source: SourcePlan,
    /// Config layers, lowest first.
    pub config: Vec<ConfigLayer>,
    /// Patches, in the order in which they are applied.
    pub patches: Vec<PatchFile>,
    /// The compiler and its companions.
    pub toolchain: Toolchain,
    /// What make is asked for.
    pub make: MakePlan,
    /// The date of everything, seconds since 1970; `None`: the source's own, not known yet.
    pub source_date_epoch: Option<u64>,
    /// The images to write.
    pub images: Vec<ImagePlan>,
    /// What the user should know about the choices made; decides nothing.
    #[serde(skip)]
    pub notices: Vec<String>,
}

/// The source: what it is, its digest, and how to get it.
#[derive(Clone, Debug, Serialize)]
pub struct SourcePlan {
    /// `linux-6.1.7.tar.xz`, `URL#REF`, `linux-source-6.1 6.1.192-2`, a file's name.
    pub name: String,
    /// `sha256:…` of the archive, `commit:…`, or `content:…` of a directory; `None`: known when fetched.
    pub digest: Option<String>,
    /// How to get it.
    #[serde(skip)]
    pub locator: Locator,
}

/// How to get a source.
#[derive(Clone, Debug)]
pub enum Locator {
    /// From kernel.org or a mirror.
    KernelOrg {
        /// The server, without a trailing slash; `/pub/linux/kernel/v6.x/…` follows it.
        mirror: String,
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
            Locator::Git { url, .. } => !url.starts_with('/'),
            Locator::Tarball { .. } | Locator::Directory { .. } => false,
        }
    }
}

/// One layer of settings.
#[derive(Clone, Debug, Serialize)]
pub struct ConfigLayer {
    /// The file it comes from, or the setting itself.
    pub name: String,
    /// Digest of its text.
    pub sha256: Sha256,
    /// A setting of this layer that does not survive `olddefconfig` fails the build.
    #[serde(skip)]
    pub must_take: bool,
    /// The settings.
    #[serde(skip)]
    pub config: Config,
}

/// What make is asked for.
#[derive(Clone, Debug, Serialize)]
pub struct MakePlan {
    /// `vmlinux modules`, `Image modules`; `modules` is dropped where the final config has none.
    pub targets: Vec<String>,
    /// Variables on make's command line that decide bytes.
    pub variables: BTreeMap<String, String>,
}

/// One image, in a layout of its own name, under a tag.
#[derive(Clone, Debug, Serialize)]
pub struct ImagePlan {
    /// The layout's directory in the output directory.
    pub layout: String,
    /// The tag: the exact version, once it is known.
    pub tag: Option<String>,
    /// What it holds.
    pub contents: Contents,
    /// Compression of its layer.
    pub compression: Compression,
    /// Manifest annotations, mirrored as config labels.
    pub annotations: BTreeMap<String, String>,
}

/// What an image holds.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contents {
    /// The kernel binary.
    Kernel {
        /// Its path in the image.
        path: String,
        /// A second name, as a hard link.
        also_at: Option<String>,
    },
    /// The modules and depmod's files.
    Modules {
        /// Where they lie.
        layout: ModulesLayout,
    },
    /// Kernel (in `boot` and `bin`), its config and modules in one.
    Combined {
        /// File name of the kernel, `vmlinux` or `vmlinux.bin`.
        file_name: String,
    },
}

/// What a source has shown once it was at hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct SourceIdentity {
    /// As [`SourcePlan::name`].
    pub name: String,
    /// As [`SourcePlan::digest`].
    pub digest: String,
    /// From its top Makefile.
    pub version: KernelVersion,
    /// Its date, seconds since 1970: of the commit, or of the top Makefile in the archive.
    pub date: u64,
    /// What was checked, and what could not be, in one line.
    pub verified: String,
}

impl Plan {
    /// Makes the plan. `source` is what the source has shown, if it is at hand already.
    ///
    /// Errors (exit code 2): no config fits, a file is not a config or is another architecture's, a
    /// fragment is unknown, the source is of another version than was asked for.
    pub fn new(request: &Request, inputs: &Inputs, source: Option<&SourceIdentity>) -> Result<Plan> {
        if let Some(found) = source.filter(|found| !request.version.admits(found.version)) {
            return Err(Error::usage(format!(
                "{} is Linux {}, not the {} that was asked for",
                found.name, found.version, request.version
            ))
            .hint(format!(
                "ask for it by its own version: kcompile {} {}",
                found.version,
                request.flavor.flag()
            )));
        }
        let mut notices = Vec::new();
        let version = source.map(|source| source.version).or(inputs.version_of(request));
        let epoch = request.source_date_epoch.or(source.map(|source| source.date));
        let make = make_plan(request, epoch, &inputs.toolchain);
        let selected = version.unwrap_or(request.version.floor());
        Ok(Plan {
            kcompile: env!("CARGO_PKG_VERSION"),
            requested: request.version,
            version,
            flavor: request.flavor,
            arch: request.arch,
            source: source_plan(request, inputs, source)?,
            config: config::layers(request, inputs, selected, &mut notices)?,
            patches: patches::select(&inputs.library, selected, &inputs.patches)?,
            toolchain: inputs.toolchain.clone(),
            images: images::plans(request, version, epoch, source),
            make,
            source_date_epoch: epoch,
            notices,
        })
    }

    /// The digest of all that decides the bytes: of the canonical JSON of this value.
    pub fn digest(&self) -> Sha256 {
        Sha256::of(self.to_canon_json_vec().expect("a plan has only string keys"))
    }

    /// The exact version, or the series that was asked for.
    pub fn version_text(&self) -> String {
        self.version.map_or_else(|| self.requested.to_string(), |version| version.to_string())
    }

    /// The digest of the patches in their order; `None` where there are none.
    pub fn patches_digest(&self) -> Option<Sha256> {
        let names: Vec<String> = self.patches.iter().map(|patch| patch.sha256.to_string()).collect();
        (!names.is_empty()).then(|| Sha256::of(names.join("\n")))
    }
}

fn source_plan(request: &Request, inputs: &Inputs, found: Option<&SourceIdentity>) -> Result<SourcePlan> {
    let version = request.version;
    let (name, digest, locator) = match &request.source {
        SourceSpec::KernelOrg => {
            let (name, pin) = match version {
                VersionRequest::Exact(exact) => (tarball_name(exact), inputs.catalog.pin(exact)),
                VersionRequest::Series(major, minor) => (format!("linux-{major}.{minor}.*.tar.xz"), None),
            };
            let mirror = request.mirror.as_deref().unwrap_or(KERNEL_ORG).trim_end_matches('/').to_owned();
            (name, pin.map(Sha256::oci), Locator::KernelOrg { mirror, pin })
        }
        SourceSpec::Git { url, reference } => {
            let url = url.clone().unwrap_or_else(|| CLOUD_HYPERVISOR_LINUX.to_owned());
            let reference = reference.clone().unwrap_or_else(|| format!("ch-{version}"));
            (format!("{url}#{reference}"), None, Locator::Git { url, reference })
        }
        SourceSpec::Apt { package } => {
            let (major, minor) = version.floor().series();
            let package = package.clone().unwrap_or_else(|| format!("linux-source-{major}.{minor}"));
            let candidate = inputs.local.as_ref().and_then(LocalSource::package);
            let (version, pin) =
                candidate.map_or((None, None), |(version, pin)| (Some(version.to_owned()), pin));
            let name =
                version.as_ref().map_or_else(|| package.clone(), |version| format!("{package} {version}"));
            (name, pin.map(Sha256::oci), Locator::Apt { package, version, pin })
        }
        SourceSpec::Path(path) => {
            let name = path.file_name().unwrap_or(path.as_str()).to_owned();
            match &inputs.local {
                Some(LocalSource::Tarball { sha256 }) => {
                    (name, Some(sha256.oci()), Locator::Tarball { path: path.clone(), sha256: *sha256 })
                }
                // Where a directory lies decides nothing, so its name stays out of the plan.
                _ => ("directory".into(), None, Locator::Directory { path: path.clone() }),
            }
        }
    };
    Ok(match found {
        Some(found) => SourcePlan { name: found.name.clone(), digest: Some(found.digest.clone()), locator },
        None => SourcePlan { name, digest, locator },
    })
}

/// The name of kernel.org's archive of `version`.
pub fn tarball_name(version: KernelVersion) -> String {
    format!("linux-{version}.tar.xz")
}

fn make_plan(request: &Request, epoch: Option<u64>, toolchain: &Toolchain) -> MakePlan {
    let kernel = match request.arch {
        Arch::Amd64 => "vmlinux",
        Arch::Arm64 => "Image",
    };
    let mut targets = vec![kernel.to_owned()];
    if !request.images.no_modules {
        targets.push("modules".into());
    }
    let mut variables = toolchain.variables.clone();
    let mut set = |key: &str, value: String| variables.insert(key.to_owned(), value);
    set("ARCH", request.arch.kbuild().to_owned());
    set("KBUILD_BUILD_USER", "kcompile".into());
    set("KBUILD_BUILD_HOST", "kcompile".into());
    set("KBUILD_BUILD_VERSION", "1".into());
    set("LOCALVERSION", String::new());
    if let Some(epoch) = epoch {
        set("KBUILD_BUILD_TIMESTAMP", crate::date::date_command(epoch));
    }
    MakePlan { targets, variables }
}

/// The flavor of a version that was given without one: the catalog's, where only one flavor knows it.
pub fn flavor_of(version: VersionRequest, catalog: &Catalog) -> Result<Flavor> {
    match catalog.flavors_of(version)[..] {
        [flavor] => Ok(flavor),
        [] => Err(Error::usage(format!("the catalog does not know Linux {version}"))
            .hint("choose the flavor with --fc or --ch; `kcompile list` shows the known kernels")),
        _ => Err(Error::usage(format!("Linux {version} is known for Firecracker and for Cloud Hypervisor"))
            .hint("choose one with --fc or --ch")),
    }
}

/// The merged settings of the plan's layers.
pub fn wanted_config(plan: &Plan) -> BTreeMap<String, kconfig::Wanted> {
    kconfig::merge(plan.config.iter().map(|layer| &layer.config))
}
