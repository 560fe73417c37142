//! The bare repositories in the cache, one for each URL that was fetched from, and the repositories for one task
//! that borrow their objects. What is fetched, or comes out of a bundle, lies in such a borrowing repository until
//! it is whole: nothing half-received reaches the cache.

use super::git_program::Git;
use crate::cache::{Cache, ScratchDir};
use crate::host::Host;
use crate::util::digest::Sha256;
use crate::util::error::{Kind, Result, ResultExt};
use crate::util::fs::{create_dir, sync_dir, write_atomically};
use crate::util::read::{Links, MAX_JSON, open_file, read_file};
use camino::{Utf8Path, Utf8PathBuf};
use std::fs;

/// Where a fetch puts what it has asked for.
pub(super) const FETCHED: &str = "refs/kcompile/fetched";
/// Attributes of the tree must not change what is in it, nor leave files out. Nothing overrides this file.
const NO_ATTRIBUTES: &str =
    "* -export-ignore -export-subst -text -crlf -eol -ident -filter -working-tree-encoding\n";
const CONFIG: &str = "[core]\n\trepositoryformatversion = 0\n\tbare = true\n";

pub(super) fn repository_lock(url: &str) -> String {
    format!("git-{}", Sha256::of(url).short())
}

/// Each user has repositories of their own: git refuses those of others.
pub(super) fn repository_dir(url: &str, cache: &Cache) -> Utf8PathBuf {
    cache.root.join("git").join(format!("{}-{}", Sha256::of(url).short(), cache.uid))
}

/// Is `commit` in the cache's repository for `url`?
pub(super) fn has_commit(url: &str, commit: &str, cache: &Cache, host: &Host) -> Result<bool> {
    let repository = repository_dir(url, cache);
    Ok(repository.is_dir() && commit_of(&Git::local(host, &repository)?, commit)?.is_some())
}

/// Returns the commit that `object` is, or that it points at as a tag; `None`: it is not there.
pub(super) fn commit_of(git: &Git<'_>, object: &str) -> Result<Option<String>> {
    git.run_for_text(&[
        "rev-parse",
        "--verify",
        "--quiet",
        "--end-of-options",
        &format!("{object}^{{commit}}"),
    ])
}

/// A repository for one task, which borrows the objects of another one.
pub(super) struct ScratchRepository {
    scratch: ScratchDir,
}

impl ScratchRepository {
    /// Borrows the objects in the directory `objects`; a `shallow` file says which commits have no parents here.
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
            let copied = fs::copy(shallow, dir.join("shallow"));
            copied.context(Kind::Build, || format!("cannot copy {shallow}"))?;
        }
        Ok(repository)
    }

    /// Borrows from the cache's repository for `url`.
    pub fn of_url(url: &str, cache: &Cache) -> Result<ScratchRepository> {
        let repository = repository_dir(url, cache);
        ScratchRepository::new(&repository.join("objects"), Some(&repository.join("shallow")), cache)
    }

    /// `--git-dir`.
    pub fn dir(&self) -> Utf8PathBuf {
        self.scratch.path.join("repository")
    }

    /// Where packs lie that it does not borrow.
    pub fn packs(&self) -> Utf8PathBuf {
        self.dir().join("objects/pack")
    }

    /// Gives its own objects to the cache's repository for `url`, whose lock the caller holds.
    pub fn store_packs(&self, url: &str, cache: &Cache) -> Result<()> {
        let repository = repository_dir(url, cache);
        init_repository(&repository)?;
        let packs = self.packs();
        let message = || format!("cannot keep the objects of {url} in {repository}");
        let mut files: Vec<_> = packs.read_dir_utf8().context(Kind::Build, message)?.flatten().collect();
        // git takes a pack for whole when its index is there.
        files.sort_by_key(|file| file.path().extension() == Some("idx"));
        let to = repository.join("objects/pack");
        for file in files {
            open_file(file.path(), Links::Refuse)
                .and_then(|file| file.sync_all())
                .context(Kind::Build, message)?;
            fs::rename(file.path(), to.join(file.file_name())).context(Kind::Build, message)?;
        }
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

/// Makes an empty bare repository where there is none.
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
