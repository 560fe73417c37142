//! A kernel tree that builds are made from.

use crate::plan::SourceIdentity;
use crate::util::error::{Error, Result};
use camino::{Utf8Path, Utf8PathBuf};

/// The prefix of build directories, which are direct children of their tree.
pub const BUILD_DIR_PREFIX: &str = "kcompile-";

/// A kernel tree to build from, which must not be written to.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The directory with the top Makefile.
    pub path: Utf8PathBuf,
    /// The parent of the build directories.
    pub builds: Utf8PathBuf,
    /// The targets outside of a user directory that links in it lead to.
    pub external_paths: Vec<Utf8PathBuf>,
    pub identity: SourceIdentity,
    /// The name of its entry in the cache, and of its lock.
    pub key: String,
    /// The hash of the metadata of a user directory when it was read.
    pub(super) stat_hash: Option<String>,
}

impl Tree {
    /// Fails if the tree has been removed. The caller holds the lock of a build, which keeps it from now on.
    ///
    /// # Errors
    ///
    /// Exit code 1: it has been removed.
    pub fn require(&self) -> Result<()> {
        if !self.path.join("Makefile").is_file() {
            return Err(removed_error(&self.path));
        }
        Ok(())
    }
}

/// Returns the error for a tree that another process removed, such as `kcompile clean`.
pub(super) fn removed_error(tree: &Utf8Path) -> Error {
    Error::build(format!("the tree {tree} has been removed by another process"))
        .hint("run the same command again")
}
