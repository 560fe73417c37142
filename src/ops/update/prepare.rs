//! Fetches a newer release and migrates the configs of an entry to it. Writes only to the cache.

use super::{Available, CatalogKernel, explained};
use crate::cache::{Cache, ScratchDir};
use crate::catalog::ConfigLibrary;
use crate::catalog::entry_text::replace_entry;
use crate::catalog::kernels::{Catalog, Entry, Status};
use crate::catalog::lockfile::{self, Existing, LockFile, Locked};
use crate::kernel::{Arch, KernelVersion, SourceSpec, Variant, VersionRequest};
use crate::ops::add::{self, MigratedConfig, NewKernelRequest};
use crate::ops::catalog_files::{CATALOG, FileChange, user_catalog};
use crate::ops::context::Context;
use crate::ops::fetch;
use crate::plan::request::Request;
use crate::plan::{BaseConfig, ConfigSet, SourceIdentity, git_branch};
use crate::source;
use crate::util::error::{Error, Result};
use crate::util::fs::{create_dir, write_atomically};
use camino::Utf8PathBuf;

/// An update that is fetched and migrated, and not yet written.
pub struct PreparedUpdate {
    pub old: Entry,
    pub new: Entry,
    pub source: SourceIdentity,
    /// One for each architecture.
    pub configs: Vec<MigratedConfig>,
    /// The files to write, in this order.
    pub changes: Vec<FileChange>,
    /// The requests for the old kernel, or none if its source cannot be named.
    pub old_requests: Vec<Request>,
    pub new_requests: Vec<Request>,
    /// The version before, if it is known.
    pub old_version: Option<KernelVersion>,
    /// The configs and the catalog after the change.
    library: ConfigLibrary,
    catalog: Catalog,
    /// The lock file with the new source.
    lock_path: Utf8PathBuf,
    /// The catalog and its text before.
    catalog_file: (Utf8PathBuf, Option<String>),
    pin_comment: String,
    _scratch: ScratchDir,
}

/// One of the two kernels of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Before,
    After,
}

/// Fetches and verifies the newest release for `kernel`, and migrates its configs.
///
/// # Errors
///
/// As for [`add::prepare`]. Exit code 2 if the catalog's text cannot be edited.
pub fn prepare(kernel: &CatalogKernel, available: &Available, ctx: &Context<'_>) -> Result<PreparedUpdate> {
    let dirs = ctx.library.project.user_dirs()?;
    let cache = Cache::open(&ctx.cache_dir, ctx.host.uid)?;
    let scratch = cache.scratch()?;
    // The scratch directory itself is locked.
    let lock_dir = scratch.path.join("lock");
    create_dir(&lock_dir)?;
    let lock_path = lock_dir.join(lockfile::NAME);
    let moving = branch_origin(&kernel.requests[0]);
    let lock = LockFile::read(&ctx.lock_path)?;
    let lock = moving.iter().fold(lock.clone(), |lock, origin| lock.without(origin));
    write_atomically(&lock_path, lock.render().as_bytes())?;
    // An interrupted update must not leave the new source in the user's lock file.
    let fetching = Context { lock_path: lock_path.clone(), ..ctx.clone() };
    let new_version = new_version(kernel, available, &fetching)?;
    let current = available.current.as_deref();
    let mut configs = Vec::new();
    let (mut old_requests, mut new_requests) = (Vec::new(), Vec::new());
    let mut found = None;
    for request in &kernel.requests {
        let new = Request { version: new_version, ..request.clone() };
        let older = current.and_then(|current| old_request(request, current));
        let base = base(&kernel.entry, &new, ctx.library)?;
        let config_version = config_version(&kernel.entry, new_version, &base);
        let requested = NewKernelRequest { request: new.clone(), base, config_version, older: older.clone() };
        let (source, migrated) = add::migrate(&requested, dirs, &fetching)?;
        configs.push((migrated, base));
        found.get_or_insert(source);
        old_requests.extend(older);
        new_requests.push(new);
    }
    let source = found.expect("an entry has an architecture");
    let new = new_entry(&kernel.entry, &new_requests[0], &source);
    let path = dirs.path_of(CATALOG);
    let text = user_catalog(&path)?.0;
    let pin_comment = add::pin_comment(&source, ctx.host.now);
    let mut prepared = PreparedUpdate {
        old: kernel.entry.clone(),
        old_version: old_version(current, &configs, kernel),
        old_requests,
        new_requests,
        changes: config_changes(&kernel.entry, &new, &configs, ctx)?,
        configs: configs.into_iter().map(|(migrated, _)| migrated).collect(),
        source,
        new,
        library: ctx.library.clone(),
        catalog: ctx.catalog.clone(),
        lock_path,
        catalog_file: (path, text),
        pin_comment,
        _scratch: scratch,
    };
    prepared.set_entry(prepared.new.clone())?;
    Ok(prepared)
}

