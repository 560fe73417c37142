//! Finds, checks and fills the entries of the cache's `trees/`. An entry gets its name when it is complete.

use super::context::FetchContext;
use super::tree::{Tree, removed_error};
use super::tree_manifest;
use crate::cache::{Cache, ScratchDir};
use crate::kernel::SourceDigest;
use crate::plan::SourceIdentity;
use crate::util::digest::Sha256;
use crate::util::error::{Kind, Result, ResultExt, cannot};
use crate::util::fs::{digest_file, remove_tree, sync_dir, write_atomically};
use crate::util::read::{Links, MAX_JSON, read_file};
use camino::Utf8Path;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

/// The tree inside an entry.
pub(super) const TREE: &str = "linux";
/// The identity of the tree. It is written last, so that an entry without it is incomplete.
const IDENTITY: &str = "source.json";

/// Returns the unpatched tree with the highest version whose identity `fits`. Prefers an authenticated tree.
pub(super) fn find(cache: &Cache, fits: impl Fn(&SourceIdentity) -> bool) -> Result<Option<Tree>> {
    let dir = cache.root.join("trees");
    let entries = dir.read_dir_utf8().context(Kind::Build, || format!("cannot read {dir}"))?;
    let names = entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_owned()))
        .filter(|name| !name.contains('+'));
    let trees = names.filter_map(|key| open(cache, &key)).filter(|tree| fits(&tree.identity));
    let rank = |tree: &Tree| (tree.identity.version, tree.identity.is_authenticated(), tree.identity.date);
    Ok(trees.max_by_key(rank))
}

/// Opens the entry `key` if it is complete. [`is_intact`] looks for damage.
pub(super) fn open(cache: &Cache, key: &str) -> Option<Tree> {
    let entry = cache.tree(key);
    let identity =
        serde_json::from_slice(&read_file(entry.join(IDENTITY), Links::Refuse, MAX_JSON).ok()?).ok()?;
    let path = entry.join(TREE);
    // Build directories cannot lie in another user's tree.
    let is_ours = rustix::fs::access(path.as_std_path(), rustix::fs::Access::WRITE_OK).is_ok();
    let builds = if is_ours { path.clone() } else { cache.build_root(key) };
    path.join("Makefile").is_file().then(|| Tree {
        builds,
        path,
        external_paths: Vec::new(),
        identity,
        key: key.to_owned(),
        stat_hash: None,
    })
}

/// Returns whether the tree has the files that were unpacked. Reports a change, and a tree of another user.
pub(super) fn is_intact(tree: &Tree, ctx: &FetchContext<'_>) -> Result<bool> {
    let entry = ctx.cache.tree(&tree.key);
    let is_intact = tree_manifest::is_intact(&entry, &tree.path)?;
    if is_intact {
        ctx.note_foreign_owner(&entry);
        tree_manifest::touch(&entry);
    } else {
        ctx.reporter.note(&format!("{} changed after it was unpacked; unpacking it again", tree.path));
    }
    Ok(is_intact)
}

/// Returns the key of the entry of a source: `sha256-…`, `commit-…`.
fn key_of(digest: &SourceDigest) -> String {
    digest.to_string().replace(':', "-")
}

/// Fills the entry of the source `digest`, unless another run has filled it meanwhile. `fill` writes the tree
/// and the record of its contents into the given directory, and returns the identity of the source.
pub(super) fn store(
    digest: &SourceDigest,
    ctx: &FetchContext<'_>,
    fill: impl FnOnce(&Utf8Path) -> Result<SourceIdentity>,
) -> Result<Tree> {
    let key = key_of(digest);
    let _lock = ctx.cache.lock(&key, ctx.reporter)?;
    if let Some(tree) = find_usable(digest, ctx)? {
        return Ok(tree);
    }
    let filled = FilledTree::new(ctx, fill)?;
    install(ctx, &filled.scratch.path, &key)
}

