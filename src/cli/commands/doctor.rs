//! `kcompile doctor`: checks what the host lacks for a build.

use crate::catalog::kernels::Status;
use crate::cli::args::{CatalogArgs, KbuildArgs, MakeArgs, Options, TargetArgs};
use crate::cli::commands::cache::{self, CheckArgs, LocationArgs};
use crate::cli::output::{print, print_painted, render_json, row};
use crate::cli::paint;
use crate::cli::resolve::{CatalogFiles, context, host_with_tools, requests};
use crate::host::packages::Diagnosis;
use crate::host::{Host, bubblewrap};
use crate::kernel::{Arch, Flavor, ToolchainSpec};
use crate::ops::doctor;
use crate::ops::host_overview::{FactStatus, HostFact, OverviewInputs, overview};
use crate::plan as planning;
use crate::plan::KERNEL_ORG;
use crate::plan::request::Request;
use crate::report::Reporter;
use crate::util::error::Result;
use camino::Utf8PathBuf;
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  kcompile doctor                        an overview of this host
  kcompile doctor 6.1                    check what a build of 6.1 needs
  kcompile doctor --install              install what is missing
  kcompile doctor 6.1 --arch arm64       check for a cross build

Exit codes: 0 ok, 2 usage error, 4 host lacks something that a build needs.";

#[derive(Debug, Default, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct DoctorArgs {
    /// Kernel versions to build
    ///
    /// Without a version, doctor prints an overview of the host, with the versions of tools.
    #[arg(value_name = "VERSION")]
    pub versions: Vec<String>,
    #[arg(long, value_name = "ARCH", help = format!("Architecture: {}; repeatable", Arch::choices()))]
    pub arch: Vec<Arch>,
    /// Check for clang and the LLVM tools
    #[arg(long)]
    pub llvm: bool,
    /// Check for the tools that --patches DIR needs
    #[arg(long, value_name = "DIR")]
    pub patches: Option<Utf8PathBuf>,
    /// Do not ask whether the mirror answers
    #[arg(long)]
    pub offline: bool,
    /// Run the command that installs what is missing
    #[arg(long)]
    pub install: bool,
    /// Old spelling of `kcompile cache check`.
    #[arg(long, hide = true, conflicts_with_all = ["versions", "arch", "llvm", "patches", "install"])]
    pub cache: bool,
    #[arg(long, hide = true, value_name = "DIR", requires = "cache")]
    pub cache_dir: Option<Utf8PathBuf>,
    /// Check this toolchain instead of the host
    #[arg(long, value_name = "SPEC")]
    pub toolchain: Option<ToolchainSpec>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

pub fn doctor(args: &DoctorArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    if args.cache {
        let location = LocationArgs { cache_dir: args.cache_dir.clone() };
        return cache::check(&CheckArgs { json: args.json, location }, host, reporter);
    }
    let shown = if args.versions.is_empty() { Shown::Overview } else { Shown::Dependencies };
    check(args, shown, host, reporter)
}

/// Checks what a build needs, without the overview of the host.
pub fn check_tools(args: &DoctorArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    check(args, Shown::Dependencies, host, reporter)
}

/// What doctor prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// An overview of the host.
    Overview,
    /// Everything that a build needs.
    Dependencies,
}

fn check(args: &DoctorArgs, shown: Shown, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    let files = CatalogFiles::read(None, host)?;
    let versions = versions(args, &files);
    // Dependencies are the same for all flavors, so any flavor serves if the version has several.
    let flavor = versions.first().and_then(|version| version.parse().ok());
    let flavor = flavor.and_then(|version| planning::flavor_of(version, &files.catalog).ok());
    let options = options(args, flavor.unwrap_or(Flavor::Firecracker));
    let host = &host_with_tools(&options, &files, host, reporter)?;
    let ctx = context(&options, &files, host, reporter)?;
    let mut code = ExitCode::SUCCESS;
    let mut items: Vec<Value> = Vec::new();
    let mut facts = Vec::new();
    let examined = requests(&versions, &options, &ctx)?.into_iter().try_for_each(|request| {
        let mirror = request.mirrors.first().map_or(KERNEL_ORG, String::as_str).to_owned();
        let plan = crate::ops::fetch::plan(&Request { configures: false, ..request }, &ctx)?;
        let mut diagnosis = doctor::examine(&plan, host)?;
        bubblewrap::check_sandbox(&mut diagnosis, host);
        if shown == Shown::Overview && facts.is_empty() {
            let mirror = Some(&*mirror).filter(|_| !args.offline);
            let inputs = OverviewInputs { diagnosis: &diagnosis, cache_dir: &ctx.cache_dir, mirror };
            facts = overview(&inputs, host)?;
        }
        if args.json {
            let item = Item { kernel: plan.version_text(), arch: plan.arch, diagnosis: &diagnosis };
            items.push(serde_json::to_value(item).expect("only string keys"));
        } else if shown == Shown::Overview {
            print_painted(&format!("{}{}", table(&facts), diagnosis.summary()), paint::first_word)?;
        } else {
            print_painted(&diagnosis.to_string(), paint::first_word)?;
        }
        if diagnosis.missing().is_empty() {
            return Ok(());
        }
        if args.install {
            diagnosis.install(host, reporter)?;
            return doctor::examine(&plan, host)?.require();
        }
        code = ExitCode::from(4);
        Ok(())
    });
    examined?;
    if args.json {
        let mut json = json!({ "items": items });
        if !facts.is_empty() {
            json["host"] = json!(facts);
        }
        print(&render_json(&json))?;
    }
    Ok(code)
}

/// Returns the options of the build whose tools are checked.
fn options(args: &DoctorArgs, flavor: Flavor) -> Options {
    let kbuild = KbuildArgs { llvm: args.llvm, toolchain: args.toolchain.clone(), ..KbuildArgs::default() };
    Options {
        target: TargetArgs {
            hypervisor: Some(flavor).into(),
            arch: args.arch.clone(),
            ..TargetArgs::default()
        },
        make: MakeArgs {
            catalog: CatalogArgs { patches: args.patches.clone(), ..CatalogArgs::default() },
            kbuild,
            ..MakeArgs::default()
        },
        ..Options::default()
    }
}

/// Formats the overview of the host.
fn table(facts: &[HostFact]) -> String {
    let line = |fact: &HostFact| {
        let status = match fact.status {
            FactStatus::Ok => "ok",
            FactStatus::Missing => "MISSING",
            FactStatus::Optional => "optional",
            FactStatus::Low => "LOW",
            FactStatus::Skipped => "-",
        };
        let version = fact.version.as_deref().unwrap_or_default();
        row([status, &fact.name, version, &fact.detail], [8, 22, 12, 32])
    };
    facts.iter().map(line).collect()
}

/// What the host lacks for one kernel, in JSON.
#[derive(Serialize)]
struct Item<'a> {
    kernel: String,
    arch: Arch,
    #[serde(flatten)]
    diagnosis: &'a Diagnosis,
}

/// Returns the given versions, or else the project's, or else the first supported one, since all kernels have the same needs.
fn versions(args: &DoctorArgs, files: &CatalogFiles) -> Vec<String> {
    let given = [&args.versions, &files.library.project.defaults.version];
    if let Some(versions) = given.into_iter().find(|versions| !versions.is_empty()) {
        return versions.clone();
    }
    let supported = files.catalog.kernels.iter().find(|entry| entry.status == Status::Supported);
    vec![supported.expect("the catalog is not empty").version.clone()]
}
