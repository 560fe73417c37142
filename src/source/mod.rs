//! From a plan's source to a kernel tree on disk: fetched or found, checked, unpacked once, patched
//! once, read-only. Each kind of source has a file of its own; all of them end in [`Tree`].

mod apt;
mod archive;
mod directory;
mod git;
mod http;
mod kernel_org;
mod write;

pub use apt::candidate as apt_candidate;
pub use directory::tree_version;

use crate::cache::{Cache, Scratch};
use crate::digest::Sha256;
use crate::error::{Context, Error, Kind, Result};
use crate::files;
use crate::host::Host;
use crate::kernel::VersionRequest;
use crate::patches;
use crate::plan::{KERNEL_ORG, Locator, Plan, SourceIdentity, release_url};
use crate::report::{Phase, Report, Running};
use crate::words::counted;
use camino::{Utf8Path, Utf8PathBuf};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use walkdir::WalkDir;

/// Build directories are direct children of their tree, under names that start so.
pub const BUILD_DIR_PREFIX: &str = "kcompile-";
/// The tree inside an entry of the cache.
const TREE: &str = "linux";
/// Written last into an entry: what it holds.
const IDENTITY: &str = "source.json";

/// A kernel tree that can be built from, and must not be written to.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The directory with the top Makefile.
    pub path: Utf8PathBuf,
    /// Where build directories go.
    pub builds: Utf8PathBuf,
    /// What the source has shown.
    pub identity: SourceIdentity,
    /// The name of its entry in the cache, and of its lock.
    pub key: String,
}

/// What fetching needs to know beside the plan.
pub struct Fetching<'a> {
    /// Where trees are kept.
    pub cache: &'a Cache,
    /// Environment and working directory for apt.
    pub host: &'a Host,
    /// Whom to tell.
    pub report: &'a Report,
    /// No network: take it from the cache or fail.
    pub offline: bool,
    /// A connection without progress for this long is given up.
    pub stall: Duration,
}

/// Gets the plan's source, unpatched: from the cache where it is there already.
///
/// Touches the network and the cache. Errors: exit code 3 for what cannot be fetched or does not
/// verify, 2 for a source that is no kernel tree.
pub fn obtain(plan: &Plan, fetching: &Fetching<'_>) -> Result<Tree> {
    let Fetching { cache, report, .. } = *fetching;
    let source = &plan.source;
    let running = report.start(Phase::Source, &source.name);
    let tree = match cached(plan, cache, fetching.offline)? {
        Some(tree) => {
            running.finish(&format!("Linux {} from the cache", tree.identity.version));
            tree
        }
        None if fetching.offline && source.locator.is_remote() => {
            return Err(Error::fetch(format!(
                "--offline: {} is not in the cache {}",
                source.name, cache.root
            ))
            .hint("run `kcompile fetch` with the same options while there is a network"));
        }
        None => {
            let tree = fetch(plan, fetching, &running)?;
            running.finish(&format!("Linux {}, {}", tree.identity.version, tree.identity.verified));
            tree
        }
    };
    if !tree.identity.trusted {
        report.finding(format!("the source is not verified: {} ({})", source.name, tree.identity.verified));
    }
    Ok(tree)
}

fn fetch(plan: &Plan, fetching: &Fetching<'_>, running: &Running<'_>) -> Result<Tree> {
    match &plan.source.locator {
        Locator::KernelOrg { mirrors, pin } => {
            kernel_org::fetch(plan.requested, mirrors, *pin, fetching, running)
        }
        Locator::Git { url, reference } => git::fetch(url, reference, &plan.source, fetching, running),
        Locator::Apt { package, version, pin } => {
            apt::fetch(package, version.as_deref(), *pin, &plan.source, fetching, running)
        }
        Locator::Tarball { path, sha256 } => archive::unpack_file(path, *sha256, fetching, running),
        Locator::Directory { path } => directory::adopt(path, fetching, running),
    }
}

