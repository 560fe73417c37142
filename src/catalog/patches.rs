//! Patches: which ones a version takes, and applying them by exact context, all or nothing.

use crate::catalog::Library;
use crate::catalog::text::{read_text, read_toml};
use crate::kernel::KernelVersion;
use crate::util::digest::Sha256;
use crate::util::error::{Context, Error, Kind, Result};
use camino::{Utf8Path, Utf8PathBuf};
use diffy::patch_set::{FileMode, FileOperation, ParseOptions, PatchKind, PatchSet};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

/// One patch of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PatchFile {
    /// Its path in the catalog, or in the user's directory.
    pub name: String,
    /// Digest of its text.
    pub sha256: Sha256,
    /// Why it is there, where the catalog says so.
    #[serde(skip)]
    pub reason: Option<String>,
    /// A unified diff, as `git format-patch` or `diff -u` writes it.
    #[serde(skip)]
    pub text: String,
}

/// One entry of `patches/series.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeriesEntry {
    /// `5.10/0001-objtool-….patch`.
    file: String,
    /// The first version that needs it.
    from: KernelVersion,
    /// The first version that no longer needs it.
    before: KernelVersion,
    /// Why.
    reason: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Series {
    #[serde(default)]
    patch: Vec<SeriesEntry>,
}

/// The catalog's patches for `version` in the order of `series.toml`, then the user's own.
pub fn select(library: &Library, version: KernelVersion, own: &[PatchFile]) -> Result<Vec<PatchFile>> {
    let mut selected = Vec::new();
    for (origin, text) in library.layers("patches/series.toml") {
        let series: Series = read_toml(origin, text)?;
        for entry in series.patch.into_iter().filter(|entry| (entry.from..entry.before).contains(&version)) {
            let name = format!("patches/{}", entry.file);
            let text =
                library.text(&name).ok_or_else(|| Error::usage(format!("{origin}: no such file: {name}")))?;
            let (sha256, text) = (Sha256::of(text), text.to_owned());
            selected.push(PatchFile { name, sha256, reason: Some(entry.reason), text });
        }
    }
    selected.extend_from_slice(own);
    Ok(selected)
}

/// The `*.patch` and `*.diff` files of a user's directory, in the order of their names.
pub fn read_dir(dir: &Utf8Path) -> Result<Vec<PatchFile>> {
    let entries = dir.read_dir_utf8().context(Kind::Usage, || format!("cannot read --patches {dir}"))?;
    let mut paths: Vec<Utf8PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.into_path())).collect();
    paths.retain(|path| matches!(path.extension(), Some("patch" | "diff")));
    paths.sort();
    if paths.is_empty() {
        return Err(Error::usage(format!("--patches {dir}: no file ending in .patch or .diff in it")));
    }
    let read = |path: &Utf8PathBuf| {
        let text = read_text(path)?;
        let name = path.file_name().expect("an entry of a directory").to_owned();
        Ok(PatchFile { name, sha256: Sha256::of(&text), reason: None, text })
    };
    paths.iter().map(read).collect()
}

/// Applies `patches` in their order to the kernel tree `tree`, whose unpatched files may be shared
/// (hard links) with other trees: a changed file is replaced, never written to.
///
/// Strict: the context of every hunk must be there exactly, though its lines may have moved. Paths
/// lose their first part (`a/`, `b/`); one that leaves the tree is refused. Errors name the patch,
/// the file and the hunk (exit code 1), and leave a tree that must be thrown away.
pub fn apply(patches: &[PatchFile], tree: &Utf8Path) -> Result<()> {
    patches.iter().try_for_each(|patch| apply_one(patch, tree))
}

