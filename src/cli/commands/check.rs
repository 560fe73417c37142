//! `kcompile check`: checks a `.config`, an image or a kernel of the catalog against requirement profiles.

use super::check_text::{self, CheckedConfig};
use crate::catalog::ConfigLibrary;
use crate::cli::args::{CatalogArgs, ConfigArgs, FlavorArgs, Options, Overrides, TargetArgs};
use crate::cli::output::{print, print_painted, render_json};
use crate::cli::paint;
use crate::cli::resolve::{CatalogFiles, context, host_with_tools, one_request, plan_for};
use crate::cli::target::{Target, config_of};
use crate::host::Host;
use crate::image::inspect::{self, counterpart_layout};
use crate::image::kernel_image;
use crate::kconfig::Config;
use crate::kconfig::requirements::{self, CheckInput, RequirementResult, Stage};
use crate::kernel::{Arch, KernelVersion, SourceSpec, Variant, VariantChoice};
use crate::oci::layout_reader::LayoutReader;
use crate::ops::config::{self, ConfigFormat};
use crate::plan::request::own_profiles;
use crate::plan::{annotations, requested_config};
use crate::report::Reporter;
use crate::util::error::{Error, Result};
use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;
use std::process::ExitCode;

const CHECK_EXAMPLES: &str = "\
Examples:
  kcompile check my.config --for kubernetes-1.37 cilium
  kcompile check out/firecracker-kernel-modules-amd64:6.1.7 --for flintlock
  kcompile check 6.1 --fc                   open until olddefconfig has run
  kcompile check 6.1 --fc --configure       check the config after olddefconfig

Exit codes: 0 all requirements are met, 1 a requirement is not met, 2 usage error, 3 layout is damaged.";

#[derive(Debug, Args)]
#[command(after_long_help = CHECK_EXAMPLES)]
pub struct CheckArgs {
    /// A .config, an image as LAYOUT[:TAG], or a version
    #[arg(value_name = "CONFIG|LAYOUT|VERSION")]
    pub target: String,
    /// Requirement profiles [default: the flavor's own]
    #[arg(long = "for", value_name = "PROFILE", num_args = 1.., value_delimiter = ',')]
    pub profiles: Vec<String>,
    #[command(flatten)]
    pub hypervisor: FlavorArgs,
    #[arg(
        long, value_name = "ARCH", help = "Architecture [default: that of the config or image]", long_help = format!(
            "Architecture: {} [default: that of the config or image, or the host's for a version]", Arch::choices()
        )
    )]
    pub arch: Option<Arch>,
    /// Kernel version [default: in the config's header]
    #[arg(long, value_name = "VERSION")]
    pub kernel: Option<KernelVersion>,
    /// Check the .config that olddefconfig makes
    ///
    /// kcompile fetches the source of VERSION and runs its olddefconfig.
    #[arg(long)]
    pub configure: bool,
    #[arg(
        long,
        value_name = "SPEC",
        help = "Kernel source for --configure",
        long_help = "Kernel source for --configure, which this implies: kernel.org, git[+URL][#REF], apt[:PACKAGE], or \
                     the path of a tarball or directory"
    )]
    pub source: Option<SourceSpec>,
    /// Check VERSION as build --builtin makes it
    #[arg(long)]
    pub builtin: bool,
    /// Variant of VERSION: node or minimal
    #[arg(long, value_name = "VARIANT")]
    pub variant: Option<Variant>,
    /// Show all requirements
    ///
    /// This includes requirements that are met, undecided or for other kernels.
    #[arg(long)]
    pub all: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Read your own catalog, configs and profiles from DIR
    ///
    /// Your files override the built-in ones.
    #[arg(long, value_name = "DIR")]
    pub configs: Option<Utf8PathBuf>,
}

pub fn check(args: &CheckArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    let CatalogFiles { library, .. } = CatalogFiles::read(args.configs.as_deref(), host)?;
    // A name that nobody knows is found out before anything is read.
    let mut profiles = requirements::read_all(&library, &args.profiles)?;
    let checked = resolve(args, host, reporter)?;
    if profiles.is_empty() {
        profiles = requirements::read_all(&library, &default_profiles(&checked, &library)?)?;
    }
    checked.notes.iter().for_each(|note| reporter.note(note));
    let CheckedConfig { config, version, arch, stage, .. } = &checked;
    let input = CheckInput { config, version: *version, arch: *arch, stage: *stage };
    let results = requirements::check(&profiles, &input);
    if args.json {
        print(&render_json(&json(&checked, &results)))?;
    } else {
        print_painted(&check_text::text(&checked, &results, args.all), paint::first_word)?;
    }
    Ok(ExitCode::from(u8::from(results.iter().any(RequirementResult::is_fatal))))
}

