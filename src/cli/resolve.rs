//! From the words that were typed to the values that the rest of the program works with: the cache, the
//! library and the keys of the run, and a [`Request`] for each kernel.

use crate::cache::permissions;
use crate::catalog::kernels::{Catalog, Status};
use crate::catalog::project::{Project, mirror_error};
use crate::catalog::{ConfigLibrary, lockfile, toolchain_quirks};
use crate::cli::args::Options;
use crate::host::Host;
use crate::kbuild::BuildMode;
use crate::kbuild::launcher::Tool;
use crate::kconfig::explain::Renames;
use crate::kernel::{Arch, Flavor, SourceSpec, VersionRequest};
use crate::ops::context::Context;
use crate::plan as planning;
use crate::plan::Plan;
use crate::plan::request::{ImageChoice, Request, ToolchainChoice};
use crate::report::Reporter;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::openpgp::Keyring;
use crate::util::read::{Links, read_file};
use camino::Utf8Path;
use camino::Utf8PathBuf;
use std::collections::BTreeMap;
use std::time::Duration;

/// The files that people edit, and the catalog in them.
pub struct CatalogFiles {
    pub library: ConfigLibrary,
    pub catalog: Catalog,
}

impl CatalogFiles {
    /// Reads ours, with those of `own` (`--configs`), or else of the project that the working directory is in,
    /// over them.
    pub fn read(own: Option<&Utf8Path>, host: &Host) -> Result<CatalogFiles> {
        let own = own.map(|dir| host.absolute(dir));
        let library = ConfigLibrary::with_project(Project::find(&host.cwd, own.as_deref(), host.uid)?)?;
        let catalog = Catalog::read(&library)?;
        // A mistake in what is only needed later is found out before anything is done.
        Renames::read(&library)?;
        toolchain_quirks::read(&library)?;
        Ok(CatalogFiles { library, catalog })
    }
}

/// Where the layouts go unless `--output` or the project says otherwise.
pub const OUTPUT: &str = "out";

/// `--stall-timeout`, unless it is given.
const STALL: Duration = Duration::from_secs(30);

/// Where the cache is or will be.
///
/// Errors (exit code 2): there is no such place, or other users may replace files in it.
pub fn cache_dir(given: Option<&Utf8Path>, host: &Host) -> Result<Utf8PathBuf> {
    let dir = match (given, &host.cache_dir) {
        (Some(dir), _) => host.absolute(dir),
        (None, Some(dir)) => dir.clone(),
        (None, None) => {
            return Err(
                Error::usage("no place for the cache: HOME is not set").hint("give one with --cache-dir DIR")
            );
        }
    };
    // What it remembers is believed before it is opened.
    if dir.is_dir() {
        permissions::check(&dir, host.uid)?;
    }
    Ok(dir)
}

/// The plan of the only kernel that these words mean.
pub fn plan_for(version: &str, options: &Options, host: &Host, reporter: &Reporter) -> Result<Plan> {
    let files = CatalogFiles::read(options.catalog.configs.as_deref(), host)?;
    let ctx = context(options, &files, host, reporter)?;
    crate::ops::fetch::plan(&one_request(version, options, &ctx)?, &ctx)
}

/// What every kernel of the run shares.
pub fn context<'a>(
    options: &Options,
    files: &'a CatalogFiles,
    host: &'a Host,
    reporter: &'a Reporter,
) -> Result<Context<'a>> {
    let Options { images, jobs, kbuild, compile, source, .. } = options;
    let CatalogFiles { library, catalog } = files;
    let cache_dir = cache_dir(source.cache_dir.as_deref(), host)?;
    let keyring = keyring(&source.keyring, host)?;
    let Project { file, dirs, defaults } = &library.project;
    if let Some(file) = file {
        reporter.note(&format!("using {}", crate::ops::context::display_path(file, host)));
    }
    if let Some((dirs, writers)) = dirs.as_ref().and_then(|dirs| Some((dirs, dirs.writers()?))) {
        let root = crate::ops::context::display_path(&dirs.root, host);
        reporter.note(&format!("{writers} may write in {root}: what they put there is believed"));
    }
    let output = images.output.as_deref().or(defaults.output.as_deref()).unwrap_or(OUTPUT.into());
    Ok(Context {
        host,
        library,
        catalog,
        reporter,
        keyring,
        require_signature: source.require_signature,
        lock_path: lockfile::lock_file_path(dirs.as_ref().map(|dirs| &*dirs.root), &cache_dir, host.uid),
        update_lock: source.update_lock,
        bundled: BTreeMap::new(),
        rebuild: compile.rebuild,
        build_mode: BuildMode::Incremental,
        slot: None,
        keep_archive: false,
        cache_dir,
        output: host.absolute(output),
        timings: compile.timings.clone(),
        jobs: jobs.jobs.map_or(host.cpus, usize::from),
        explicit_jobs: jobs.jobs.is_some(),
        offline: source.offline,
        sandbox: kbuild.sandbox,
        stall: source.stall_timeout.map_or(STALL, |seconds| Duration::from_secs(seconds.into())),
        command: host.args.clone(),
    })
}

