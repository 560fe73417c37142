//! Signatures of images in registries. skopeo makes and checks them. They are sigstore attachments, which lie
//! beside the image in its repository.

use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result, ResultExt, cannot};
use crate::util::read::{Links, MAX_SMALL_FILE, read_file};
use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;
use std::fs;

/// skopeo looks for attachments of signatures only in the registries that such a file names.
const REGISTRIES: &str = "default-docker:\n  use-sigstore-attachments: true\n";

/// The key that signs the images of a push.
#[derive(Clone, Debug)]
pub struct SigningKey {
    /// The encrypted private key.
    pub path: Utf8PathBuf,
    /// The file with its passphrase.
    pub passphrase_file: Utf8PathBuf,
}

/// The signature that images of an image cache need.
#[derive(Clone, Debug)]
pub enum RequiredSignature {
    /// One by this public key.
    Key(PublicKey),
    /// None but those that skopeo's own policy of this machine requires.
    None,
}

/// A public key in PEM.
#[derive(Clone, Debug)]
pub struct PublicKey {
    text: String,
    /// The digest of the file.
    pub sha256: Sha256,
}

impl PublicKey {
    /// Reads the file of `--image-cache-key`.
    ///
    /// # Errors
    ///
    /// Exit code 2: the file cannot be read, or has no public key.
    pub fn read(path: &Utf8Path) -> Result<PublicKey> {
        let bytes = read_file(path, Links::Follow, MAX_SMALL_FILE)
            .context(Kind::Usage, cannot("read", &format!("the key {path}")))?;
        let text = String::from_utf8(bytes).unwrap_or_default();
        if !text.trim_start().starts_with("-----BEGIN PUBLIC KEY-----") {
            return Err(Error::usage(format!("{path} is not a public key in PEM"))
                .hint("`skopeo generate-sigstore-key` and `cosign generate-key-pair` write one, FILE.pub"));
        }
        Ok(PublicKey { sha256: Sha256::of(&text), text })
    }
}

impl RequiredSignature {
    /// Returns the options before skopeo's command. Writes the files that they name to the directory `dir`.
    ///
    /// The signature must name the repository and the tag too, so a signed image is not accepted under the tag of
    /// another build.
    pub(super) fn options(&self, dir: &Utf8Path) -> Result<Vec<String>> {
        let RequiredSignature::Key(key) = self else { return Ok(Vec::new()) };
        let (key_path, policy_path) = (dir.join("key.pub"), dir.join("policy.json"));
        let policy = json!({
            "default": [{ "type": "reject" }],
            "transports": { "docker": { "": [{
                "type": "sigstoreSigned",
                "keyPath": key_path,
                "signedIdentity": { "type": "matchExact" },
            }] } },
        });
        write(&key_path, &key.text)?;
        write(&policy_path, &policy.to_string())?;
        Ok([vec!["--policy".to_owned(), policy_path.into_string()], registries_option(dir)?].concat())
    }
}

/// Returns the option that lets skopeo use sigstore attachments. Writes its file to the directory `dir`.
pub(super) fn registries_option(dir: &Utf8Path) -> Result<Vec<String>> {
    let registries = dir.join("registries.d");
    fs::create_dir_all(&registries).context(Kind::Build, cannot("create", &registries))?;
    write(&registries.join("kcompile.yaml"), REGISTRIES)?;
    Ok(vec!["--registries.d".to_owned(), registries.into_string()])
}

fn write(path: &Utf8Path, text: &str) -> Result<()> {
    fs::write(path, text).context(Kind::Build, cannot("write", path))
}
