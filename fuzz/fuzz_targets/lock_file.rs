//! Parses arbitrary text as a lock file. A rendered lock file parses as the same lock file.
#![no_main]

use kcompile::internals::LockFile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(lock) = LockFile::parse("lock", text) {
        assert_eq!(LockFile::parse("lock", &lock.render()).expect("a rendered lock file parses"), lock);
    }
});
