//! From the words that were typed to the values that the rest of the program works with: the cache, the
//! library and the keys of the run, and a [`Request`] for each kernel.

use crate::catalog::kernels::{Catalog, Status};
use crate::catalog::project::{Project, mistake_in_mirror};
use crate::catalog::{Library, lockfile, toolchain_quirks};
use crate::cli::args::BuildArgs;
use crate::host::Host;
use crate::kbuild::Objects;
use crate::kconfig::explain::Renames;
use crate::kernel::{Arch, Flavor, SourceSpec, VersionRequest};
use crate::ops::context::Run;
use crate::plan as planning;
use crate::plan::Plan;
use crate::plan::request::{ImageChoice, Override, Request, ToolchainChoice};
use crate::report::Report;
use crate::util::error::{Context, Error, Kind, Result};
use crate::util::openpgp::Keyring;
use camino::Utf8Path;
use camino::Utf8PathBuf;
use clap::ArgMatches;
use std::time::Duration;

/// The files that people edit, and the catalog in them: ours, with those of `own` (`--configs`), or else of
/// the project that the working directory is in, over them.
pub fn library(own: Option<&Utf8Path>, host: &Host) -> Result<(Library, Catalog)> {
    let own = own.map(|dir| host.absolute(dir));
    let library = Library::with_project(Project::find(&host.cwd, own.as_deref(), host.uid)?)?;
    let catalog = Catalog::read(&library)?;
    // A mistake in what is only needed later is found out before anything is done.
    Renames::read(&library)?;
    toolchain_quirks::read(&library)?;
    Ok((library, catalog))
}

/// Where the layouts go unless `--output` or the project says otherwise.
pub const OUTPUT: &str = "out";

pub fn cache_dir(given: Option<&Utf8Path>, host: &Host) -> Result<Utf8PathBuf> {
    match (given, &host.cache_dir) {
        (Some(dir), _) => Ok(host.absolute(dir)),
        (None, Some(dir)) => Ok(dir.clone()),
        (None, None) => {
            Err(Error::usage("no place for the cache: HOME is not set").hint("give one with --cache-dir DIR"))
        }
    }
}

/// The plan of one kernel as it would be built without further options.
pub fn plan_of(
    version: &str,
    flavor: Option<Flavor>,
    arch: Option<Arch>,
    configs: Option<&Utf8Path>,
    matches: &ArgMatches,
    host: &Host,
    report: &Report,
) -> Result<Plan> {
    let mut build =
        build_args([version.to_owned()].into_iter().chain(arch.map(|arch| format!("--arch={arch}"))))?;
    build.hypervisor = flavor.into();
    build.configs = configs.map(Utf8Path::to_owned);
    let (library, catalog) = library(configs, host)?;
    let run = run(&build, host, &library, &catalog, report)?;
    crate::ops::fetch::plan(&one_request(&build, matches, &run)?, &run)
}

/// The only kernel that was typed.
pub fn one_request(args: &BuildArgs, matches: &ArgMatches, run: &Run<'_>) -> Result<Request> {
    let mut requests = requests(args, matches, run)?;
    match requests.pop().filter(|_| requests.is_empty()) {
        Some(request) => Ok(request),
        None => Err(Error::usage(format!("{}: more than one kernel", args.versions.join(" ")))
            .hint("name one version and, with --arch, one architecture")),
    }
}

/// The options of a build with these words.
pub fn build_args(words: impl IntoIterator<Item = String>) -> Result<BuildArgs> {
    use clap::Parser as _;
    let words = ["kcompile".to_owned()].into_iter().chain(words);
    Ok(super::Cli::try_parse_from(words).map_err(|error| Error::usage(error.to_string()))?.build)
}

