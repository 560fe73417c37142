//! A kernel tree that builds are made from.

use crate::plan::SourceIdentity;
use crate::util::error::{Error, Result};
use camino::Utf8PathBuf;

/// Build directories are direct children of their tree, under names that start so.
pub const BUILD_DIR_PREFIX: &str = "kcompile-";

/// A kernel tree that can be built from, and must not be written to.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The directory with the top Makefile.
    pub path: Utf8PathBuf,
    /// Where build directories go.
    pub builds: Utf8PathBuf,
    /// Where links in a directory that is used in place lead out of it.
    pub external_paths: Vec<Utf8PathBuf>,
    /// What the source has shown.
    pub identity: SourceIdentity,
    /// The name of its entry in the cache, and of its lock.
    pub key: String,
    /// Of a directory that is used in place: what the file system said of it when it was looked at.
    pub(super) stat_hash: Option<String>,
}

impl Tree {
    /// Errors (exit code 1): it was removed since it was found. To be asked when nobody can remove it any more: with
    /// the lock of a build in it.
    pub fn require(&self) -> Result<()> {
        match self.path.join("Makefile").is_file() {
            true => Ok(()),
            false => Err(Error::build(format!("the tree {} was removed meanwhile", self.path))
                .hint("run the same command again")),
        }
    }
}
