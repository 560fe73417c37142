//! Resolves options to the values that the rest of the program works with: the [`Context`] of the
//! run and a [`Request`] for each kernel.

use crate::cache::permissions;
use crate::catalog::kernels::{Catalog, Status};
use crate::catalog::project::{FILE, Project};
use crate::catalog::{ConfigLibrary, lockfile, toolchain_quirks};
use crate::cli::args::{MakeArgs, Options, SourceArgs};
use crate::cli::toolchain_choice;
use crate::cli::variants::variants;
use crate::host::Host;
use crate::kbuild::BuildMode;
use crate::kbuild::launcher::Tool;
use crate::kbuild::sandbox::SandboxMode;
use crate::kconfig::explain::Renames;
use crate::kernel::{Arch, Flavor, SourceSpec, Variant, VersionRequest};
use crate::ops::absent_symbols::AbsentSymbols;
use crate::ops::context::Context;
use crate::ops::toolchain::Toolchain;
use crate::plan as planning;
use crate::plan::Plan;
use crate::plan::request::{ImageChoice, ModuleMode, Request, ToolchainChoice, own_profiles};
use crate::report::Reporter;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::mirror;
use crate::util::openpgp::{KEYRING_HINT, Keyring};
use crate::util::read::{Links, read_file};
use camino::{Utf8Path, Utf8PathBuf};
use std::collections::BTreeMap;
use std::time::Duration;

/// The configuration files and the catalog in them.
pub struct CatalogFiles {
    pub library: ConfigLibrary,
    pub catalog: Catalog,
}

impl CatalogFiles {
    /// Reads the built-in files, and over them those of `own` (`--configs`) or else of the project
    /// that the working directory is in.
    pub fn read(own: Option<&Utf8Path>, host: &Host) -> Result<CatalogFiles> {
        let own = own.map(|dir| host.absolute(dir));
        let library = ConfigLibrary::with_project(Project::find(&host.cwd, own.as_deref(), host.uid)?)?;
        let catalog = Catalog::read(&library)?;
        // Reports a mistake in files that are only needed later before any work is done.
        Renames::read(&library)?;
        toolchain_quirks::read(&library)?;
        Ok(CatalogFiles { library, catalog })
    }
}

/// The default of `--output`.
pub const OUTPUT: &str = "out";

/// The default of `--stall-timeout`.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Returns the cache directory, which need not exist.
///
/// # Errors
///
/// No cache directory is known, or other users may replace files in it (exit code 2).
pub fn cache_dir(given: Option<&Utf8Path>, host: &Host) -> Result<Utf8PathBuf> {
    let dir = given.map(|dir| host.absolute(dir)).or_else(|| host.cache_dir.clone());
    let dir = dir.ok_or_else(|| {
        Error::usage("no cache directory: HOME is not set").hint("choose one with --cache-dir DIR")
    })?;
    // Memoized results are read before the cache is opened.
    if dir.is_dir() {
        permissions::check(&dir, host.uid)?;
    } else if dir.exists() {
        return Err(Error::usage(format!("the cache directory {dir} is not a directory"))
            .hint("choose another one with --cache-dir DIR"));
    }
    Ok(dir)
}

/// Returns the plan of the only kernel that `version` and `options` name.
pub fn plan_for(version: &str, options: &Options, host: &Host, reporter: &Reporter) -> Result<Plan> {
    let files = CatalogFiles::read(options.make.catalog.configs.as_deref(), host)?;
    let host = &host_with_tools(options, &files, host, reporter)?;
    let ctx = context(options, &files, host, reporter)?;
    crate::ops::fetch::plan(&one_request(version, options, &ctx)?, &ctx)
}

/// Returns the host with the tools of `--toolchain`, or else of the project's toolchain.
///
/// # Errors
///
/// The toolchain cannot be used, or `--sandbox off` is given with it (exit code 2).
pub fn host_with_tools(
    options: &Options,
    files: &CatalogFiles,
    host: &Host,
    reporter: &Reporter,
) -> Result<Host> {
    let (make, project) = (&options.make, &files.library.project);
    let Some(spec) = toolchain_choice::find(make, project) else { return Ok(host.clone()) };
    toolchain_choice::check_options(spec, &make.kbuild)?;
    let cache_dir = cache_dir(make.source.cache_dir.as_deref(), host)?;
    let root = files.library.project.dirs.as_ref().map(|dirs| &*dirs.root);
    let lock_path = lockfile::lock_file_path(root, &cache_dir, host.uid);
    let SourceArgs { update_lock, offline, .. } = make.source;
    let toolchain = Toolchain {
        spec,
        arches: arches(options, project, host)?,
        cache_dir: &cache_dir,
        lock_path,
        update_lock,
        offline,
        mirrors: mirrors(&make.source, project, host)?,
        stall: stall_timeout(&make.source),
        jobs: jobs(make, host),
        keyring: keyring(&make.source.keyring, host)?.for_compilers(),
        catalog: &files.catalog,
    };
    toolchain.open(host, reporter)
}

