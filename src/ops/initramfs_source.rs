//! The files of `CONFIG_INITRAMFS_SOURCE`, as the kernel's `usr/gen_initramfs.sh` and `usr/gen_init_cpio.c`
//! read them: one cpio archive, or file lists and directories.

use super::named_files::{FileDigests, MAX_FILE, digest, metadata_of, open, relative_path_error};
use crate::host::process;
use crate::kconfig::file_settings::NamedPaths;
use crate::util::error::{Error, Kind, Result, ResultExt, cannot};
use camino::Utf8Path;
use std::fs::{self, Metadata};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use walkdir::WalkDir;

/// Limits of an initramfs, which has a small root file system.
const MAX_ENTRIES: usize = 500_000;
const MAX_LIST: u64 = 16 << 20;

/// Adds the digests of `path` to `files`. `named` is the whole setting.
pub(super) fn add(path: &Utf8Path, named: &NamedPaths<'_>, files: &mut FileDigests) -> Result<()> {
    if metadata_of(path)?.is_dir() {
        return add_directory(path, files);
    }
    let name = path.file_name().unwrap_or_default();
    // The kernel takes an archive only if the setting names nothing else.
    if named.paths.len() == 1 && (name.ends_with(".cpio") || name.contains(".cpio.")) {
        files.add(digest(path)?.to_string());
        return Ok(());
    }
    add_list(path, files)
}

/// Adds a file list and the files in its lines `file NAME LOCATION MODE UID GID`.
fn add_list(path: &Utf8Path, files: &mut FileDigests) -> Result<()> {
    let mut text = Vec::new();
    let read = open(path)?.take(MAX_LIST).read_to_end(&mut text);
    read.context(Kind::Usage, || format!("cannot read {path}"))?;
    let text = String::from_utf8_lossy(&text);
    files.add(format!("{}  {path}", digest(path)?));
    for (index, line) in text.lines().enumerate() {
        let mut fields = line.split_whitespace();
        let (Some("file"), Some(location)) = (fields.next(), fields.nth(1)) else { continue };
        let location = Utf8Path::new(location);
        let message = |error: Error| {
            let hint = error.hint_text().unwrap_or("correct the list").to_owned();
            Error::usage(format!("{path}:{}: {error}", index + 1)).hint(hint)
        };
        if location.as_str().contains("${") {
            return Err(message(
                Error::usage(format!("{location}: make does not get variables of your environment"))
                    .hint("give the absolute path"),
            ));
        }
        if location.is_relative() {
            return Err(message(relative_path_error(location)));
        }
        let metadata = metadata_of(location).map_err(message)?;
        files.paths.push(location.to_owned());
        files.add(format!("{} {}  {location}", digest(location).map_err(message)?, metadata.mtime()));
    }
    Ok(())
}

/// Adds all entries below a directory, with everything that becomes part of the archive.
fn add_directory(dir: &Utf8Path, files: &mut FileDigests) -> Result<()> {
    if dir.is_symlink() {
        return Err(Error::usage(format!("{dir} is a link: the kernel's script does not follow it"))
            .hint("give the path of the directory itself"));
    }
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mut bytes = 0;
    files.add(format!("directory {dir}"));
    for (count, entry) in WalkDir::new(dir).min_depth(1).sort_by_file_name().into_iter().enumerate() {
        process::check()?;
        let entry = entry.context(Kind::Usage, cannot("read", dir))?;
        let Some(path) = Utf8Path::from_path(entry.path()) else {
            return Err(Error::usage(format!("{}: the name is not UTF-8", entry.path().display())));
        };
        if path.as_str().contains(char::is_whitespace) {
            return Err(Error::usage(format!(
                "{path:?}: the kernel's script cannot handle white space in names"
            ))
            .hint("rename the file, or use a .cpio archive"));
        }
        if count == MAX_ENTRIES {
            return Err(Error::usage(format!("{dir}: more than {MAX_ENTRIES} files and directories")));
        }
        let metadata = entry.metadata().context(Kind::Usage, cannot("read", dir))?;
        bytes += if metadata.is_file() { metadata.len() } else { 0 };
        if bytes > MAX_FILE {
            return Err(Error::usage(format!("{dir}: more than {} GiB", MAX_FILE >> 30)));
        }
        if metadata.uid() != user || metadata.gid() != group {
            files.foreign.get_or_insert_with(|| path.to_string());
        }
        let (mode, uid, gid) = (metadata.mode(), metadata.uid(), metadata.gid());
        files.add(format!("{mode:o} {uid} {gid} {}  {path}", content(path, &metadata)?));
    }
    Ok(())
}

/// Describes what becomes part of the archive beside name, mode and owner.
fn content(path: &Utf8Path, metadata: &Metadata) -> Result<String> {
    let kind = metadata.file_type();
    Ok(if kind.is_file() {
        format!("{} {}", digest(path)?, metadata.mtime())
    } else if kind.is_symlink() {
        let target = fs::read_link(path).context(Kind::Usage, || format!("cannot read {path}"))?;
        format!("-> {}", target.display())
    } else if kind.is_block_device() || kind.is_char_device() {
        metadata.rdev().to_string()
    } else {
        String::new()
    })
}
