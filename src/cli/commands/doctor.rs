//! `kcompile doctor`: checks what the host lacks for a build.

use crate::catalog::kernels::Status;
use crate::cli::args::{CatalogArgs, KbuildArgs, MakeArgs, Options, TargetArgs};
use crate::cli::commands::cache::{self, CheckArgs, LocationArgs};
use crate::cli::output::{ItemsPrinter, print_painted};
use crate::cli::paint;
use crate::cli::resolve::{CatalogFiles, context, requests};
use crate::host::packages::Diagnosis;
use crate::host::{Host, bubblewrap};
use crate::kernel::{Arch, Flavor};
use crate::ops::doctor;
use crate::plan as planning;
use crate::plan::request::Request;
use crate::report::Reporter;
use crate::util::error::Result;
use camino::Utf8PathBuf;
use clap::Args;
use serde::Serialize;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  kcompile doctor                        check this host
  kcompile doctor --install              install what is missing
  kcompile doctor 6.1 --arch arm64       check for a cross build

Exit codes: 0 ok, 2 usage error, 4 host lacks something that a build needs.";

#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct DoctorArgs {
    /// Kernel versions to build
    ///
    /// The default is `version` in kcompile.toml, or else a version of the catalog.
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
    /// Run the command that installs what is missing
    #[arg(long)]
    pub install: bool,
    /// Old spelling of `kcompile cache check`.
    #[arg(long, hide = true, conflicts_with_all = ["versions", "arch", "llvm", "patches", "install"])]
    pub cache: bool,
    #[arg(long, hide = true, value_name = "DIR", requires = "cache")]
    pub cache_dir: Option<Utf8PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

pub fn doctor(args: &DoctorArgs, host: &Host, reporter: &Reporter) -> Result<ExitCode> {
    if args.cache {
        let location = LocationArgs { cache_dir: args.cache_dir.clone() };
        return cache::check(&CheckArgs { json: args.json, location }, host, reporter);
    }
    let files = CatalogFiles::read(None, host)?;
    let versions = versions(args, &files);
    // Dependencies are the same for all flavors, so any flavor serves if the version has several.
    let flavor = versions.first().and_then(|version| version.parse().ok());
    let flavor = flavor.and_then(|version| planning::flavor_of(version, &files.catalog).ok());
    let hypervisor = Some(flavor.unwrap_or(Flavor::Firecracker)).into();
    let options = Options {
        target: TargetArgs { hypervisor, arch: args.arch.clone(), source: None },
        make: MakeArgs {
            catalog: CatalogArgs { patches: args.patches.clone(), ..CatalogArgs::default() },
            kbuild: KbuildArgs { llvm: args.llvm, ..KbuildArgs::default() },
            ..MakeArgs::default()
        },
        ..Options::default()
    };
    let ctx = context(&options, &files, host, reporter)?;
    let mut code = ExitCode::SUCCESS;
    let mut items = ItemsPrinter::default();
    let examined = requests(&versions, &options, &ctx)?.into_iter().try_for_each(|request| {
        let plan = crate::ops::fetch::plan(&Request { configures: false, ..request }, &ctx)?;
        let mut diagnosis = doctor::examine(&plan, host)?;
        bubblewrap::check_sandbox(&mut diagnosis, host);
        if args.json {
            items.add(&Item { kernel: plan.version_text(), arch: plan.arch, diagnosis: &diagnosis })?;
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
    if args.json {
        items.finish(examined)?;
    } else {
        examined?;
    }
    Ok(code)
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
