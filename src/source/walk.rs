//! Lists all files of a user's source directory. Make follows links, so the targets of links that lead out of
//! the directory are part of the source, too.

use super::tree_manifest;
use crate::host::process;
use crate::util::error::{Error, Kind, Result, ResultExt, cannot};
use crate::util::fs::normalize_path;
use camino::{Utf8Path, Utf8PathBuf};
use std::fs::{self, Metadata};
use std::path::{Component, Path, PathBuf};
use walkdir::{DirEntry, WalkDir};
use xxhash_rust::xxh3::Xxh3;

/// Kernel trees have about 84,000 entries. A link may lead anywhere.
const MAX_ENTRIES: usize = 500_000;

/// A file, a directory or a link.
pub(super) struct SourceFile {
    /// The path in the source directory.
    pub name: Utf8PathBuf,
    /// The path to read it from.
    pub path: PathBuf,
    /// The link's own metadata for a link.
    pub metadata: Metadata,
    /// The place in the source that a link leads to, if its text leaves the source on the way.
    pub resolved: Option<PathBuf>,
}

/// Lists everything in `dir` except version control, and the targets of links outside of `dir`. Such a link
/// and its target have the same name.
///
/// # Errors
///
/// Exit code 2: there is a device, a socket or a named pipe, or a link leads to a parent of `dir`.
pub(super) fn walk(dir: &Utf8Path) -> Result<Vec<SourceFile>> {
    let real = fs::canonicalize(dir).context(Kind::Usage, || format!("cannot read {dir}"))?;
    let mut walk = Walker { dir, roots: vec![real], found: Vec::new() };
    walk.add(dir.as_std_path(), Utf8Path::new(""))?;
    Ok(walk.found)
}

/// Hashes the metadata of `found`. Also returns the newest `ctime` in nanoseconds since 1970.
pub(super) fn stat(found: &[SourceFile]) -> (String, i64) {
    let mut hasher = Xxh3::new();
    let mut last = 0;
    for SourceFile { name, metadata, resolved, .. } in found {
        last = last.max(tree_manifest::hash_stat(&mut hasher, name, metadata));
        resolved.iter().for_each(|place| hasher.update(place.as_os_str().as_encoded_bytes()));
    }
    (format!("{:032x}\n", hasher.digest128()), last)
}

/// Returns the targets outside of `dir` of links among `found`, as make opens them.
pub(super) fn external_paths(dir: &Utf8Path, found: &[SourceFile]) -> Vec<Utf8PathBuf> {
    let links = found.iter().filter(|found| found.metadata.is_symlink());
    let targets = links.filter_map(|SourceFile { path, .. }| {
        let text = fs::read_link(path).ok()?;
        let from = Utf8Path::from_path(path.parent()?)?;
        let target = normalize_path(&from.join(Utf8Path::from_path(&text)?));
        let is_outside = !target.starts_with(dir) && !target.starts_with("/proc");
        // A sandbox has its own devices.
        let is_device = fs::metadata(&target).is_ok_and(|it| !it.is_file() && !it.is_dir());
        (is_outside && !is_device).then_some(target)
    });
    let mut targets: Vec<_> = targets.collect();
    targets.sort();
    targets.dedup();
    targets
}

struct Walker<'a> {
    dir: &'a Utf8Path,
    /// The real paths of the directories that belong to the source. The first one is `dir`.
    roots: Vec<PathBuf>,
    found: Vec<SourceFile>,
}

