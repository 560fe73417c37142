//! The readers of OpenPGP keys, signatures and clear-signed texts, and of lock files.
#![no_main]

use kcompile::lockfile::LockFile;
use kcompile::openpgp::Keyring;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut keyring = Keyring::built_in();
    let _ = keyring.add("keys", bytes);
    if let Ok(unproven) = keyring.detached("signature", bytes, 1_700_000_000) {
        let _ = unproven.prove(bytes);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = keyring.clear_signed("text", text, 1_700_000_000);
        if let Ok(lock) = LockFile::parse("lock", text) {
            assert_eq!(LockFile::parse("lock", &lock.render()).expect("it reads what it writes"), lock);
        }
    }
});
