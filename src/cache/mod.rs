//! The cache directory: its layout, its locks and its permissions.
//!
//! ```text
//! trees/<source>[+<patches>]/linux/    a pristine, read-only kernel tree; builds are direct children of it
//! trees/<source>[+<patches>]/source.json   written last: a tree without it is incomplete
//! trees/<source>[+<patches>]/{files,stat}  the hashes and metadata of its files, to find later changes
//! partial/<digest>.<server>.partial    the part of an archive that has arrived from one server
//! archives/<sha256>[.json|.zst]        archives as they were sent, and their signatures and checksums
//! releases/<server>.json               kernel.org's list of releases, as old as the file
//! kcompile.lock                        digests of sources at their first use, unless the user's configs have it
//! git/<url>/                           bare repositories, fetched to depth 1
//! toolchains/<digest>/{root,state,spec} the files of a toolchain, read-only, a digest of their metadata, and how
//!                                      the last run named it
//! cve/<data>.json                      the CVE records of a commit in a form that is fast to read, and when each
//!                                      repository was fetched
//! builds/<source>/                     build directories of user directories and of other users' trees
//! images/<plan>/                       the images of a plan, to write them again without compiling
//! known/<question>.json                memoized results, with the inputs that they depend on
//! history/<flavor>-<arch>-<series>.json how many steps, seconds and bytes builds took, for estimates
//! boots/<image>.log                    the console of an image's last boot
//! locks/<name>.lock                    held while the entry of that name is written or built in
//! tmp/                                 work in progress, locked by its owner, removed if it has none
//! ```

pub mod memo;
pub mod permissions;

use crate::report::Reporter;
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result, ResultExt, cannot};
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

/// The prefix of names in `tmp/`.
const SCRATCH_PREFIX: &str = "work-";

const OTHER_CACHE: &str = "choose another cache directory with --cache-dir DIR";

/// An existing, writable cache directory.
#[derive(Clone, Debug)]
pub struct Cache {
    /// Absolute.
    pub root: Utf8PathBuf,
    /// The user of this process.
    pub uid: u32,
}

impl Cache {
    /// Creates the directory if needed, and removes what killed runs left in `tmp/`.
    ///
    /// # Errors
    ///
    /// Exit code 2: the kernel's make does not support the path, it is not writable, or other
    /// users may replace its files.
    pub fn open(root: &Utf8Path, uid: u32) -> Result<Cache> {
        let what = "the cache directory";
        check_kbuild_path(what, root)?;
        create_dir(root).map_err(|error| error.hint(OTHER_CACHE))?;
        // Kbuild sees the real path, which must not depend on the link that led here.
        let root =
            root.canonicalize_utf8().context(Kind::Usage, || format!("{what} {root} cannot be used"))?;
        check_kbuild_path(what, &root)?;
        permissions::check(&root, uid)?;
        // Users who may write in the cache share its folders.
        let shared = mode_of(&root)? & 0o1022;
        for dir in [
            "trees",
            "partial",
            "archives",
            "releases",
            "git",
            "toolchains",
            "builds",
            "history",
            "images",
            "known",
            "boots",
            "cve",
            "locks",
            "tmp",
        ] {
            let dir = root.join(dir);
            match dir.symlink_metadata() {
                Err(_) => {
                    create_dir(&dir)?;
                    fs::set_permissions(&dir, Permissions::from_mode(0o755 | shared))
                        .context(Kind::Usage, || format!("cannot set the mode of {dir}"))?;
                }
                Ok(found) if found.is_dir() => permissions::check(&dir, uid)?,
                Ok(_) => {
                    return Err(Error::usage(format!("{dir} is not a directory"))
                        .hint("remove it, or choose another cache with --cache-dir DIR"));
                }
            }
        }
        check_writable(&format!("{what} {root}"), &root.join("tmp"))
            .map_err(|error| error.hint(OTHER_CACHE))?;
        let cache = Cache { root, uid };
        cache.sweep()?;
        Ok(cache)
    }

    /// Removes scratch directories that no process holds a lock on.
    fn sweep(&self) -> Result<()> {
        let tmp = self.root.join("tmp");
        let _guard = lock_dir(&tmp)?;
        for entry in tmp.read_dir_utf8().context(Kind::Build, || format!("cannot read {tmp}"))? {
            let Ok(entry) = entry else { continue };
            if !entry.file_name().starts_with(SCRATCH_PREFIX) || entry.path().is_symlink() {
                continue;
            }
            if open_dir(entry.path()).is_ok_and(|dir| dir.try_lock().is_ok()) {
                // The next run of another user removes what that user left.
                let _ = remove_tree(entry.path());
            }
        }
        Ok(())
    }

    /// Returns the path of the tree with this key, which may not exist yet.
    pub fn tree(&self, key: &str) -> Utf8PathBuf {
        self.root.join("trees").join(key)
    }