impl Walker<'_> {
    /// Adds everything in the directory `from`, whose name is `name`.
    fn add(&mut self, from: &Path, name: &Utf8Path) -> Result<()> {
        let is_top = name.as_str().is_empty();
        let is_source =
            |entry: &DirEntry| !is_top || entry.depth() != 1 || !is_version_control(entry.file_name());
        for entry in WalkDir::new(from).sort_by_file_name().into_iter().filter_entry(is_source) {
            process::check()?;
            let entry = entry.context(Kind::Usage, cannot("read", &from.display()))?;
            let below = entry.path().strip_prefix(from).expect("walked from there").to_string_lossy();
            let name = name.join(&*below);
            let metadata = entry.metadata().context(Kind::Usage, cannot("read", &from.display()))?;
            let path = entry.into_path();
            if metadata.is_symlink() {
                self.add_link(name, path, metadata)?;
            } else {
                self.push(SourceFile { name, path, metadata, resolved: None })?;
            }
        }
        Ok(())
    }

    fn add_link(&mut self, name: Utf8PathBuf, path: PathBuf, metadata: Metadata) -> Result<()> {
        let Ok(real) = fs::canonicalize(&path) else {
            return self.push(SourceFile { name, path, metadata, resolved: None });
        };
        if let Some(place) = self.place(&real) {
            let text =
                fs::read_link(&path).context(Kind::Usage, || format!("cannot read {}", path.display()))?;
            let resolved = escapes_dir(&name, &text).then_some(place);
            return self.push(SourceFile { name, path, metadata, resolved });
        }
        if self.roots[0].starts_with(&real) {
            let (dir, real) = (self.dir, real.display());
            return Err(Error::usage(format!(
                "{dir}/{name} leads to {real}, which contains the source directory"
            ))
            .hint("remove the link; make follows links, so that directory would be part of the source"));
        }
        self.push(SourceFile { name: name.clone(), path, metadata, resolved: None })?;
        let metadata =
            fs::metadata(&real).context(Kind::Usage, || format!("cannot read {}", real.display()))?;
        if metadata.is_dir() {
            self.roots.push(real.clone());
            return self.add(&real, &name);
        }
        self.push(SourceFile { name, path: real, metadata, resolved: None })
    }

    /// Returns the place of `real` in the source: the index of its root, and the path there.
    fn place(&self, real: &Path) -> Option<PathBuf> {
        let (index, below) = self
            .roots
            .iter()
            .enumerate()
            .find_map(|(index, root)| Some((index, real.strip_prefix(root).ok()?)))?;
        let is_excluded = index == 0 && below.iter().next().is_some_and(is_version_control);
        (!is_excluded).then(|| Path::new(&index.to_string()).join(below))
    }

    fn push(&mut self, found: SourceFile) -> Result<()> {
        let Walker { dir, .. } = self;
        let kind = found.metadata.file_type();
        if !(kind.is_file() || kind.is_dir() || kind.is_symlink()) {
            let name = found.name;
            return Err(Error::usage(format!("{dir}/{name} is not a file, a directory or a link")));
        }
        if self.found.len() == MAX_ENTRIES {
            let hint = match &self.roots[1..] {
                [] => "make sure that it is a kernel tree".to_owned(),
                [.., last] => format!("the source includes {}, the target of a link", last.display()),
            };
            return Err(
                Error::usage(format!("{dir}: more than {MAX_ENTRIES} files and directories")).hint(hint)
            );
        }
        self.found.push(found);
        Ok(())
    }
}

/// Returns whether the name at the top belongs to version control.
fn is_version_control(name: &std::ffi::OsStr) -> bool {
    matches!(name.to_str(), Some(".git" | ".hg"))
}

/// Returns whether the text of the link `name` leaves the source on the way.
fn escapes_dir(name: &Utf8Path, text: &Path) -> bool {
    let mut depth = name.components().count() as i64 - 1;
    text.components().any(|part| {
        depth += match part {
            Component::Normal(_) => 1,
            Component::ParentDir => -1,
            Component::CurDir => 0,
            Component::RootDir | Component::Prefix(_) => return true,
        };
        depth < 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn names(dir: &Utf8Path) -> Vec<String> {
        walk(dir).unwrap().into_iter().map(|found| found.name.into_string()).collect()
    }

    #[test]
    fn links_are_followed_out_of_the_source_and_not_in_circles() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(dir.path()).unwrap();
        let (source, external_paths) = (dir.join("linux"), dir.join("outside"));
        for path in [source.join("init"), source.join(".git"), external_paths.join("sub")] {
            fs::create_dir_all(path).unwrap();
        }
        for path in [source.join("init/main.c"), source.join(".git/x"), external_paths.join("sub/x.c")] {
            fs::write(path, "").unwrap();
        }
        symlink(&external_paths, source.join("a")).unwrap();
        symlink("init/main.c", source.join("b")).unwrap();
        symlink("../linux/init/main.c", source.join("c")).unwrap();
        symlink(".git/x", source.join("d")).unwrap();
        symlink("gone", source.join("e")).unwrap();
        symlink(&source, external_paths.join("back")).unwrap();
        symlink("sub", external_paths.join("round")).unwrap();
        let expected = [
            "",
            "a",
            "a/",
            "a/back",
            "a/round",
            "a/sub",
            "a/sub/x.c",
            "b",
            "c",
            "d",
            "d",
            "e",
            "init",
            "init/main.c",
        ];
        assert_eq!(names(&source), expected);
        let resolved: Vec<_> = walk(&source)
            .unwrap()
            .into_iter()
            .filter_map(|found| Some((found.name, found.resolved?)))
            .collect();
        let place = |name: &str, place: &str| (Utf8PathBuf::from(name), PathBuf::from(place));
        assert_eq!(resolved, [place("a/back", "0/"), place("c", "0/init/main.c")]);
        symlink(dir, source.join("f")).unwrap();
        assert!(walk(&source).err().unwrap().to_string().contains("which contains the source directory"));
    }
}
