//! The cache directory: what lies where, and who may touch it now.
//!
//! ```text
//! trees/<source>[+<patches>]/linux/    a pristine, read-only kernel tree; builds are direct children of it
//! trees/<source>[+<patches>]/source.json   written last: without it the tree is not whole
//! trees/<source>[+<patches>]/{files,stat}   what it holds, to tell later whether it still does
//! partial/<digest>.<server>.partial    what has come of an archive that is being downloaded, from one server
//! archives/<sha256>[.json|.zst]        archives as they were sent, and what proves them
//! releases/<server>.json               kernel.org's list of releases, as old as the file
//! kcompile.lock                        what sources were at their first use, unless that is beside the user's configs
//! git/<url>/                           bare repositories, fetched to depth 1
//! builds/<source>/                     build directories of sources that are used in place, or are another user's
//! images/<plan>/                       the images that a plan made, to put them back without compiling
//! known/<question>.json                what was found out at some cost, and what it was found out from
//! history/<plan>.json                  how many steps and seconds a plan took: for estimates
//! boots/<image>.log                    the console of an image's last boot
//! locks/<name>.lock                    held while the entry of that name is written or built in
//! tmp/                                 work in progress, locked by its owner; what has none is removed
//! ```

pub mod memo;
pub mod permissions;

use crate::report::Reporter;
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::fs::{
    check_kbuild_path, check_writable, create_dir, lock_dir, open_dir, open_existing, open_to_write,
    remove_tree,
};
use crate::util::read::{Links, open_file};
use camino::{Utf8Path, Utf8PathBuf};
use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use tempfile::TempDir;

/// Names in `tmp/` start so.
const SCRATCH_PREFIX: &str = "work-";

/// An existing, writable cache directory.
#[derive(Clone, Debug)]
pub struct Cache {
    /// Absolute.
    pub root: Utf8PathBuf,
    /// Whose process this is.
    pub uid: u32,
}

impl Cache {
    /// Makes the directory where it is not there yet, and removes what killed runs left in `tmp/`.
    ///
    /// Errors (exit code 2): a path that the kernel's make cannot work in, one that cannot be written, or one in which
    /// other users may replace files.
    pub fn open(root: &Utf8Path, uid: u32) -> Result<Cache> {
        let what = "the cache directory";
        check_kbuild_path(what, root)?;
        create_dir(root)?;
        // Kbuild sees the real path: it must be fit, too, and the same whatever link led here.
        let root =
            root.canonicalize_utf8().context(Kind::Usage, || format!("{what} {root} cannot be used"))?;
        check_kbuild_path(what, &root)?;
        permissions::check(&root, uid)?;
        // Who may write in the directory may share what is in it.
        let shared = mode_of(&root)? & 0o1022;
        for dir in [
            "trees", "partial", "archives", "releases", "git", "builds", "history", "images", "known",
            "boots", "locks", "tmp",
        ] {
            let dir = root.join(dir);
            match dir.symlink_metadata() {
                Err(_) => {
                    create_dir(&dir)?;
                    fs::set_permissions(&dir, Permissions::from_mode(0o755 | shared))
                        .context(Kind::Usage, || format!("cannot make {dir}"))?;
                }
                Ok(found) if found.is_dir() => permissions::check(&dir, uid)?,
                Ok(_) => {
                    return Err(Error::usage(format!("{dir} is in the way: it is not a directory"))
                        .hint("remove it, or choose another cache with --cache-dir DIR"));
                }
            }
        }
        check_writable(what, &root.join("tmp"))?;
        let cache = Cache { root, uid };
        cache.sweep()?;
        Ok(cache)
    }

    /// Removes the scratch directories whose owners are gone: an owner holds a lock on its directory.
    fn sweep(&self) -> Result<()> {
        let tmp = self.root.join("tmp");
        let _guard = self.lock_tmp()?;
        for entry in tmp.read_dir_utf8().context(Kind::Build, || format!("cannot read {tmp}"))? {
            let Ok(entry) = entry else { continue };
            if !entry.file_name().starts_with(SCRATCH_PREFIX) || entry.path().is_symlink() {
                continue;
            }
            if open_dir(entry.path()).is_ok_and(|dir| dir.try_lock().is_ok()) {
                // What another user has left is for that user's next run.
                let _ = remove_tree(entry.path());
            }
        }
        Ok(())
    }

    /// Where a tree of this key lies or will lie.
    pub fn tree(&self, key: &str) -> Utf8PathBuf {
        self.root.join("trees").join(key)
    }

    /// Returns the owner of `path`, which lies in the cache, where that is neither the caller nor root.
    pub fn foreign_owner(&self, path: &Utf8Path) -> Option<u32> {
        let owner = fs::symlink_metadata(path).ok()?.uid();
        Some(owner).filter(|owner| ![self.uid, 0].contains(owner))
    }

    /// Where the caller's build directories for the tree `key` lie when they cannot lie in the tree.
    pub fn build_root(&self, key: &str) -> Utf8PathBuf {
        self.root.join("builds").join(format!("{key}-{}", self.uid))
    }