/// Fills an entry like [`store`], for a source whose digest is known only afterwards. The lock of `name`
/// keeps a second run from fetching the same source at the same time.
pub(super) fn store_unpinned(
    name: &str,
    ctx: &FetchContext<'_>,
    fill: impl FnOnce(&Utf8Path) -> Result<SourceIdentity>,
) -> Result<Tree> {
    let _fetching = ctx.cache.lock(&format!("fetch-{}", Sha256::of(name).short()), ctx.reporter)?;
    let filled = FilledTree::new(ctx, fill)?;
    let key = key_of(&filled.digest);
    let _lock = ctx.cache.lock(&key, ctx.reporter)?;
    match find_usable(&filled.digest, ctx)? {
        Some(tree) => Ok(tree),
        None => install(ctx, &filled.scratch.path, &key),
    }
}

/// Returns the entry of the source `digest`, if it is complete, intact and accepted by this run.
pub(super) fn find_usable(digest: &SourceDigest, ctx: &FetchContext<'_>) -> Result<Option<Tree>> {
    match open(ctx.cache, &key_of(digest)).filter(|tree| ctx.accepts(&tree.identity)) {
        Some(tree) if is_intact(&tree, ctx)? => Ok(Some(tree)),
        _ => Ok(None),
    }
}

/// A complete tree without a name.
struct FilledTree {
    scratch: ScratchDir,
    digest: SourceDigest,
}

impl FilledTree {
    fn new(
        ctx: &FetchContext<'_>,
        fill: impl FnOnce(&Utf8Path) -> Result<SourceIdentity>,
    ) -> Result<FilledTree> {
        let scratch = ctx.cache.scratch()?;
        let identity = fill(&scratch.path.join(TREE))?;
        write_identity(&scratch.path, &identity)?;
        Ok(FilledTree { scratch, digest: identity.digest })
    }
}

pub(super) fn write_identity(dir: &Utf8Path, identity: &SourceIdentity) -> Result<()> {
    write_atomically(&dir.join(IDENTITY), &serde_json::to_vec_pretty(identity).expect("plain strings"))
}

/// Moves a filled directory to its final name. An entry with the same files stays, with the builds in it.
/// Another one is removed once nobody builds there. The caller holds the lock of `key`.
pub(super) fn install(ctx: &FetchContext<'_>, filled: &Utf8Path, key: &str) -> Result<Tree> {
    let FetchContext { cache, reporter, .. } = *ctx;
    let entry = cache.tree(key);
    if has_same_files(cache, key, filled)? {
        fs::rename(filled.join(IDENTITY), entry.join(IDENTITY))
            .context(Kind::Build, cannot("install the tree", &entry))?;
    } else {
        let _builds = cache.lock_all(&format!("{key}-"), reporter)?;
        remove_tree(&entry)?;
        let moved = || -> std::io::Result<()> {
            fs::create_dir(&entry)?;
            fs::set_permissions(&entry, Permissions::from_mode(0o755))?;
            // Renaming a directory changes its `..`, so the top of the tree is writable.
            for name in [TREE, tree_manifest::FILES, tree_manifest::STAT, IDENTITY] {
                fs::rename(filled.join(name), entry.join(name))?;
            }
            Ok(())
        };
        moved().context(Kind::Build, cannot("install the tree", &entry))?;
    }
    sync_dir(&entry)?;
    open(cache, key).ok_or_else(|| removed_error(&entry))
}

/// Returns whether the entry `key` is complete and intact, with the same files as the tree in `filled`.
fn has_same_files(cache: &Cache, key: &str, filled: &Utf8Path) -> Result<bool> {
    let entry = cache.tree(key);
    let recorded = |dir: &Utf8Path| digest_file(&dir.join(tree_manifest::FILES), Links::Refuse).ok();
    match open(cache, key) {
        Some(tree) if recorded(&entry).is_some_and(|files| recorded(filled) == Some(files)) => {
            tree_manifest::is_intact(&entry, &tree.path)
        }
        _ => Ok(false),
    }
}
