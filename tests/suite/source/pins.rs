//! Sources without a signature, with pins, the lock file and unverified archives.

use crate::support::context::{TestContext, compress, has_tool, sha256, tar_of};
use crate::support::servers::{DIR, Server};
use crate::support::signing::{Release, fetched_tarballs, signer};
use camino::Utf8PathBuf;
use std::fs;

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
fn user_pins_are_trusted() {
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

/// Returns an unsigned bundle `forged.tar` with other bytes as 6.1.7.
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
fn unverified_archives_are_replaced_by_signed_releases() {
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
fn unverified_archives_are_verified_by_server_signatures() {
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
fn unverified_archives_are_checked_online_before_use() {
    let context = TestContext::new();
    let release = Release::new(&context);
    let server = release.serve();
    let args = |url: &str| format!("fetch 6.1.7 --fc --mirror {url}");
    context.run(&args(&server.url)).ok();
    context
        .run(&args("http://127.0.0.1:1"))
        .failed(3, &["linux-6.1.7.tar.xz is in the cache, but cannot be verified", "--offline"]);
    // A server without better proof is asked, but not for the tarball.
    let before = server.log.lock().unwrap().len();
    context.run(&args(&server.url)).ok().says("not verified");
    assert!(server.log.lock().unwrap().len() > before);
    assert_eq!(fetched_tarballs(&server), 1);
    context.run("fetch 6.1.7 --fc --offline").ok();
}

#[test]
fn other_users_who_could_change_trusted_files_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let context = TestContext::new();
    let release = Release::new(&context);
    let server = release.serve();
    fs::write(context.path("work/kcompile.toml"), "").unwrap();
    let args = format!("fetch 6.1.7 --fc --mirror {}", server.url);
    let quiet = context.run(&args).ok();
    assert!(!quiet.stderr.contains("believed"), "{}", quiet.stderr);
    fs::set_permissions(context.path("work"), fs::Permissions::from_mode(0o777)).unwrap();
    context.run(&args).ok().says("everybody can write to");
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
    context.run(&args).ok().says("which user 4242 put into the shared cache");
    let removed = format!("chmod -R u+w {0} && rm -rf {0}", context.path("cache/trees"));
    std::process::Command::new("sh").args(["-c", &removed]).status().unwrap();
    give("cache/archives");
    context.run(&args).ok().says("which user 4242 put into the shared cache");
}