fn apply_one(patch: &PatchFile, tree: &Utf8Path) -> Result<()> {
    let name = &patch.name;
    let options = match patch.text.contains("diff --git ") {
        true => ParseOptions::gitdiff(),
        false => ParseOptions::unidiff(),
    };
    let mut files = 0;
    for file in PatchSet::parse(&patch.text, options) {
        let file = file.context(Kind::Build, || format!("{name}: not a patch that can be read"))?;
        files += 1;
        let diff = match file.patch() {
            PatchKind::Text(diff) => diff,
            PatchKind::Binary(_) => {
                return Err(Error::build(format!("{name}: binary patches are not supported")));
            }
        };
        let operation = file.operation().strip_prefix(1);
        let (from, to) = match &operation {
            FileOperation::Delete(path) => (Some(path.as_ref()), None),
            FileOperation::Create(path) => (None, Some(path.as_ref())),
            FileOperation::Modify { original, modified } if original == modified => {
                (Some(original.as_ref()), Some(modified.as_ref()))
            }
            FileOperation::Modify { .. } => {
                return Err(Error::build(format!("{name}: a patch names a file in two ways")));
            }
            FileOperation::Rename { from, to } => (Some(from.as_ref()), Some(to.as_ref())),
            FileOperation::Copy { .. } => {
                return Err(Error::build(format!("{name}: copies are not supported")));
            }
        };
        let (from, to) = (
            from.map(|path| within(name, tree, path)).transpose()?,
            to.map(|path| within(name, tree, path)).transpose()?,
        );
        let shown =
            from.as_ref().or(to.as_ref()).map(|path| path.strip_prefix(tree).unwrap_or(path).to_owned());
        let shown = shown.unwrap_or_default();
        let before = match &from {
            Some(path) => {
                fs::read_to_string(path).context(Kind::Build, || format!("{name}: cannot read {shown}"))?
            }
            None => String::new(),
        };
        let target = to.as_ref().filter(|_| to != from);
        if let Some(path) = target.filter(|path| path.symlink_metadata().is_ok()) {
            let target = path.strip_prefix(tree).unwrap_or(path);
            return Err(Error::build(format!("{name}: {target} is there already")));
        }
        let after = diffy::apply(&before, diff).map_err(|error| {
            let done = diffy::apply(&before, &diff.reverse()).is_ok();
            // diffy's error says `error applying hunk #2`.
            let hunk = error.to_string().rsplit('#').next().unwrap_or("?").to_owned();
            let error = Error::build(format!("{name}: hunk {hunk} does not apply to {shown}"));
            match done {
                true => error.hint("this patch is already in the source: leave it out"),
                false => error.hint(
                    "the source is not the one that the patch was made for; context must match exactly",
                ),
            }
        })?;
        if matches!(operation, FileOperation::Delete(_)) && !after.is_empty() {
            return Err(Error::build(format!(
                "{name}: deletes {shown}, which holds more than the patch knows"
            )));
        }
        let mode = match (file.new_mode(), &from) {
            (Some(FileMode::Executable), _) => 0o555,
            (Some(FileMode::Regular), _) => 0o444,
            (Some(_), _) => return Err(Error::build(format!("{name}: {shown}: links are not supported"))),
            (None, Some(path)) => mode_of(path)?,
            (None, None) => 0o444,
        };
        if let Some(path) = &from {
            edit_in(path, || fs::remove_file(path))
                .context(Kind::Build, || format!("{name}: cannot replace {shown}"))?;
        }
        if let Some(path) = &to {
            let write = || {
                create_dirs(path.parent().expect("inside the tree"))?;
                edit_in(path, || {
                    // A file that is there may be shared with other trees: never one of those.
                    File::create_new(path)?.write_all(after.as_bytes())?;
                    fs::set_permissions(path, Permissions::from_mode(mode))
                })
            };
            write().context(Kind::Build, || format!("{name}: cannot write {shown}"))?;
        }
    }
    match files {
        0 => Err(Error::build(format!("{name}: no change in it, this is no patch"))),
        _ => Ok(()),
    }
}

/// `path` inside `tree`. Refused: absolute paths, `..`, and a way through a link.
fn within(name: &str, tree: &Utf8Path, path: &str) -> Result<Utf8PathBuf> {
    let refused = |why: &str| Error::build(format!("{name}: `{path}` {why}"));
    let mut whole = tree.to_owned();
    for part in Utf8Path::new(path).components() {
        match part {
            camino::Utf8Component::Normal(part) => whole.push(part),
            _ => return Err(refused("is not a path inside the tree")),
        }
        if whole.is_symlink() {
            return Err(refused("leads through a link"));
        }
    }
    match whole == *tree {
        true => Err(refused("is not a path inside the tree")),
        false => Ok(whole),
    }
}

fn mode_of(path: &Utf8Path) -> Result<u32> {
    let metadata = fs::metadata(path).context(Kind::Build, || format!("cannot read {path}"))?;
    Ok(if metadata.permissions().mode() & 0o100 != 0 { 0o555 } else { 0o444 })
}

/// Makes `dir` and those above it, each in a directory that is read-only before and after.
fn create_dirs(dir: &Utf8Path) -> std::io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    create_dirs(dir.parent().expect("the tree itself is there"))?;
    edit_in(dir, || fs::create_dir(dir))?;
    fs::set_permissions(dir, Permissions::from_mode(0o555))
}