/// Returns the origin of a branch in the lock file. Its commit changes, while a release has another origin.
fn branch_origin(request: &Request) -> Option<String> {
    let SourceSpec::Git { url, reference } = &request.source else { return None };
    let (url, reference) = git_branch(url.as_deref(), reference.as_deref(), request.version);
    Some(format!("{url}#{reference}"))
}

/// Returns the version to fetch. A branch or a package may have moved to another point release.
fn new_version(kernel: &CatalogKernel, available: &Available, ctx: &Context<'_>) -> Result<VersionRequest> {
    let request = &kernel.requests[0];
    let newest = available.newest.as_deref().unwrap_or_default();
    match (&request.source, request.version) {
        (SourceSpec::KernelOrg, _) => newest.parse().map(exact).map_err(Error::fetch),
        (SourceSpec::Git { reference: None, .. }, version) | (_, version @ VersionRequest::Series(..)) => {
            Ok(version)
        }
        (_, VersionRequest::Exact(old)) => {
            let (major, minor) = old.series();
            let series = Request { version: VersionRequest::Series(major, minor), ..request.clone() };
            let (_, tree) = fetch::fetch(&Request { configures: false, ..series }, ctx)?;
            Ok(VersionRequest::Exact(tree.identity.version))
        }
    }
}

fn exact(version: KernelVersion) -> VersionRequest {
    VersionRequest::Exact(version)
}

/// Returns the request for the kernel that the entry has now. An older package of apt cannot be fetched.
fn old_request(request: &Request, current: &str) -> Option<Request> {
    match &request.source {
        SourceSpec::KernelOrg => {
            let version = VersionRequest::Exact(current.parse().ok()?);
            Some(Request { version, ..request.clone() })
        }
        SourceSpec::Git { url, .. } => {
            let source = SourceSpec::Git { url: url.clone(), reference: Some(current.to_owned()) };
            Some(Request { source, ..request.clone() })
        }
        SourceSpec::Apt { .. } | SourceSpec::Path(_) => None,
    }
}

/// Returns the config to migrate: one that is named for the new version, or else that of the entry.
fn base<'a>(entry: &Entry, new: &Request, library: &'a ConfigLibrary) -> Result<BaseConfig<'a>> {
    let Request { flavor, arch, version, .. } = *new;
    let find = |version: VersionRequest| BaseConfig::of(library, ConfigSet::of(new), version.floor());
    let named = find(version).filter(|base| base.version == version);
    named.or_else(|| find(entry.request())).ok_or_else(|| {
        Error::usage(format!("no {flavor} config for Linux {} on {arch}", entry.version))
            .hint("add one with `kcompile config edit`")
    })
}

/// Returns the version in the name of the new config.
fn config_version(entry: &Entry, new: VersionRequest, base: &BaseConfig<'_>) -> VersionRequest {
    match entry.request() {
        VersionRequest::Exact(_) => new,
        VersionRequest::Series(..) if base.version == new => new,
        // The config of a series stays the config of the series.
        series => series,
    }
}

/// Returns the entry after the update.
fn new_entry(old: &Entry, request: &Request, source: &SourceIdentity) -> Entry {
    let version = match old.request() {
        VersionRequest::Exact(_) => request.version.in_catalog(),
        VersionRequest::Series(..) => return old.clone(),
    };
    Entry { version, sha256: add::pin(request, source), ..old.clone() }
}

