//! A kernel tree in a directory of the user's: used in place, never written to.

use super::context::FetchContext;
use super::git_program;
use super::tree::{BUILD_DIR_PREFIX, Tree};
use super::tree_manifest::STAT;
use super::walk::{self, SourceFile};
use crate::host::Host;
use crate::kernel::{KernelVersion, SourceDigest};
use crate::plan::{Check, Signable, SourceIdentity, VerificationStep};
use crate::report::{Count, PhaseGuard, Unit};
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::file_stamp;
use crate::util::fs::{check_kbuild_path, create_dir, remove_tree, write_atomically};
use crate::util::read::{Links, MAX_SMALL_FILE, open_file, read_file, read_text};
use camino::{Utf8Path, Utf8PathBuf};
use std::collections::HashSet;
use std::fs::{self};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, SystemTime};

/// Beside the builds: what the directory held, a line for each file.
const CONTENT: &str = "content";
/// The limit of that: 90,000 files take 10 MB.
const MAX_CONTENT: u64 = 64 << 20;
/// The limit of the top Makefile, which has 75 kB.
const MAX_MAKEFILE: u64 = 2 << 20;
/// A change so long ago, in nanoseconds, is over.
const RACY_WINDOW: i64 = 1_000_000_000;

/// The version of the kernel tree in a directory of the user's.
///
/// Errors (exit code 2): it holds no kernel tree, or one that the kernel's make cannot use from
/// outside (a path with spaces or colons; a tree that was built in), or a build directory.
pub fn tree_version(dir: &Utf8Path) -> Result<KernelVersion> {
    check_kbuild_path("the source directory", dir)?;
    let version = check_tree(dir, dir.as_str())?;
    match build_dir_in(dir)? {
        None => Ok(version),
        Some(name) => Err(Error::usage(format!("{dir}/{name}: a source cannot have such a name"))
            .hint("kcompile's own build directories are called so: move it out of the source, or remove it")),
    }
}

