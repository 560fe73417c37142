//! Moves the files that git has changed into the tree.

use super::Worktree;
use crate::util::error::{Error, Kind, Result, ResultExt};
use camino::Utf8Path;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use walkdir::WalkDir;

impl Worktree<'_> {
    /// Brings what git has made into the tree, read-only. What is removed goes first: a directory may take the place
    /// of a file, or a file that of a directory.
    pub(super) fn install(&self) -> Result<()> {
        self.check_unnamed()?;
        let (changed, removed): (Vec<_>, Vec<_>) =
            self.named.iter().partition(|path| self.files.join(path).is_file());
        for path in removed {
            self.remove(path).context(Kind::Build, || format!("cannot remove {}", self.tree.join(path)))?;
        }
        for path in changed {
            self.replace(path).context(Kind::Build, || format!("cannot write {}", self.tree.join(path)))?;
        }
        Ok(())
    }

    /// Fails where git has made something that it did not list: only files are taken over, and only those listed.
    fn check_unnamed(&self) -> Result<()> {
        for entry in WalkDir::new(&self.files) {
            let entry = entry.context(Kind::Build, || format!("cannot read {}", self.files))?;
            let path = entry.path().strip_prefix(&self.files).expect("walked from there");
            let is_named = Utf8Path::from_path(path).is_some_and(|path| self.named.contains(path));
            let is_expected = entry.file_type().is_dir() || (entry.file_type().is_file() && is_named);
            if !is_expected {
                return Err(Error::build(format!(
                    "git apply made {}, which it had not listed",
                    path.display()
                )));
            }
        }
        Ok(())
    }

    /// Removes a file of the tree, and the directories that are empty then, as git does.
    fn remove(&self, path: &Utf8Path) -> io::Result<()> {
        let whole = self.tree.join(path);
        if !whole.is_file() {
            return Ok(());
        }
        edit_in(&whole, || fs::remove_file(&whole))?;
        for dir in whole.ancestors().skip(1).take_while(|dir| *dir != self.tree) {
            match edit_in(dir, || fs::remove_dir(dir)) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => break,
                removed => removed?,
            }
        }
        Ok(())
    }

    fn replace(&self, path: &Utf8Path) -> io::Result<()> {
        let (ours, theirs) = (self.files.join(path), self.tree.join(path));
        let is_executable = fs::metadata(&ours)?.permissions().mode() & 0o100 != 0;
        let mode = if is_executable { 0o555 } else { 0o444 };
        fs::set_permissions(&ours, Permissions::from_mode(mode))?;
        create_dirs(theirs.parent().expect("inside the tree"))?;
        edit_in(&theirs, || fs::rename(&ours, &theirs))
    }
}

/// Makes `dir` and those above it, each in a directory that is read-only before and after.
fn create_dirs(dir: &Utf8Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    create_dirs(dir.parent().expect("the tree itself is there"))?;
    edit_in(dir, || fs::create_dir(dir))?;
    fs::set_permissions(dir, Permissions::from_mode(0o555))
}

/// Runs `edit` while the directory of `path` may be written: the tree is read-only around it.
fn edit_in(path: &Utf8Path, edit: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let dir = path.parent().expect("inside the tree");
    fs::set_permissions(dir, Permissions::from_mode(0o755))?;
    let done = edit();
    fs::set_permissions(dir, Permissions::from_mode(0o555))?;
    done
}
