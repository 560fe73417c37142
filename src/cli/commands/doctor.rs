//! `kcompile doctor`: what the host lacks; with `--cache`, what was found in the cache, and what was done about it.

use crate::cache::Cache;
use crate::catalog::kernels::Status;
use crate::cli::output::{print, printed_json};
use crate::cli::resolve::{build_args, cache_dir, library, requests, run};
use crate::host::Host;
use crate::kernel::{Arch, Flavor};
use crate::ops::{check_cache, doctor};
use crate::plan as planning;
use crate::plan::request::Request;
use crate::report::Report;
use crate::util::error::Result;
use crate::util::text::{counted, size};
use camino::Utf8PathBuf;
use clap::ArgMatches;
use clap::Args;
use std::fmt::Write as _;
use std::process::ExitCode;

/// The options of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Kernel versions [default: any kernel of the catalog]
    #[arg(value_name = "VERSION")]
    pub versions: Vec<String>,
    /// amd64 or arm64 [default: the host's]
    #[arg(long, value_name = "ARCH")]
    pub arch: Vec<Arch>,
    /// For --llvm
    #[arg(long)]
    pub llvm: bool,
    /// Run the install command
    #[arg(long)]
    pub install: bool,
    /// Look through the cache instead, and remove what a broken disk, a full one or a power cut has left there
    #[arg(long, conflicts_with_all = ["versions", "arch", "llvm", "install"])]
    pub cache: bool,
    /// The cache [env: KCOMPILE_CACHE_DIR] [default: kcompile in the XDG cache directory]
    #[arg(long, value_name = "DIR", requires = "cache")]
    pub cache_dir: Option<Utf8PathBuf>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

pub fn doctor(args: &DoctorArgs, matches: &ArgMatches, host: &Host, report: &Report) -> Result<ExitCode> {
    let (library, catalog) = library(None, host)?;
    // Any kernel of the catalog needs what the first one needs; options come from a build's defaults.
    let versions = match &args.versions[..] {
        [] => vec![
            catalog
                .kernels
                .iter()
                .find(|entry| entry.status == Status::Supported)
                .expect("the catalog is not empty")
                .version
                .clone(),
        ],
        versions => versions.to_vec(),
    };
    let mut words = versions;
    words.extend(args.arch.iter().map(|arch| format!("--arch={arch}")));
    words.extend(args.llvm.then(|| "--llvm".to_owned()));
    let mut build = build_args(words)?;
    // What a host needs does not depend on the flavor: take one where the version leaves it open.
    let flavor = |version: &String| {
        let known = version.parse().ok().and_then(|version| planning::flavor_of(version, &catalog).ok());
        known.unwrap_or(Flavor::Firecracker)
    };
    build.hypervisor = build.versions.first().map(flavor).into();
    let run = run(&build, host, &library, &catalog, report)?;
    let mut code = ExitCode::SUCCESS;
    for request in requests(&build, matches, &run)? {
        let plan = crate::ops::fetch::plan(&Request { configures: false, ..request }, &run)?;
        let diagnosis = doctor::examine(&plan, host);
        let text = match args.json {
            true => printed_json(&diagnosis),
            false => diagnosis.to_string(),
        };
        print(&text)?;
        if !diagnosis.missing().is_empty() {
            match args.install {
                true => {
                    diagnosis.install(host, report)?;
                    doctor::examine(&plan, host).require()?;
                }
                false => code = ExitCode::from(4),
            }
        }
    }
    Ok(code)
}

/// Exit code 1: something is left for the user to look at.
pub fn checkup(args: &DoctorArgs, host: &Host, report: &Report) -> Result<ExitCode> {
    let dir = cache_dir(args.cache_dir.as_deref(), host)?;
    // To look through a cache that is not there is no reason to make one.
    let checkup = match dir.is_dir() {
        true => check_cache::examine(&Cache::open(&dir, host.uid)?)?,
        false => check_cache::Checkup::default(),
    };
    for path in &checkup.in_use {
        report.note(&format!("{path} is in use and was not looked at"));
    }
    let code = ExitCode::from(u8::from(checkup.found.iter().any(|found| !found.repaired)));
    if args.json {
        print(&printed_json(&checkup))?;
        return Ok(code);
    }
    let mut text = String::new();
    for found in &checkup.found {
        let verb = if found.repaired { "removed" } else { "LOOK AT" };
        let path = found.path.strip_prefix(&dir).unwrap_or(&found.path);
        writeln!(text, "{verb}  {:>9}  {}: {path}", size(found.bytes), found.what)
            .expect("writing to a string");
    }
    let examined = counted(checkup.examined, "entry", "entries");
    match checkup.found.len() {
        0 => writeln!(text, "{examined} in {dir}: all as they should be"),
        wrong => writeln!(text, "{examined} in {dir}: {wrong} not as they should be"),
    }
    .expect("writing to a string");
    print(&text)?;
    Ok(code)
}
