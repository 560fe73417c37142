//! The cache directory: what lies where, and who may touch it now.
//!
//! ```text
//! trees/<source>[+<patches>]/linux/    a pristine, read-only kernel tree; builds are direct children of it
//! trees/<source>[+<patches>]/source.json   written last: without it the tree is not whole
//! git/<url>/                           bare repositories, fetched to depth 1
//! builds/<source>/                     build directories of sources that are used in place
//! history/<plan>.json                  how many steps and seconds a plan took: for estimates
//! locks/<name>.lock                    held while the entry of that name is written or built in
//! tmp/                                 work in progress; never trusted, removed when found
//! ```

use crate::error::{Context, Kind, Result};
use crate::files;
use crate::report::Report;
use camino::{Utf8Path, Utf8PathBuf};
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use tempfile::TempDir;

/// An existing, writable cache directory.
#[derive(Clone, Debug)]
pub struct Cache {
    /// Absolute.
    pub root: Utf8PathBuf,
}

impl Cache {
    /// Makes the directory where it is not there yet.
    ///
    /// Errors (exit code 2): a path that the kernel's make cannot work in, or one that cannot be written.
    pub fn open(root: &Utf8Path) -> Result<Cache> {
        crate::process::check_kbuild_path("the cache directory", root)?;
        for dir in ["trees", "git", "builds", "history", "locks", "tmp"] {
            files::create_dir(&root.join(dir))?;
        }
        files::check_writable("the cache directory", &root.join("tmp"))?;
        Ok(Cache { root: root.to_owned() })
    }

    /// Where a tree of this key lies or will lie.
    pub fn tree(&self, key: &str) -> Utf8PathBuf {
        self.root.join("trees").join(key)
    }

    /// A directory for work in progress, on the same file system as everything else here; removed
    /// when dropped.
    pub fn scratch(&self) -> Result<TempDir> {
        let tmp = self.root.join("tmp");
        TempDir::with_prefix_in("work-", &tmp)
            .context(Kind::Build, || format!("cannot make a directory in {tmp}"))
    }

    /// Takes the lock `name`, waiting for another run that holds it.
    pub fn lock(&self, name: &str, report: &Report) -> Result<Lock> {
        lock_file(&self.root.join("locks").join(format!("{name}.lock")), report)
    }
}

/// A lock; freed when dropped, and by the kernel when its holder dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the lock file `path`, made where it is not there, and writes our process number into it.
/// Says for whom it waits.
pub fn lock_file(path: &Utf8Path, report: &Report) -> Result<Lock> {
    let wrong = || format!("cannot lock {path}");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .context(Kind::Build, wrong)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            report.note(&format!("waiting for the lock {path}, held by {}", holder(&mut file)));
            wait(&file).context(Kind::Build, wrong)?;
        }
        Err(TryLockError::Error(error)) => return Err(error).context(Kind::Build, wrong),
    }
    file.set_len(0).and_then(|()| file.rewind()).context(Kind::Build, wrong)?;
    write!(file, "{}", std::process::id()).context(Kind::Build, wrong)?;
    Ok(Lock { _file: file })
}

/// Who wrote its process number into the lock file.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.rewind().and_then(|()| file.take(20).read_to_string(&mut text)) {
        Ok(1..) => format!("pid {}", text.trim()),
        _ => "another run".to_owned(),
    }
}

/// Waits for the lock in a way that Ctrl-C still ends.
fn wait(file: &File) -> std::io::Result<()> {
    loop {
        crate::process::check().map_err(std::io::Error::other)?;
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(std::time::Duration::from_millis(100)),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}
