//! What the file system says of a file, as a stand-in for reading it again: as long as that is the same,
//! nobody has written there. A program may set the time of the last change of the content, but not that
//! of the last change of the inode, which goes with every write and rename.

use serde::{Deserialize, Serialize};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{SystemTime, UNIX_EPOCH};

/// The clock that the kernel dates inodes by moves in ticks of up to 10 ms: two writes within one are
/// not told apart. Two ticks, in nanoseconds.
const TICK: i64 = 20_000_000;

/// What the file system says of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Nanoseconds since 1970.
    #[serde(rename = "modified")]
    modified: i64,
    #[serde(rename = "changed")]
    changed: i64,
}

impl FileStamp {
    /// Of the file with this metadata.
    pub fn of(metadata: &Metadata) -> FileStamp {
        FileStamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Returns whether the last change is so close to `moment` ([`now`]) that a later one might not show, as git
    /// says of an entry of its index.
    pub fn is_racy(&self, moment: i64) -> bool {
        self.changed.saturating_add(TICK) >= moment
    }
}

/// Nanoseconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// The times of an inode as one number.
pub fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_write_shows_whatever_is_done_to_the_time_of_the_content() {
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