/// The first name at the top of the tree `dir` that is one of a build directory. Objects in it would be taken for
/// those of an earlier build.
pub(super) fn build_dir_in(dir: &Utf8Path) -> Result<Option<String>> {
    let message = || format!("cannot read {dir}");
    for entry in dir.read_dir_utf8().context(Kind::Usage, message)? {
        let name = entry.context(Kind::Usage, message)?.file_name().to_owned();
        if name.starts_with(BUILD_DIR_PREFIX) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// A directory that is used in place is never written to, and all of it is source: `place`, which is called
/// `what` and chosen by `option`, may not lie in it. It need not be there yet.
///
/// Errors (exit code 2): it does.
pub fn reject_inside_source(dir: &Utf8Path, (what, place): (&str, &Utf8Path), option: &str) -> Result<()> {
    match resolve(place).starts_with(resolve(dir)) {
        false => Ok(()),
        true => Err(Error::usage(format!("{what} {place} lies in the source directory {dir}"))
            .hint(format!("nothing is written there: choose another with {option} DIR"))),
    }
}

/// The path without links, as far as it is there.
fn resolve(path: &Utf8Path) -> Utf8PathBuf {
    let there = path.ancestors().find_map(|dir| Some((dir, dir.canonicalize_utf8().ok()?)));
    there.map_or(path.to_owned(), |(dir, real)| real.join(path.strip_prefix(dir).expect("an ancestor")))
}

/// Checks that `dir` holds a kernel tree that can be built from, and reads its version. `name` is
/// what the user knows it by.
pub(super) fn check_tree(dir: &Utf8Path, name: &str) -> Result<KernelVersion> {
    let not_a_tree = || {
        Error::usage(format!(
            "{name} is not a kernel tree: no Makefile with a VERSION, Kbuild and Kconfig at its top"
        ))
        .hint("a kernel tarball holds one directory, with the top of the source in it")
    };
    let makefile = read_file(dir.join("Makefile"), Links::Follow, MAX_MAKEFILE).map_err(|_| not_a_tree())?;
    let version = KernelVersion::from_makefile(&String::from_utf8_lossy(&makefile)).ok_or_else(not_a_tree)?;
    if !dir.join("Kconfig").is_file() || !dir.join("Kbuild").is_file() {
        return Err(not_a_tree());
    }
    // The rule of the top Makefile's `outputmakefile`: it stops with "The source tree is not clean".
    if dir.join(".config").exists() || dir.join("include/config").is_dir() {
        return Err(Error::usage(format!(
            "{name} has been built in: the kernel's make refuses such a tree for another build"
        ))
        .hint("clean it with `make mrproper`, which removes its .config"));
    }
    Ok(version)
}

/// Takes the directory as it is. Its digest is one of its content: of the names, modes and bytes of
/// all files but those of version control.
pub(super) fn open_in_place(path: &Utf8Path, ctx: &FetchContext<'_>, phase: &PhaseGuard<'_>) -> Result<Tree> {
    if let Some(tree) = open_recorded(path, ctx)? {
        return Ok(tree);
    }
    tree_version(path)?;
    ctx.check_signature_policy(path.as_str(), &[], Signable::Yes)?;
    let (key, builds) = cache_location(path, ctx);
    let begin = file_stamp::now();
    let files = walk::walk(path)?;
    reject_future_mtimes(path, &files)?;
    create_dir(&builds)?;
    let (before, last) = walk::stat(&files);
    let external_paths = walk::external_paths(path, &files);
    let content = content(path, &files, phase)?;
    let _lock = ctx.cache.lock(&key, ctx.reporter)?;
    invalidate_stale_builds(path, &content, (&key, &builds), ctx)?;
    // A file that was being written while it was read, or right before, is read again the next time.
    if last.saturating_add(RACY_WINDOW) < begin && stat(path)? == before {
        write_atomically(&builds.join(STAT), before.as_bytes())?;
    } else {
        remove_tree(&builds.join(STAT))?;
    }
    let state = DirectoryState { stat_hash: before, content: &content, external_paths };
    tree(path, ctx, state)
}

/// Where a Kconfig file is newer than what make has just made of it, make starts over, for ever. A clock that is
/// a little behind (a file server's) has caught up before it comes to that.
fn reject_future_mtimes(dir: &Utf8Path, files: &[SourceFile]) -> Result<()> {
    let limit = SystemTime::now() + Duration::from_secs(60);
    let is_ahead = |files: &&SourceFile| {
        files.metadata.is_file() && files.metadata.modified().is_ok_and(|modified| modified > limit)
    };
    match files.iter().find(is_ahead) {
        None => Ok(()),
        Some(files) => Err(Error::usage(format!(
            "{} is from the future: the kernel's make would never be done",
            dir.join(&files.name)
        ))
        .hint(format!("if the clock is right: find {dir} -newermt now -exec touch {{}} +"))),
    }
}

/// What the file system says of it now, as one hash.
fn stat(dir: &Utf8Path) -> Result<String> {
    Ok(walk::stat(&walk::walk(dir)?).0)
}

/// The same without reading the directory, where the file system says that it is as it was when it was
/// read last: 84,000 files are looked at, not read.
pub(super) fn open_recorded(path: &Utf8Path, ctx: &FetchContext<'_>) -> Result<Option<Tree>> {
    let (key, builds) = cache_location(path, ctx);
    let Ok(recorded) = read_text(builds.join(STAT), Links::Refuse, MAX_SMALL_FILE) else { return Ok(None) };
    tree_version(path)?;
    ctx.check_signature_policy(path.as_str(), &[], Signable::Yes)?;
    let _lock = ctx.cache.lock(&key, ctx.reporter)?;
    match read_text(builds.join(CONTENT), Links::Refuse, MAX_CONTENT) {
        Ok(content) => {
            let files = walk::walk(path)?;
            let state = DirectoryState {
                stat_hash: walk::stat(&files).0,
                content: &content,
                external_paths: walk::external_paths(path, &files),
            };
            (state.stat_hash == recorded).then(|| tree(path, ctx, state)).transpose()
        }
        _ => Ok(None),
    }
}

/// One place for the builds of this directory, whatever its content: make sees what changed.
fn cache_location(path: &Utf8Path, ctx: &FetchContext<'_>) -> (String, Utf8PathBuf) {
    let key = format!("directory-{}", Sha256::of(path.as_str()).short());
    let builds = ctx.cache.build_root(&key);
    (key, builds)
}

/// What a directory was when it was looked at.
struct DirectoryState<'a> {
    stat_hash: String,
    content: &'a str,
    external_paths: Vec<Utf8PathBuf>,
}

fn tree(path: &Utf8Path, ctx: &FetchContext<'_>, state: DirectoryState<'_>) -> Result<Tree> {
    let (key, builds) = cache_location(path, ctx);
    let identity = SourceIdentity {
        origin: None,
        digest: SourceDigest::Content(Sha256::of(state.content)),
        version: tree_version(path)?,
        date: date(path, ctx.host)?,
        checks: vec![Check::authenticated(VerificationStep::User, "a directory, used in place")],
    };
    Ok(Tree {
        path: path.to_owned(),
        builds,
        external_paths: state.external_paths,
        identity,
        key,
        stat_hash: Some(state.stat_hash),
    })
}

/// Is a directory of the user's still what it was when it was looked at? To be asked when make has ended: what
/// was compiled from another source than the plan names is no image of that plan. A tree in the cache is.
///
/// Errors (exit code 1): somebody has written there since. The next build begins with no objects.
pub fn check_unmodified(tree: &Tree) -> Result<()> {
    let Some(before) = &tree.stat_hash else { return Ok(()) };
    if stat(&tree.path)? == *before {
        return Ok(());
    }
    // Against this record every file is a new one.
    write_atomically(&tree.builds.join(CONTENT), b"")?;
    remove_tree(&tree.builds.join(STAT))?;
    Err(Error::build(format!("{} was changed while it was compiled", tree.path))
        .hint("the same command again builds what is there now"))
}

/// Make compiles anew what is newer than its object. A file that changed and is not newer (another
/// version unpacked over the directory, a restored backup) would be missed: then the builds of this
/// directory start afresh, once nobody builds in them. What it held is kept beside them from one time to the next.
fn invalidate_stale_builds(
    dir: &Utf8Path,
    content: &str,
    (key, builds): (&str, &Utf8Path),
    ctx: &FetchContext<'_>,
) -> Result<()> {
    let record = builds.join(CONTENT);
    let message = || format!("cannot read {record}");
    if record.is_file() {
        let before = read_text(&record, Links::Refuse, MAX_CONTENT).context(Kind::Build, message)?;
        let since =
            fs::metadata(&record).and_then(|record| record.modified()).context(Kind::Build, message)?;
        let before: HashSet<&str> = before.lines().collect();
        let is_old = |line: &str| {
            let (kind, name) = line.split_once("  ").unwrap_or(("", line));
            let path = dir.join(name);
            // A link and the file outside that it leads to have one name.
            let file = if kind.ends_with('l') { fs::symlink_metadata(path) } else { fs::metadata(path) };
            file.and_then(|file| file.modified()).map_or(true, |modified| modified <= since)
        };
        if content.lines().any(|line| !before.contains(line) && is_old(line)) {
            for entry in builds.read_dir_utf8().context(Kind::Build, message)?.flatten() {
                if entry.file_name().starts_with(BUILD_DIR_PREFIX) {
                    let name = format!("{key}-{}", entry.file_name());
                    let _built = ctx.cache.lock(&name, ctx.reporter)?;
                    remove_tree(entry.path())?;
                }
            }
        }
        if before.len() == content.lines().count() && content.lines().all(|line| before.contains(line)) {
            return Ok(());
        }
    }
    write_atomically(&record, content.as_bytes())
}

/// Of the commit that is checked out, where it is a git work tree; else of the top Makefile.
fn date(path: &Utf8Path, host: &Host) -> Result<u64> {
    if let Some(date) = git_program::commit_date(path, host)? {
        return Ok(date);
    }
    let makefile =
        fs::metadata(path.join("Makefile")).context(Kind::Usage, || format!("cannot read {path}"))?;
    Ok(u64::try_from(makefile.mtime()).unwrap_or(0))
}

/// A line for each file: its digest, whether it is executable or a link, two spaces, its name.
fn content(dir: &Utf8Path, files: &[SourceFile], phase: &PhaseGuard<'_>) -> Result<String> {
    let message = || format!("cannot read {dir}");
    let mut lines = String::new();
    for (count, SourceFile { name, path, metadata, resolved }) in files.iter().enumerate() {
        crate::host::process::check()?;
        let (digest, mode) = if metadata.is_dir() {
            continue;
        } else if metadata.is_symlink() {
            let mut text = fs::read_link(path).context(Kind::Usage, message)?.to_string_lossy().into_owned();
            resolved.iter().for_each(|place| text.push_str(&format!("\0{}", place.display())));
            (Sha256::of(text), 'l')
        } else {
            let file = open_file(path, Links::Follow).context(Kind::Usage, message)?;
            let executable = metadata.permissions().mode() & 0o100 != 0;
            (Sha256::of_reader(file).context(Kind::Usage, message)?, if executable { 'x' } else { '-' })
        };
        // A name with a line end in it cannot be told from two files.
        lines.push_str(&format!("{digest}{mode}  {}\n", name.as_str().replace('\n', "\\n")));
        if count % 256 == 0 {
            let item = name.as_str();
            phase.progress(Count { done: count as u64, total: None, unit: Unit::Steps, item });
        }
    }
    Ok(lines)
}
