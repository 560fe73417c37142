//! The pivot: everything that decides the bytes of a build, as one plain value.
//!
//! [`Plan::new`] is pure. It is called twice in a build: before the source is at hand, with what the
//! request, the catalog and the host tell; and again when the source has shown its exact version,
//! digest and date. The digest of that second plan names the build everywhere.

pub mod annotations;
mod base_config;
mod config_layers;
mod images;
mod inputs;
pub mod request;
mod source;

pub use base_config::{BaseConfig, config_name};
pub use inputs::{Inputs, LocalSource, Text, Toolchain};
pub use source::{
    Check, KERNEL_ORG, Pin, Signable, SourceIdentity, SourceLocation, SourcePlan, StepStatus,
    VerificationStep, pin, release_url,
};

use crate::catalog::kernels::Catalog;
use crate::catalog::patches::{self, PatchFile};
use crate::catalog::toolchain_quirks::{self, Applied};
use crate::kconfig::{self, Config, reproducibility};
use crate::kernel::{Arch, Flavor, KernelVersion, VersionRequest};
use crate::oci::Compression;
use crate::plan::request::{ModulesLayout, Request};
use crate::util::digest::Sha256;
use crate::util::error::{Error, Result};
use camino::Utf8PathBuf;
use canon_json::CanonJsonSerialize;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// All that decides the bytes. Serialised in full, it is what the digest is taken of; what only
/// helps to carry it out (paths, mirrors, texts that a digest stands for) is left out of that.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// kcompile's own version.
    pub kcompile: &'static str,
    /// How files become the bytes of a layer.
    pub layer_format: u32,
    /// What was asked for: the exact version, too, once that is known, since how it was found decides
    /// nothing.
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
    /// A setting of the config that names files of this machine, without `CONFIG_` → the digest of what they hold.
    #[serde(rename = "config_files", skip_serializing_if = "BTreeMap::is_empty")]
    pub config_files: BTreeMap<String, Sha256>,
    /// The files and directories that these settings name: make reads them.
    #[serde(skip)]
    pub config_paths: BTreeSet<Utf8PathBuf>,
    /// Patches, in the order in which they are applied.
    pub patches: Vec<PatchFile>,
    /// The compiler and its companions.
    pub toolchain: Toolchain,
    /// Rules for old kernels on new tools that apply.
    #[serde(rename = "rules")]
    pub rules: Vec<Applied>,
    /// Those that will apply if the source, which is not at hand yet, shows their signs.
    #[serde(skip)]
    pub open_rules: Vec<Applied>,
    /// What make is asked for.
    pub make: MakePlan,
    /// The date of everything, seconds since 1970; `None`: the source's own, not known yet.
    pub source_date_epoch: Option<u64>,
    /// The images to write.
    pub images: Vec<ImagePlan>,
    /// What the user should know about the choices made; decides nothing.
    #[serde(skip)]
    pub notices: Vec<String>,
    /// What a build may find wrong with the config as it is wanted: files that are not there, no two builds that are
    /// equal. The final config tells.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// One layer of settings.
#[derive(Clone, Debug, Serialize)]
pub struct ConfigLayer {
    /// The file it comes from, or the setting itself: what it is called decides nothing.
    #[serde(skip)]
    pub name: String,
    /// Digest of its text.
    pub sha256: Sha256,
    /// A setting of this layer that does not survive `olddefconfig` fails the build.
    #[serde(skip)]
    pub is_required: bool,
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
    /// Its annotations, as far as the plan knows them.
    pub annotations: BTreeMap<String, String>,
}

/// What an image holds.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contents {
    /// The kernel binary.
    #[serde(rename = "kernel")]
    Kernel {
        /// Its path in the image.
        path: String,
        /// A second name, as a hard link.
        #[serde(rename = "also_at")]
        kernel_link: Option<String>,
    },
    /// The modules and depmod's files.
    #[serde(rename = "modules")]
    Modules {
        /// Where they lie.
        layout: ModulesLayout,
    },
    /// Kernel (in `boot` and `bin`), its config and modules in one.
    #[serde(rename = "combined")]
    Combined {
        /// File name of the kernel, `vmlinux` or `vmlinux.bin`.
        #[serde(rename = "file_name")]
        file_name: String,
    },
}