/// Returns the profiles of the hypervisor and of the variant, if they are known.
fn default_profiles(checked: &CheckedConfig, library: &ConfigLibrary) -> Result<Vec<String>> {
    checked.flavor.map(|flavor| own_profiles(flavor, checked.variant)).ok_or_else(|| {
        Error::usage(format!(
            "{}: no requirement profile is given, and the hypervisor is unknown",
            checked.name
        ))
        .hint(format!("name one with --for: {}", requirements::names(library).join(", ")))
    })
}

fn resolve(args: &CheckArgs, host: &Host, reporter: &Reporter) -> Result<CheckedConfig> {
    let target = Target::of(&args.target, host)?;
    if is_configured(args) && !matches!(target, Target::Version) {
        return Err(Error::usage(format!(
            "--configure and --source are for a version, and {} is none",
            args.target
        ))
        .hint("a .config and an image are checked as they are"));
    }
    let options = [("--builtin", args.builtin), ("--variant", args.variant.is_some())];
    let given = options.into_iter().find(|(_, is_given)| *is_given);
    match (target, given) {
        (Target::File(_) | Target::Layout(..), Some((option, _))) => {
            Err(Error::usage(format!("{option} is for a version, and {} is none", args.target)).hint(
                format!(
                    "check the image that `build {option}` made, or the output of `config show {option}`"
                ),
            ))
        }
        (Target::File(path), None) => from_file(args, &path),
        (Target::Layout(path, tag), None) => from_layout(args, &path, tag.as_deref(), host),
        (Target::Version, _) => from_catalog(args, host, reporter),
    }
}

/// Returns whether the kernel's own `olddefconfig` completes the config first.
fn is_configured(args: &CheckArgs) -> bool {
    args.configure || args.source.is_some()
}

fn from_file(args: &CheckArgs, path: &Utf8Path) -> Result<CheckedConfig> {
    let config = config_of(path)?;
    let mut notes: Vec<String> = config.repeated_symbols(&args.target).into_iter().collect();
    let header = config.header_version.as_deref().and_then(KernelVersion::from_release);
    let named = path.file_stem().and_then(|stem| stem.rsplit('-').next()?.parse::<KernelVersion>().ok());
    if let (Some(header), Some(named), None) = (header, named, args.kernel)
        && header != named
    {
        notes.push(format!(
            "the file name says Linux {named}, but the header says {header}; using the header"
        ));
    }
    let version = args.kernel.or(header).ok_or_else(|| {
        Error::usage(format!("{path}: the config has no header with the kernel version"))
            .hint("give it with --kernel VERSION")
    })?;
    let by_header = |name: &str| Arch::ALL.iter().copied().find(|arch| arch.is_in_config_header(name));
    let detected = config.header_arch.as_deref().and_then(by_header);
    let detected = detected.or_else(|| Arch::find(|spec| config.enabled(spec.symbol)));
    let arch = args.arch.or(detected).ok_or_else(|| {
        Error::usage(format!("{path}: the architecture of the config is unknown"))
            .hint(format!("give it with --arch {}", Arch::choices()))
    })?;
    let (name, flavor) = (args.target.clone(), args.hypervisor.flavor());
    let variant = Variant::default();
    Ok(CheckedConfig { name, config, version, arch, stage: Stage::Final, flavor, variant, notes })
}

