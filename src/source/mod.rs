//! From a plan's source to a kernel tree on disk: fetched or found, checked, unpacked once, patched
//! once, read-only. Each kind of source has a file of its own; all of them end in [`Tree`].

mod ailment;
mod apt;
mod archive;
mod bundle;
mod commit;
mod contents;
mod directory;
mod download;
mod entry;
#[cfg(fuzzing)]
pub mod fuzzed;
mod git;
mod http;
mod kept;
mod kernel_org;
#[cfg(test)]
mod properties;
mod releases;
mod stream;
mod tarball;
mod write;

pub use ailment::{archive_ailment, tree_ailment};
pub use apt::{candidate as apt_candidate, state as apt_state};
pub use bundle::{take as take_bundle, write as write_bundle};
pub use directory::{keep_out, still_the_same, tree_version};

use crate::cache::Cache;
use crate::catalog::kernels::Catalog;
use crate::catalog::lockfile::{self, LockFile};
use crate::catalog::patches;
use crate::host::Host;
use crate::kernel::{Channel, KernelVersion, VersionRequest};
use crate::plan::{
    Check, KERNEL_ORG, Link, Locator, Outcome, Plan, Signable, SourceIdentity, SourcePlan, release_url,
};
use crate::report::{Phase, Report, Running};
use crate::util::digest::Sha256;
use crate::util::error::{Context, Error, Kind, Result};
use crate::util::openpgp::Keyring;
use crate::util::text::counted;
use camino::{Utf8Path, Utf8PathBuf};
use entry::{TREE, find, keep, keep_unlisted};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use walkdir::WalkDir;

/// Build directories are direct children of their tree, under names that start so.
pub const BUILD_DIR_PREFIX: &str = "kcompile-";

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
    /// Of a directory that is used in place: what the file system said of it when it was looked at.
    stat: Option<String>,
}

impl Tree {
    /// Errors (exit code 1): it was removed since it was found. To be asked when nobody can remove it any more: with
    /// the lock of a build in it.
    pub fn require(&self) -> Result<()> {
        match self.path.join("Makefile").is_file() {
            true => Ok(()),
            false => Err(Error::build(format!("the tree {} was removed meanwhile", self.path))
                .hint("run the same command again")),
        }
    }
}

/// What fetching needs to know beside the plan.
#[derive(Clone, Copy)]
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
    /// How many threads may work at once.
    pub jobs: usize,
    /// Pins.
    pub catalog: &'a Catalog,
    /// What sources were at their first use.
    pub lock: &'a LockFile,
    /// Whose signatures are believed.
    pub keyring: &'a Keyring,
    /// `--require-signature`.
    pub signature_required: bool,
    /// The archive is wanted, too, not only its tree: for a bundle.
    pub archive_wanted: bool,
    /// What is being fetched. [`obtain`] and [`at_hand`] take it from their plan.
    pub locator: Option<&'a Locator>,
}

impl Fetching<'_> {
    /// The error where there is no network to get `name` by.
    fn not_here(&self, name: &str) -> Error {
        Error::fetch(format!("--offline: {name} is not in the cache {}", self.cache.root)).hint(
            "run `kcompile fetch` with the same options while there is a network, or bring it with --from-bundle",
        )
    }

    /// Fails under `--require-signature` where `checks` do not satisfy it.
    fn require_signature(&self, name: &str, checks: &[Check], signable: Signable) -> Result<()> {
        if !self.signature_required || is_signed(checks, signable) {
            return Ok(());
        }
        Err(match signable {
            Signable::Yes => Error::fetch(format!("--require-signature: {name} has no signature"))
                .hint("its signature lies beside it on kernel.org; is this mirror complete?"),
            Signable::No => Error::fetch(format!(
                "--require-signature: nobody signs {name}, and neither the catalog nor {} pins it",
                lockfile::NAME
            ))
            .hint("a first use without --require-signature pins it, if you have looked at what it is"),
        })
    }

    /// Will this tree of the cache do? It is as good as one that is fetched now: by the keys of this run, by the
    /// signature that lies beside a tarball now, and with what a bundle is made of.
    fn accepts(&self, identity: &SourceIdentity) -> bool {
        let believed = identity.checks.iter().filter(|check| self.believes(check));
        (!self.signature_required || is_signed(believed, signable(identity)))
            && self.is_by_the_signature_beside(identity)
            && (!self.archive_wanted || self.has_archive(identity))
    }

    /// Does a check that was made earlier count now? A signature does for as long as its key does.
    fn believes(&self, check: &Check) -> bool {
        let made = check.signature.as_ref();
        check.link != Link::Signature
            || made.is_some_and(|made| self.keyring.believes(&made.fingerprint, self.host.now))
    }

    /// Of a tarball with a signature beside it: is that the one that was checked?
    fn is_by_the_signature_beside(&self, identity: &SourceIdentity) -> bool {
        let Some(Locator::Tarball { path, .. }) = self.locator else { return true };
        let is_made_by = |text: &str| {
            let sha256 = Sha256::of(text);
            let is_it = |check: &&Check| check.signature.as_ref().is_some_and(|made| made.sha256 == sha256);
            identity.checks.iter().filter(is_it).any(|check| self.believes(check))
        };
        // What cannot be read is said when it is fetched.
        tarball::signature(path).is_ok_and(|text| text.is_none_or(|text| is_made_by(&text)))
    }

    /// Is there what a bundle of this source is made of?
    fn has_archive(&self, identity: &SourceIdentity) -> bool {
        match (self.locator, identity.digest.strip_prefix("commit:")) {
            (Some(locator @ Locator::Git { url, .. }), Some(commit)) if locator.is_remote() => {
                git::has_commit(url, commit, self)
            }
            _ => identity.digest.parse().ok().is_none_or(|digest| kept::find(self.cache, digest).is_some()),
        }
    }
}

