//! The entries of a layer that is to be written.

use camino::Utf8PathBuf;
use std::collections::BTreeMap;

/// Entries of a layer by their path (relative, without a trailing slash); directories included.
/// A directory sorts before what is in it.
pub type Entries = BTreeMap<String, Entry>;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Dir,
    /// A file with the bytes of this one.
    File {
        /// Where the bytes are.
        from: Utf8PathBuf,
        /// Mode 0755 in place of 0644.
        executable: bool,
    },
    /// A second name of an earlier entry.
    HardLink(String),
    /// A symbolic link.
    SymLink(String),
}
