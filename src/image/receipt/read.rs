//! A receipt that was written earlier, perhaps by somebody else.

use crate::oci::blob::read_bounded;
use crate::util::error::{Kind, Result, ResultExt};
use camino::Utf8Path;
use serde::Deserialize;

/// What of a receipt is of use later. What an older kcompile did not write is empty.
#[derive(Clone, Debug, Deserialize)]
pub struct ReceiptFile {
    /// The version of kcompile.
    #[serde(default)]
    pub kcompile: String,
    /// Of the plan; without a prefix.
    #[serde(default)]
    pub plan_digest: String,
    /// The whole plan.
    #[serde(default)]
    pub plan: serde_json::Value,
    /// How the source was verified.
    #[serde(rename = "source_verified", default)]
    pub source_verified: String,
    /// `uname -r`.
    #[serde(default)]
    pub kernel_release: String,
    /// Of the final `.config`; without a prefix.
    #[serde(default)]
    pub config_sha256: String,
    /// What the user was told to look at.
    #[serde(rename = "findings", default)]
    pub warnings: Vec<String>,
    /// The images that were written.
    #[serde(default)]
    pub images: Vec<ReceiptImage>,
    /// The command line that built them.
    #[serde(default)]
    pub command: String,
}

/// An image of a receipt.
#[derive(Clone, Debug, Deserialize)]
pub struct ReceiptImage {
    /// The name of the layout.
    pub layout: String,
    /// The tag.
    pub tag: String,
    /// Of the manifest: `sha256:…`.
    pub digest: String,
}

impl ReceiptFile {
    /// Reads a receipt; `None`: there is none.
    ///
    /// Errors (exit code 3): it cannot be read, is too large, or no receipt.
    pub fn read(path: &Utf8Path) -> Result<Option<ReceiptFile>> {
        if path.symlink_metadata().is_err() {
            return Ok(None);
        }
        ReceiptFile::parse(path, &read_bounded(path)?).map(Some)
    }

    /// What the bytes of the receipt at `path` say.
    ///
    /// Errors (exit code 3): it is no receipt.
    pub fn parse(path: &Utf8Path, bytes: &[u8]) -> Result<ReceiptFile> {
        serde_json::from_slice(bytes).context(Kind::Fetch, || format!("{path} is not a receipt"))
    }

    /// The tools that the plan names, with their versions.
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