/// Returns the version before, for people and for CVE records.
fn old_version(
    current: Option<&str>,
    configs: &[(MigratedConfig, BaseConfig<'_>)],
    kernel: &CatalogKernel,
) -> Option<KernelVersion> {
    let compared = configs.iter().find_map(|(config, _)| config.upstream_changes.as_ref());
    let compared = compared.and_then(|changes| changes.version.parse().ok());
    let named = match kernel.entry.request() {
        VersionRequest::Exact(version) => Some(version),
        VersionRequest::Series(..) => None,
    };
    current.and_then(|current| current.parse().ok()).or(compared).or(named)
}

/// Returns the configs to write, and those that no entry uses any more.
fn config_changes(
    old: &Entry,
    new: &Entry,
    configs: &[(MigratedConfig, BaseConfig<'_>)],
    ctx: &Context<'_>,
) -> Result<Vec<FileChange>> {
    let dirs = ctx.library.project.user_dirs()?;
    let is_moved = old.version != new.version;
    let (mut written, mut removed) = (Vec::new(), Vec::new());
    for (config, base) in configs {
        let set = node_configs(old, config.arch);
        let name = set.config_name(old.request());
        let nearest = BaseConfig::of(ctx.library, set, new.request().floor());
        let is_found = nearest.is_some_and(|nearest| nearest.name() == base.name());
        if config.text != base.text || !is_found || (is_moved && base.name() == name) {
            written.push(FileChange { path: config.path.clone(), text: Some(config.text.clone()) });
        }
        let path = dirs.path_of(&name);
        if is_moved && path.exists() && !is_used(&name, old, config.arch, ctx)? {
            removed.push(FileChange { path, text: None });
        }
    }
    written.append(&mut removed);
    Ok(written)
}

/// Returns the configs that an update migrates.
fn node_configs(entry: &Entry, arch: Arch) -> ConfigSet {
    ConfigSet { flavor: entry.flavor, arch, variant: Variant::Node }
}

/// Returns whether another entry of the user's catalog uses the config `name`.
fn is_used(name: &str, old: &Entry, arch: Arch, ctx: &Context<'_>) -> Result<bool> {
    let own = user_catalog(&ctx.library.project.user_dirs()?.path_of(CATALOG))?.1;
    let others = own.kernels.iter().filter(|entry| *entry != old && entry.flavor == old.flavor);
    Ok(others.filter(|entry| entry.arch.contains(&arch)).any(|entry| {
        let found = BaseConfig::of(ctx.library, node_configs(old, arch), entry.request().floor());
        found.is_some_and(|found| found.name() == name)
    }))
}

impl PreparedUpdate {
    /// Puts `entry` into the text of the catalog, and applies all changes to the library.
    fn set_entry(&mut self, entry: Entry) -> Result<()> {
        let (path, text) = &self.catalog_file;
        self.changes.retain(|change| change.path != *path);
        if entry != self.old {
            let edited =
                text.as_deref().and_then(|text| replace_entry(text, &self.old, &entry, &self.pin_comment));
            let edited = edited.ok_or_else(|| {
                Error::usage(format!("cannot change the entry of {} in {path}", self.old.version))
                    .hint("write the entry as `kcompile add` does, with one field on each line")
            })?;
            // Configs come before the entry that needs them, and are removed after it.
            let removed = self.changes.iter().position(|change| change.text.is_none());
            let at = removed.unwrap_or(self.changes.len());
            self.changes.insert(at, FileChange { path: path.clone(), text: Some(edited) });
        }
        for FileChange { path, text } in &self.changes {
            let dirs = self.library.project.user_dirs()?.clone();
            let relative = path
                .strip_prefix(&dirs.configs)
                .map_err(|_| Error::usage(format!("{path} is not in {}", dirs.configs)))?;
            let library = std::mem::take(&mut self.library);
            self.library = library.with_file(&format!("configs/{relative}"), path, text.as_deref());
        }
        self.catalog = Catalog::read(&self.library)?;
        self.new = entry;
        Ok(())
    }

    /// Sets the status of an entry whose new version was not booted.
    pub fn mark_untested(&mut self) -> Result<()> {
        if self.new == self.old {
            return Ok(());
        }
        self.set_entry(Entry { status: Status::Untested, ..self.new.clone() })
    }

    /// Returns the context of a build before or after the update.
    pub fn context<'a>(&'a self, side: Side, ctx: &Context<'a>) -> Context<'a> {
        // The user's lock file gets the new source only if all goes well.
        let ctx = Context { lock_path: self.lock_path.clone(), ..ctx.clone() };
        match side {
            Side::Before => ctx,
            Side::After => Context { library: &self.library, catalog: &self.catalog, ..ctx },
        }
    }

    /// Fails if somebody changed the catalog in the meantime.
    pub fn check_unchanged(&self) -> Result<()> {
        let (path, text) = &self.catalog_file;
        if user_catalog(path)?.0 == *text {
            return Ok(());
        }
        Err(Error::usage(format!("{path} was changed by somebody else in the meantime"))
            .hint("run the update again"))
    }

    /// Adds the new source to the user's lock file.
    pub fn lock(&self, ctx: &Context<'_>) -> Result<()> {
        let Some(origin) = &self.source.origin else { return Ok(()) };
        let locked =
            Locked { digest: self.source.digest.clone(), unverified: !self.source.is_authenticated() };
        lockfile::add(&ctx.lock_path, origin.clone(), locked, Existing::Replace)
    }

    /// Returns the number of commits between the two releases, or why it is not known.
    pub fn count_commits(&self, ctx: &Context<'_>) -> Result<Result<usize, String>> {
        let request = &self.new_requests[0];
        if request.source != SourceSpec::KernelOrg {
            return Ok(Err(format!("a fetch of depth 1 from {} has no history", request.source)));
        }
        let Some(old) = self.old_version else {
            return Ok(Err("the version before is not known".to_owned()));
        };
        let cache = Cache::open(&ctx.cache_dir, ctx.host.uid)?;
        let lock = ctx.lock()?;
        let fetching = ctx.fetch_context(&cache, &lock);
        explained(source::count_commits(old, self.source.version, &request.mirrors, &fetching))
    }
}
