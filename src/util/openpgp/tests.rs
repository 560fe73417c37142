use super::*;

#[test]
fn the_pinned_keys_are_built_in() {
    let keyring = Keyring::built_in();
    let mut found: Vec<String> = keyring.keys.iter().map(fingerprint).collect();
    found.sort();
    let mut pinned = PINNED.map(str::to_owned);
    pinned.sort();
    assert_eq!(found, pinned);
}

#[test]
fn keys_for_compilers_sign_no_kernels() {
    let keyring = Keyring::built_in();
    for key in PINNED_FOR_COMPILERS {
        assert!(!keyring.is_trusted(key, 1_750_000_000));
        assert!(keyring.clone().for_compilers().is_trusted(key, 1_750_000_000));
    }
}

#[test]
fn other_bytes_than_keys_and_signatures_are_refused() {
    let mut keyring = Keyring::built_in();
    for bytes in [&b""[..], b"hello", &[0x99, 0xff, 0xff, 1, 2, 3], ARMORED_KEY.as_bytes()] {
        assert!(keyring.add("x", bytes).is_err(), "{bytes:?}");
        assert!(keyring.detached("x", bytes, 0).is_err(), "{bytes:?}");
    }
    assert_eq!(keyring.clear_signed("x", "plain", 0).unwrap().signer, None);
    assert!(keyring.clear_signed("x", CLEAR_SIGNED, 0).is_err());
}