/// Runs `edit` while the directory of `path` may be written: the tree is read-only around it.
fn edit_in(path: &Utf8Path, edit: impl FnOnce() -> std::io::Result<()>) -> std::io::Result<()> {
    let dir = path.parent().expect("inside the tree");
    fs::set_permissions(dir, Permissions::from_mode(0o755))?;
    let done = edit();
    fs::set_permissions(dir, Permissions::from_mode(0o555))?;
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(text: &str) -> PatchFile {
        PatchFile { name: "0001-x.patch".into(), sha256: Sha256::of(text), reason: None, text: text.into() }
    }

    /// A tree with one file, and what the patch `text` does to it.
    fn apply_to_tree(text: &str) -> (tempfile::TempDir, Result<()>) {
        let dir = tempfile::tempdir().unwrap();
        let tree = Utf8Path::from_path(dir.path()).unwrap().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("a.c"), "one\ntwo\nthree\nfour\nfive\nsix\nseven\n").unwrap();
        let done = apply(&[patch(text)], &tree);
        (dir, done)
    }

    const GOOD: &str = "From: me\n\n--- a/a.c\n+++ b/a.c\n@@ -2,3 +2,3 @@\n two\n-three\n+drei\n four\n\
                        --- /dev/null\n+++ b/new/b.c\n@@ -0,0 +1 @@\n+hello\n";

    #[test]
    fn files_are_changed_and_made() {
        let (dir, done) = apply_to_tree(GOOD);
        done.unwrap();
        assert_eq!(
            fs::read_to_string(dir.path().join("tree/a.c")).unwrap(),
            "one\ntwo\ndrei\nfour\nfive\nsix\nseven\n"
        );
        assert_eq!(fs::read_to_string(dir.path().join("tree/new/b.c")).unwrap(), "hello\n");
        fs::set_permissions(dir.path().join("tree"), Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(dir.path().join("tree/new"), Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn a_hard_link_elsewhere_keeps_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Utf8Path::from_path(dir.path()).unwrap().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("a.c"), "one\ntwo\nthree\nfour\n").unwrap();
        fs::hard_link(tree.join("a.c"), dir.path().join("pristine")).unwrap();
        apply(&[patch("--- a/a.c\n+++ b/a.c\n@@ -2,2 +2,2 @@\n two\n-three\n+drei\n")], &tree).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("pristine")).unwrap(), "one\ntwo\nthree\nfour\n");
        fs::set_permissions(tree, Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn a_rename_moves_a_file_and_never_takes_the_place_of_another() {
        let rename = |to: &str| {
            format!("diff --git a/a.c b/{to}\nsimilarity index 100%\nrename from a.c\nrename to {to}\n")
        };
        let dir = tempfile::tempdir().unwrap();
        let tree = Utf8Path::from_path(dir.path()).unwrap().join("tree");
        fs::create_dir(&tree).unwrap();
        for (name, text) in [("a.c", "one\n"), ("b.c", "two\n")] {
            fs::write(tree.join(name), text).unwrap();
            fs::hard_link(tree.join(name), dir.path().join(name)).unwrap();
        }
        let error = apply(&[patch(&rename("b.c"))], &tree).unwrap_err();
        assert_eq!(error.to_string(), "0001-x.patch: b.c is there already");
        assert_eq!(fs::read_to_string(dir.path().join("b.c")).unwrap(), "two\n");
        apply(&[patch(&rename("c.c"))], &tree).unwrap();
        assert_eq!(fs::read_to_string(tree.join("c.c")).unwrap(), "one\n");
        assert!(!tree.join("a.c").exists());
        fs::set_permissions(tree, Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn context_must_match_exactly() {
        let (_dir, done) = apply_to_tree(&GOOD.replace(" two\n", " 2\n"));
        assert_eq!(done.unwrap_err().to_string(), "0001-x.patch: hunk 1 does not apply to a.c");
    }

    #[test]
    fn a_patch_that_is_in_already_is_said_to_be() {
        let (_dir, done) = apply_to_tree("--- a/a.c\n+++ b/a.c\n@@ -2,3 +2,3 @@\n two\n-3\n+three\n four\n");
        assert!(done.unwrap_err().hint_text().unwrap().starts_with("this patch is already in"));
    }

    #[test]
    fn no_path_leaves_the_tree() {
        for path in ["../x", "/etc/x", "d/../../x", "."] {
            let (dir, done) = apply_to_tree(&format!("--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n"));
            assert!(done.unwrap_err().to_string().contains("is not a path inside the tree"), "{path}");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "{path}: something beside the tree");
        }
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
        let text = "--- /dev/null\n+++ b/link/x\n@@ -0,0 +1 @@\n+x\n";
        let error = apply(&[patch(text)], Utf8Path::from_path(dir.path()).unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "0001-x.patch: `link/x` leads through a link");
    }

    #[test]
    fn the_range_chooses() {
        let series =
            "[[patch]]\nfile = \"5.10/a.patch\"\nfrom = \"5.10\"\nbefore = \"5.10.102\"\nreason = \"r\"\n";
        let library = Library::from_texts([("patches/series.toml", series), ("patches/5.10/a.patch", GOOD)]);
        let count = |version: &str| select(&library, version.parse().unwrap(), &[]).unwrap().len();
        assert_eq!((count("5.10.77"), count("5.10.102"), count("5.9")), (1, 0, 0));
    }
}
