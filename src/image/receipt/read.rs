//! Reads a receipt, which may come from somebody else.

use crate::oci::blob::read_bounded;
use crate::util::error::{Kind, Result, ResultExt};
use camino::Utf8Path;
use serde::{Deserialize, Serialize};

/// The fields of a receipt that are used later. A field that an older kcompile did not write is empty.
#[derive(Clone, Debug, Deserialize)]
pub struct ReceiptFile {
    /// The version of kcompile.
    #[serde(default)]
    pub kcompile: String,
    /// Without `sha256:`.
    #[serde(default)]
    pub plan_digest: String,
    #[serde(default)]
    pub plan: serde_json::Value,
    /// The checks of the source.
    #[serde(rename = "source_verified", default)]
    pub source_verified: String,
    /// `uname -r`.
    #[serde(default)]
    pub kernel_release: String,
    /// The digest of the final `.config`, without `sha256:`.
    #[serde(default)]
    pub config_sha256: String,
    #[serde(rename = "findings", default)]
    pub warnings: Vec<String>,
    #[serde(default)]
    pub images: Vec<ReceiptImage>,
    /// The command line of the build.
    #[serde(default)]
    pub command: String,
    /// Where the images are from, if this machine did not build them.
    #[serde(default)]
    pub image_cache: Option<ImageCacheOrigin>,
}

/// The image cache that had the images of a receipt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageCacheOrigin {
    /// The reference of the kernel's image.
    pub reference: String,
    /// The digest of the public key that verified the signatures. `None` if none was required.
    pub key: Option<String>,
}

/// An image of a receipt.
#[derive(Clone, Debug, Deserialize)]
pub struct ReceiptImage {
    /// The name of the layout.
    pub layout: String,
    pub tag: String,
    /// The digest of the manifest, `sha256:…`.
    pub digest: String,
}

impl ReceiptFile {
    /// Reads a receipt, if the file exists.
    ///
    /// # Errors
    ///
    /// Exit code 3 if the file cannot be read, is too large, or is not a receipt.
    pub fn read(path: &Utf8Path) -> Result<Option<ReceiptFile>> {
        if path.symlink_metadata().is_err() {
            return Ok(None);
        }
        ReceiptFile::parse(path, &read_bounded(path)?).map(Some)
    }

    /// Parses the bytes of the receipt at `path`.
    ///
    /// # Errors
    ///
    /// Exit code 3 if the file is not a receipt.
    pub fn parse(path: &Utf8Path, bytes: &[u8]) -> Result<ReceiptFile> {
        serde_json::from_slice(bytes).context(Kind::Fetch, || format!("{path} is not a receipt"))
    }

    /// Returns the tools of the plan and their versions.
    pub fn tools(&self) -> Vec<(String, String)> {
        let tools = self.plan["toolchain"]["identity"].as_object();
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        tools
            .into_iter()
            .flatten()
            .filter_map(|(tool, identity)| Some((tool.clone(), text(identity)?)))
            .collect()
    }
}