/// Parsed keys take several times the memory of their files; kernel.org's own keyring of 600 developers has 10 MB.
const MAX_KEYRING: u64 = 4 << 20;

/// The built-in keys, and those of `--keyring`.
fn keyring(paths: &[Utf8PathBuf], host: &Host) -> Result<Keyring> {
    let mut keyring = Keyring::built_in();
    for path in paths {
        let path = host.absolute(path);
        let bytes = read_file(&path, Links::Follow, MAX_KEYRING)
            .context(Kind::Usage, || format!("--keyring: cannot read {path}"))?;
        keyring.add(path.as_str(), &bytes)?;
    }
    Ok(keyring)
}

/// The only kernel that these words mean.
pub fn one_request(version: &str, options: &Options, ctx: &Context<'_>) -> Result<Request> {
    let mut requests = requests(&[version.to_owned()], options, ctx)?;
    match requests.pop().filter(|_| requests.is_empty()) {
        Some(request) => Ok(request),
        None => Err(Error::usage(format!("{version}: more than one kernel"))
            .hint("name one version and, with --arch, one architecture")),
    }
}

/// What was typed, resolved: one request for each architecture and version.
pub fn requests(versions: &[String], options: &Options, ctx: &Context<'_>) -> Result<Vec<Request>> {
    let remote = options.compile.launcher.as_deref().and_then(Tool::of).filter(|tool| tool.is_remote());
    if let Some(tool) = remote.filter(|_| ctx.offline) {
        return Err(Error::usage(format!("--offline: {} works through the network", tool.name()))
            .hint("leave --launcher out; ccache works without a network"));
    }
    let mut requests = Vec::new();
    for arch in arches(options, ctx)? {
        for text in versions {
            for version in resolve_version(text, arch, options, ctx)? {
                requests.push(request(&version, arch, options, ctx)?);
            }
        }
    }
    Ok(requests)
}

/// `--arch`, else the project's, else the host's.
fn arches(options: &Options, ctx: &Context<'_>) -> Result<Vec<Arch>> {
    let given = [&options.target.arch, &ctx.library.project.defaults.arch];
    if let Some(arches) = given.into_iter().find(|arches| !arches.is_empty()) {
        return Ok(arches.clone());
    }
    let hint = || format!("choose with --arch {}", Arch::choices());
    Ok(vec![ctx.host.own_arch().map_err(|error| error.hint(hint()))?])
}

/// The flavor of the options, else the project's; `None`: each version tells its own.
fn flavor(options: &Options, ctx: &Context<'_>) -> Option<Flavor> {
    options.target.hypervisor.flavor().or(ctx.library.project.defaults.flavor)
}

/// A version, and whether it is what a channel of kernel.org stands for.
struct ResolvedVersion {
    version: VersionRequest,
    is_of_channel: bool,
}

