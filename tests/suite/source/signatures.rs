//! The chain of verification: signatures, checksums, pins, the lock file.

use crate::support::context::{TestContext, compress, has_tool, sha256, tar_of};
use crate::support::servers::{self, Server};
use crate::support::signing::Gpg;
use camino::Utf8PathBuf;
use std::collections::BTreeMap;
use std::fs;

const DIR: &str = "/pub/linux/kernel/v6.x";

/// What a mirror has of 6.1.7.
struct Release {
    files: BTreeMap<String, Vec<u8>>,
    tar: Vec<u8>,
    xz: Vec<u8>,
}

impl Release {
    fn new(context: &TestContext) -> Release {
        let tree = context.tree("6.1.7", "trees/release");
        let tar = tar_of(&tree, "linux-6.1.7");
        let xz = compress(&tar, "xz");
        let mut release = Release { files: BTreeMap::new(), tar, xz };
        let xz = release.xz.clone();
        release.put("linux-6.1.7.tar.xz", xz);
        release
    }

    fn put(&mut self, name: &str, bytes: Vec<u8>) {
        self.files.insert(format!("{DIR}/{name}"), bytes);
    }

    fn list(&self) -> String {
        format!("{}  linux-6.1.7.tar.xz\n", sha256(&self.xz))
    }

    fn serve(&self) -> Server {
        servers::files(self.files.clone())
    }
}

fn fetched_tarballs(server: &Server) -> usize {
    server.log.lock().unwrap().iter().filter(|line| line.ends_with(".tar.xz")).count()
}

/// GnuPG with one key, its fingerprint, and its public part in the working directory.
fn signer(context: &TestContext) -> (Gpg, String) {
    let gpg = Gpg::new(&context.path("gpg"));
    let key = gpg.key("Signer", "never", "");
    gpg.export(&key, &context.path("work/signer.asc"));
    (gpg, key)
}

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
    // From the cache, and, where the tree is lost, from the archive: verified again, without a network.
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
fn a_signature_that_does_not_hold_is_an_error_that_says_which() {
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
        // Only whether it fits the bytes takes the bytes.
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
        .failed(3, &["expired signature: that of Early", "expired on 2020-01-02"]);
}

#[test]
fn every_copy_of_a_key_counts_in_any_order() {
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

    // A user id that was taken back later does not make the key last longer.
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
fn a_release_under_the_name_of_another_is_refused() {
    if !has_tool("gpg") {
        return;
    }
    let context = TestContext::new();
    let (gpg, key) = signer(&context);
    let mut release = Release::new(&context);
    let (xz, signature) = (release.xz.clone(), gpg.sign(&key, &release.tar, ""));
    // What a mirror that is behind, or forged, can send: bytes and signature are whole.
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
            .failed(3, &["linux-6.1.192.tar.xz: holds Linux 6.1.7", "try another --mirror"]);
        assert!(context.names("cache/trees").is_empty() && context.names("cache/archives").is_empty());
        assert!(!context.path("cache/kcompile.lock").exists());
    }
}

