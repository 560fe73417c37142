//! Verification by signatures, checksums, pins and the lock file.

use crate::support::context::{TestContext, has_tool, sha256};
use crate::support::signing::{Gpg, Release, fetched_tarballs, signer};
use std::fs;

#[test]
fn a_signed_release_is_verified_while_it_is_unpacked() {
    if !has_tool("gpg") {
        return;
    }
    let context = TestContext::new();
    let (gpg, key) = signer(&context);
    let mut release = Release::new(&context);
    release.put("linux-6.1.7.tar.sign", gpg.sign(&key, &release.tar, ""));
    release.put("sha256sums.asc", gpg.clear_sign(&key, &release.list()));
    let server = release.serve();
    let args = format!("--mirror {} --keyring signer.asc --require-signature", server.url);
    let ran = context.run(&format!("6.1.7 --fc --config mini.config {args}")).ok();
    assert!(
        ran.stderr.contains(&format!("signed by Signer ({key}), in sha256sums.asc, signed by Signer")),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("not verified"), "{}", ran.stderr);
    let receipt = fs::read_to_string(context.path("work/out/firecracker-6.1.7-amd64.json")).unwrap();
    for told in ["\"link\": \"signature\"", "\"outcome\": \"proves\"", &key, "\"link\": \"sums\""] {
        assert!(receipt.contains(told), "{told} is not in {receipt}");
    }
    let lock = fs::read_to_string(context.path("cache/kcompile.lock")).unwrap();
    assert!(
        lock.contains(&format!("sha256:{}", sha256(&release.xz))) && !lock.contains("unverified"),
        "{lock}"
    );
    // The cached tree, and if it is lost the archive, are verified again without a network.
    context.run(&format!("fetch 6.1.7 --fc {args}")).ok();
    assert_eq!(fetched_tarballs(&server), 1);
    let removed = format!("chmod -R u+w {0} && rm -rf {0}", context.path("cache/trees"));
    std::process::Command::new("sh").args(["-c", &removed]).status().unwrap();
    context
        .run("fetch 6.1.7 --fc --offline --keyring signer.asc --require-signature")
        .ok()
        .says(&format!("sha256 as in kcompile.lock, signed by Signer ({key})"));
}

#[test]
fn bad_signatures_are_errors_with_a_reason() {
    if !has_tool("gpg") {
        return;
    }
    let context = TestContext::new();
    let (gpg, key) = signer(&context);
    let past = "--faked-system-time 20200101T000000";
    let old = gpg.key("Old", "1y", past);
    let gone = gpg.key("Gone", "never", "");
    let release = Release::new(&context);
    let bad = gpg.sign(&key, b"other bytes", "");
    let by_old = gpg.sign(&old, &release.tar, past);
    let short =
        gpg.sign(&key, &release.tar, "--default-sig-expire seconds=1 --faked-system-time 20990101T000000");
    let weak = gpg.sign(&key, &release.tar, "--digest-algo SHA1");
    let by_gone = gpg.sign(&gone, &release.tar, "");
    gpg.revoke(&gone);
    for key in [&old, &gone] {
        gpg.export(key, &context.path(&format!("work/{key}.asc")));
    }
    let keyrings = format!("--keyring signer.asc --keyring {old}.asc --keyring {gone}.asc");
    let garbage = b"-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n".to_vec();
    let _ = short;
    for (signature, keyrings, says) in [
        (bad.clone(), keyrings.as_str(), "linux-6.1.7.tar.sign: bad signature: Signer"),
        (by_old, &keyrings, "linux-6.1.7.tar.sign: expired signature: the key of Old"),
        (by_gone, &keyrings, "linux-6.1.7.tar.sign: revoked signature: the key of Gone"),
        (weak, &keyrings, "with a broken hash function"),
        (bad, "", "linux-6.1.7.tar.sign: unknown signature: made by the key"),
        (garbage, "", "linux-6.1.7.tar.sign: not an OpenPGP signature"),
        (b"<html>".to_vec(), "", "linux-6.1.7.tar.sign: not an OpenPGP signature"),
    ] {
        let mut signed = Release { files: release.files.clone(), tar: vec![], xz: release.xz.clone() };
        signed.put("linux-6.1.7.tar.sign", signature);
        let server = signed.serve();
        context.run(&format!("fetch 6.1.7 --fc --mirror {} {keyrings}", server.url)).failed(3, &[says]);
        // The bytes are only fetched if they are needed to check the signature.
        assert_eq!(fetched_tarballs(&server), usize::from(says.contains("bad signature: Signer")), "{says}");
        assert!(
            context.names("cache/trees").is_empty() && context.names("cache/archives").is_empty(),
            "{says}"
        );
        assert!(!context.path("cache/kcompile.lock").exists(), "{says}");
    }
    let clock = "--faked-system-time 20200101T000000 --default-sig-expire 1d";
    let early = gpg.key("Early", "never", "--faked-system-time 20190101T000000");
    gpg.export(&early, &context.path("work/early.asc"));
    let mut signed = Release { files: release.files.clone(), tar: vec![], xz: release.xz.clone() };
    signed.put("linux-6.1.7.tar.sign", gpg.sign(&early, &release.tar, clock));
    context
        .run(&format!("fetch 6.1.7 --fc --mirror {} --keyring early.asc", signed.serve().url))
        .failed(3, &["expired signature: the signature of Early", "expired on 2020-01-02"]);
}

