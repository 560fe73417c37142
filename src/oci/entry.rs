//! The entries of a layer to write.

use camino::Utf8PathBuf;
use std::collections::BTreeMap;

/// The entries of a layer by their path, which is relative and without a trailing slash. Directories are
/// included, and sort before what they contain.
pub type Entries = BTreeMap<String, Entry>;

/// An entry of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Dir,
    /// A copy of a file.
    File {
        from: Utf8PathBuf,
        /// Whether the mode is 0755 instead of 0644.
        executable: bool,
    },
    /// Another name of this earlier entry.
    HardLink(String),
    /// A symbolic link with this target.
    SymLink(String),
}