/// Returns what all kernels of the run share.
pub fn context<'a>(
    options: &Options,
    files: &'a CatalogFiles,
    host: &'a Host,
    reporter: &'a Reporter,
) -> Result<Context<'a>> {
    let Options { images, make: MakeArgs { kbuild, source, .. }, compile, .. } = options;
    let CatalogFiles { library, catalog } = files;
    let cache_dir = cache_dir(source.cache_dir.as_deref(), host)?;
    let keyring = keyring(&source.keyring, host)?;
    let Project { file, dirs, defaults } = &library.project;
    if let Some(file) = file {
        reporter.note(&format!("using {}", crate::ops::context::display_path(file, host)));
    }
    if let Some((dirs, writers)) = dirs.as_ref().and_then(|dirs| Some((dirs, dirs.writers()?))) {
        let root = crate::ops::context::display_path(&dirs.root, host);
        reporter.note(&format!("{writers} can write to {root}; its files are trusted"));
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
        image_caches: None,
        build_mode: BuildMode::Incremental,
        slot: None,
        keep_archive: false,
        cache_dir,
        output: host.absolute(output),
        timings: compile.timings.clone(),
        jobs: jobs(&options.make, host),
        explicit_jobs: options.make.jobs.jobs.or(host.user.jobs.map(u16::from)).is_some(),
        offline: source.offline,
        sandbox: if host.tool_root.is_some() { SandboxMode::On } else { kbuild.sandbox },
        stall: stall_timeout(source),
        command: host.args.clone(),
        absent_symbols: AbsentSymbols::of_run(1),
    })
}

/// Returns `--jobs`, or else the user's number, or else that of usable CPUs.
fn jobs(make: &MakeArgs, host: &Host) -> usize {
    make.jobs.jobs.or(host.user.jobs.map(u16::from)).map_or(host.cpus, usize::from)
}

fn stall_timeout(source: &SourceArgs) -> Duration {
    source.stall_timeout.map_or(STALL_TIMEOUT, |seconds| Duration::from_secs(seconds.into()))
}

/// Parsed keys take several times the memory of their files. kernel.org's keyring has 10 MB.
const MAX_KEYRING: u64 = 4 << 20;

/// Reads the built-in keys, those of the user config and those of `--keyring`.
fn keyring(paths: &[Utf8PathBuf], host: &Host) -> Result<Keyring> {
    let mut keyring = Keyring::built_in();
    let configured = host.user.keyring.iter().map(|path| ("keyring in config.toml", path));
    for (option, path) in configured.chain(paths.iter().map(|path| ("--keyring", path))) {
        let path = host.absolute(path);
        let bytes = read_file(&path, Links::Follow, MAX_KEYRING)
            .context(Kind::Usage, || format!("{option}: cannot read {path}"))
            .map_err(|error| error.hint(KEYRING_HINT))?;
        keyring.add(path.as_str(), &bytes).map_err(|error| error.with_option(option))?;
    }
    Ok(keyring)
}

/// Returns the request for the only kernel that `version` and `options` name.
pub fn one_request(version: &str, options: &Options, ctx: &Context<'_>) -> Result<Request> {
    let mut requests = requests(&[version.to_owned()], options, ctx)?;
    match requests.pop().filter(|_| requests.is_empty()) {
        Some(request) => Ok(request),
        None => Err(Error::usage(format!("{version} names more than one kernel"))
            .hint("give one version, one architecture with --arch and one variant with --variant")),
    }
}

/// Returns the program before the compiler: `--launcher`, or else the project's, or else the user's. A default that
/// needs the network is left out with `--offline`.
fn launcher<'a>(options: &'a Options, ctx: &Context<'_>) -> Option<&'a str> {
    if options.compile.launcher.is_some() || options.compile.uses_ccache_image() {
        return options.compile.launcher();
    }
    let program = ctx.library.project.defaults.launcher.or(ctx.host.user.launcher)?.program()?;
    let is_remote = Tool::of(program).is_some_and(Tool::is_remote);
    (!ctx.offline || !is_remote).then_some(program)
}

