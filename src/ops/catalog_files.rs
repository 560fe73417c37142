//! The user's catalog, and changes of its files that are made together or not at all.

use crate::catalog::ConfigLibrary;
use crate::catalog::kernels::Catalog;
use crate::catalog::text::read_optional_text;
use crate::util::error::{Kind, Result, ResultExt};
use crate::util::fs::{create_dir, write_atomically};
use crate::util::read::{Links, MAX_CONFIG, MAX_TOML};
use camino::{Utf8Path, Utf8PathBuf};
use std::fs;

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
    let mut before: Vec<(&Utf8Path, Option<String>)> = Vec::new();
    for FileChange { path, text } in changes {
        let old = read_optional_text(path, Links::Follow, MAX_CONFIG)?;
        let parent = path.parent().expect("a file is in a directory");
        let done = match text {
            Some(text) => create_dir(parent).and_then(|()| write_atomically(path, text.as_bytes())),
            None if old.is_none() => Ok(()),
            None => remove(path),
        };
        if let Err(error) = done {
            // Errors are ignored, since the first one is reported.
            before.iter().rev().for_each(|(path, old)| {
                let _ = match old {
                    Some(text) => write_atomically(path, text.as_bytes()),
                    None => remove(path),
                };
            });
            return Err(error);
        }
        before.push((path, old));
    }
    Ok(())
}

fn remove(path: &Utf8Path) -> Result<()> {
    fs::remove_file(path).context(Kind::Build, || format!("cannot remove {path}"))
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
        let changes = [change("old", Some("new")), change("new", Some("new")), change("gone", None)];
        // A file cannot be a directory.
        let failing = [&changes[..], &[change("old/x", Some("x"))]].concat();
        assert!(write_all(&failing).is_err());
        let read = |name: &str| fs::read_to_string(dir.join(name)).ok();
        assert_eq!(
            (read("old").as_deref(), read("new"), read("gone").as_deref()),
            (Some("old"), None, Some("gone"))
        );
        write_all(&changes).unwrap();
        assert_eq!(
            (read("old").as_deref(), read("new").as_deref(), read("gone")),
            (Some("new"), Some("new"), None)
        );
    }
}
