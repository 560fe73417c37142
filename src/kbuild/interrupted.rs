//! What a make that was killed may have left: files of which only a part was written, and which make would
//! take for done, since they are newer than what they are made of.

use crate::error::{Context, Kind, Result};
use crate::files;
use crate::process;
use camino::Utf8Path;
use std::fs::{self, Metadata};
use std::time::{Duration, SystemTime};
use walkdir::{DirEntry, WalkDir};

/// No program of a kernel's build takes longer from the first byte of a file to the last; linkers of the
/// whole kernel do, and have their own rule.
const LONGEST_WRITE: Duration = Duration::from_secs(60);
/// What such linkers write, at the top of the build directory: names begin so.
const LINKED: [&str; 3] = ["vmlinux", ".tmp_", "modules."];

/// Removes what was written in the last minute before make was killed, so that make does it again: a minute
/// of work against a kernel that nobody can explain. Returns the number of files.
///
/// What is `include/config` stays: a file there says by its mere age that a setting was changed, and
/// Kconfig writes the others beside their place.
pub(super) fn forget_unfinished(build: &Utf8Path) -> Result<usize> {
    let wrong = || format!("cannot look through {build}");
    let mut written = Vec::new();
    let mut killed = SystemTime::UNIX_EPOCH;
    for entry in WalkDir::new(build).into_iter().filter_entry(|entry| !is_kept(entry, build)) {
        process::check()?;
        let entry = entry.context(Kind::Build, wrong)?;
        let metadata = entry.metadata().context(Kind::Build, wrong)?;
        if metadata.is_file() {
            killed = killed.max(modified(&metadata));
            written.push((entry, metadata));
        }
    }
    let is_doubtful = |(entry, metadata): &(DirEntry, Metadata)| {
        let name = entry.file_name().to_string_lossy();
        let is_linked = entry.depth() == 1 && LINKED.iter().any(|linked| name.starts_with(linked));
        is_linked || modified(metadata) + LONGEST_WRITE >= killed
    };
    let doubtful: Vec<_> = written.into_iter().filter(is_doubtful).map(|(entry, _)| entry).collect();
    for entry in &doubtful {
        fs::remove_file(entry.path())
            .context(Kind::Build, || format!("cannot remove {}", entry.path().display()))?;
    }
    files::sync_dir(build)?;
    Ok(doubtful.len())
}

/// The configuration, which is written whole, and what is ours.
fn is_kept(entry: &DirEntry, build: &Utf8Path) -> bool {
    let name = entry.file_name().to_string_lossy();
    let is_ours = entry.depth() == 1 && (name.starts_with(".config") || name.starts_with(".kcompile-"));
    is_ours || entry.path() == build.join("include/config").as_std_path()
}

fn modified(metadata: &Metadata) -> SystemTime {
    metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn only_what_is_old_enough_or_written_whole_stays() {
        let dir = tempfile::tempdir().unwrap();
        let build = Utf8Path::from_path(dir.path()).unwrap();
        fs::create_dir_all(build.join("include/config")).unwrap();
        fs::create_dir_all(build.join("init")).unwrap();
        let now = SystemTime::now();
        let minutes_ago = |minutes: u64| now - Duration::from_secs(60 * minutes);
        for (name, age) in [
            ("init/old.o", 10),
            ("init/new.o", 0),
            ("vmlinux.o", 10),
            (".config", 0),
            (".kcompile-make.pid", 0),
            ("include/config/NET", 0),
        ] {
            File::create(build.join(name)).unwrap().set_modified(minutes_ago(age)).unwrap();
        }
        assert_eq!(forget_unfinished(build).unwrap(), 2);
        let stays = ["init/old.o", ".config", ".kcompile-make.pid", "include/config/NET"];
        assert!(stays.iter().all(|name| build.join(name).exists()));
        assert!(!build.join("init/new.o").exists() && !build.join("vmlinux.o").exists());
    }
}
