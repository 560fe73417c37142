//! Imports entries of ccache from an untrusted image.

use super::export::MAX_ENTRY;
use super::{entry, run_ccache};
use crate::cache::lock_file;
use crate::host::Host;
use crate::oci::layer_entries::EntryKind;
use crate::oci::read::Image;
use crate::report::Reporter;
use crate::util::error::{Error, Kind, Result, ResultExt, cannot};
use crate::util::fs::{create_dir, remove_tree};
use camino::{Utf8Path, Utf8PathBuf};
use std::fs;

/// The result of an import.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ImportSummary {
    /// The number of entries that were added.
    pub new: usize,
    /// The number of entries that the cache had and keeps.
    pub known: usize,
    /// The size of the new entries.
    pub bytes: u64,
}

/// Adds the entries of `image` to the cache `dir`, and then runs ccache's cleanup, which applies its size
/// limit. Existing entries are never overwritten. If one entry is refused or cannot be written, none is
/// added. A run that is killed may leave some entries, which are complete.
///
/// # Errors
///
/// The layout is not valid, or the image has anything but undamaged entries of ccache (exit code 3).
pub fn import(image: &Image, dir: &Utf8Path, host: &Host, reporter: &Reporter) -> Result<ImportSummary> {
    create_dir(dir)?;
    let _importing = lock_file(&dir.join("kcompile.lock"), reporter)?;
    // It is on the file system of the cache. A killed run may have left it.
    let work = dir.join("kcompile-import");
    remove_tree(&work)?;
    create_dir(&work)?;
    let imported = unpack(image, &work).and_then(|entries| install(&entries, dir));
    remove_tree(&work)?;
    let imported = imported?;
    run_ccache(host, &["--cleanup"])?;
    Ok(imported)
}

/// An entry that was unpacked.
struct Unpacked {
    path: String,
    at: Utf8PathBuf,
    bytes: u64,
}

/// Unpacks all entries to `work`. Returns only if the digests of the layers match.
fn unpack(image: &Image, work: &Utf8Path) -> Result<Vec<Unpacked>> {
    let mut entries = Vec::new();
    // Layers are not merged, since the image has one layer with nothing but entries.
    image.visit_layers(|found, reader| {
        let refuse = |why: &str| {
            let path = found.path.escape_debug();
            Err(Error::fetch(format!("{}: refused entry `{path}`: {why}", image.layout)))
        };
        match found.kind {
            EntryKind::Dir if found.path.is_empty() || entry::is_directory(&found.path) => return Ok(()),
            EntryKind::File if entry::is_entry(&found.path) => {}
            _ => return refuse("not a path of ccache"),
        }
        if found.size > MAX_ENTRY {
            return refuse("too large");
        }
        let mut bytes = Vec::new();
        reader
            .read_to_end(&mut bytes)
            .context(Kind::Fetch, || format!("{}: {}", image.layout, found.path))?;
        if let Err(why) = entry::check(&found.path, &bytes) {
            return refuse(why);
        }
        let at = work.join(entries.len().to_string());
        // Entries are not synced, since ccache detects truncated ones by their checksum.
        fs::write(&at, &bytes).context(Kind::Build, || format!("cannot write {at}"))?;
        entries.push(Unpacked { path: found.path.clone(), at, bytes: found.size });
        Ok(())
    })?;
    Ok(entries)
}

fn install(entries: &[Unpacked], dir: &Utf8Path) -> Result<ImportSummary> {
    let mut new = Vec::new();
    install_each(entries, dir, &mut new).inspect_err(|_| {
        // A failure here leaves an entry that is as good as any other.
        new.iter().for_each(|place| drop(fs::remove_file(place)));
    })
}

/// Moves the entries into the cache. Adds the paths of new ones to `new`.
fn install_each(entries: &[Unpacked], dir: &Utf8Path, new: &mut Vec<Utf8PathBuf>) -> Result<ImportSummary> {
    let mut imported = ImportSummary::default();
    for Unpacked { path, at, bytes } in entries {
        let place = dir.join(path);
        if place.symlink_metadata().is_ok() {
            imported.known += 1;
            continue;
        }
        fs::create_dir_all(place.parent().unwrap_or(dir)).context(Kind::Build, cannot("write", &place))?;
        fs::rename(at, &place).context(Kind::Build, cannot("write", &place))?;
        new.push(place);
        imported.new += 1;
        imported.bytes += bytes;
    }
    Ok(imported)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_entry_rolls_the_others_back() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(temporary.path()).unwrap();
        let entry = |path: &str| {
            let at = dir.join(path.replace('/', "-"));
            fs::write(&at, path).unwrap();
            Unpacked { path: path.into(), at, bytes: 3 }
        };
        fs::create_dir(dir.join("0")).unwrap();
        fs::write(dir.join("0/old"), "old").unwrap();
        fs::write(dir.join("2"), "no directory").unwrap();
        let entries = || vec![entry("0/old"), entry("0/new"), entry("2/new")];
        let error = install(&entries(), dir).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot write {dir}/2/new")), "{error}");
        assert!(dir.join("0/old").is_file() && !dir.join("0/new").exists());
        fs::remove_file(dir.join("2")).unwrap();
        assert_eq!(install(&entries(), dir).unwrap(), ImportSummary { new: 2, known: 1, bytes: 6 });
        assert_eq!(fs::read_to_string(dir.join("0/old")).unwrap(), "old");
    }
}
