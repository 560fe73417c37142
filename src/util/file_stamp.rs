//! The metadata of a file, which shows whether it changed without reading it again. Programs can set `mtime`,
//! but not `ctime`, which every write and rename updates.

use serde::{Deserialize, Serialize};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{SystemTime, UNIX_EPOCH};

/// Two ticks of the clock for inode times, in nanoseconds. A tick is up to 10 ms long. Two writes within one
/// tick get the same time.
const TICK: i64 = 20_000_000;

/// Device, inode, size and times of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Nanoseconds since 1970.
    modified: i64,
    changed: i64,
}

impl FileStamp {
    /// Takes the stamp of the file with this metadata.
    pub fn of(metadata: &Metadata) -> FileStamp {
        FileStamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Returns whether the last change is so close to `moment` ([`now`]) that a later change might not show.
    /// Git calls such an entry of its index racy.
    pub fn is_racy(&self, moment: i64) -> bool {
        self.changed.saturating_add(TICK) >= moment
    }
}

/// Returns the nanoseconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Returns a time of an inode in nanoseconds.
pub fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_write_shows_even_if_mtime_is_set_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, "one").unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        let before = FileStamp::of(&fs::symlink_metadata(&path).unwrap());
        // Just written: a second write in the same tick would not show, and so it is racy.
        assert!(before.is_racy(before.changed) && !before.is_racy(before.changed + TICK + 1));
        while before.is_racy(now()) {
            std::thread::yield_now();
        }
        fs::write(&path, "two").unwrap();
        file.set_modified(modified).unwrap();
        let after = FileStamp::of(&fs::symlink_metadata(&path).unwrap());
        assert_eq!((before.size, before.modified), (after.size, after.modified));
        assert_ne!(before, after);
    }
}
