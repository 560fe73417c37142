//! Cleans up after a make that failed or was killed. Such a make may leave half-written files that the
//! next make takes for finished, since they are newer than their sources. A make that fails may have lost
//! a compiler or a make of its own to a signal (out of memory) without knowing what that was writing.

use crate::host::process::{self, PidFile};
use crate::report::Reporter;
use crate::util::error::{Kind, Result, ResultExt, cannot};
use crate::util::fs::{remove_tree, sync_dir};
use crate::util::text::pluralize;
use camino::Utf8Path;
use std::fs::{self, Metadata};
use std::time::{Duration, SystemTime};
use walkdir::{DirEntry, WalkDir};

/// No program of a kernel build writes one file for longer, except linkers ([`LINKER_OUTPUTS`]).
const MAX_WRITE_TIME: Duration = Duration::from_secs(60);
/// How the names of those linkers' files at the top of the build directory begin.
const LINKER_OUTPUTS: [&str; 3] = ["vmlinux", ".tmp_", "modules."];

/// Kills a make that a killed run left running in `dirs`, and removes what it was writing. The
/// first of `dirs` is its build directory.
pub(super) fn recover(pid_file: &PidFile<'_>, dirs: &[&Utf8Path; 2], reporter: &Reporter) -> Result<()> {
    if !pid_file.exists() {
        return Ok(());
    }
    pid_file.kill_orphans(dirs);
    // A make that ended when it was told to has removed the file.
    if pid_file.exists() {
        let [build, _] = dirs;
        let removed = remove_unfinished(build)?;
        if removed > 0 {
            reporter.note(&format!(
                "an earlier make in {build} failed or was killed, so {} of its last minute will be built again",
                pluralize(removed, "file", "files")
            ));
        }
        remove_tree(pid_file.0)?;
    }
    Ok(())
}

/// Removes what was written in the last minute before make ended, so that make builds it again.
/// Returns the number of files.
pub(super) fn remove_unfinished(build: &Utf8Path) -> Result<usize> {
    let mut written = Vec::new();
    let now = SystemTime::now();
    let mut killed = SystemTime::UNIX_EPOCH;
    for entry in WalkDir::new(build) {
        process::check()?;
        let entry = entry.context(Kind::Build, cannot("read", build))?;
        let metadata = entry.metadata().context(Kind::Build, cannot("read", build))?;
        if metadata.is_file() {
            // A time stamp in the future comes from a wrong clock and does not date the end of make.
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

/// Returns whether a file stays. These are kcompile's own files and those that make would not write
/// again. Kconfig writes the latter whole, beside `auto.conf`, and others are markers whose age
/// tells that a setting or a symbol has changed.
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
    fn recent_files_and_linker_outputs_are_removed() {
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
