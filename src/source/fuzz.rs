//! Fuzz targets that unpack arbitrary bytes in a temporary directory.

use super::archive::{HardLinks, decompress, unpack_tar};
use super::bundle::import as import_bundle;
use super::context::FetchContext;
use crate::cache::Cache;
use crate::catalog::ConfigLibrary;
use crate::catalog::kernels::Catalog;
use crate::catalog::lockfile::LockFile;
use crate::host::Host;
use crate::report::{ErrorFormat, Progress, Reporter, Verbosity};
use crate::util::fs::remove_tree;
use crate::util::openpgp::Keyring;
use crate::util::terminal::{ColorChoice, Terminals};
use camino::Utf8Path;
use std::fs;
use std::io::Read;
use std::time::Duration;

/// The number of bytes that `archive` decompresses of an input.
const DECOMPRESSED: u64 = 1 << 20;

/// Unpacks `bytes` as a compressed archive, and as a bare tar.
pub fn archive(bytes: &[u8]) {
    inside(&["bare", "compressed"], |dir| {
        let _ = unpack_tar("x", &mut &bytes[..], &dir.join("bare"), HardLinks::Refuse, |_| {});
        if let Ok(reader) = decompress("x", bytes, 2) {
            let _ = unpack_tar(
                "x",
                &mut reader.take(DECOMPRESSED),
                &dir.join("compressed"),
                HardLinks::Refuse,
                |_| {},
            );
        }
    });
}

/// Imports `bytes` as a bundle into a cache.
pub fn bundle(bytes: &[u8]) {
    inside(&["bundle", "cache"], |dir| {
        let bundle = dir.join("bundle");
        fs::write(&bundle, bytes).expect("it can be written");
        let host = Host::read(Some(ColorChoice::Never)).expect("a host");
        let ctx = FetchContext {
            cache: &Cache::open(&dir.join("cache"), host.uid).expect("a cache"),
            host: &host,
            reporter: &Reporter::new(
                Progress::Quiet,
                Verbosity::Normal,
                Terminals::default(),
                ErrorFormat::Text,
            ),
            offline: true,
            stall: Duration::from_secs(1),
            jobs: 1,
            catalog: &Catalog::read(&ConfigLibrary::built_in()).expect("our own"),
            lock: &LockFile::default(),
            keyring: &Keyring::built_in(),
            require_signature: false,
            keep_archive: false,
            is_unverifiable: false,
            location: None,
        };
        let _ = import_bundle(&bundle, &ctx);
    });
}

/// Runs `work` in a directory, where it may create entries with these names only.
fn inside(names: &[&str], work: impl FnOnce(&Utf8Path)) {
    let dir = tempfile::tempdir().expect("a place to write");
    let dir = Utf8Path::from_path(dir.path()).expect("UTF-8");
    work(dir);
    for entry in dir.read_dir_utf8().expect("it is there").flatten() {
        assert!(names.contains(&entry.file_name()), "{} was written", entry.path());
    }
    for name in names {
        remove_tree(&dir.join(name)).expect("it can be removed");
    }
}