/// Returns one request for each architecture, version and variant. Without versions, the project's are used.
///
/// # Errors
///
/// Exit code 2: there is no version, or no such kernel, or options that exclude each other.
pub fn requests(versions: &[String], options: &Options, ctx: &Context<'_>) -> Result<Vec<Request>> {
    let default = &ctx.library.project.defaults.version[..];
    let versions = if versions.is_empty() { default } else { versions };
    if versions.is_empty() {
        return Err(Error::usage("no kernel version is given").hint(format!(
            "name one, such as 6.1, or set `version` in {FILE}; `kcompile list` lists the known kernels"
        )));
    }
    let remote = options.compile.launcher().and_then(Tool::of).filter(|tool| tool.is_remote());
    if let Some(tool) = remote.filter(|_| ctx.offline) {
        return Err(Error::usage(format!("--offline: {} needs the network", tool.name()))
            .hint("remove --launcher, or use --launcher ccache"));
    }
    if options.compile.uses_ccache_image()
        && options.compile.launcher().and_then(Tool::of) != Some(Tool::Ccache)
    {
        return Err(Error::usage("--ccache-from and --ccache-to need ccache as the launcher")
            .hint("remove --launcher, or use --launcher ccache"));
    }
    let variants = variants(options, &ctx.library.project.defaults)?;
    let mut requests = Vec::new();
    for arch in arches(options, &ctx.library.project, ctx.host)? {
        for text in versions {
            for version in resolve_version(text, arch, &variants, options, ctx)? {
                for variant in &version.variants {
                    requests.push(request(&version, arch, *variant, options, ctx)?);
                }
            }
        }
    }
    Ok(requests)
}

/// Returns `--arch`, or else the project's default, or else the host's architecture.
fn arches(options: &Options, project: &Project, host: &Host) -> Result<Vec<Arch>> {
    let given = [&options.target.arch, &project.defaults.arch];
    if let Some(arches) = given.into_iter().find(|arches| !arches.is_empty()) {
        return Ok(arches.clone());
    }
    let own = host.own_arch();
    Ok(vec![own.map_err(|error| error.hint(format!("choose with --arch {}", Arch::choices())))?])
}

/// Returns the flavor of the options, or else the project's. With `None`, the catalog knows each version's.
fn flavor(options: &Options, ctx: &Context<'_>) -> Option<Flavor> {
    options.target.hypervisor.flavor().or(ctx.library.project.defaults.flavor)
}

/// A version with the variants to build, and its source if the name that was given for it implies one.
struct ResolvedVersion {
    version: VersionRequest,
    variants: Vec<Variant>,
    source: Option<SourceSpec>,
}

/// Returns the versions that one argument names.
fn resolve_version(
    text: &str,
    arch: Arch,
    variants: &[Variant],
    options: &Options,
    ctx: &Context<'_>,
) -> Result<Vec<ResolvedVersion>> {
    let variants = variants.to_vec();
    if let Ok(channel) = text.parse() {
        let mirrors = mirrors(&options.make.source, &ctx.library.project, ctx.host)?;
        let version = crate::ops::fetch::resolve(channel, mirrors, ctx)?;
        // The version of a channel of kernel.org comes from there for every flavor.
        let (version, source) = (VersionRequest::Exact(version), Some(SourceSpec::KernelOrg));
        return Ok(vec![ResolvedVersion { version, variants, source }]);
    }
    if text == "all" {
        let Some(flavor) = flavor(options, ctx) else {
            return Err(Error::usage(
                "`all` means every supported kernel of one flavor, but no flavor is given",
            )
            .hint(format!("choose it with {}", Flavor::flags())));
        };
        let kernels = ctx.catalog.kernels.iter();
        let kernels = kernels.filter(|entry| entry.flavor == flavor && entry.arch.contains(&arch));
        let resolved = kernels.map(|entry| {
            let source = entry.supported_source.as_deref().and_then(|source| source.parse().ok());
            let is_supported = |variant: &&Variant| entry.status_of(**variant) == Status::Supported;
            let variants = variants.iter().filter(is_supported).copied().collect();
            ResolvedVersion { version: entry.request(), variants, source }
        });
        return Ok(resolved.collect());
    }
    let version = text.parse().map_err(|why: String| {
        Error::usage(why).hint("see `kcompile list` for known kernels and `kcompile --help` for commands")
    })?;
    Ok(vec![ResolvedVersion { version, variants, source: None }])
}