/// What every kernel of the run shares.
pub fn run<'a>(
    args: &BuildArgs,
    host: &'a Host,
    library: &'a Library,
    catalog: &'a Catalog,
    report: &'a Report,
) -> Result<Run<'a>> {
    let cache_dir = cache_dir(args.cache_dir.as_deref(), host)?;
    let mut keyring = Keyring::built_in();
    for path in &args.keyring {
        let path = host.absolute(path);
        let bytes = std::fs::read(&path).context(Kind::Usage, || format!("--keyring: cannot read {path}"))?;
        keyring.add(path.as_str(), &bytes)?;
    }
    let Project { file, place, defaults } = &library.project;
    if let Some(file) = file {
        report.note(&format!("using {}", crate::ops::context::shown(file, host)));
    }
    let output = args.output.as_deref().or(defaults.output.as_deref()).unwrap_or(OUTPUT.into());
    Ok(Run {
        host,
        library,
        catalog,
        report,
        keyring,
        signature_required: args.require_signature,
        lock_path: lockfile::place(place.as_ref().map(|place| &*place.root), &cache_dir, host.uid),
        update_lock: args.update_lock,
        rebuild: args.rebuild,
        objects: Objects::Kept,
        place: None,
        archive_wanted: false,
        cache_dir,
        output: host.absolute(output),
        timings: args.timings.clone(),
        jobs: args.jobs.map_or(host.cpus, usize::from),
        jobs_given: args.jobs.is_some(),
        offline: args.offline,
        sandbox: args.sandbox,
        stall: Duration::from_secs(args.stall_timeout.into()),
        command: host.args.clone(),
    })
}

/// What was typed, resolved: one request for each version and architecture.
pub fn requests(args: &BuildArgs, matches: &ArgMatches, run: &Run<'_>) -> Result<Vec<Request>> {
    let Run { host, library, .. } = run;
    let defaults = &library.project.defaults;
    let flavor = args.hypervisor.chosen().or(defaults.flavor);
    let arches = match (&args.arch[..], &defaults.arch[..], host.arch) {
        ([], [], Some(arch)) => vec![arch],
        ([], [], None) => {
            return Err(Error::usage("this machine is neither x86-64 nor arm64")
                .hint("choose with --arch amd64 or --arch arm64"));
        }
        ([], defaults, _) => defaults.to_vec(),
        (given, _, _) => given.to_vec(),
    };
    let mut requests = Vec::new();
    for arch in arches {
        for (version, of_kernel_org) in versions(args, arch, flavor, run)? {
            let request = request(args, matches, run, (version, flavor, arch))?;
            // What a channel of kernel.org means is found there, whatever the flavor.
            let source =
                if of_kernel_org && args.source.is_none() { SourceSpec::KernelOrg } else { request.source };
            requests.push(Request { source, ..request });
        }
    }
    Ok(requests)
}

/// The versions that were typed, and whether each is what a channel of kernel.org stands for.
fn versions(
    args: &BuildArgs,
    arch: Arch,
    flavor: Option<Flavor>,
    run: &Run<'_>,
) -> Result<Vec<(VersionRequest, bool)>> {
    let catalog = run.catalog;
    let mut versions = Vec::new();
    for text in &args.versions {
        if let Ok(channel) = text.parse() {
            let mirrors = mirrors(args, run)?;
            versions.push((VersionRequest::Exact(crate::ops::fetch::resolve(channel, mirrors, run)?), true));
            continue;
        }
        if text == "all" {
            let Some(flavor) = flavor else {
                return Err(Error::usage("`all` is every supported kernel of one flavor")
                    .hint("choose it with --fc or --ch"));
            };
            let of_flavor =
                catalog.kernels.iter().filter(|entry| entry.flavor == flavor && entry.arch.contains(&arch));
            versions.extend(
                of_flavor
                    .filter(|entry| entry.status == Status::Supported)
                    .map(|entry| (entry.request(), false)),
            );
            continue;
        }
        let version = text.parse().map_err(|why: String| {
            Error::usage(why).hint("`kcompile --help` shows the commands, `kcompile list` the known kernels")
        });
        versions.push((version?, false));
    }
    Ok(versions)
}

