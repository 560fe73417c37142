//! Writes files beside their place, syncs and renames them. Removes trees, even read-only ones.

use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::read::{Links, open_file, open_regular};
use camino::{Utf8Component, Utf8Path, Utf8PathBuf};
use rustix::fs::{Mode, OFlags};
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use tempfile::NamedTempFile;
use walkdir::WalkDir;

/// The prefix of names of files that are being written.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// Writes `bytes` to `path` with mode 0644. A reader sees the old file or the new one.
pub fn write_atomically(path: &Utf8Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = NamedTempFile::with_prefix_in(TEMPORARY, path.parent().unwrap_or(Utf8Path::new(".")))?;
        file.write_all(bytes)?;
        Ok::<_, io::Error>(file)
    };
    persist(write().context(Kind::Build, || format!("cannot write {path}"))?, path)
}

/// Syncs a finished temporary file and renames it to `path`, with mode 0644.
pub fn persist(file: NamedTempFile, path: &Utf8Path) -> Result<()> {
    let persist = || {
        file.as_file().set_permissions(Permissions::from_mode(0o644))?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)
    };
    persist().context(Kind::Build, || format!("cannot write {path}"))?;
    Ok(())
}

/// Opens an existing file of kcompile for writing.
pub fn open_existing(path: &Utf8Path, links: Links) -> io::Result<File> {
    open_regular(path.as_std_path(), OFlags::RDWR, links)
}

/// Opens a file of kcompile for writing. Creates it with mode 0644 if needed, and keeps its content.
pub fn open_to_write(path: &Utf8Path, links: Links) -> io::Result<File> {
    open_regular(path.as_std_path(), OFlags::RDWR | OFlags::CREATE, links)
}

/// Opens a file like [`open_to_write`], and empties it.
pub fn create_file(path: &Utf8Path, links: Links) -> io::Result<File> {
    let file = open_to_write(path, links)?;
    file.set_len(0)?;
    Ok(file)
}

/// Gives a file of kcompile mode 0755.
pub fn make_executable(path: &Utf8Path) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(0o755))
        .context(Kind::Build, || format!("cannot make {path} executable"))
}

/// Creates `dir` and its parents. A new `dir` gets mode 0755, independent of the umask.
pub fn create_dir(dir: &Utf8Path) -> Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir)
        .and_then(|()| fs::set_permissions(dir, Permissions::from_mode(0o755)))
        .context(Kind::Usage, || format!("cannot create the directory {dir}"))
}

/// Refuses a path that make would split. The kernel's Makefiles pass paths through make's word lists.
///
/// `what` names the path for the user. The top Makefile of every kernel stops with "source directory cannot
/// contain spaces or colons", but does not check `O=`.
pub fn check_kbuild_path(what: &str, path: &Utf8Path) -> Result<()> {
    match find_unsafe_char(path) {
        None => Ok(()),
        Some(bad) => Err(Error::usage(format!(
            "{what} {path}: the kernel's make cannot work in a path with `{bad}` in it"
        ))
        .hint("choose another with --cache-dir DIR or, for a source directory, move it")),
    }
}

/// Returns the first character of `path` that has a meaning to make or to a shell.
pub fn find_unsafe_char(path: &Utf8Path) -> Option<char> {
    path.as_str().chars().find(|c| c.is_whitespace() || ":#$%\\'\"`*?[];&|<>()".contains(*c))
}

/// Fails if no file can be created in `dir`, before the work whose result would go there. `what` names it for the user.
pub fn check_writable(what: &str, dir: &Utf8Path) -> Result<()> {
    match tempfile::tempfile_in(dir) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::usage(format!("cannot write in {what}")).caused_by(error)),
    }
}

/// The limit of a file that is hashed. Kernels, archives and lists of files are smaller.
const MAX_DIGESTED: u64 = 8 << 30;

/// Returns the digest of a file.
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

/// A disk with less space is full. A compiler needs more for one file.
const MIN_SPACE: u64 = 16 << 20;
/// A disk with fewer inodes is full. The jobs of make write as many temporary files at a time.
const MIN_INODES: u64 = 100;

/// Returns whether the disk of `dir` is full.
pub fn is_full(dir: &Utf8Path) -> bool {
    rustix::fs::statvfs(dir.as_std_path()).is_ok_and(|disk| {
        (disk.f_files > 0 && disk.f_favail < MIN_INODES)
            || disk.f_bavail.saturating_mul(disk.f_frsize) < MIN_SPACE
    })
}

/// Returns the bytes that this user may still write to the disk of `dir`.
pub fn free_space(dir: &Utf8Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(dir.as_std_path()).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Returns the bytes on disk of everything at and below `path`.
pub fn disk_usage(path: &Utf8Path) -> u64 {
    let files = WalkDir::new(path).into_iter().flatten();
    files.filter_map(|entry| entry.metadata().ok()).map(|file| file.blocks() * 512).sum()
}

/// Opens a directory. Refuses everything else, since a named pipe would block.
pub fn open_dir(dir: &Utf8Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(dir.as_std_path(), flags, Mode::empty())?.into())
}

/// Syncs a directory, so that the names in it survive a crash.
pub fn sync_dir(dir: &Utf8Path) -> Result<()> {
    open_dir(dir).and_then(|dir| dir.sync_all()).context(Kind::Build, || format!("cannot sync {dir}"))
}

/// Locks a directory, so that only one run changes its files. The lock needs no file.
pub fn lock_dir(dir: &Utf8Path) -> Result<File> {
    let lock = || {
        let dir = open_dir(dir)?;
        dir.lock()?;
        Ok::<_, io::Error>(dir)
    };
    lock().context(Kind::Build, || format!("cannot lock {dir}"))
}

/// Returns `path` without `.` and `..`. Does not look at links.
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

/// Removes `path` and everything below it, read-only directories included. Does nothing if `path` does not
/// exist. Removes links and never follows them.
pub fn remove_tree(path: &Utf8Path) -> Result<()> {
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    let remove = || {
        // Only a writable directory can be emptied.
        for entry in WalkDir::new(path).into_iter().filter_map(std::result::Result::ok) {
            if entry.file_type().is_dir() {
                fs::set_permissions(entry.path(), Permissions::from_mode(0o755))?;
            }
        }
        if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
    };
    remove().context(Kind::Build, || format!("cannot remove {path}"))
}
