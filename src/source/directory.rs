//! A kernel tree in a user's directory, which is used in place and never written to.

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

/// The record beside the builds, with a line for each file of the directory.
const CONTENT: &str = "content";
/// The limit of that record. 90,000 files take 10 MB.
const MAX_CONTENT: u64 = 64 << 20;
/// The limit of the top Makefile, which has 75 kB.
const MAX_MAKEFILE: u64 = 2 << 20;
/// The age of a change, in nanoseconds, after which its writer is expected to be done.
const RACY_WINDOW: i64 = 1_000_000_000;

/// Returns the version of the kernel tree in a user's directory.
///
/// # Errors
///
/// Exit code 2: there is no kernel tree, make cannot use it from outside (a path with spaces or colons, or a
/// tree that was built in), or it contains a build directory.
pub fn tree_version(dir: &Utf8Path) -> Result<KernelVersion> {
    check_kbuild_path("the source directory", dir)?;
    let version = check_tree(dir, dir.as_str())?;
    match build_dir_in(dir)? {
        None => Ok(version),
        Some(name) => {
            Err(Error::usage(format!("{dir}/{name}: the name is reserved for build directories of kcompile"))
                .hint("move it out of the source, or remove it"))
        }
    }
}

/// Returns a name at the top of the tree `dir` that a build directory may have. Objects in it would look like
/// those of an earlier build.
pub(super) fn build_dir_in(dir: &Utf8Path) -> Result<Option<String>> {
    let names = dir.read_dir_utf8().and_then(|entries| {
        entries.map(|entry| Ok(entry?.file_name().to_owned())).collect::<std::io::Result<Vec<String>>>()
    });
    let names = names.context(Kind::Usage, || format!("cannot read {dir}"))?;
    Ok(names.into_iter().find(|name| name.starts_with(BUILD_DIR_PREFIX)))
}

/// Checks that `place`, which may not exist yet, is outside of the source directory `dir`. That directory is
/// never written to, and everything in it is source. `what` and `option` name the place in errors.
///
/// # Errors
///
/// Exit code 2: it lies in the source directory.
pub fn reject_inside_source(dir: &Utf8Path, place: &Utf8Path, what: &str, option: &str) -> Result<()> {
    if resolve(place).starts_with(resolve(dir)) {
        return Err(Error::usage(format!("{what} {place} is inside the source directory {dir}"))
            .hint(format!("kcompile never writes to a source directory; choose another with {option} DIR")));
    }
    Ok(())
}

/// Resolves the links in a path, as far as it exists.
fn resolve(path: &Utf8Path) -> Utf8PathBuf {
    let there = path.ancestors().find_map(|dir| Some((dir, dir.canonicalize_utf8().ok()?)));
    there.map_or(path.to_owned(), |(dir, real)| real.join(path.strip_prefix(dir).expect("an ancestor")))
}

/// Returns the version of the kernel tree in `dir`, which must be clean. `name` is for errors.
pub(super) fn check_tree(dir: &Utf8Path, name: &str) -> Result<KernelVersion> {
    let not_a_tree = || {
        let error = Error::usage(format!(
            "{name} is not a kernel tree: its top directory needs a Makefile with a VERSION, Kbuild and Kconfig"
        ));
        match nested_tree(dir) {
            Some(nested) => error.hint(format!(
                "the source is in its directory `{nested}`: give that directory, unpacked, as --source"
            )),
            None => error
                .hint("give the top directory of a kernel's source, or a tarball with only that directory"),
        }
    };
    let makefile = read_file(dir.join("Makefile"), Links::Follow, MAX_MAKEFILE).map_err(|_| not_a_tree())?;
    let version = KernelVersion::from_makefile(&String::from_utf8_lossy(&makefile)).ok_or_else(not_a_tree)?;
    if !dir.join("Kconfig").is_file() || !dir.join("Kbuild").is_file() {
        return Err(not_a_tree());
    }
    match left_by_build(dir) {
        None => Ok(version),
        Some(BuildTrace { path, mrproper }) => Err(Error::usage(format!(
            "{name} contains a build: it has {path}, but the kernel's make needs a clean tree to build elsewhere"
        ))
        .hint(format!("clean it with `{mrproper}`, which also removes its .config"))),
    }
}

/// Something that a build leaves in its source, and the command that removes it.
struct BuildTrace {
    path: String,
    mrproper: String,
}

/// Returns why `outputmakefile` of the top Makefile would stop with "The source tree is not clean".
fn left_by_build(dir: &Utf8Path) -> Option<BuildTrace> {
    let of_arch = |arch: &str| BuildTrace {
        path: format!("arch/{arch}/include/generated"),
        mrproper: format!("make ARCH={arch} mrproper"),
    };
    let trace = |path: &str| BuildTrace { path: path.to_owned(), mrproper: "make mrproper".to_owned() };
    if dir.join(".config").exists() {
        return Some(trace(".config"));
    }
    if dir.join("include/config").is_dir() {
        return Some(trace("include/config"));
    }
    let mut arches = dir.join("arch").read_dir_utf8().into_iter().flatten().flatten();
    let generated = arches.find(|arch| arch.path().join("include/generated").is_dir());
    generated.map(|arch| of_arch(arch.file_name()))
}

