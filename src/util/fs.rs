//! Files as this project writes them: beside their place, synced, renamed; and trees as it removes
//! them, read-only directories included.

use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::read::{Links, open_file, open_regular};
use camino::{Utf8Component, Utf8Path, Utf8PathBuf};
use rustix::fs::{Mode, OFlags};
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use tempfile::NamedTempFile;
use walkdir::WalkDir;

/// Names of files that are being written start so.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// Writes `bytes` as `path`, mode 0644 whatever the umask: a reader sees the old file or the new one.
pub fn write_atomically(path: &Utf8Path, bytes: &[u8]) -> Result<()> {
    let message = || format!("cannot write {path}");
    let dir = path.parent().unwrap_or(Utf8Path::new("."));
    let mut file = NamedTempFile::with_prefix_in(TEMPORARY, dir).context(Kind::Build, message)?;
    file.write_all(bytes).context(Kind::Build, message)?;
    persist(file, path)
}

/// Gives a finished temporary file its name, synced, with mode 0644.
pub fn persist(file: NamedTempFile, path: &Utf8Path) -> Result<()> {
    let message = || format!("cannot write {path}");
    file.as_file().set_permissions(Permissions::from_mode(0o644)).context(Kind::Build, message)?;
    file.as_file().sync_all().context(Kind::Build, message)?;
    file.persist(path).context(Kind::Build, message)?;
    Ok(())
}

/// Opens a file of kcompile's own, which is there, for writing.
pub fn open_existing(path: &Utf8Path, links: Links) -> io::Result<File> {
    open_regular(path.as_std_path(), OFlags::RDWR, links)
}

/// Opens a file of kcompile's own for writing, made with mode 0644 where it is not there. What it holds stays.
pub fn open_to_write(path: &Utf8Path, links: Links) -> io::Result<File> {
    open_regular(path.as_std_path(), OFlags::RDWR | OFlags::CREATE, links)
}

/// The same, emptied.
pub fn create_file(path: &Utf8Path, links: Links) -> io::Result<File> {
    let file = open_to_write(path, links)?;
    file.set_len(0)?;
    Ok(file)
}

/// Makes a file of ours a program, mode 0755.
pub fn make_executable(path: &Utf8Path) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(0o755))
        .context(Kind::Build, || format!("cannot make {path} a program"))
}

/// Makes `dir` and those above it; the last one gets mode 0755 whatever the umask if it is new.
pub fn create_dir(dir: &Utf8Path) -> Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir).context(Kind::Usage, || format!("cannot make the directory {dir}"))?;
    fs::set_permissions(dir, Permissions::from_mode(0o755))
        .context(Kind::Usage, || format!("cannot make {dir}"))
}

/// Refuses a path that the kernel's Makefiles would split: they pass paths through make's word lists.
///
/// `what` names the path for the user. Source of the rule: the top Makefile of every kernel stops
/// with "source directory cannot contain spaces or colons", and says nothing for `O=`.
pub fn check_kbuild_path(what: &str, path: &Utf8Path) -> Result<()> {
    match find_unsafe_char(path) {
        None => Ok(()),
        Some(bad) => Err(Error::usage(format!(
            "{what} {path}: the kernel's make cannot work in a path with `{bad}` in it"
        ))
        .hint("choose another with --cache-dir DIR or, for a source directory, another place")),
    }
}

/// The first character of `path` that make, or a shell below it, would take for something else.
pub fn find_unsafe_char(path: &Utf8Path) -> Option<char> {
    path.as_str().chars().find(|c| c.is_whitespace() || ":#$%\\'\"`*?[];&|<>()".contains(*c))
}

/// Can a file be made in `dir`? Fails early, before the work whose result would go there.
pub fn check_writable(what: &str, dir: &Utf8Path) -> Result<()> {
    match tempfile::tempfile_in(dir) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::usage(format!("{what} {dir} cannot be written")).caused_by(error)),
    }
}

/// A kernel, an archive and a list of files are smaller.
const MAX_DIGESTED: u64 = 8 << 30;

/// The digest of a file.
pub fn digest_file(path: &Utf8Path, links: Links) -> Result<Sha256> {
    let open = || {
        let file = open_file(path, links)?;
        if file.metadata()?.len() > MAX_DIGESTED {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 8 GiB"));
        }
        Ok(file.take(MAX_DIGESTED))
    };
    open().and_then(Sha256::of_reader).context(Kind::Build, || format!("cannot read {path}"))
}

/// Less than this much space is none: a compiler needs more for one file.
const NO_SPACE: u64 = 16 << 20;
/// Fewer inodes than this are none: the jobs of a make have as many files in the making at a time, and remove them
/// when they fail.
const NO_INODES: u64 = 100;

/// Is the disk of `dir` full?
pub fn is_full(dir: &Utf8Path) -> bool {
    let stats = rustix::fs::statvfs(dir.as_std_path());
    stats.is_ok_and(|disk| {
        let no_names = disk.f_files > 0 && disk.f_favail < NO_INODES;
        no_names || disk.f_bavail.saturating_mul(disk.f_frsize) < NO_SPACE
    })
}

/// Opens a directory, and nothing else: a named pipe in its place would keep us waiting.
pub fn open_dir(dir: &Utf8Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(dir.as_std_path(), flags, Mode::empty())?.into())
}

/// Syncs a directory, so that the names in it survive a crash.
pub fn sync_dir(dir: &Utf8Path) -> Result<()> {
    open_dir(dir).and_then(|dir| dir.sync_all()).context(Kind::Build, || format!("cannot sync {dir}"))
}

/// Locks a directory, so that only one run changes the files in it: nothing is left behind by that. Freed when
/// the value is dropped.
pub fn lock_dir(dir: &Utf8Path) -> Result<File> {
    let message = || format!("cannot lock {dir}");
    let dir = open_dir(dir).context(Kind::Build, message)?;
    dir.lock().context(Kind::Build, message)?;
    Ok(dir)
}

/// The path with its `.` and `..` taken away, whatever links are on it.
pub fn normalize_path(path: &Utf8Path) -> Utf8PathBuf {
    let mut plain = Utf8PathBuf::new();
    for part in path.components() {
        match part {
            Utf8Component::CurDir => {}
            Utf8Component::ParentDir => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

/// Removes `path` and all below it, read-only directories included; nothing there is no error.
/// Links are removed, never followed.
pub fn remove_tree(path: &Utf8Path) -> Result<()> {
    let message = || format!("cannot remove {path}");
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    // A directory can only be emptied when it can be written.
    for entry in WalkDir::new(path).into_iter().filter_map(std::result::Result::ok) {
        if entry.file_type().is_dir() {
            fs::set_permissions(entry.path(), Permissions::from_mode(0o755)).context(Kind::Build, message)?;
        }
    }
    match path.is_dir() && !path.is_symlink() {
        true => fs::remove_dir_all(path).context(Kind::Build, message),
        false => fs::remove_file(path).context(Kind::Build, message),
    }
}