fn request(
    args: &BuildArgs,
    matches: &ArgMatches,
    run: &Run<'_>,
    (version, flavor, arch): (VersionRequest, Option<Flavor>, Arch),
) -> Result<Request> {
    let Run { host, catalog, .. } = run;
    let flavor = match flavor {
        Some(flavor) => flavor,
        None => planning::flavor_of(version, catalog)?,
    };
    // An entry for a series says nothing of one version of it: that may have a branch of its own.
    let from_catalog = || catalog.find(version, flavor, arch)?.source.as_deref()?.parse().ok();
    let source = args.source.clone().or_else(from_catalog).unwrap_or(SourceSpec::default_for(flavor));
    let mirrors = mirrors(args, run)?.to_vec();
    Ok(Request {
        version,
        flavor,
        arch,
        source: match source {
            SourceSpec::Path(path) => SourceSpec::Path(host.absolute(&path)),
            source => source,
        },
        config: args.config.as_deref().map(|path| host.absolute(path)),
        overrides: overrides(args, matches),
        patches: args.patches.as_deref().map(|path| host.absolute(path)),
        toolchain: ToolchainChoice {
            cc: args.cc.clone(),
            llvm: args.llvm,
            cross_compile: args.cross_compile.clone(),
            launcher: args.launcher.clone(),
        },
        images: ImageChoice {
            legacy: args.legacy,
            no_modules: args.no_modules,
            also_at: args.also_at.clone(),
            modules_layout: args.modules_layout,
            compression: args.compression,
        },
        mirrors,
        configures: true,
        profiles: profiles(args, flavor, run),
        source_date_epoch: host.source_date_epoch,
    })
}

/// `--mirror`, else the environment's, else the project's.
fn mirrors<'a>(args: &'a BuildArgs, run: &'a Run<'_>) -> Result<&'a [String]> {
    let all = [&args.mirror, &run.host.mirrors, &run.library.project.defaults.mirror];
    let mirrors = all.into_iter().find(|mirrors| !mirrors.is_empty()).map_or(&[][..], |mirrors| &mirrors[..]);
    match mirrors.iter().find_map(|mirror| mistake_in_mirror(mirror)) {
        None => Ok(mirrors),
        Some(wrong) => Err(Error::usage(wrong)),
    }
}

/// The flavor's own profile, unless `--require none` leaves it out, those of the project, and those of
/// `--require`.
fn profiles(args: &BuildArgs, flavor: Flavor, run: &Run<'_>) -> Vec<String> {
    let own = (!args.require.iter().any(|name| name == "none")).then(|| flavor.to_string());
    let named = run.library.project.defaults.require.iter().chain(&args.require);
    own.into_iter().chain(named.filter(|name| *name != "none").cloned()).collect()
}

/// `--fragment` and `--set` in the order in which they were typed.
fn overrides(args: &BuildArgs, matches: &ArgMatches) -> Vec<Override> {
    let mut matches = matches;
    while let Some((_, below)) = matches.subcommand() {
        matches = below;
    }
    let places = |id: &str| {
        matches.try_contains_id(id).is_ok().then(|| matches.indices_of(id)).flatten().into_iter().flatten()
    };
    let fragments = places("fragment").zip(args.fragment.iter().cloned().map(Override::Fragment));
    let sets = places("set").zip(args.set.iter().cloned().map(Override::Set));
    let mut all: Vec<(usize, Override)> = fragments.chain(sets).collect();
    all.sort_by_key(|(place, _)| *place);
    all.into_iter().map(|(_, over)| over).collect()
}

/// Brings what `--from-bundle` names into the cache.
pub fn take_bundle(args: &BuildArgs, run: &Run<'_>) -> Result<()> {
    match &args.from_bundle {
        Some(path) => crate::ops::fetch::take_bundle(&run.host.absolute(path), run),
        None => Ok(()),
    }
}