/// Returns a directory of `dir` that looks like a kernel tree.
fn nested_tree(dir: &Utf8Path) -> Option<String> {
    let is_tree =
        |path: &Utf8Path| ["Makefile", "Kbuild", "Kconfig"].iter().all(|name| path.join(name).is_file());
    let found = dir.read_dir_utf8().ok()?.flatten().find(|entry| is_tree(entry.path()));
    Some(found?.file_name().escape_debug().to_string())
}

/// Opens the directory in place. Its digest covers all files except those of version control.
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
    invalidate_stale_builds(path, &content, &key, &builds, ctx)?;
    // If a file was written during or right before the reading, all files are read again the next time.
    if last.saturating_add(RACY_WINDOW) < begin && stat(path)? == before {
        write_atomically(&builds.join(STAT), before.as_bytes())?;
    } else {
        remove_tree(&builds.join(STAT))?;
    }
    let state = DirectoryState { stat_hash: before, content: &content, external_paths };
    tree(path, ctx, state)
}

/// Refuses files from the future. If a Kconfig file is newer than its output, make restarts without end. A
/// minute allows for the clock of a file server, which make's work outlasts.
fn reject_future_mtimes(dir: &Utf8Path, files: &[SourceFile]) -> Result<()> {
    let limit = SystemTime::now() + Duration::from_secs(60);
    let is_ahead = |file: &&SourceFile| {
        file.metadata.is_file() && file.metadata.modified().is_ok_and(|modified| modified > limit)
    };
    match files.iter().find(is_ahead) {
        None => Ok(()),
        Some(file) => Err(Error::usage(format!(
            "{} has a modification time in the future, which keeps the kernel's make from ending",
            dir.join(&file.name)
        ))
        .hint(format!("if the clock is right, run `find {dir} -newermt now -exec touch {{}} +`"))),
    }
}

/// Hashes the metadata of the directory.
fn stat(dir: &Utf8Path) -> Result<String> {
    Ok(walk::stat(&walk::walk(dir)?).0)
}

/// Opens the directory without reading its files, if their metadata is the same as at the last reading.
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

/// Returns the key and the build root of this directory. They are the same for any content.
fn cache_location(path: &Utf8Path, ctx: &FetchContext<'_>) -> (String, Utf8PathBuf) {
    let key = format!("directory-{}", Sha256::of(path.as_str()).short());
    let builds = ctx.cache.build_root(&key);
    (key, builds)
}

/// The state of a directory when it was read.
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

/// Checks after make that nobody has changed a user's directory meanwhile, since the images must match the
/// plan. Trees in the cache never change.
///
/// # Errors
///
/// Exit code 1: the directory has changed. The next build begins without objects.
pub fn check_unmodified(tree: &Tree) -> Result<()> {
    let Some(before) = &tree.stat_hash else { return Ok(()) };
    if stat(&tree.path)? == *before {
        return Ok(());
    }
    // With an empty record, every file is new.
    write_atomically(&tree.builds.join(CONTENT), b"")?;
    remove_tree(&tree.builds.join(STAT))?;
    Err(Error::build(format!("{} was changed while it was compiled", tree.path))
        .hint("run the same command again to build the changed source"))
}

/// Removes the builds of this directory, once nobody builds there, if a file changed that is not newer than
/// its object. Make would not compile it again. This happens if another version is unpacked over the
/// directory, or a backup is restored. The record of the content lies beside the builds.
fn invalidate_stale_builds(
    dir: &Utf8Path,
    content: &str,
    key: &str,
    builds: &Utf8Path,
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
            // A link and its target outside of the directory have the same name.
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

/// Returns the date of the checked out commit, or else of the top Makefile.
fn date(path: &Utf8Path, host: &Host) -> Result<u64> {
    if let Some(date) = git_program::commit_date(path, host)? {
        return Ok(date);
    }
    let makefile =
        fs::metadata(path.join("Makefile")).context(Kind::Usage, || format!("cannot read {path}"))?;
    Ok(u64::try_from(makefile.mtime()).unwrap_or(0))
}

/// Returns a line for each file: digest, kind (`-`, `x` for an executable, `l` for a link), name.
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
        // An unescaped line feed in a name would look like two files.
        lines.push_str(&format!("{digest}{mode}  {}\n", name.as_str().replace('\n', "\\n")));
        if count % 256 == 0 {
            let item = name.as_str();
            phase.progress(Count {
                done: count as u64,
                total: None,
                estimated: false,
                work: None,
                unit: Unit::Steps,
                item,
            });
        }
    }
    Ok(lines)
}
