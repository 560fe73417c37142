//! A kernel tree in a directory of the user's: used in place, never written to.

use super::context::Fetching;
use super::git_program;
use super::tree::{BUILD_DIR_PREFIX, Tree};
use super::tree_manifest::STAT;
use super::walk::{self, Found};
use crate::host::Host;
use crate::kernel::{KernelVersion, SourceDigest};
use crate::plan::{Check, Link, Signable, SourceIdentity};
use crate::report::{Count, Running, Unit};
use crate::util::digest::Sha256;
use crate::util::error::{Context, Error, Kind, Result};
use crate::util::file_stamp;
use crate::util::fs::{check_kbuild_path, create_dir, remove_tree, write_atomically};
use crate::util::read::{Links, MAX_NOTE, open_file, read_file, read_text};
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
const SETTLED: i64 = 1_000_000_000;

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
    let wrong = || format!("cannot read {dir}");
    for entry in dir.read_dir_utf8().context(Kind::Usage, wrong)? {
        let name = entry.context(Kind::Usage, wrong)?.file_name().to_owned();
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
pub fn keep_out(dir: &Utf8Path, (what, place): (&str, &Utf8Path), option: &str) -> Result<()> {
    match real(place).starts_with(real(dir)) {
        false => Ok(()),
        true => Err(Error::usage(format!("{what} {place} lies in the source directory {dir}"))
            .hint(format!("nothing is written there: choose another with {option} DIR"))),
    }
}

/// The path without links, as far as it is there.
fn real(path: &Utf8Path) -> Utf8PathBuf {
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
pub(super) fn adopt(path: &Utf8Path, fetching: &Fetching<'_>, running: &Running<'_>) -> Result<Tree> {
    if let Some(tree) = recall(path, fetching)? {
        return Ok(tree);
    }
    tree_version(path)?;
    fetching.require_signature(path.as_str(), &[], Signable::Yes)?;
    let (key, builds) = place(path, fetching);
    let begin = file_stamp::now();
    let found = walk::walk(path)?;
    refuse_the_future(path, &found)?;
    create_dir(&builds)?;
    let (before, last) = walk::stat(&found);
    let outside = walk::outside(path, &found);
    let content = content(path, &found, running)?;
    let _lock = fetching.cache.lock(&key, fetching.report)?;
    forget_what_make_cannot_see(path, &content, (&key, &builds), fetching)?;
    // A file that was being written while it was read, or right before, is read again the next time.
    if last.saturating_add(SETTLED) < begin && stat(path)? == before {
        write_atomically(&builds.join(STAT), before.as_bytes())?;
    } else {
        remove_tree(&builds.join(STAT))?;
    }
    let state = State { stat: before, content: &content, outside };
    tree(path, fetching, state)
}

/// Where a Kconfig file is newer than what make has just made of it, make starts over, for ever. A clock that is
/// a little behind (a file server's) has caught up before it comes to that.
fn refuse_the_future(dir: &Utf8Path, found: &[Found]) -> Result<()> {
    let limit = SystemTime::now() + Duration::from_secs(60);
    let is_ahead = |found: &&Found| {
        found.metadata.is_file() && found.metadata.modified().is_ok_and(|modified| modified > limit)
    };
    match found.iter().find(is_ahead) {
        None => Ok(()),
        Some(found) => Err(Error::usage(format!(
            "{} is from the future: the kernel's make would never be done",
            dir.join(&found.name)
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
pub(super) fn recall(path: &Utf8Path, fetching: &Fetching<'_>) -> Result<Option<Tree>> {
    let (key, builds) = place(path, fetching);
    let Ok(recorded) = read_text(builds.join(STAT), Links::Refuse, MAX_NOTE) else { return Ok(None) };
    tree_version(path)?;
    fetching.require_signature(path.as_str(), &[], Signable::Yes)?;
    let _lock = fetching.cache.lock(&key, fetching.report)?;
    match read_text(builds.join(CONTENT), Links::Refuse, MAX_CONTENT) {
        Ok(content) => {
            let found = walk::walk(path)?;
            let state =
                State { stat: walk::stat(&found).0, content: &content, outside: walk::outside(path, &found) };
            (state.stat == recorded).then(|| tree(path, fetching, state)).transpose()
        }
        _ => Ok(None),
    }
}

/// One place for the builds of this directory, whatever its content: make sees what changed.
fn place(path: &Utf8Path, fetching: &Fetching<'_>) -> (String, Utf8PathBuf) {
    let key = format!("directory-{}", Sha256::of(path.as_str()).short());
    let builds = fetching.cache.own_builds(&key);
    (key, builds)
}

/// What a directory was when it was looked at.
struct State<'a> {
    stat: String,
    content: &'a str,
    outside: Vec<Utf8PathBuf>,
}

fn tree(path: &Utf8Path, fetching: &Fetching<'_>, state: State<'_>) -> Result<Tree> {
    let (key, builds) = place(path, fetching);
    let identity = SourceIdentity {
        origin: None,
        digest: SourceDigest::Content(Sha256::of(state.content)),
        version: tree_version(path)?,
        date: date(path, fetching.host)?,
        checks: vec![Check::proves(Link::User, "a directory, used in place")],
    };
    Ok(Tree { path: path.to_owned(), builds, outside: state.outside, identity, key, stat: Some(state.stat) })
}

/// Is a directory of the user's still what it was when it was looked at? To be asked when make has ended: what
/// was compiled from another source than the plan names is no image of that plan. A tree in the cache is.
///
/// Errors (exit code 1): somebody has written there since. The next build begins with no objects.
pub fn still_the_same(tree: &Tree) -> Result<()> {
    let Some(before) = &tree.stat else { return Ok(()) };
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
fn forget_what_make_cannot_see(
    dir: &Utf8Path,
    content: &str,
    (key, builds): (&str, &Utf8Path),
    fetching: &Fetching<'_>,
) -> Result<()> {
    let record = builds.join(CONTENT);
    let wrong = || format!("cannot read {record}");
    if record.is_file() {
        let before = read_text(&record, Links::Refuse, MAX_CONTENT).context(Kind::Build, wrong)?;
        let since = fs::metadata(&record).and_then(|record| record.modified()).context(Kind::Build, wrong)?;
        let before: HashSet<&str> = before.lines().collect();
        let is_old = |line: &str| {
            let (kind, name) = line.split_once("  ").unwrap_or(("", line));
            let path = dir.join(name);
            // A link and the file outside that it leads to have one name.
            let file = if kind.ends_with('l') { fs::symlink_metadata(path) } else { fs::metadata(path) };
            file.and_then(|file| file.modified()).map_or(true, |modified| modified <= since)
        };
        if content.lines().any(|line| !before.contains(line) && is_old(line)) {
            for entry in builds.read_dir_utf8().context(Kind::Build, wrong)?.flatten() {
                if entry.file_name().starts_with(BUILD_DIR_PREFIX) {
                    let name = format!("{key}-{}", entry.file_name());
                    let _built = fetching.cache.lock(&name, fetching.report)?;
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
fn content(dir: &Utf8Path, found: &[Found], running: &Running<'_>) -> Result<String> {
    let wrong = || format!("cannot read {dir}");
    let mut lines = String::new();
    for (count, Found { name, path, metadata, resolved }) in found.iter().enumerate() {
        crate::host::process::check()?;
        let (digest, mode) = if metadata.is_dir() {
            continue;
        } else if metadata.is_symlink() {
            let mut text = fs::read_link(path).context(Kind::Usage, wrong)?.to_string_lossy().into_owned();
            resolved.iter().for_each(|place| text.push_str(&format!("\0{}", place.display())));
            (Sha256::of(text), 'l')
        } else {
            let file = open_file(path, Links::Follow).context(Kind::Usage, wrong)?;
            let executable = metadata.permissions().mode() & 0o100 != 0;
            (Sha256::of_reader(file).context(Kind::Usage, wrong)?, if executable { 'x' } else { '-' })
        };
        // A name with a line end in it cannot be told from two files.
        lines.push_str(&format!("{digest}{mode}  {}\n", name.as_str().replace('\n', "\\n")));
        if count % 256 == 0 {
            let item = name.as_str();
            running.progress(Count { done: count as u64, total: None, unit: Unit::Steps, item });
        }
    }
    Ok(lines)
}
