//! Reads arbitrary bytes as OpenPGP keys, signatures and clear-signed texts.
#![no_main]

use kcompile::internals::Keyring;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut keyring = Keyring::built_in();
    let _ = keyring.add("keys", bytes);
    if let Ok(pending) = keyring.detached("signature", bytes, 1_700_000_000) {
        let _ = pending.verify(bytes);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = keyring.clear_signed("text", text, 1_700_000_000);
    }
});