    /// A directory for work in progress, on the same file system as everything else here.
    pub fn scratch(&self) -> Result<ScratchDir> {
        let tmp = self.root.join("tmp");
        let message = || format!("cannot make a directory in {tmp}");
        let _guard = self.lock_tmp()?;
        let dir = TempDir::with_prefix_in(SCRATCH_PREFIX, &tmp).context(Kind::Build, message)?;
        let path =
            Utf8Path::from_path(dir.path()).expect("below the cache directory, which is UTF-8").to_owned();
        let lock = open_dir(&path).context(Kind::Build, message)?;
        lock.try_lock().context(Kind::Build, message)?;
        // It is removed by `ScratchDir`.
        let _ = dir.keep();
        Ok(ScratchDir { path, _lock: lock })
    }

    /// Keeps other runs from sweeping between the making of a scratch directory and its lock.
    fn lock_tmp(&self) -> Result<File> {
        lock_dir(&self.root.join("tmp"))
    }

    /// Returns where the part of the archive of this digest is kept that has come from `url`. What one server
    /// sends is never continued by another: one that sends wrong bytes would spoil what the other has.
    pub fn partial(&self, digest: Sha256, url: &str) -> Utf8PathBuf {
        self.root.join("partial").join(format!("{digest}.{}.partial", Sha256::of(url).short()))
    }

    /// Takes the lock `name`, waiting for another run that holds it.
    pub fn lock(&self, name: &str, reporter: &Reporter) -> Result<Lock> {
        lock_file(&self.lock_path(name), reporter)
    }

    /// Takes the lock `name` if nobody holds it.
    pub fn try_lock(&self, name: &str) -> Result<Option<Lock>> {
        let path = self.lock_path(name);
        let message = || format!("cannot lock {path}");
        let file = open_file(&path, Links::RefuseAnywhere).context(Kind::Build, message)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).context(Kind::Build, message),
        }
    }

    /// Takes all locks whose names begin with `start`, waiting for the runs that hold them.
    pub fn lock_all(&self, start: &str, reporter: &Reporter) -> Result<Vec<Lock>> {
        self.lock_names(start)?.iter().map(|name| self.lock(name, reporter)).collect()
    }

    /// The locks that there are, held or not, whose names begin with `start`; sorted.
    pub fn lock_names(&self, start: &str) -> Result<Vec<String>> {
        let dir = self.root.join("locks");
        let entries = dir.read_dir_utf8().context(Kind::Build, || format!("cannot read {dir}"))?;
        let mut names: Vec<String> = entries
            .filter_map(|entry| Some(entry.ok()?.file_name().strip_suffix(".lock")?.to_owned()))
            .filter(|name| name.starts_with(start))
            .collect();
        names.sort();
        Ok(names)
    }

    fn lock_path(&self, name: &str) -> Utf8PathBuf {
        self.root.join("locks").join(format!("{name}.lock"))
    }
}

/// A directory for work in progress; removed when dropped, read-only trees in it included.
#[derive(Debug)]
pub struct ScratchDir {
    /// Absolute.
    pub path: Utf8PathBuf,
    _lock: File,
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next run.
        let _ = remove_tree(&self.path);
    }
}

/// A lock; freed when dropped, and by the kernel when its holder dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the lock file `path`, made where it is not there, and writes our process number into it.
/// Says for whom it waits.
pub fn lock_file(path: &Utf8Path, reporter: &Reporter) -> Result<Lock> {
    let message = || format!("cannot lock {path}");
    // In a directory that everybody may write the kernel opens another's file only without O_CREAT
    // (fs.protected_regular in proc(5)). A link in the place of a lock would have its target overwritten.
    let opened = match open_existing(path, Links::Refuse) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            open_to_write(path, Links::Refuse).inspect(|file| {
                // Whoever may make a lock here may take this one.
                let shared = path.parent().and_then(|dir| mode_of(dir).ok()).unwrap_or(0) & 0o022;
                let _ = file.set_permissions(Permissions::from_mode(0o644 | shared));
            })
        }
        opened => opened,
    };
    let mut file = opened.context(Kind::Build, message)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = lock_holder(&mut file);
            // Another kernel of this run: its own lines tell what it does.
            if holder != own_pid() {
                reporter.note(&format!("waiting for the lock {path}, held by {holder}"));
            }
            wait_for_lock(&file).context(Kind::Build, message)?;
        }
        Err(TryLockError::Error(error)) => return Err(error).context(Kind::Build, message),
    }
    file.set_len(0).and_then(|()| file.rewind()).context(Kind::Build, message)?;
    write!(file, "{}", std::process::id()).context(Kind::Build, message)?;
    Ok(Lock { _file: file })
}

fn mode_of(path: &Utf8Path) -> Result<u32> {
    let metadata = fs::metadata(path).context(Kind::Usage, || format!("cannot read {path}"))?;
    Ok(metadata.permissions().mode())
}

fn own_pid() -> String {
    format!("pid {}", std::process::id())
}

/// Who wrote its process number into the lock file.
fn lock_holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.rewind().and_then(|()| file.take(20).read_to_string(&mut text)) {
        Ok(1..) => format!("pid {}", text.trim()),
        _ => "another run".to_owned(),
    }
}

/// Waits for the lock in a way that Ctrl-C still ends.
fn wait_for_lock(file: &File) -> std::io::Result<()> {
    loop {
        crate::host::process::check().map_err(std::io::Error::other)?;
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(std::time::Duration::from_millis(100)),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}