#[test]
fn revocation_and_expiry_count_in_any_keyring_order() {
    if !has_tool("gpg") {
        return;
    }
    let context = TestContext::new();
    let gpg = Gpg::new(&context.path("gpg"));
    let release = Release::new(&context);
    fs::write(context.path("work/linux-6.1.7.tar.xz"), &release.xz).unwrap();
    let fetch = |keyrings: [&str; 2]| {
        let keyrings = keyrings.map(|name| format!("--keyring {name}.asc")).join(" ");
        context.run(&format!("fetch 6.1.7 --fc --source linux-6.1.7.tar.xz {keyrings} --require-signature"))
    };
    let signed_by = |key: &str, clock: &str| {
        fs::write(context.path("work/linux-6.1.7.tar.sign"), gpg.sign(key, &release.tar, clock)).unwrap();
    };
    let export = |key: &str, name: &str| gpg.export(key, &context.path(&format!("work/{name}.asc")));

    let gone = gpg.key("Gone", "never", "");
    export(&gone, "before");
    signed_by(&gone, "");
    gpg.revoke(&gone);
    export(&gone, "revoked");
    for keyrings in [["before", "revoked"], ["revoked", "before"]] {
        fetch(keyrings).failed(3, &["linux-6.1.7.tar.sign: revoked signature: the key of Gone"]);
    }

    // A revoked user id does not extend the validity of the key.
    let (early, later) = ("--faked-system-time 20200101T000000", "--faked-system-time 20200301T000000");
    let old = gpg.key("Old", "1y", early);
    signed_by(&old, early);
    gpg.run(&format!("{early} --quick-add-uid {old} Other"), b"");
    gpg.run(&format!("{later} --quick-revoke-uid {old} Other"), b"");
    export(&old, "old");
    fetch(["old", "old"]).failed(3, &["expired signature: the key of O", "expired on 2020-12-31"]);
    gpg.run(&format!("{later} --quick-set-expire {old} 0"), b"");
    export(&old, "prolonged");
    fetch(["old", "prolonged"]).ok();
    fetch(["prolonged", "old"]).ok();
}

#[test]
fn a_renamed_older_release_is_refused() {
    if !has_tool("gpg") {
        return;
    }
    let context = TestContext::new();
    let (gpg, key) = signer(&context);
    let mut release = Release::new(&context);
    let (xz, signature) = (release.xz.clone(), gpg.sign(&key, &release.tar, ""));
    // An outdated or forged mirror may send this. Bytes and signature are intact.
    release.put("linux-6.1.192.tar.xz", xz);
    release.put("linux-6.1.192.tar.sign", signature);
    let list = release.list().replace("6.1.7", "6.1.192");
    release.put("sha256sums.asc", list.into_bytes());
    let server = release.serve();
    for version in ["6.1", "6.1.192"] {
        context
            .run(&format!(
                "fetch {version} --fc --mirror {} --keyring signer.asc --require-signature",
                server.url
            ))
            .failed(3, &["linux-6.1.192.tar.xz: the archive has Linux 6.1.7", "try another --mirror"]);
        assert!(context.names("cache/trees").is_empty() && context.names("cache/archives").is_empty());
        assert!(!context.path("cache/kcompile.lock").exists());
    }
}

