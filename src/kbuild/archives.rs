//! Reads the names of objects in Kbuild's archives. They are thin: they only hold names.

use crate::util::read::{Links, read_file};
use camino::{Utf8Path, Utf8PathBuf};
use object::read::archive::ArchiveFile;

/// The limit of an archive of names.
const MAX_ARCHIVE: u64 = 64 << 20;
/// The limit of objects. No kernel has as many.
pub(super) const MAX_OBJECTS: usize = 100_000;

/// Returns the object files that an archive names, relative to its directory. An archive that cannot be read
/// has none.
pub(super) fn members(archive: &Utf8Path) -> Vec<Utf8PathBuf> {
    let Ok(bytes) = read_file(archive, Links::RefuseAnywhere, MAX_ARCHIVE) else { return Vec::new() };
    let Ok(parsed) = ArchiveFile::parse(&*bytes) else { return Vec::new() };
    let dir = archive.parent().unwrap_or(archive);
    let names = parsed.members().map_while(Result::ok).filter_map(|member| {
        let name = std::str::from_utf8(member.name()).ok()?;
        (name.ends_with(".o") && !name.contains("..")).then(|| dir.join(name))
    });
    names.take(MAX_OBJECTS).collect()
}

/// Returns `dir` and the directories in it, down to this depth.
pub(super) fn below(dir: &Utf8Path, depth: usize) -> Vec<Utf8PathBuf> {
    let walk = walkdir::WalkDir::new(dir).max_depth(depth).into_iter();
    let dirs = walk.filter_map(Result::ok).filter(|entry| entry.file_type().is_dir());
    dirs.filter_map(|entry| Utf8PathBuf::from_path_buf(entry.into_path()).ok()).collect()
}