/// The versions that one word stands for.
fn resolve_version(
    text: &str,
    arch: Arch,
    options: &Options,
    ctx: &Context<'_>,
) -> Result<Vec<ResolvedVersion>> {
    if let Ok(channel) = text.parse() {
        let version = crate::ops::fetch::resolve(channel, mirrors(options, ctx)?, ctx)?;
        return Ok(vec![ResolvedVersion { version: VersionRequest::Exact(version), is_of_channel: true }]);
    }
    let of_catalog = |version| ResolvedVersion { version, is_of_channel: false };
    if text == "all" {
        let Some(flavor) = flavor(options, ctx) else {
            return Err(Error::usage("`all` is every supported kernel of one flavor")
                .hint(format!("choose it with {}", Flavor::flags())));
        };
        let kernels = ctx.catalog.kernels.iter();
        let kernels = kernels.filter(|entry| entry.flavor == flavor && entry.arch.contains(&arch));
        let supported = kernels.filter(|entry| entry.status == Status::Supported);
        return Ok(supported.map(|entry| of_catalog(entry.request())).collect());
    }
    let version = text.parse().map_err(|why: String| {
        Error::usage(why).hint("`kcompile --help` shows the commands, `kcompile list` the known kernels")
    })?;
    Ok(vec![of_catalog(version)])
}

fn request(resolved: &ResolvedVersion, arch: Arch, options: &Options, ctx: &Context<'_>) -> Result<Request> {
    let Context { host, catalog, .. } = ctx;
    let Options { target, config, catalog: own, images, kbuild, compile, .. } = options;
    let ResolvedVersion { version, is_of_channel } = *resolved;
    let flavor = match flavor(options, ctx) {
        Some(flavor) => flavor,
        None => planning::flavor_of(version, catalog)?,
    };
    // What a channel of kernel.org means is found there, whatever the flavor.
    let of_channel = is_of_channel.then_some(SourceSpec::KernelOrg);
    // An entry for a series says nothing of one version of it: that may have a branch of its own.
    let from_catalog = || catalog.find(version, flavor, arch)?.source.as_deref()?.parse().ok();
    let source = target.source.clone().or(of_channel).or_else(from_catalog);
    Ok(Request {
        version,
        flavor,
        arch,
        source: match source.unwrap_or(flavor.spec().source.clone()) {
            SourceSpec::Path(path) => SourceSpec::Path(host.absolute(&path)),
            source => source,
        },
        config: config.config.as_deref().map(|path| host.absolute(path)),
        overrides: config.overrides.0.clone(),
        patches: own.patches.as_deref().map(|path| host.absolute(path)),
        toolchain: ToolchainChoice {
            cc: kbuild.cc.clone(),
            llvm: kbuild.llvm,
            cross_compile: kbuild.cross_compile.clone(),
            launcher: compile.launcher.clone(),
        },
        images: ImageChoice {
            combined_image: images.combined_image,
            no_modules: images.no_modules,
            kernel_link: images.kernel_link.clone().unwrap_or_default(),
            modules_layout: images.modules_layout,
            compression: images.compression,
        },
        mirrors: mirrors(options, ctx)?.to_vec(),
        configures: true,
        profiles: profiles(&options.require.require, flavor, ctx),
        source_date_epoch: host.source_date_epoch,
    })
}

/// `--mirror`, else the environment's, else the project's.
fn mirrors<'a>(options: &'a Options, ctx: &'a Context<'_>) -> Result<&'a [String]> {
    let all = [&options.source.mirror, &ctx.host.mirrors, &ctx.library.project.defaults.mirror];
    let mirrors = all.into_iter().find(|mirrors| !mirrors.is_empty()).map_or(&[][..], |mirrors| &mirrors[..]);
    match mirrors.iter().find_map(|mirror| mirror_error(mirror)) {
        None => Ok(mirrors),
        Some(message) => Err(Error::usage(message)),
    }
}

/// The flavor's own profile, unless `--require none` leaves it out, those of the project, and those of
/// `--require`.
fn profiles(required: &[String], flavor: Flavor, ctx: &Context<'_>) -> Vec<String> {
    let own = (!required.iter().any(|name| name == "none")).then(|| flavor.to_string());
    let named = ctx.library.project.defaults.require.iter().chain(required);
    own.into_iter().chain(named.filter(|name| *name != "none").cloned()).collect()
}

/// Brings what `--from-bundle` names into the cache, for this run.
pub fn import_bundle<'a>(options: &Options, ctx: Context<'a>) -> Result<Context<'a>> {
    match &options.source.from_bundle {
        Some(path) => {
            let bundled = crate::ops::fetch::import_bundle(&ctx.host.absolute(path), &ctx)?;
            Ok(Context { bundled, ..ctx })
        }
        None => Ok(ctx),
    }
}
