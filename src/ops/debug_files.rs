//! Finds the files that debuggers need, in the build directories of the cache.

use crate::cache::Cache;
use crate::kernel::binary;
use crate::ops::clean::list_dir;
use crate::source::BUILD_DIR_PREFIX;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::fs::{TEMPORARY, create_dir, persist};
use crate::util::read::{Links, open_file};
use camino::{Utf8Path, Utf8PathBuf};
use std::io;
use tempfile::NamedTempFile;

/// What gdb, drgn and crash read.
const FILES: [&str; 2] = ["vmlinux", "System.map"];

/// Copies the unstripped `vmlinux` and `System.map` of the kernel with this build id to `dir`. Returns their
/// paths.
///
/// # Errors
///
/// Exit code 2 if no build directory of the cache has that kernel, 1 if a file cannot be written.
pub fn copy(build_id: &str, cache: &Cache, dir: &Utf8Path) -> Result<Vec<Utf8PathBuf>> {
    let build_dir = find_build_dir(build_id, cache)?.ok_or_else(|| {
        Error::usage(format!("no build directory in {} has the kernel with build id {build_id}", cache.root))
            .hint("build it again with --rebuild; the command is in its receipt")
    })?;
    create_dir(dir)?;
    FILES
        .iter()
        .map(|name| {
            let (from, to) = (build_dir.join(name), dir.join(name));
            let copy = || {
                let mut file = NamedTempFile::with_prefix_in(TEMPORARY, dir)?;
                io::copy(&mut open_file(&from, Links::RefuseAnywhere)?, &mut file)?;
                Ok::<_, io::Error>(file)
            };
            persist(copy().context(Kind::Build, || format!("cannot copy {from} to {to}"))?, &to)?;
            Ok(to)
        })
        .collect()
}

/// Returns the build directory whose `vmlinux` has this build id.
fn find_build_dir(build_id: &str, cache: &Cache) -> Result<Option<Utf8PathBuf>> {
    let mut places = list_dir(&cache.root.join("builds"))?;
    places.extend(list_dir(&cache.root.join("trees"))?.iter().map(|tree| tree.join("linux")));
    for place in places.iter().filter(|place| place.is_dir()) {
        for dir in list_dir(place)? {
            let is_build = dir.file_name().is_some_and(|name| name.starts_with(BUILD_DIR_PREFIX));
            let vmlinux = dir.join("vmlinux");
            if !is_build || !vmlinux.is_file() {
                continue;
            }
            let file = open_file(&vmlinux, Links::RefuseAnywhere)
                .context(Kind::Build, || format!("cannot read {vmlinux}"))?;
            // A kernel that make is writing may be of any form.
            if binary::identify(file).is_ok_and(|found| found.build_id.as_deref() == Some(build_id)) {
                return Ok(Some(dir));
            }
        }
    }
    Ok(None)
}