fn from_layout(args: &CheckArgs, layout: &Utf8Path, tag: Option<&str>, host: &Host) -> Result<CheckedConfig> {
    let image = LayoutReader::open(layout)?.open_image(tag, args.arch.or(host.arch).map(Arch::name))?;
    let name = args.target.clone();
    let Some(text) = inspect::kernel_config(&image)? else {
        let error = Error::usage(format!("{name}: the image has no kernel config"));
        return Err(match counterpart_layout(layout).filter(|layout| layout.as_str().contains("-kernel-modules")) {
            Some(sibling) => error.hint(format!(
                "the modules image beside it has one: {}",
                sibling.file_name().unwrap_or_default()
            )),
            None => error.hint("the modules image has the config as lib/modules/<release>/config, and so does a kernel with CONFIG_IKCONFIG"),
        });
    };
    let config = Config::parse(&text);
    let detected = config.header_version.as_deref().or(image.oci_annotation("version"));
    let version = args.kernel.or(detected.and_then(KernelVersion::from_release)).ok_or_else(|| {
        Error::usage(format!("{name}: the kernel version is unknown")).hint("give it with --kernel VERSION")
    })?;
    let architecture = image.config.architecture().to_string();
    let arch = match args.arch {
        Some(arch) => arch,
        None => architecture.parse().map_err(|why: String| Error::usage(format!("{name}: {why}")))?,
    };
    let flavor = args.hypervisor.flavor().or_else(|| kernel_image::flavor(&image));
    let variant = annotations::variant(image.annotation(annotations::VARIANT));
    let notes = config.skipped_lines(&name).into_iter().collect();
    Ok(CheckedConfig { name, config, version, arch, stage: Stage::Final, flavor, variant, notes })
}

fn from_catalog(args: &CheckArgs, host: &Host, reporter: &Reporter) -> Result<CheckedConfig> {
    if args.kernel.is_some() {
        return Err(Error::usage("--kernel cannot be used with a version, only with a .config or a layout")
            .hint("leave out --kernel"));
    }
    let options = Options {
        target: TargetArgs {
            hypervisor: args.hypervisor,
            arch: args.arch.into_iter().collect(),
            variant: args.variant.map(VariantChoice::One),
            source: args.source.clone(),
        },
        config: ConfigArgs {
            builtin: args.builtin,
            overrides: Overrides::none_given(),
            ..ConfigArgs::default()
        },
        make: CatalogArgs { configs: args.configs.clone(), ..CatalogArgs::default() }.into(),
        ..Options::default()
    };
    if is_configured(args) {
        return configured(args, &options, host, reporter);
    }
    let plan = plan_for(&args.target, &options, host, reporter)?;
    let requested = requested_config(&plan);
    let mut notes = plan.notices.clone();
    let layers: Vec<&str> = plan.config.iter().map(|layer| layer.name.as_str()).collect();
    notes.push(format!(
        "checked the settings of {}, which the kernel's Kconfig may still drop; --configure checks the final .config",
        layers.join(" and ")
    ));
    Ok(CheckedConfig {
        name: format!("Linux {} for {}", plan.tag(), plan.flavor.spec().title),
        config: requested,
        version: plan.version.unwrap_or(plan.requested.floor()),
        arch: plan.arch,
        stage: Stage::Requested,
        flavor: Some(plan.flavor),
        variant: plan.variant,
        notes,
    })
}

/// The final config of a version.
fn configured(
    args: &CheckArgs,
    options: &Options,
    host: &Host,
    reporter: &Reporter,
) -> Result<CheckedConfig> {
    let files = CatalogFiles::read(options.make.catalog.configs.as_deref(), host)?;
    let host = &host_with_tools(options, &files, host, reporter)?;
    let ctx = context(options, &files, host, reporter)?;
    let request = one_request(&args.target, options, &ctx)?;
    let (plan, text) = config::final_config(&request, ConfigFormat::Full, &ctx)?;
    Ok(CheckedConfig {
        name: format!("Linux {} for {}", plan.tag(), plan.flavor.spec().title),
        config: Config::parse(&text),
        version: plan.version.unwrap_or(plan.requested.floor()),
        arch: plan.arch,
        stage: Stage::Final,
        flavor: Some(plan.flavor),
        variant: plan.variant,
        notes: plan.notices,
    })
}

fn json(checked: &CheckedConfig, results: &[RequirementResult]) -> serde_json::Value {
    serde_json::json!({
        "subject": checked.name,
        "kernel": checked.version,
        "arch": checked.arch,
        "stage": checked.stage,
        "ok": !results.iter().any(RequirementResult::is_fatal),
        "notes": checked.notes,
        "profiles": requirements::tallies(results),
        "outcomes": results,
    })
}