/// Is there a signature or, for what nobody signs, a pin?
fn is_signed<'a>(checks: impl IntoIterator<Item = &'a Check>, signable: Signable) -> bool {
    checks.into_iter().filter(|check| check.outcome == Outcome::Proves).any(|check| match signable {
        Signable::Yes => matches!(check.link, Link::Signature | Link::Apt),
        Signable::No => matches!(check.link, Link::Catalog | Link::LockFile),
    })
}

fn signable(identity: &SourceIdentity) -> Signable {
    match identity.version.candidate().is_some() || identity.digest.starts_with("commit:") {
        true => Signable::No,
        false => Signable::Yes,
    }
}

/// Gets the plan's source, unpatched: from the cache where it is there already.
///
/// Touches the network and the cache. Errors: exit code 3 for what cannot be fetched or does not
/// verify, 2 for a source that is no kernel tree.
pub fn obtain(plan: &Plan, fetching: &Fetching<'_>) -> Result<Tree> {
    let fetching = &Fetching { locator: Some(&plan.source.locator), ..*fetching };
    let Fetching { cache, report, .. } = *fetching;
    let source = &plan.source;
    let running = report.start(Phase::Source, &source.name);
    let cached = cached(plan, cache, fetching.offline)?.filter(|tree| fetching.accepts(&tree.identity));
    let tree = match cached {
        Some(tree) if entry::is_intact(&tree, fetching)? => {
            running.finish(&format!("Linux {} from the cache", tree.identity.version));
            tree
        }
        _ => {
            let tree = fetch(plan, fetching, &running)?;
            running.finish(&format!("Linux {}, {}", tree.identity.version, tree.identity.verified()));
            tree
        }
    };
    let tree = called_as(tree, source);
    refuse_changed(&tree.identity, fetching)?;
    if !tree.identity.is_vouched_for() {
        report.finding(format!("the source is not verified: {} ({})", source.name, tree.identity.verified()));
    }
    Ok(tree)
}

/// The plan's source as it is in the cache, if it can be told without a network and without reading it.
/// Whether it still holds what it held is open: what it is called, and what was made from it, can be told.
///
/// Errors: it has changed since its first use, or is not signed where that is required (exit code 3).
pub fn at_hand(plan: &Plan, fetching: &Fetching<'_>) -> Result<Option<Tree>> {
    let fetching = &Fetching { locator: Some(&plan.source.locator), ..*fetching };
    let found = match &plan.source.locator {
        Locator::Directory { path } => directory::recall(path, fetching)?,
        _ => cached(plan, fetching.cache, fetching.offline)?.filter(|tree| fetching.accepts(&tree.identity)),
    };
    let found = found.map(|tree| called_as(tree, &plan.source));
    if let Some(tree) = &found {
        refuse_changed(&tree.identity, fetching)?;
    }
    Ok(found)
}

/// A tree in the cache may have come under another name: that of a branch where a commit is asked for now.
fn called_as(tree: Tree, source: &SourcePlan) -> Tree {
    let origin = source.origin.clone().or(tree.identity.origin);
    Tree { identity: SourceIdentity { origin, ..tree.identity }, ..tree }
}

