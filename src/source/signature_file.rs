//! The signature file beside a tarball on this machine.

use crate::catalog::text::read_text;
use crate::util::error::Result;
use crate::util::read::MAX_SMALL_FILE;
use camino::{Utf8Path, Utf8PathBuf};

/// Reads the signature file beside the tarball at `archive`, if there is one.
pub(super) fn read(archive: &Utf8Path) -> Result<Option<String>> {
    let sibling = path(archive);
    sibling.is_file().then(|| read_text(&sibling, MAX_SMALL_FILE)).transpose()
}

/// Returns the path that kernel.org uses: `linux-6.1.7.tar.sign` beside `linux-6.1.7.tar.xz`.
pub(super) fn path(archive: &Utf8Path) -> Utf8PathBuf {
    match archive.file_stem() {
        Some(stem) if stem.ends_with(".tar") => archive.with_file_name(format!("{stem}.sign")),
        _ => Utf8PathBuf::from(format!("{archive}.sign")),
    }
}
