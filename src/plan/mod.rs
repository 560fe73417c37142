//! The core data type: everything that affects the output of a build, as one plain value.
//!
//! [`Plan::new`] is pure. A build calls it twice. The first time, the source is not there yet.
//! The second time, the exact version, digest and date of the source are known. The second
//! plan's digest names the build.

pub mod annotations;
mod base_config;
mod build_digest;
mod config_layers;
mod images;
mod inputs;
pub mod request;
mod source;

pub use base_config::{BaseConfig, ConfigSet};
pub use inputs::{Inputs, LocalSource, PinnedCompiler, Text, Toolchain, with_compiler_names};
pub use source::{
    Check, DEFAULT_BRANCH, KERNEL_ORG, Pin, Signable, SourceIdentity, SourceLocation, SourcePlan, StepStatus,
    VerificationStep, git_branch, pin, release_url,
};

use crate::catalog::kernels::Catalog;
use crate::catalog::patches::{self, PatchFile};
use crate::catalog::toolchain_quirks::{self, Applied};
use crate::kconfig::{self, Config, reproducibility};
use crate::kernel::{Arch, Flavor, KernelVersion, Variant, VersionRequest};
use crate::oci::Compression;
use crate::plan::request::{ModuleMode, ModulesLayout, Request, TagSuffix};
use crate::util::digest::Sha256;
use crate::util::error::{Error, Result};
use camino::Utf8PathBuf;
use canon_json::CanonJsonSerialize;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Everything that affects the output. Its JSON gives the digest. Fields that do not affect the output
/// (paths, mirrors, texts with a digest) are not in the JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The version of kcompile.
    pub kcompile: &'static str,
    /// The version of the code that makes layers.
    pub layer_format: u32,
    /// The requested version. It becomes the exact version when that is known, since a build of the newest
    /// release is the same as one by its number.
    pub requested: VersionRequest,
    /// The exact version, once it is known.
    pub version: Option<KernelVersion>,
    pub flavor: Flavor,
    pub arch: Arch,
    pub source: SourcePlan,
    /// Lowest first.
    pub config: Vec<ConfigLayer>,
    /// The digests of files that settings of the config name, by the name of the setting without `CONFIG_`.
    #[serde(rename = "config_files", skip_serializing_if = "BTreeMap::is_empty")]
    pub config_files: BTreeMap<String, Sha256>,
    /// The files and directories that these settings name, for make to read.
    #[serde(skip)]
    pub config_paths: BTreeSet<Utf8PathBuf>,
    /// In the order in which they are applied.
    pub patches: Vec<PatchFile>,
    pub toolchain: Toolchain,
    /// The rules for old kernels on new tools that apply.
    pub rules: Vec<Applied>,
    /// The rules that depend on the source, while it is not there yet.
    #[serde(skip)]
    pub open_rules: Vec<Applied>,
    pub make: MakePlan,
    /// Whether everything is built in.
    #[serde(rename = "modules", skip_serializing_if = "ModuleMode::is_default")]
    pub module_mode: ModuleMode,
    /// What the kernel is for.
    #[serde(skip_serializing_if = "Variant::is_default")]
    pub variant: Variant,
    /// The date of all files, in seconds since 1970. `None` means the source's date.
    pub source_date_epoch: Option<u64>,
    pub images: Vec<ImagePlan>,
    /// The digest of what decides all images, for [`Plan::build_digest`].
    #[serde(skip)]
    pub build_inputs: Option<Sha256>,
    /// What the user should know about the choices. Does not affect the output.
    #[serde(skip)]
    pub notices: Vec<String>,
    /// Possible problems of the requested config, such as missing files. The final config decides.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct ConfigLayer {
    /// The file, or the setting itself. Does not affect the output.
    #[serde(skip)]
    pub name: String,
    /// The digest of the text.
    pub sha256: Sha256,
    /// Whether the build fails if `olddefconfig` changes a setting of this layer.
    #[serde(skip)]
    pub is_required: bool,
    #[serde(skip)]
    pub config: Config,
}

impl ConfigLayer {
    /// Returns whether the layer is a setting of `--set`.
    pub fn is_set_option(&self) -> bool {
        self.name.starts_with("CONFIG_")
    }
}

/// The targets and variables for make.
#[derive(Clone, Debug, Serialize)]
pub struct MakePlan {
    /// `vmlinux modules`, `Image modules`. `modules` is dropped if the final config has no modules.
    pub targets: Vec<String>,
    /// The variables on make's command line that affect the output.
    pub variables: BTreeMap<String, String>,
}

/// One image with its layout and tag.
#[derive(Clone, Debug, Serialize)]
pub struct ImagePlan {
    /// The layout's directory in the output directory.
    pub layout: String,
    /// The exact version, once it is known, with the suffix of `--builtin` or `--variant`.
    pub tag: Option<String>,
    pub contents: Contents,
    /// The compression of the layer.
    pub compression: Compression,
    /// The annotations that the plan knows.
    pub annotations: BTreeMap<String, String>,
}

/// The contents of an image.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contents {
    /// The kernel binary.
    #[serde(rename = "kernel")]
    Kernel {
        /// The path in the image.
        path: String,
        /// A second name, as a hard link.
        #[serde(rename = "also_at")]
        kernel_link: Option<String>,
    },
    /// The modules and depmod's files.
    #[serde(rename = "modules")]
    Modules { layout: ModulesLayout },
    /// The kernel (in `boot` and `bin`), its config and its modules in one image.
    #[serde(rename = "combined")]
    Combined {
        /// The file name of the kernel, `vmlinux` or `vmlinux.bin`.
        file_name: String,
    },
}