#[test]
fn signing_subkeys_are_accepted() {
    if !has_tool("gpg") {
        return;
    }
    let context = TestContext::new();
    let gpg = Gpg::new(&context.path("gpg"));
    gpg.run("--quick-generate-key Owner ed25519 cert never", b"");
    let listed = |what: &str| {
        let text = String::from_utf8(gpg.run("--with-colons --list-keys =Owner", b"")).unwrap();
        let after = text.split_once(what).unwrap().1.to_owned();
        after.lines().find(|line| line.starts_with("fpr:")).unwrap().split(':').nth(9).unwrap().to_owned()
    };
    let primary = listed("pub:");
    gpg.run(&format!("--quick-add-key {primary} ed25519 sign never"), b"");
    let subkey = listed("sub:");
    gpg.export(&primary, &context.path("work/owner.asc"));
    let mut release = Release::new(&context);
    release.put("linux-6.1.7.tar.sign", gpg.sign(&format!("{subkey}!"), &release.tar, ""));
    let server = release.serve();
    context
        .run(&format!("fetch 6.1.7 --fc --mirror {} --keyring owner.asc --require-signature", server.url))
        .ok()
        .says(&format!("signed by Owner ({primary})"));
}

#[test]
fn checksum_lists_are_verified_by_signature_and_digest() {
    if !has_tool("gpg") {
        return;
    }
    let context = TestContext::new();
    let (gpg, key) = signer(&context);
    let release = Release::new(&context);
    let fetch = |list: Vec<u8>| {
        let mut listed = Release { files: release.files.clone(), tar: vec![], xz: release.xz.clone() };
        listed.put("sha256sums.asc", list);
        context.run(&format!("fetch 6.1.7 --fc --mirror {} --keyring signer.asc", listed.serve().url))
    };
    let signed = String::from_utf8(gpg.clear_sign(&key, &release.list())).unwrap();
    let digest = sha256(&release.xz);
    let other = digest.replace(|digit: char| digit.is_ascii_digit(), "0");
    fetch(signed.replace(&digest, &other).into_bytes()).failed(3, &["sha256sums.asc: bad signature: Signer"]);
    // Text outside the signed part does not count.
    let beside = format!("{signed}\n{other}  linux-6.1.7.tar.xz\n");
    fetch(beside.into_bytes()).failed(3, &["sha256sums.asc"]);
    let wrong = gpg.clear_sign(&key, &format!("{other}  linux-6.1.7.tar.xz\n"));
    fetch(wrong)
        .failed(3, &[&format!("checksum mismatch for linux-6.1.7.tar.xz: expected {other}, found {digest}")]);
    let without = gpg.clear_sign(&key, &format!("{digest}  linux-6.1.8.tar.xz\n"));
    fetch(without)
        .ok()
        .says("warning: the source is not verified: linux-6.1.7.tar.xz")
        .says("no linux-6.1.7.tar.sign beside it, missing from sha256sums.asc");
    let ran = fetch(signed.into_bytes()).ok();
    // The lock file now has the archive as unverified. The signed list verifies it.
    assert!(!ran.stderr.contains("not verified"), "{}", ran.stderr);
}