/// The tree in the cache that the plan means, if it can be told without a network.
fn cached(plan: &Plan, cache: &Cache, offline: bool) -> Result<Option<Tree>> {
    let source = &plan.source;
    let has_origin = |identity: &SourceIdentity| source.origin.is_some() && identity.origin == source.origin;
    match (&source.locator, plan.requested) {
        (Locator::Directory { .. }, _) => Ok(None),
        _ if source.digest.is_some() => {
            find(cache, |identity| Some(&identity.digest) == source.digest.as_ref())
        }
        // A release of kernel.org never changes: the tree that was fetched from there is it.
        (Locator::KernelOrg { .. }, VersionRequest::Exact(_)) => find(cache, has_origin),
        (Locator::KernelOrg { .. }, VersionRequest::Series(..)) if offline => find(cache, |identity| {
            let origin = release_url(KERNEL_ORG, identity.version);
            plan.requested.admits(identity.version) && identity.origin == Some(origin)
        }),
        _ if offline => find(cache, has_origin),
        _ => Ok(None),
    }
}

/// The whole unpatched tree with the highest version whose identity `fits`.
fn find(cache: &Cache, fits: impl Fn(&SourceIdentity) -> bool) -> Result<Option<Tree>> {
    let dir = cache.root.join("trees");
    let entries = dir.read_dir_utf8().context(Kind::Build, || format!("cannot read {dir}"))?;
    let names = entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_owned()))
        .filter(|name| !name.contains('+'));
    let trees = names.filter_map(|key| open(cache, &key)).filter(|tree| fits(&tree.identity));
    Ok(trees.max_by_key(|tree| (tree.identity.version, tree.identity.date)))
}

/// Opens the entry `key` if it is whole.
fn open(cache: &Cache, key: &str) -> Option<Tree> {
    let entry = cache.tree(key);
    let identity = serde_json::from_slice(&fs::read(entry.join(IDENTITY)).ok()?).ok()?;
    let path = entry.join(TREE);
    path.join("Makefile").is_file().then(|| Tree {
        builds: path.clone(),
        path,
        identity,
        key: key.to_owned(),
    })
}

/// The key of an entry: from the digest `sha256:…`, `commit:…`.
fn key_of(digest: &str) -> String {
    digest.replace(':', "-")
}

/// Fills the entry of the source `digest` unless another run has done it meanwhile: `fill` writes the
/// tree into the directory it is given and says what the source is.
fn keep(
    digest: &str,
    fetching: &Fetching<'_>,
    fill: impl FnOnce(&Utf8Path) -> Result<SourceIdentity>,
) -> Result<Tree> {
    let key = key_of(digest);
    let _lock = fetching.cache.lock(&key, fetching.report)?;
    match open(fetching.cache, &key) {
        Some(tree) => Ok(tree),
        None => {
            let filled = Filled::new(fetching, fill)?;
            install(fetching.cache, &filled.scratch.path, &key)
        }
    }
}

/// The same where the digest is known only after all bytes have passed: `name` keeps a second run
/// from fetching the same at once.
fn keep_unlisted(
    name: &str,
    fetching: &Fetching<'_>,
    fill: impl FnOnce(&Utf8Path) -> Result<SourceIdentity>,
) -> Result<Tree> {
    let _fetching = fetching.cache.lock(&format!("fetch-{}", Sha256::of(name).short()), fetching.report)?;
    let filled = Filled::new(fetching, fill)?;
    let key = key_of(&filled.digest);
    let _lock = fetching.cache.lock(&key, fetching.report)?;
    match open(fetching.cache, &key) {
        Some(tree) => Ok(tree),
        None => install(fetching.cache, &filled.scratch.path, &key),
    }
}

/// A tree that is whole, but has no name yet.
struct Filled {
    scratch: Scratch,
    digest: String,
}

impl Filled {
    fn new(
        fetching: &Fetching<'_>,
        fill: impl FnOnce(&Utf8Path) -> Result<SourceIdentity>,
    ) -> Result<Filled> {
        let scratch = fetching.cache.scratch()?;
        let identity = fill(&scratch.path.join(TREE))?;
        write_identity(&scratch.path, &identity)?;
        Ok(Filled { scratch, digest: identity.digest })
    }
}

fn write_identity(dir: &Utf8Path, identity: &SourceIdentity) -> Result<()> {
    files::write_atomically(&dir.join(IDENTITY), &serde_json::to_vec_pretty(identity).expect("plain strings"))
}

