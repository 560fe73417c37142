//! Decides whether the paths of a patch have a prefix, such as `a/` and `b/`. `git diff --no-prefix` and the
//! setting `diff.noprefix` write none. A wrong guess could add a file to the wrong place without an error.

use super::Worktree;
use super::listing::{Listed, Listing, is_inside};
use super::scan::LinePieces;
use crate::catalog::patches::PatchFile;
use crate::report::Reporter;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::text::sanitize_line;
use camino::Utf8Path;
use std::io;

impl Worktree<'_> {
    /// Lists the changes with the `-pN` of the series, or else with `-p1`, or with `-p0` if no path has a prefix.
    ///
    /// # Errors
    ///
    /// Exit code 1: neither the patch nor the tree tells whether there is a prefix.
    pub(super) fn list_with_prefix(&self, patch: &PatchFile, reporter: &Reporter) -> Result<Listed> {
        let name = &patch.name;
        if let Some(strip) = patch.strip {
            return self.list(strip, &[]);
        }
        let with_prefix = self.list(1, &[])?;
        if matches!(with_prefix, Listed::Nothing) {
            return Ok(with_prefix);
        }
        let bare = self.list(0, &[])?;
        let headers = self.headers().context(Kind::Build, || format!("cannot read {name}"))?;
        if self.is_bare(&with_prefix, &bare) || (headers == Headers::Equal && self.may_be_bare(&bare)) {
            reporter.note(&format!("{name}: its paths have no prefix (a/, b/); applied with -p0"));
            return Ok(bare);
        }
        match &bare {
            Listed::Changes(zero) if headers == Headers::OnlyNew && self.is_unclear(zero) => {
                let path = zero.paths().next().map(Utf8Path::as_str).unwrap_or_default();
                let first = path.split('/').next().unwrap_or_default();
                Err(Error::build(format!(
                    "{name}: `{}/` of the new file {} may be a prefix or a new directory",
                    sanitize_line(first),
                    sanitize_line(path)
                ))
                .hint("write `NAME -p1` for a prefix, or `NAME -p0` for a directory, into a `series` file beside it"))
            }
            _ => Ok(with_prefix),
        }
    }

    /// Returns whether no path has a prefix, because more of the path as it is exists than without its first
    /// component.
    fn is_bare(&self, with_prefix: &Listed, bare: &Listed) -> bool {
        let (Listed::Changes(one), Listed::Changes(zero)) = (with_prefix, bare) else {
            // Without a slash, a path has nothing to lose.
            let Listed::Changes(zero) = bare else { return false };
            let bare = |path: &Utf8Path| {
                path.parent() == Some("".into()) || self.missing_components(path) < path.components().count()
            };
            return zero.paths().any(bare);
        };
        let missing =
            |listing: &Listing| listing.paths().map(|path| self.missing_components(path)).sum::<usize>();
        one.changes != zero.changes && one.paths().all(is_inside) && missing(zero) <= missing(one)
    }

    /// Returns whether nothing shows that the paths have a prefix.
    fn may_be_bare(&self, bare: &Listed) -> bool {
        matches!(bare, Listed::Changes(zero) if !zero.paths().any(|path| self.has_prefix(path)))
    }

    /// Returns whether neither the tree nor the names show whether these paths have a prefix.
    fn is_unclear(&self, bare: &Listing) -> bool {
        bare.paths()
            .all(|path| self.missing_components(path) == path.components().count() && !self.has_prefix(path))
    }

    /// Returns whether the first component of a path looks like a prefix: git's own, or one before a directory
    /// of the tree.
    fn has_prefix(&self, path: &Utf8Path) -> bool {
        // `a` and `b`, and those of `diff.mnemonicPrefix`.
        const GIT: [&str; 6] = ["a", "b", "c", "i", "o", "w"];
        let Some((first, rest)) = path.as_str().split_once('/') else { return false };
        let dir = Utf8Path::new(rest).parent().filter(|dir| !dir.as_str().is_empty());
        let is_there = self.exists_in_tree(first.into());
        !is_there && (GIT.contains(&first) || dir.is_some_and(|dir| self.exists_in_tree(dir)))
    }

    /// Returns how many components of `path` are neither in the tree nor made by earlier patches.
    fn missing_components(&self, path: &Utf8Path) -> usize {
        path.components().count() - path.ancestors().filter(|path| self.exists_in_tree(path)).count()
    }

    fn exists_in_tree(&self, path: &Utf8Path) -> bool {
        is_inside(path)
            && [self.tree, &self.files].iter().any(|dir| dir.join(path).symlink_metadata().is_ok())
    }

    /// Reads the lines of the part that name files.
    fn headers(&self) -> io::Result<Headers> {
        let mut pieces = LinePieces::new(super::open(&self.part)?);
        let (mut git, mut equal, mut new, mut old) = (0, 0, 0, 0);
        while let Some((piece, begins)) = pieces.next()? {
            if !begins {
                continue;
            }
            if let Some(names) = piece.strip_prefix(b"diff --git ") {
                git += 1;
                equal += usize::from(are_equal(names.trim_ascii_end()));
            } else if piece.starts_with(b"--- /dev/null") {
                new += 1;
            } else if piece.starts_with(b"--- ") {
                old += 1;
            }
        }
        Ok(match (git, equal) {
            (0, _) if new > 0 && old == 0 => Headers::OnlyNew,
            (1.., 1..) => Headers::Equal,
            _ => Headers::Other,
        })
    }
}

/// What the lines of a patch that name files show.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Headers {
    /// `diff --git X X`. With prefixes, the names differ.
    Equal,
    /// Files that `--- /dev/null` adds, so that each has one name.
    OnlyNew,
    Other,
}

/// Returns whether `X X` has the same name twice.
fn are_equal(names: &[u8]) -> bool {
    let (first, second) = names.split_at(names.len() / 2);
    second.strip_prefix(b" ") == Some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_recognised() {
        assert!(are_equal(b"x x") && are_equal(b"a b/c a b/c") && are_equal(b"\"\\303\" \"\\303\""));
        assert!(!are_equal(b"a/x b/x") && !are_equal(b"x y") && !are_equal(b"") && !are_equal(b"xx"));
    }
}
