//! GnuPG keys and signatures in a home of their own.

use crate::support::context::{TestContext, compress, sha256, tar_of};
use crate::support::servers::{self, DIR, Server};
use camino::{Utf8Path, Utf8PathBuf};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

pub(crate) struct Gpg {
    home: Utf8PathBuf,
}

impl Gpg {
    pub(crate) fn new(home: &Utf8Path) -> Gpg {
        fs::create_dir(home).unwrap();
        fs::set_permissions(home, fs::Permissions::from_mode(0o700)).unwrap();
        Gpg { home: home.to_owned() }
    }

    /// Runs gpg with these arguments and `input`. Returns its output.
    pub(crate) fn run(&self, words: &str, input: &[u8]) -> Vec<u8> {
        let mut command = Command::new("gpg");
        command.args(["--homedir", self.home.as_str(), "--batch", "--quiet", "--no-tty", "--yes"]);
        command.args(["--pinentry-mode", "loopback", "--passphrase", ""]).args(words.split_whitespace());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "gpg {words}");
        output.stdout
    }

    /// Makes a key of `name`. `more` are options before the command, such as a false clock. Returns
    /// the fingerprint.
    pub(crate) fn key(&self, name: &str, expires: &str, more: &str) -> String {
        self.run(&format!("{more} --quick-generate-key {name} ed25519 sign {expires}"), b"");
        let listed = String::from_utf8(self.run(&format!("--with-colons --list-keys ={name}"), b"")).unwrap();
        let line = listed.lines().find(|line| line.starts_with("fpr:")).unwrap();
        line.split(':').nth(9).unwrap().to_owned()
    }

    pub(crate) fn export(&self, key: &str, to: &Utf8Path) {
        fs::write(to, self.run(&format!("--armor --export {key}"), b"")).unwrap();
    }

    /// Returns a detached signature like those of kernel.org.
    pub(crate) fn sign(&self, key: &str, bytes: &[u8], more: &str) -> Vec<u8> {
        self.run(&format!("{more} --local-user {key} --armor --detach-sign"), bytes)
    }

    pub(crate) fn clear_sign(&self, key: &str, text: &str) -> Vec<u8> {
        self.run(&format!("--local-user {key} --clear-sign"), text.as_bytes())
    }

    /// Revokes the key with the certificate that GnuPG prepares for each key.
    pub(crate) fn revoke(&self, key: &str) {
        let path = self.home.join(format!("openpgp-revocs.d/{key}.rev"));
        // A colon before the armor prevents accidental use.
        let certificate = fs::read_to_string(path).unwrap().replace(":-----BEGIN", "-----BEGIN");
        self.run("--import", certificate.as_bytes());
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").args(["--homedir", self.home.as_str(), "--kill", "all"]).status();
    }
}

/// The files of 6.1.7 on a mirror.
pub(crate) struct Release {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) tar: Vec<u8>,
    pub(crate) xz: Vec<u8>,
}

impl Release {
    pub(crate) fn new(context: &TestContext) -> Release {
        let tree = context.tree("6.1.7", "trees/release");
        let tar = tar_of(&tree, "linux-6.1.7");
        let xz = compress(&tar, "xz");
        let mut release = Release { files: BTreeMap::new(), tar, xz };
        let xz = release.xz.clone();
        release.put("linux-6.1.7.tar.xz", xz);
        release
    }

    pub(crate) fn put(&mut self, name: &str, bytes: Vec<u8>) {
        self.files.insert(format!("{DIR}/{name}"), bytes);
    }

    pub(crate) fn list(&self) -> String {
        format!("{}  linux-6.1.7.tar.xz\n", sha256(&self.xz))
    }

    pub(crate) fn serve(&self) -> Server {
        servers::files(self.files.clone())
    }
}

/// Returns GnuPG with one key, its fingerprint, and writes the public key to the working directory.
pub(crate) fn signer(context: &TestContext) -> (Gpg, String) {
    let gpg = Gpg::new(&context.path("gpg"));
    let key = gpg.key("Signer", "never", "");
    gpg.export(&key, &context.path("work/signer.asc"));
    (gpg, key)
}

pub(crate) fn fetched_tarballs(server: &Server) -> usize {
    server.log.lock().unwrap().iter().filter(|line| line.ends_with(".tar.xz")).count()
}
