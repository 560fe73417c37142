//! The reader of lock files: what it takes, it writes as it reads it.
#![no_main]

use kcompile::internals::LockFile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(lock) = LockFile::parse("lock", text) {
        assert_eq!(LockFile::parse("lock", &lock.render()).expect("it reads what it writes"), lock);
    }
});