/// The version that a channel of kernel.org stands for today; none of `mirrors`: kernel.org's own.
pub fn resolve(channel: Channel, mirrors: &[String], fetching: &Fetching<'_>) -> Result<KernelVersion> {
    kernel_org::resolve(channel, mirrors, fetching)
}

/// A source is what it was at its first use, or `--update-lock` says otherwise.
fn refuse_changed(identity: &SourceIdentity, fetching: &Fetching<'_>) -> Result<()> {
    let locked = identity.origin.as_ref().and_then(|origin| Some((origin, fetching.lock.of(origin)?)));
    match locked.filter(|(_, locked)| locked.digest != identity.digest) {
        None => Ok(()),
        Some((origin, locked)) => Err(Error::fetch(format!(
            "{origin} has changed since its first use: {} has {}, found {}",
            lockfile::NAME,
            locked.digest,
            identity.digest
        ))
        .hint("if that is to be, --update-lock accepts it")),
    }
}

fn fetch(plan: &Plan, fetching: &Fetching<'_>, running: &Running<'_>) -> Result<Tree> {
    match &plan.source.locator {
        Locator::KernelOrg { mirrors } => kernel_org::fetch(plan.requested, mirrors, fetching, running),
        Locator::Git { url, reference } => git::fetch(url, reference, &plan.source, fetching, running),
        Locator::Apt { package, version, pin } => {
            apt::fetch(package, version.as_deref(), *pin, &plan.source, fetching, running)
        }
        Locator::Tarball { path, sha256 } => tarball::fetch(path, *sha256, fetching, running),
        Locator::Directory { path } => directory::adopt(path, fetching, running),
    }
}

/// The tree in the cache that the plan means, if it can be told without a network.
fn cached(plan: &Plan, cache: &Cache, offline: bool) -> Result<Option<Tree>> {
    let source = &plan.source;
    let has_origin = |identity: &SourceIdentity| source.origin.is_some() && identity.origin == source.origin;
    match (&source.locator, plan.requested) {
        (Locator::Directory { .. }, _) => Ok(None),
        // A branch moves: its server is asked where it is now.
        (Locator::Git { reference, .. }, _) if !offline && !git::is_commit(reference) => Ok(None),
        // It is its own digest, whatever the lock file says.
        (Locator::Git { reference, .. }, _) if source.locator.is_remote() && git::is_commit(reference) => {
            let digest = format!("commit:{}", reference.to_ascii_lowercase());
            find(cache, |identity| identity.digest == digest)
        }
        _ if source.digest.is_some() => {
            find(cache, |identity| Some(&identity.digest) == source.digest.as_ref())
        }
        // A release of kernel.org never changes: the tree that was fetched from there is it.
        (Locator::KernelOrg { .. }, VersionRequest::Exact(_)) => find(cache, has_origin),
        (Locator::KernelOrg { .. }, VersionRequest::Series(..)) if offline => find(cache, |identity| {
            let origin = release_url(KERNEL_ORG, identity.version);
            plan.requested.admits(identity.version) && identity.origin == Some(origin)
        }),
        (Locator::Apt { package, version: None, .. }, _) if offline => find(cache, |identity| {
            identity.origin.as_ref().is_some_and(|origin| origin.starts_with(&format!("apt:{package}=")))
        }),
        _ if offline => find(cache, has_origin),
        _ => Ok(None),
    }
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
    if let Some(patched) = entry::open(cache, &key)
        && entry::is_intact(&patched, fetching)?
    {
        running.finish("patched tree from the cache");
        return Ok(patched);
    }
    let scratch = cache.scratch()?;
    let copy = scratch.path.join(TREE);
    share(&tree.path, &copy)?;
    patches::apply(&plan.patches, &copy)?;
    fs::set_permissions(&copy, Permissions::from_mode(0o755))
        .context(Kind::Build, || format!("cannot patch {copy}"))?;
    contents::Contents::of(&copy)?.record(&scratch.path, &copy)?;
    // The pristine files have got another link each, which their inodes tell.
    contents::record_stat(&cache.tree(&tree.key), &tree.path)?;
    entry::write_identity(&scratch.path, &tree.identity)?;
    let patched = entry::install(fetching, &scratch.path, &key)?;
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
    let walk = WalkDir::new(from).contents_first(false).into_iter().filter_entry(contents::is_source);
    let mut dirs = Vec::new();
    for entry in walk {
        let entry = entry.context(Kind::Build, || format!("cannot read {from}"))?;
        crate::host::process::check()?;
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