#[test]
fn a_signing_subkey_counts_for_its_key() {
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
fn the_list_of_checksums_is_held_against_its_signature_and_the_tarball() {
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
    // Text beside the signed one is not part of it.
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
    // The lock file has it by now, as what nothing had verified: the signed list verifies it.
    assert!(!ran.stderr.contains("not verified"), "{}", ran.stderr);
}

#[test]
fn an_unsigned_source_fails_where_a_signature_is_required() {
    let context = TestContext::new();
    let mut release = Release::new(&context);
    let list = release.list();
    release.put("sha256sums.asc", list.into_bytes());
    let server = release.serve();
    let args = format!("fetch 6.1.7 --fc --mirror {} --require-signature", server.url);
    context.run(&args).failed(3, &["--require-signature: linux-6.1.7.tar.xz has no signature", "hint: "]);
    assert_eq!(fetched_tarballs(&server), 0);
    context.run(&args.replace(" --require-signature", "")).ok();
    // What is in the cache is no better for being there.
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
    // What lies beside it now counts, whatever the cache says of an earlier one, or of none.
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
fn a_tree_in_the_cache_is_signed_for_as_long_as_its_key_is_believed() {
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
fn what_is_no_keyring_is_refused() {
    let context = TestContext::new();
    fs::write(context.path("work/no.asc"), "hello").unwrap();
    context
        .run("fetch 6.1.7 --fc --keyring no.asc")
        .failed(2, &["no.asc: not a file of OpenPGP public keys"]);
    context.run("fetch 6.1.7 --fc --keyring gone.asc").failed(2, &["--keyring: cannot read"]);
}

fn own_configs(context: &TestContext) -> Utf8PathBuf {
    let dir = context.path("work/own");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("kernels.toml"), "").unwrap();
    dir
}

#[test]
fn a_source_that_changes_after_its_first_use_is_refused() {
    let context = TestContext::new();
    let configs = own_configs(&context);
    let mut release = Release::new(&context);
    let args = |server: &Server| format!("fetch 6.1.7 --fc --configs own --mirror {}", server.url);
    context.run(&args(&release.serve())).ok().says("the source is not verified");
    let lock = fs::read_to_string(configs.join("kcompile.lock")).unwrap();
    assert!(lock.contains("https://cdn.kernel.org/pub/linux/kernel/v6.x/linux-6.1.7.tar.xz"), "{lock}");
    assert!(lock.contains(&sha256(&release.xz)) && lock.contains("unverified = true"), "{lock}");
    // Other bytes, on another machine with the same configs.
    fs::write(context.path("trees/release/README"), "changed").unwrap();
    release.xz = compress(&tar_of(&context.path("trees/release"), "linux-6.1.7"), "xz");
    let xz = release.xz.clone();
    release.put("linux-6.1.7.tar.xz", xz);
    let server = release.serve();
    let elsewhere = format!("{} --cache-dir elsewhere", args(&server));
    context.run(&elsewhere).failed(3, &["checksum mismatch for linux-6.1.7.tar.xz", "found "]);
    assert!(context.names("work/elsewhere/trees").is_empty());
    context.run(&format!("{elsewhere} --update-lock")).ok();
    let lock = fs::read_to_string(configs.join("kcompile.lock")).unwrap();
    assert!(lock.contains(&sha256(&release.xz)), "{lock}");
    context.run(&elsewhere).ok();
    fs::write(configs.join("kcompile.lock"), "[[source]]\norigin = 1\n").unwrap();
    context.run(&elsewhere).failed(2, &["kcompile.lock: TOML parse error at line 2"]);
}

#[test]
fn a_pin_of_the_users_own_is_believed() {
    let context = TestContext::new();
    let configs = own_configs(&context);
    let release = Release::new(&context);
    let entry = format!(
        "[[source]]\norigin = \"https://cdn.kernel.org{DIR}/linux-6.1.7.tar.xz\"\ndigest = \"sha256:{}\"\n",
        sha256(&release.xz)
    );
    fs::write(configs.join("kcompile.lock"), entry).unwrap();
    let ran = context.run(&format!("fetch 6.1.7 --fc --configs own --mirror {}", release.serve().url)).ok();
    assert!(
        ran.stderr.contains("sha256 as in kcompile.lock") && !ran.stderr.contains("not verified"),
        "{}",
        ran.stderr
    );
}

/// A bundle `forged.tar` with other bytes as 6.1.7, which nothing signs.
fn forged_bundle(context: &TestContext, release: &Release) -> String {
    let tree = context.tree("6.1.7", "trees/forged");
    fs::write(tree.join("README"), "forged").unwrap();
    let mut forged = Release { files: release.files.clone(), tar: vec![], xz: vec![] };
    forged.xz = compress(&tar_of(&tree, "linux-6.1.7"), "xz");
    let xz = forged.xz.clone();
    forged.put("linux-6.1.7.tar.xz", xz);
    let server = forged.serve();
    context
        .run(&format!("fetch 6.1.7 --fc --mirror {} --bundle forged.tar --cache-dir forger", server.url))
        .ok();
    sha256(&forged.xz)
}

fn archives(context: &TestContext) -> Vec<String> {
    context.names("cache/archives").into_iter().filter(|name| !name.contains('.')).collect()
}

#[test]
fn what_nothing_verifies_yields_to_a_signed_release() {
    if !has_tool("gpg") {
        return;
    }
    let context = TestContext::new();
    let (gpg, key) = signer(&context);
    let mut release = Release::new(&context);
    let forged = forged_bundle(&context, &release);
    let honest = sha256(&release.xz);
    release.put("linux-6.1.7.tar.sign", gpg.sign(&key, &release.tar, ""));
    for list in [None, Some(release.list().into_bytes()), Some(gpg.clear_sign(&key, &release.list()))] {
        list.into_iter().for_each(|list| release.put("sha256sums.asc", list));
        let removed = format!("chmod -R u+w {0}; rm -rf {0}", context.path("cache"));
        std::process::Command::new("sh").args(["-c", &removed]).output().unwrap();
        let taken = context.run("fetch 6.1.7 --fc --offline --from-bundle forged.tar").ok();
        assert!(taken.says("the source is not verified").stdout.contains(&forged));
        let args = format!("fetch 6.1.7 --fc --mirror {} --keyring signer.asc", release.serve().url);
        let ran = context.run(&args).ok().says(&format!("signed by Signer ({key})"));
        assert!(ran.stdout.contains(&honest), "{}", ran.stdout);
        assert_eq!(archives(&context), std::slice::from_ref(&honest));
        let lock = fs::read_to_string(context.path("cache/kcompile.lock")).unwrap();
        assert!(lock.contains(&honest) && !lock.contains("unverified"), "{lock}");
        let offline = context.run("fetch 6.1.7 --fc --offline --keyring signer.asc").ok();
        assert!(offline.stdout.contains(&honest), "{}", offline.stdout);
    }
}

#[test]
fn an_unverified_archive_is_verified_by_what_its_server_has_beside_it() {
    if !has_tool("gpg") {
        return;
    }
    let context = TestContext::new();
    let (gpg, key) = signer(&context);
    let mut release = Release::new(&context);
    let bundled = format!("fetch 6.1.7 --fc --mirror {} --bundle b.tar --cache-dir one", release.serve().url);
    context.run(&bundled).ok();
    context.run("fetch 6.1.7 --fc --offline --from-bundle b.tar").ok().says("not verified");
    release.put("linux-6.1.7.tar.sign", gpg.sign(&key, &release.tar, ""));
    let server = release.serve();
    let args = format!("fetch 6.1.7 --fc --mirror {} --keyring signer.asc", server.url);
    context.run(&args).ok().says(&format!("signed by Signer ({key})"));
    assert_eq!(fetched_tarballs(&server), 0);
    // The server is not asked again, and the signature is kept.
    let before = server.log.lock().unwrap().len();
    context.run(&args).ok().says("from the cache");
    assert_eq!(server.log.lock().unwrap().len(), before);
    let removed = format!("chmod -R u+w {0} && rm -rf {0}", context.path("cache/trees"));
    std::process::Command::new("sh").args(["-c", &removed]).status().unwrap();
    context.run("fetch 6.1.7 --fc --offline --keyring signer.asc --require-signature").ok();
}

#[test]
fn an_unverified_archive_is_not_used_online_before_its_server_was_asked() {
    let context = TestContext::new();
    let release = Release::new(&context);
    let server = release.serve();
    let args = |url: &str| format!("fetch 6.1.7 --fc --mirror {url}");
    context.run(&args(&server.url)).ok();
    context
        .run(&args("http://127.0.0.1:1"))
        .failed(3, &["linux-6.1.7.tar.xz is in the cache, where nothing verifies it", "hint: --offline"]);
    // A server that has nothing better to say is asked, and not for the tarball.
    let before = server.log.lock().unwrap().len();
    context.run(&args(&server.url)).ok().says("not verified");
    assert!(server.log.lock().unwrap().len() > before);
    assert_eq!(fetched_tarballs(&server), 1);
    context.run("fetch 6.1.7 --fc --offline").ok();
}

#[test]
fn other_users_whose_files_are_believed_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let context = TestContext::new();
    let release = Release::new(&context);
    let server = release.serve();
    fs::write(context.path("work/kcompile.toml"), "").unwrap();
    let args = format!("fetch 6.1.7 --fc --mirror {}", server.url);
    let quiet = context.run(&args).ok();
    assert!(!quiet.stderr.contains("believed"), "{}", quiet.stderr);
    fs::set_permissions(context.path("work"), fs::Permissions::from_mode(0o777)).unwrap();
    context.run(&args).ok().says("everybody may write in");
    fs::set_permissions(context.path("work"), fs::Permissions::from_mode(0o755)).unwrap();
    if !rustix::process::geteuid().is_root() {
        crate::support::context::skipped("only root can give files to another user");
        return;
    }
    let give = |dir: &str| {
        let to = format!("chown -R 4242 {}", context.path(dir));
        assert!(std::process::Command::new("sh").args(["-c", &to]).status().unwrap().success());
    };
    give("cache/trees");
    context.run(&args).ok().says("was put into the shared cache by user 4242, who is believed");
    let removed = format!("chmod -R u+w {0} && rm -rf {0}", context.path("cache/trees"));
    std::process::Command::new("sh").args(["-c", &removed]).status().unwrap();
    give("cache/archives");
    context.run(&args).ok().says("was put into the shared cache by user 4242, who is believed");
}
