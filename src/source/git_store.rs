//! The bare repositories in the cache, one for each URL, and scratch repositories that borrow their objects.
//! Objects from a server or a bundle stay in a scratch repository until they are complete.

use super::git_program::Git;
use crate::cache::{Cache, ScratchDir};
use crate::host::Host;
use crate::util::digest::Sha256;
use crate::util::error::{Kind, Result, ResultExt};
use crate::util::fs::{create_dir, sync_dir, write_atomically};
use crate::util::read::{Links, MAX_JSON, open_file, read_file};
use camino::{Utf8Path, Utf8PathBuf};
use std::fs;

/// The reference that a fetch writes.
pub(super) const FETCHED: &str = "refs/kcompile/fetched";
/// The tree's attributes must not change or leave out files. `info/attributes` has the highest precedence.
const NO_ATTRIBUTES: &str =
    "* -export-ignore -export-subst -text -crlf -eol -ident -filter -working-tree-encoding\n";
const CONFIG: &str = "[core]\n\trepositoryformatversion = 0\n\tbare = true\n";

pub(super) fn repository_lock(url: &str) -> String {
    format!("git-{}", Sha256::of(url).short())
}

/// Returns the cache's repository for `url`. Each user has one, since git refuses those of other users.
pub(super) fn repository_dir(url: &str, cache: &Cache) -> Utf8PathBuf {
    cache.root.join("git").join(format!("{}-{}", Sha256::of(url).short(), cache.uid))
}

/// Returns whether `commit` is in the cache's repository for `url`.
pub(super) fn has_commit(url: &str, commit: &str, cache: &Cache, host: &Host) -> Result<bool> {
    let repository = repository_dir(url, cache);
    Ok(repository.is_dir() && commit_of(&Git::local(host, &repository)?, commit)?.is_some())
}

/// Returns the commit that `object` is, or the tag `object` points at. `None` means that it is missing.
pub(super) fn commit_of(git: &Git<'_>, object: &str) -> Result<Option<String>> {
    git.run_for_text(&[
        "rev-parse",
        "--verify",
        "--quiet",
        "--end-of-options",
        &format!("{object}^{{commit}}"),
    ])
}

/// A temporary repository that borrows the objects of another one.
pub(super) struct ScratchRepository {
    scratch: ScratchDir,
}

impl ScratchRepository {
    /// Borrows the objects in the directory `objects`. A `shallow` file names the commits without parents.
    pub fn new(objects: &Utf8Path, shallow: Option<&Utf8Path>, cache: &Cache) -> Result<ScratchRepository> {
        let repository = ScratchRepository { scratch: cache.scratch()? };
        let dir = repository.dir();
        init_repository(&dir)?;
        let write = |name: &str, text: &str| {
            let path = dir.join(name);
            fs::write(&path, text).context(Kind::Build, || format!("cannot write {path}"))
        };
        write("info/attributes", NO_ATTRIBUTES)?;
        write("objects/info/alternates", &format!("{objects}\n"))?;
        if let Some(shallow) = shallow.filter(|shallow| shallow.is_file()) {
            fs::copy(shallow, dir.join("shallow"))
                .context(Kind::Build, || format!("cannot copy {shallow}"))?;
        }
        Ok(repository)
    }

    /// Borrows from the cache's repository for `url`.
    pub fn of_url(url: &str, cache: &Cache) -> Result<ScratchRepository> {
        let repository = repository_dir(url, cache);
        ScratchRepository::new(&repository.join("objects"), Some(&repository.join("shallow")), cache)
    }

    /// Returns the path for `--git-dir`.
    pub fn dir(&self) -> Utf8PathBuf {
        self.scratch.path.join("repository")
    }

    /// Returns the directory of its own packs.
    pub fn packs(&self) -> Utf8PathBuf {
        self.dir().join("objects/pack")
    }

    /// Moves its own objects into the cache's repository for `url`, whose lock the caller holds.
    pub fn store_packs(&self, url: &str, cache: &Cache) -> Result<()> {
        let repository = repository_dir(url, cache);
        init_repository(&repository)?;
        let to = repository.join("objects/pack");
        let move_packs = || {
            let mut files: Vec<_> = self.packs().read_dir_utf8()?.flatten().collect();
            // git treats a pack as complete if it has an index.
            files.sort_by_key(|file| file.path().extension() == Some("idx"));
            files.iter().try_for_each(|file| {
                open_file(file.path(), Links::Refuse)?.sync_all()?;
                fs::rename(file.path(), to.join(file.file_name()))
            })
        };
        move_packs().context(Kind::Build, || format!("cannot store the objects of {url} in {repository}"))?;
        sync_dir(&to)?;
        for name in ["shallow", FETCHED] {
            if let Ok(bytes) = read_file(self.dir().join(name), Links::Refuse, MAX_JSON) {
                create_dir(repository.join(name).parent().expect("below the repository"))?;
                write_atomically(&repository.join(name), &bytes)?;
            }
        }
        Ok(())
    }
}

/// Creates an empty bare repository if there is none.
fn init_repository(dir: &Utf8Path) -> Result<()> {
    for name in ["objects/info", "objects/pack", "refs", "info"] {
        create_dir(&dir.join(name))?;
    }
    for (name, text) in [("config", CONFIG), ("HEAD", "ref: refs/heads/none\n")] {
        if !dir.join(name).is_file() {
            write_atomically(&dir.join(name), text.as_bytes())?;
        }
    }
    Ok(())
}