fn request(
    resolved: &ResolvedVersion,
    arch: Arch,
    variant: Variant,
    options: &Options,
    ctx: &Context<'_>,
) -> Result<Request> {
    let Context { host, catalog, .. } = ctx;
    let Options { target, config, images, make, .. } = options;
    let flavor = match flavor(options, ctx) {
        Some(flavor) => flavor,
        None => planning::flavor_of(resolved.version, catalog)?,
    };
    let version = catalog.resolve(resolved.version, flavor);
    // An entry for a series does not apply to one version of it, which may have its own branch.
    let from_catalog = || catalog.find(version, flavor, arch)?.source.as_deref()?.parse().ok();
    let spec = toolchain_choice::find(make, &ctx.library.project).cloned().unwrap_or_default();
    let source = target.source.clone().or(resolved.source.clone()).or_else(from_catalog);
    Ok(Request {
        version,
        flavor,
        arch,
        variant,
        source: match source.unwrap_or(flavor.spec().source.clone()) {
            SourceSpec::Path(path) => SourceSpec::Path(host.absolute(&path)),
            source => source,
        },
        config: config.config.as_deref().map(|path| host.absolute(path)),
        overrides: config.overrides.with_project(&ctx.library.project)?,
        patches: make.catalog.patches.as_deref().map(|path| host.absolute(path)),
        toolchain: ToolchainChoice {
            llvm: make.kbuild.llvm || toolchain_choice::is_llvm(&spec),
            spec,
            cc: make.kbuild.cc.clone(),
            cross_compile: make.kbuild.cross_compile.clone(),
            launcher: launcher(options, ctx).map(str::to_owned),
        },
        images: ImageChoice {
            combined_image: images.combined_image,
            no_modules: images.no_modules,
            module_mode: match variant {
                Variant::Node if !config.builtin => ModuleMode::Loadable,
                Variant::Node | Variant::Minimal => ModuleMode::Builtin,
            },
            kernel_link: images.kernel_link.clone().unwrap_or_default(),
            modules_layout: images.modules_layout,
            compression: images.compression,
        },
        mirrors: mirrors(&make.source, &ctx.library.project, host)?.to_vec(),
        configures: true,
        profiles: profiles(&options.require.require, own_profiles(flavor, variant), ctx),
        source_date_epoch: host.source_date_epoch,
    })
}

/// Returns `--mirror`, or else `KCOMPILE_MIRROR`, or else the project's mirrors, or else the user's.
fn mirrors<'a>(source: &'a SourceArgs, project: &'a Project, host: &'a Host) -> Result<&'a [String]> {
    let all = [
        ("--mirror", &source.mirror),
        ("KCOMPILE_MIRROR", &host.mirrors),
        (FILE, &project.defaults.mirror),
        ("mirror in config.toml", &host.user.mirror),
    ];
    let (origin, mirrors) = all.into_iter().find(|(_, mirrors)| !mirrors.is_empty()).unwrap_or(all[0]);
    match mirrors.iter().find_map(|mirror| mirror::mirror_error(mirror)) {
        None => Ok(mirrors),
        Some(message) => Err(Error::usage(format!("{origin}: {message}"))
            .hint("give the URL of a server with kernel.org's layout, such as https://cdn.kernel.org")),
    }
}

/// Returns the kernel's own profiles, unless `--require none` skips them, and the project's and `--require`.
fn profiles(required: &[String], own: Vec<String>, ctx: &Context<'_>) -> Vec<String> {
    let skips_own = required.iter().any(|name| name == "none");
    let own = if skips_own { Vec::new() } else { own };
    let named = ctx.library.project.defaults.require.iter().chain(required);
    own.into_iter().chain(named.filter(|name| *name != "none").cloned()).collect()
}

/// Imports the bundle of `--from-bundle` into the cache, for this run.
pub fn import_bundle<'a>(options: &Options, ctx: Context<'a>) -> Result<Context<'a>> {
    let Some(path) = &options.make.source.from_bundle else { return Ok(ctx) };
    let bundled = crate::ops::fetch::import_bundle(&ctx.host.absolute(path), &ctx)
        .map_err(|error| error.with_option("--from-bundle"))?;
    Ok(Context { bundled, ..ctx })
}