#[test]
fn require_signature_refuses_unsigned_sources() {
    let context = TestContext::new();
    let mut release = Release::new(&context);
    let list = release.list();
    release.put("sha256sums.asc", list.into_bytes());
    let server = release.serve();
    let args = format!("fetch 6.1.7 --fc --mirror {} --require-signature", server.url);
    context.run(&args).failed(3, &["--require-signature: linux-6.1.7.tar.xz has no signature", "hint: "]);
    assert_eq!(fetched_tarballs(&server), 0);
    context.run(&args.replace(" --require-signature", "")).ok();
    // The cache does not make it more trusted.
    context.run(&args).failed(3, &["has no signature"]);
    context.run("fetch 6.1.7 --fc --offline --require-signature").failed(3, &["has no signature"]);
    context.tree("6.1.7", "work/linux");
    context.run("fetch 6.1.7 --fc --source linux --require-signature").failed(3, &["has no signature"]);
}

#[test]
fn a_local_tarball_is_verified_by_the_signature_beside_it() {
    if !has_tool("gpg") {
        return;
    }
    let context = TestContext::new();
    let (gpg, key) = signer(&context);
    let release = Release::new(&context);
    fs::write(context.path("work/linux-6.1.7.tar.xz"), &release.xz).unwrap();
    fs::write(context.path("work/linux-6.1.7.tar.sign"), gpg.sign(&key, &release.tar, "")).unwrap();
    let args = "fetch 6.1.7 --fc --source linux-6.1.7.tar.xz --keyring signer.asc --require-signature";
    context.run(args).ok().says(&format!("signed by Signer ({key})"));
    context.run(args).ok().says("from the cache");
    // The current signature beside the file counts, not what the cache recorded.
    let whole = fs::read(context.path("work/linux-6.1.7.tar.sign")).unwrap();
    fs::write(context.path("work/linux-6.1.7.tar.sign"), gpg.sign(&key, b"x", "")).unwrap();
    context.run(args).failed(3, &["bad signature: Signer"]);
    fs::remove_file(context.path("work/linux-6.1.7.tar.sign")).unwrap();
    let plain = "fetch 6.1.7 --fc --source linux-6.1.7.tar.xz --cache-dir other";
    context.run(plain).ok();
    fs::write(context.path("work/linux-6.1.7.tar.sign"), gpg.sign(&key, b"x", "")).unwrap();
    context.run(&format!("{plain} --keyring signer.asc")).failed(3, &["bad signature: Signer"]);
    fs::write(context.path("work/linux-6.1.7.tar.sign"), whole).unwrap();
    context.run(plain).failed(3, &["linux-6.1.7.tar.sign: unknown signature"]);
    context.run(&format!("{plain} --keyring signer.asc")).ok().says(&format!("signed by Signer ({key})"));
    context.run(&format!("{plain} --keyring signer.asc")).ok().says("from the cache");
}

#[test]
fn cached_trees_are_verified_against_the_current_keyring() {
    if !has_tool("gpg") {
        return;
    }
    let context = TestContext::new();
    let (gpg, key) = signer(&context);
    let mut release = Release::new(&context);
    release.put("linux-6.1.7.tar.sign", gpg.sign(&key, &release.tar, ""));
    let server = release.serve();
    let fetch = format!("fetch 6.1.7 --fc --mirror {}", server.url);
    let strict = format!("{fetch} --require-signature");
    context.run(&format!("{strict} --keyring signer.asc")).ok();
    context.run(&format!("{strict} --keyring signer.asc")).ok().says("from the cache");
    context.run(&strict).failed(3, &["linux-6.1.7.tar.sign: unknown signature: made by the key"]);
    context.run(&format!("{strict} --offline")).failed(3, &["linux-6.1.7.tar.sign: unknown signature"]);
    context.run(&fetch).ok().says("from the cache");
    gpg.revoke(&key);
    gpg.export(&key, &context.path("work/revoked.asc"));
    context
        .run(&format!("{strict} --keyring revoked.asc"))
        .failed(3, &["revoked signature: the key of Signer"]);
}

#[test]
fn invalid_keyrings_are_refused() {
    let context = TestContext::new();
    fs::write(context.path("work/no.asc"), "hello").unwrap();
    context
        .run("fetch 6.1.7 --fc --keyring no.asc")
        .failed(2, &["no.asc: not a file of OpenPGP public keys"]);
    context.run("fetch 6.1.7 --fc --keyring gone.asc").failed(2, &["--keyring: cannot read"]);
}