    /// Returns the owner of `path` in the cache, unless that is the caller or root.
    pub fn foreign_owner(&self, path: &Utf8Path) -> Option<u32> {
        let owner = fs::symlink_metadata(path).ok()?.uid();
        Some(owner).filter(|owner| ![self.uid, 0].contains(owner))
    }

    /// Returns the place of build directories for the tree `key` that cannot lie in the tree.
    pub fn build_root(&self, key: &str) -> Utf8PathBuf {
        self.root.join("builds").join(format!("{key}-{}", self.uid))
    }

    /// Creates a directory for work in progress, on the file system of the cache.
    pub fn scratch(&self) -> Result<ScratchDir> {
        let tmp = self.root.join("tmp");
        // No other run may sweep before the new directory is locked.
        let _guard = lock_dir(&tmp)?;
        let create = || {
            let dir = TempDir::with_prefix_in(SCRATCH_PREFIX, &tmp)?;
            let path = Utf8Path::from_path(dir.path()).expect("the cache directory is UTF-8").to_owned();
            let lock = open_dir(&path)?;
            lock.try_lock()?;
            // `ScratchDir` removes it.
            let _ = dir.keep();
            Ok::<_, io::Error>(ScratchDir { path, _lock: lock })
        };
        create().context(Kind::Build, || format!("cannot create a directory in {tmp}"))
    }

    /// Returns the path of a partial download of the archive `digest` from `url`. Another server never
    /// continues it, since wrong bytes of one server would spoil the download from another.
    pub fn partial(&self, digest: Sha256, url: &str) -> Utf8PathBuf {
        self.root.join("partial").join(format!("{digest}.{}.partial", Sha256::of(url).short()))
    }

    /// Takes the lock `name`. Waits while another run holds it.
    pub fn lock(&self, name: &str, reporter: &Reporter) -> Result<Lock> {
        lock_file(&self.lock_path(name), reporter)
    }

    /// Takes the lock `name` if nobody holds it.
    pub fn try_lock(&self, name: &str) -> Result<Option<Lock>> {
        let path = self.lock_path(name);
        let file = open_file(&path, Links::RefuseAnywhere).context(Kind::Build, cannot("lock", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).context(Kind::Build, cannot("lock", &path)),
        }
    }

    /// Takes all locks whose names begin with `start`. Waits for the runs that hold them.
    pub fn lock_all(&self, start: &str, reporter: &Reporter) -> Result<Vec<Lock>> {
        self.lock_names(start)?.iter().map(|name| self.lock(name, reporter)).collect()
    }

    /// Lists the locks whose names begin with `start`, held or not, sorted.
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

/// A directory for work in progress. Dropping it removes it, read-only trees in it included.
#[derive(Debug)]
pub struct ScratchDir {
    /// Absolute.
    pub path: Utf8PathBuf,
    _lock: File,
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        // The next run removes what cannot be removed now.
        let _ = remove_tree(&self.path);
    }
}

/// A lock. Dropping it frees it, and so does the death of its holder.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the lock file `path`, which it creates if needed. Writes the process id into it, and reports a wait.
pub fn lock_file(path: &Utf8Path, reporter: &Reporter) -> Result<Lock> {
    // In a directory that everybody may write, the kernel opens another user's file only without O_CREAT
    // (fs.protected_regular in proc(5)). Following a link would overwrite its target.
    let opened = match open_existing(path, Links::Refuse) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            open_to_write(path, Links::Refuse).inspect(|file| {
                // Users who may create locks here may take this one.
                let shared = path.parent().and_then(|dir| mode_of(dir).ok()).unwrap_or(0) & 0o022;
                let _ = file.set_permissions(Permissions::from_mode(0o644 | shared));
            })
        }
        opened => opened,
    };
    let mut file = opened.context(Kind::Build, cannot("lock", path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = lock_holder(&mut file);
            // Another kernel of this run reports its own progress.
            if holder != format!("pid {}", std::process::id()) {
                reporter.note(&format!("waiting for the lock {path}, held by {holder}"));
            }
            wait_for_lock(&file).context(Kind::Build, cannot("lock", path))?;
        }
        Err(TryLockError::Error(error)) => return Err(error).context(Kind::Build, cannot("lock", path)),
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| write!(file, "{}", std::process::id()))
        .context(Kind::Build, cannot("lock", path))?;
    Ok(Lock { _file: file })
}

fn mode_of(path: &Utf8Path) -> Result<u32> {
    let metadata = fs::metadata(path).context(Kind::Usage, || format!("cannot read {path}"))?;
    Ok(metadata.permissions().mode())
}

/// Returns the process that wrote its id into the lock file.
fn lock_holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.rewind().and_then(|()| file.take(20).read_to_string(&mut text)) {
        Ok(1..) => format!("pid {}", text.trim()),
        _ => "another run".to_owned(),
    }
}

/// Waits for the lock, until Ctrl-C.
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
