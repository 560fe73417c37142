//! What git prints of a patch. Nothing of the patch itself is interpreted here.

use crate::util::text::sanitize_line;
use camino::{Utf8Component, Utf8Path, Utf8PathBuf};
use std::collections::BTreeSet;

/// What a part of a patch changes, at `-pN`.
pub(super) struct Listing {
    pub(super) strip: u8,
    pub(super) changes: Vec<Change>,
    /// Of `--summary`: new and deleted files, modes, renames and copies.
    summary: String,
}

/// A changed file: two names where it is renamed or copied.
#[derive(PartialEq, Eq)]
pub(super) struct Change {
    pub(super) old: Utf8PathBuf,
    pub(super) new: Utf8PathBuf,
}

/// What git finds in a part of a patch.
pub(super) enum Listed {
    Changes(Listing),
    /// No patch: a cover letter.
    Nothing,
    /// With git's reason.
    Refused(String),
}

impl Listing {
    /// From what `git apply --numstat --summary -z` prints. Of a renamed file, that is only the name that it gets.
    pub(super) fn parse(strip: u8, stdout: &[u8]) -> Option<Listing> {
        let mut records: Vec<&[u8]> = stdout.split(|byte| *byte == 0).collect();
        let summary = String::from_utf8_lossy(records.pop()?).into_owned();
        let change = |record: &[u8]| {
            // Lines added, lines deleted, path.
            let path = record.splitn(3, |byte| *byte == b'\t').nth(2)?;
            let path = Utf8PathBuf::from(std::str::from_utf8(path).ok()?);
            Some(Change { old: path.clone(), new: path })
        };
        let changes: Option<_> = records.into_iter().map(change).collect();
        Some(Listing { strip, changes: changes?, summary })
    }

    /// Takes the old names from the listing of the reversed patch, in which the last change comes first.
    pub(super) fn with_old_names(mut self, reversed: Listing) -> Option<Listing> {
        let old = reversed.changes.into_iter().rev().map(|change| change.new);
        if old.len() != self.changes.len() {
            return None;
        }
        self.changes.iter_mut().zip(old).for_each(|(change, old)| change.old = old);
        Some(self)
    }

    /// The paths that the patch writes or removes.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Utf8Path> {
        self.changes.iter().map(|change| &*change.new)
    }

    pub(super) fn strip_option(&self) -> String {
        format!("-p{}", self.strip)
    }

    /// The line of the summary that makes or removes a symbolic link or a submodule.
    pub(super) fn foreign_mode(&self) -> Option<&str> {
        let is_foreign = |mode: &str| ["120000", "160000"].contains(&mode);
        self.summary.lines().find(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            match fields[..] {
                ["", "create" | "delete", "mode", mode, ..] => is_foreign(mode),
                ["", "mode", "change", old, "=>", new, ..] => is_foreign(old) || is_foreign(new),
                _ => false,
            }
        })
    }

    /// A path that is changed more than once, in a way that git may mix up: it renames by the state before the
    /// whole patch, and removes files before it writes any. Several patches with a file each would do it in turn.
    pub(super) fn ambiguous(&self) -> Option<&Utf8Path> {
        let deletes = self.summary.lines().any(|line| line.starts_with(" delete "));
        let renamed = self.renamed();
        let mut written = BTreeSet::new();
        self.changes.iter().map(|change| &*change.new).find(|path: &&Utf8Path| {
            let again = !written.insert(*path);
            (again && deletes) || renamed.contains(path)
        })
    }

    /// The old names of renamed files. A copied file keeps its name, so that it may be changed as well.
    fn renamed(&self) -> BTreeSet<&Utf8Path> {
        let moved: Vec<&Change> = self.changes.iter().filter(|change| change.old != change.new).collect();
        let fields = self.summary.lines().filter_map(|line| line.split(' ').nth(1));
        let mut kinds: Vec<&str> = fields.filter(|word| ["copy", "rename"].contains(word)).collect();
        if kinds.len() != moved.len() {
            // A line feed in a name makes lines of its own.
            kinds = vec!["rename"; moved.len()];
        }
        let renamed = moved.into_iter().zip(kinds).filter(|(_, kind)| *kind == "rename");
        renamed.map(|(change, _)| &*change.old).collect()
    }
}

/// The first error that git prints, but for the text that it has searched for.
pub(super) fn first_error(stderr: &str) -> String {
    let mut errors = stderr.lines().filter_map(|line| {
        let error = line.strip_prefix("error: ").or_else(|| line.strip_prefix("fatal: "))?;
        (!error.starts_with("while searching for:")).then_some(error)
    });
    sanitize_line(errors.next().unwrap_or("failed without a reason"))
}

/// Whether `path` is relative and names something below its beginning.
pub(super) fn is_inside(path: &Utf8Path) -> bool {
    !path.as_str().is_empty() && path.components().all(|part| matches!(part, Utf8Component::Normal(_)))
}