/// Gives a filled directory its final name. Something unfinished of that name is cleared away. The
/// caller holds the lock of `key`.
fn install(cache: &Cache, filled: &Utf8Path, key: &str) -> Result<Tree> {
    let entry = cache.tree(key);
    files::remove_tree(&entry)?;
    let moved = || -> std::io::Result<()> {
        fs::create_dir(&entry)?;
        // Renaming a directory rewrites its `..`, for which it must be writable: the tree's top is.
        fs::rename(filled.join(TREE), entry.join(TREE))?;
        fs::rename(filled.join(IDENTITY), entry.join(IDENTITY))
    };
    moved().context(Kind::Build, || format!("cannot install the tree {entry}"))?;
    files::sync_dir(&entry)?;
    open(cache, key).ok_or_else(|| Error::build(format!("the tree {entry} vanished")))
}

/// The tree with the plan's patches, made once: unpatched files are shared with the pristine tree.
///
/// Errors: a patch that does not apply (exit code 1); patches for a directory used in place (2).
pub fn patched(tree: Tree, plan: &Plan, fetching: &Fetching<'_>) -> Result<Tree> {
    let Some(digest) = plan.patches_digest() else { return Ok(tree) };
    let Fetching { cache, report, .. } = *fetching;
    if let Locator::Directory { path } = &plan.source.locator {
        return Err(Error::usage(format!(
            "{path} is used in place and never written to, so it cannot be patched"
        ))
        .hint("apply the patches there yourself, or give a tarball"));
    }
    let key = format!("{}+{}", tree.key, digest.short());
    let running = report.start(Phase::Patch, &counted(plan.patches.len(), "patch", "patches"));
    let _lock = cache.lock(&key, report)?;
    if let Some(patched) = open(cache, &key) {
        running.finish("patched tree from the cache");
        return Ok(patched);
    }
    let scratch = cache.scratch()?;
    let copy = scratch.path.join(TREE);
    share(&tree.path, &copy)?;
    patches::apply(&plan.patches, &copy)?;
    fs::set_permissions(&copy, Permissions::from_mode(0o755))
        .context(Kind::Build, || format!("cannot patch {copy}"))?;
    write_identity(&scratch.path, &tree.identity)?;
    let patched = install(cache, &scratch.path, &key)?;
    for patch in &plan.patches {
        if let Some(reason) = &patch.reason {
            report.note(&format!("{}: {reason}", patch.name));
        }
    }
    running.finish(&counted(plan.patches.len(), "patch applied", "patches applied"));
    Ok(patched)
}

/// Copies a tree by hard links; build directories, which are not part of it, stay behind.
fn share(from: &Utf8Path, to: &Utf8Path) -> Result<()> {
    let wrong = |path: &std::path::Path| format!("cannot copy {}", path.display());
    let is_source = |entry: &walkdir::DirEntry| {
        entry.depth() != 1 || !entry.file_name().to_string_lossy().starts_with(BUILD_DIR_PREFIX)
    };
    let walk = WalkDir::new(from).contents_first(false).into_iter().filter_entry(is_source);
    let mut dirs = Vec::new();
    for entry in walk {
        let entry = entry.context(Kind::Build, || format!("cannot read {from}"))?;
        crate::process::check()?;
        let target = to.as_std_path().join(entry.path().strip_prefix(from).expect("walked from there"));
        let done = match entry.file_type() {
            kind if kind.is_dir() => fs::create_dir(&target).map(|()| dirs.push(target)),
            kind if kind.is_symlink() => {
                fs::read_link(entry.path()).and_then(|link| std::os::unix::fs::symlink(link, target))
            }
            _ => fs::hard_link(entry.path(), target),
        };
        done.context(Kind::Build, || wrong(entry.path()))?;
    }
    for dir in dirs.iter().rev() {
        fs::set_permissions(dir, Permissions::from_mode(0o555)).context(Kind::Build, || wrong(dir))?;
    }
    Ok(())
}

/// Compares digests, in the words that every source uses.
fn verify(name: &str, expected: Sha256, found: Sha256) -> Result<()> {
    match expected == found {
        true => Ok(()),
        false => {
            Err(Error::fetch(format!("checksum mismatch for {name}: expected {expected}, found {found}")))
        }
    }
}
