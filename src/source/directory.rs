//! A kernel tree in a directory of the user's: used in place, never written to.

use super::{SourceIdentity, Tree, identify};
use crate::cache::Cache;
use crate::digest::{Hasher, Sha256};
use crate::error::{Context, Error, Kind, Result};
use crate::files;
use crate::kernel::KernelVersion;
use crate::report::{Count, Running, Unit};
use camino::Utf8Path;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use walkdir::{DirEntry, WalkDir};

/// The version of the kernel tree in `dir`.
///
/// Errors (exit code 2): it holds no kernel tree, or one that the kernel's make cannot use from
/// outside (a path with spaces or colons; a tree that was built in).
pub fn tree_version(dir: &Utf8Path) -> Result<KernelVersion> {
    crate::process::check_kbuild_path("the source directory", dir)?;
    let not_a_tree = || {
        Error::usage(format!(
            "{dir} is not a kernel tree: no Makefile with a VERSION, Kbuild and Kconfig at its top"
        ))
    };
    let makefile = fs::read(dir.join("Makefile")).map_err(|_| not_a_tree())?;
    let version = KernelVersion::from_makefile(&String::from_utf8_lossy(&makefile)).ok_or_else(not_a_tree)?;
    if !dir.join("Kconfig").is_file() || !dir.join("Kbuild").is_file() {
        return Err(not_a_tree());
    }
    // The rule of the top Makefile's `outputmakefile`: it stops with "The source tree is not clean".
    if dir.join(".config").exists() || dir.join("include/config").is_dir() {
        return Err(Error::usage(format!(
            "{dir} has been built in: the kernel's make refuses such a tree for another build"
        ))
        .hint(format!("clean it with `make -C {dir} mrproper`, which removes its .config")));
    }
    Ok(version)
}

/// Takes the directory as it is. Its digest is one of its content: of the names, modes and bytes of
/// all files but those of version control.
pub(super) fn adopt(path: &Utf8Path, cache: &Cache, running: &Running<'_>) -> Result<Tree> {
    let version = identify(path, path.as_str())?;
    let date = date(path)?;
    let digest = content_digest(path, running)?;
    let identity = SourceIdentity {
        name: "directory".into(),
        digest: format!("content:{digest}"),
        version,
        date,
        verified: format!("used in place: {path}"),
    };
    // One place for the builds of this directory, whatever its content: make sees what changed.
    let key = format!("directory-{}", Sha256::of(path.as_str()).short());
    let builds = cache.root.join("builds").join(&key);
    files::create_dir(&builds)?;
    Ok(Tree { path: path.to_owned(), builds, identity, key })
}

/// Of the commit that is checked out, where it is a git work tree; else of the top Makefile.
fn date(path: &Utf8Path) -> Result<u64> {
    let committed = git2::Repository::open(path)
        .and_then(|repository| Ok(repository.head()?.peel_to_commit()?.time().seconds()));
    let seconds = match committed {
        Ok(seconds) => seconds,
        Err(_) => fs::metadata(path.join("Makefile"))
            .context(Kind::Usage, || format!("cannot read {path}"))?
            .mtime(),
    };
    Ok(u64::try_from(seconds).unwrap_or(0))
}

fn content_digest(dir: &Utf8Path, running: &Running<'_>) -> Result<Sha256> {
    let wrong = || format!("cannot read {dir}");
    let is_source =
        |entry: &DirEntry| entry.depth() != 1 || !matches!(entry.file_name().to_str(), Some(".git" | ".hg"));
    let mut hasher = Hasher::default();
    let walk = WalkDir::new(dir).sort_by_file_name().into_iter().filter_entry(is_source);
    for (count, entry) in walk.enumerate() {
        crate::process::check()?;
        let entry = entry.context(Kind::Usage, wrong)?;
        let relative = entry.path().strip_prefix(dir).expect("walked from there").to_string_lossy();
        let metadata = entry.metadata().context(Kind::Usage, wrong)?;
        let content = match metadata.file_type() {
            kind if kind.is_dir() => continue,
            kind if kind.is_symlink() => Sha256::of(
                fs::read_link(entry.path()).context(Kind::Usage, wrong)?.to_string_lossy().as_bytes(),
            ),
            _ => Sha256::of_reader(File::open(entry.path()).context(Kind::Usage, wrong)?)
                .context(Kind::Usage, wrong)?,
        };
        let executable = metadata.permissions().mode() & 0o100 != 0;
        hasher.update(format!("{relative}\0{executable}\0{}\0{content}\0", metadata.is_symlink()));
        if count % 256 == 0 {
            running.progress(Count { done: count as u64, total: None, unit: Unit::Steps, item: &relative });
        }
    }
    Ok(hasher.finish())
}