impl Plan {
    /// Makes the plan. `source` is what the source has shown, if it is at hand already, and which
    /// rules of the inputs its tree shows the signs of.
    ///
    /// Errors (exit code 2): no config fits, a file is not a config or is another architecture's, a
    /// fragment is unknown, the source is of another version than was asked for.
    pub fn new(
        request: &Request,
        inputs: &Inputs,
        source: Option<(&SourceIdentity, &BTreeSet<String>)>,
    ) -> Result<Plan> {
        let mut notices = Vec::new();
        let (source, defects) = source.unzip();
        let version = source.map(|source| source.version).or(inputs.version_of(request));
        if let Some(version) = version.filter(|version| !request.version.admits(*version)) {
            return Err(Error::usage(format!(
                "the source is Linux {version}, not the {} that was asked for",
                request.version
            ))
            .hint(format!(
                "ask for it by its own version: kcompile {version} --{}",
                request.flavor.spec().flag
            )));
        }
        let epoch = request.source_date_epoch.or(source.map(|source| source.date));
        let source_plan = source::plan(request, inputs, version, source)?;
        let selected = version.unwrap_or(request.version.floor());
        let possible = toolchain_quirks::possible(&inputs.rules, selected, request.arch, &inputs.tools);
        let (rules, open_rules) = match defects {
            Some(defects) => {
                (possible.into_iter().filter(|rule| defects.contains(&rule.id)).collect(), vec![])
            }
            None => (vec![], possible),
        };
        notices.extend(rules.iter().map(ToString::to_string));
        let config = config_layers::layers(request, inputs, selected, &mut notices)?;
        let requested = config_of(kconfig::merge(config.iter().map(|layer| &layer.config)));
        let toolchain = inputs.toolchain.used_for(&requested, !request.images.no_modules);
        let make = make_plan(request, epoch, &toolchain, &rules);
        let known = annotations::PlanFacts {
            version,
            flavor: request.flavor,
            arch: request.arch,
            epoch,
            source: &source_plan,
            toolchain: &toolchain,
        };
        Ok(Plan {
            kcompile: env!("CARGO_PKG_VERSION"),
            layer_format: crate::oci::LAYER_FORMAT,
            requested: version.map_or(request.version, VersionRequest::Exact),
            version,
            flavor: request.flavor,
            arch: request.arch,
            config,
            config_files: BTreeMap::new(),
            config_paths: BTreeSet::new(),
            patches: patches::select(&inputs.library, selected, &inputs.patches, &mut notices)?,
            rules,
            open_rules,
            images: images::plans(request, &known)?,
            toolchain,
            source: source_plan,
            make,
            source_date_epoch: epoch,
            warnings: [
                reproducibility::irreproducible_settings(&requested),
                reproducibility::host_dependent_settings(&requested),
            ]
            .concat(),
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

    /// The digest of the patches in their order, and of how they are applied; `None` where there are none.
    pub fn patches_digest(&self) -> Option<Sha256> {
        // Trees that another applier has made are not taken for those of `git apply`.
        let mut text = "git apply".to_owned();
        for patch in &self.patches {
            text += &format!("\n{} {:?}", patch.sha256, patch.strip);
        }
        (!self.patches.is_empty()).then(|| Sha256::of(text))
    }
}

fn make_plan(request: &Request, epoch: Option<u64>, toolchain: &Toolchain, rules: &[Applied]) -> MakePlan {
    let arch = request.arch.spec();
    let mut targets = vec![arch.target.to_owned()];
    if !request.images.no_modules {
        targets.push("modules".into());
    }
    let mut variables = toolchain.variables.clone();
    let mut set = |key: &str, value: String| variables.insert(key.to_owned(), value);
    set("ARCH", arch.kbuild.to_owned());
    set("KBUILD_BUILD_USER", "kcompile".into());
    set("KBUILD_BUILD_HOST", "kcompile".into());
    set("KBUILD_BUILD_VERSION", "1".into());
    set("LOCALVERSION", String::new());
    if let Some(epoch) = epoch {
        set("KBUILD_BUILD_TIMESTAMP", crate::util::time::date_command(epoch));
    }
    toolchain_quirks::append(rules, &mut variables);
    MakePlan { targets, variables }
}

/// The flavor of a version that was given without one: the catalog's, where only one flavor knows it.
pub fn flavor_of(version: VersionRequest, catalog: &Catalog) -> Result<Flavor> {
    match catalog.flavors_of(version)[..] {
        [flavor] => Ok(flavor),
        [] => Err(Error::usage(format!("the catalog does not know Linux {version}")).hint(format!(
            "choose the flavor with {}; `kcompile list` shows the known kernels",
            Flavor::flags()
        ))),
        ref several => {
            let titles: Vec<&str> = several.iter().map(|flavor| flavor.spec().title).collect();
            Err(Error::usage(format!("Linux {version} is known for {}", titles.join(" and for ")))
                .hint(format!("choose one with {}", Flavor::flags())))
        }
    }
}

/// The merged settings of the plan's layers.
pub fn requested_settings(plan: &Plan) -> BTreeMap<String, kconfig::RequestedSetting> {
    kconfig::merge(plan.config.iter().map(|layer| &layer.config))
}

/// The same as a config.
pub fn requested_config(plan: &Plan) -> Config {
    config_of(requested_settings(plan))
}

fn config_of(merged: BTreeMap<String, kconfig::RequestedSetting>) -> Config {
    let symbols = merged.into_iter().map(|(symbol, requested)| (symbol, requested.value));
    Config { symbols: symbols.collect(), ..Config::default() }
}