impl Plan {
    /// Makes the plan. `source` is known after the fetch, with the ids of the rules that its tree matches.
    ///
    /// # Errors
    ///
    /// Exit code 2: no config fits, a file is not a config or is for another architecture, a fragment is
    /// unknown, or the source has another version than requested.
    pub fn new(
        request: &Request,
        inputs: &Inputs,
        source: Option<(&SourceIdentity, &BTreeSet<String>)>,
    ) -> Result<Plan> {
        let mut notices = Vec::new();
        let (source, defects) = source.unzip();
        let version = source.map(|source| source.version).or(inputs.version_of(request));
        if let Some(version) = version.filter(|version| !request.version.admits(*version)) {
            let (requested, flag) = (request.version, request.flavor.spec().flag);
            return Err(Error::usage(format!(
                "the source is Linux {version}, but {requested} was requested"
            ))
            .hint(format!("build it by its version: kcompile {version} --{flag}")));
        }
        let epoch = request.source_date_epoch.or(source.map(|source| source.date));
        let source_plan = source::plan(request, inputs, version, source)?;
        let selected = version.unwrap_or(request.version.floor());
        let possible = toolchain_quirks::possible(&inputs.rules, selected, request.arch, &inputs.tools);
        let (rules, open_rules): (Vec<_>, Vec<_>) = match defects {
            Some(defects) => {
                (possible.iter().filter(|rule| defects.contains(&rule.id)).cloned().collect(), vec![])
            }
            None => (vec![], possible.clone()),
        };
        notices.extend(rules.iter().map(ToString::to_string));
        let config = config_layers::layers(request, inputs, selected, &mut notices)?;
        let module_mode = request.images.module_mode;
        let requested = config_of(merge(&config, module_mode));
        requested.check_local_version()?;
        let toolchain = inputs.toolchain.used_for(&requested, &request.images);
        let facts = annotations::PlanFacts { version, epoch, source: &source_plan, toolchain: &toolchain };
        let mut plan = Plan {
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
            images: images::plans(request, &facts)?,
            make: make_plan(request, epoch, &toolchain, &rules),
            module_mode,
            variant: request.variant,
            rules,
            open_rules,
            toolchain,
            source: source_plan,
            source_date_epoch: epoch,
            warnings: [
                reproducibility::irreproducible_settings(&requested),
                reproducibility::host_dependent_settings(&requested),
            ]
            .concat(),
            notices,
            build_inputs: None,
        };
        plan.build_inputs = build_digest::of_inputs(&plan, request, &possible);
        Ok(plan)
    }

    /// Returns the digest of the plan's canonical JSON.
    pub fn digest(&self) -> Sha256 {
        Sha256::of(self.to_canon_json_vec().expect("a plan has only string keys"))
    }

    /// Returns the exact version, or the requested series.
    pub fn version_text(&self) -> String {
        self.version.map_or_else(|| self.requested.to_string(), |version| version.to_string())
    }

    /// Returns the version as tags and file names have it.
    pub fn tag(&self) -> String {
        self.tag_suffix().add_to(&self.version_text())
    }

    /// Returns what tags and file names have behind the version.
    pub fn tag_suffix(&self) -> TagSuffix {
        TagSuffix::of(self.variant, self.module_mode)
    }

    /// Returns the digest of the patches, their order and how they are applied, or `None` without patches.
    pub fn patches_digest(&self) -> Option<Sha256> {
        // Earlier versions patched trees in another way. The text tells the trees apart.
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
    if request.images.has_modules() {
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

/// Returns the flavor of a version, if the catalog knows it for one flavor only.
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

/// Merges the settings of the plan's layers.
pub fn requested_settings(plan: &Plan) -> BTreeMap<String, kconfig::RequestedSetting> {
    merge(&plan.config, plan.module_mode)
}

/// Merges the settings of the plan's layers below the one that turns modules off, where modules are still modules.
pub fn modular_settings(plan: &Plan) -> BTreeMap<String, kconfig::RequestedSetting> {
    let below = plan.config.len() - usize::from(plan.module_mode == ModuleMode::Builtin);
    kconfig::merge(plan.config[..below].iter().map(|layer| &layer.config))
}

fn merge(layers: &[ConfigLayer], module_mode: ModuleMode) -> BTreeMap<String, kconfig::RequestedSetting> {
    let mut merged = kconfig::merge(layers.iter().map(|layer| &layer.config));
    if module_mode == ModuleMode::Builtin {
        let modules = merged.values_mut().filter(|requested| requested.value == "m");
        modules.for_each(|requested| "y".clone_into(&mut requested.value));
    }
    merged
}

/// Merges the settings of the plan's layers into a config.
pub fn requested_config(plan: &Plan) -> Config {
    config_of(requested_settings(plan))
}

fn config_of(merged: BTreeMap<String, kconfig::RequestedSetting>) -> Config {
    let symbols = merged.into_iter().map(|(symbol, requested)| (symbol, requested.value));
    Config { symbols: symbols.collect(), ..Config::default() }
}
