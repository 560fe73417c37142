//! What a make that was killed, or that failed, may have left: files of which only a part was written, and which make
//! would take for done, since they are newer than what they are made of. A make that fails may have lost a compiler or
//! a make of its own to a signal (where memory runs out), and knows nothing of what that was writing.

use crate::host::process::{self, PidFile};
use crate::report::Reporter;
use crate::util::error::{Kind, Result, ResultExt};
use crate::util::fs::{remove_tree, sync_dir};
use crate::util::text::pluralize;
use camino::Utf8Path;
use std::fs::{self, Metadata};
use std::time::{Duration, SystemTime};
use walkdir::{DirEntry, WalkDir};

/// No program of a kernel's build takes longer from the first byte of a file to the last; linkers of the
/// whole kernel do, and have their own rule.
const MAX_WRITE_TIME: Duration = Duration::from_secs(60);
/// What such linkers write, at the top of the build directory: names begin so.
const LINKER_OUTPUTS: [&str; 3] = ["vmlinux", ".tmp_", "modules."];

/// A make that a killed run has left running in `dirs`, of which the first is its build directory, is ended,
/// and what it was writing removed. `note` is make's.
pub(super) fn recover(pid_file: &PidFile<'_>, dirs: &[&Utf8Path; 2], reporter: &Reporter) -> Result<()> {
    if !pid_file.exists() {
        return Ok(());
    }
    pid_file.kill_orphans(dirs);
    // Gone by now, if make ended when it was told to.
    if pid_file.exists() {
        let [build, _] = dirs;
        let removed = remove_unfinished(build)?;
        if removed > 0 {
            reporter.note(&format!(
                "make failed or was killed in {build}: what it wrote in its last minute ({}) is made again",
                pluralize(removed, "file", "files")
            ));
        }
        remove_tree(pid_file.0)?;
    }
    Ok(())
}

/// Removes what was written in the last minute before make ended, so that make does it again: a minute of work
/// against a kernel that nobody can explain. Returns the number of files.
pub(super) fn remove_unfinished(build: &Utf8Path) -> Result<usize> {
    let message = || format!("cannot look through {build}");
    let mut written = Vec::new();
    let now = SystemTime::now();
    let mut killed = SystemTime::UNIX_EPOCH;
    for entry in WalkDir::new(build) {
        process::check()?;
        let entry = entry.context(Kind::Build, message)?;
        let metadata = entry.metadata().context(Kind::Build, message)?;
        if metadata.is_file() {
            // What a clock that was ahead has written tells nothing about the rest.
            if modified(&metadata) <= now {
                killed = killed.max(modified(&metadata));
            }
            written.push((entry, metadata));
        }
    }
    let is_suspect = |(entry, metadata): &(DirEntry, Metadata)| {
        let name = entry.file_name().to_string_lossy();
        let is_linked = entry.depth() == 1 && LINKER_OUTPUTS.iter().any(|linked| name.starts_with(linked));
        !is_preserved(entry, build) && (is_linked || modified(metadata) + MAX_WRITE_TIME >= killed)
    };
    let suspect: Vec<_> = written.into_iter().filter(is_suspect).map(|(entry, _)| entry).collect();
    for entry in &suspect {
        fs::remove_file(entry.path())
            .context(Kind::Build, || format!("cannot remove {}", entry.path().display()))?;
    }
    sync_dir(build)?;
    Ok(suspect.len())
}

/// What is ours, and what make would not make again: what Kconfig writes, whole, beside `auto.conf`, and files that
/// say by their mere age that a setting or a symbol has changed.
fn is_preserved(entry: &DirEntry, build: &Utf8Path) -> bool {
    const PRESERVED: [&str; 4] =
        ["include/config", "include/ksym", "include/generated/autoconf.h", "include/generated/rustc_cfg"];
    let name = entry.file_name().to_string_lossy();
    let ours = [".config", ".kcompile-", "kcompile.log"];
    let is_ours = entry.depth() == 1 && ours.iter().any(|ours| name.starts_with(ours));
    let below = entry.path().strip_prefix(build).unwrap_or(entry.path());
    is_ours || PRESERVED.iter().any(|preserved| below.starts_with(preserved))
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
        fs::create_dir_all(build.join("include/generated")).unwrap();
        fs::create_dir_all(build.join("arch/x86/include/generated/asm")).unwrap();
        fs::create_dir_all(build.join("init")).unwrap();
        let now = SystemTime::now();
        let minutes_ago = |minutes: u64| now - Duration::from_secs(60 * minutes);
        let ahead = File::create(build.join("init/ahead.o")).unwrap();
        ahead.set_modified(now + Duration::from_secs(600)).unwrap();
        for (name, age) in [
            ("init/old.o", 10),
            ("init/new.o", 0),
            ("vmlinux.o", 10),
            (".config", 0),
            (".kcompile-make.pid", 0),
            ("kcompile.log", 0),
            ("include/config/NET", 0),
            ("include/generated/autoconf.h", 0),
            ("include/generated/table.h", 0),
            ("arch/x86/include/generated/asm/kmap.h", 0),
        ] {
            File::create(build.join(name)).unwrap().set_modified(minutes_ago(age)).unwrap();
        }
        assert_eq!(remove_unfinished(build).unwrap(), 5);
        let stays = [
            "init/old.o",
            ".config",
            ".kcompile-make.pid",
            "kcompile.log",
            "include/config/NET",
            "include/generated/autoconf.h",
        ];
        assert!(stays.iter().all(|name| build.join(name).exists()));
        let gone = [
            "init/new.o",
            "init/ahead.o",
            "vmlinux.o",
            "include/generated/table.h",
            "arch/x86/include/generated/asm/kmap.h",
        ];
        assert!(!gone.iter().any(|name| build.join(name).exists()));
    }
}
