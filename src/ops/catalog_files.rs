//! The user's catalog, and changes of its files that are made together or not at all.

use crate::catalog::ConfigLibrary;
use crate::catalog::kernels::Catalog;
use crate::catalog::text::read_optional_text;
use crate::util::error::{Kind, Result, ResultExt};
use crate::util::fs::{create_dir, write_atomically};
use crate::util::read::{Links, MAX_CONFIG, MAX_TOML};
use camino::{Utf8Path, Utf8PathBuf};
use std::fs;
use std::io::ErrorKind;

/// The catalog's name in the library.
pub const CATALOG: &str = "configs/kernels.toml";

/// A file that is written or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    pub path: Utf8PathBuf,
    /// `None` removes the file.
    pub text: Option<String>,
}

/// Reads the user's catalog. Returns its text, if it exists, and its entries.
pub fn user_catalog(path: &Utf8Path) -> Result<(Option<String>, Catalog)> {
    let text = read_optional_text(path, Links::Follow, MAX_TOML)?;
    let catalog = Catalog::read(&ConfigLibrary::from_texts(text.as_deref().map(|text| (CATALOG, text))))?;
    Ok((text, catalog))
}

/// Makes the changes in their order. After a failure, the old files are restored.
///
/// # Errors
///
/// A file cannot be written (exit code 1).
pub fn write_all(changes: &[FileChange]) -> Result<()> {
    // Nothing is written if a file cannot be read.
    let old = |change: &FileChange| read_optional_text(&change.path, Links::Follow, MAX_CONFIG);
    let old = changes.iter().map(old).collect::<Result<Vec<_>>>()?;
    for (index, change) in changes.iter().enumerate() {
        if let Err(error) = write(&change.path, change.text.as_deref()) {
            // Errors are ignored, since the first one is reported.
            let done = changes[..index].iter().zip(&old).rev();
            done.for_each(|(change, old)| drop(write(&change.path, old.as_deref())));
            return Err(error);
        }
    }
    Ok(())
}

/// Writes a text to `path`, or removes the file if there is no text.
fn write(path: &Utf8Path, text: Option<&str>) -> Result<()> {
    let Some(text) = text else { return remove(path) };
    create_dir(path.parent().expect("a file is in a directory"))?;
    write_atomically(path, text.as_bytes())
}

fn remove(path: &Utf8Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).context(Kind::Build, || format!("cannot remove {path}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_restores_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(dir.path()).unwrap();
        fs::write(dir.join("old"), "old").unwrap();
        fs::write(dir.join("gone"), "gone").unwrap();
        let change = |name: &str, text: Option<&str>| FileChange {
            path: dir.join(name),
            text: text.map(str::to_owned),
        };
        let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
        let changes = [change("old", Some("new")), change("new", Some("new")), change("gone", None)];
        // A file cannot be a directory, which a read or only a write reports.
        for failing in ["old/x", "new/x"] {
            let failing = [&changes[..], &[change(failing, Some("x"))]].concat();
            assert!(write_all(&failing).is_err());
            assert_eq!(
                (read("old").as_deref(), read("new"), read("gone").as_deref()),
                (Some("old"), None, Some("gone"))
            );
        }
        write_all(&changes).unwrap();
        assert_eq!(
            (read("old").as_deref(), read("new").as_deref(), read("gone")),
            (Some("new"), Some("new"), None)
        );
    }
}
