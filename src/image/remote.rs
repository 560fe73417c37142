//! Copies single images between registries and layouts, by skopeo. skopeo's own configuration has the credentials,
//! and the registries without TLS.

use super::push::{Registry, skopeo};
use super::signature::RequiredSignature;
use crate::host::Host;
use crate::util::error::{Error, Result};
use camino::Utf8Path;

/// The time limit of skopeo for an image of another machine.
const PULL_TIMEOUT: &str = "15m";
/// The tag of a pulled image in its new layout.
const TAG: &str = "pulled";

/// `--image-cache`: where images of a build are looked for.
#[derive(Clone, Debug)]
pub struct ImageCaches {
    /// The prefixes of repositories, such as `ghcr.io/foobar`. The first one that has the images is used.
    pub prefixes: Vec<String>,
    pub signature: RequiredSignature,
}

/// What a registry has for a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulled {
    Image,
    Nothing,
}

/// Copies the image `reference`, such as `docker://docker.io/library/gcc:14`, into the new layout `layout`. Of
/// several platforms, that of this machine is copied.
///
/// # Errors
///
/// skopeo is not installed (exit code 4), or fails in another way than by a missing image (3).
pub fn pull(reference: &str, layout: &Utf8Path, host: &Host) -> Result<Pulled> {
    match copy(reference, &format!("oci:{layout}:{TAG}"), host)? {
        None => Ok(Pulled::Image),
        Some(why) if skopeo::is_missing(&why) => Ok(Pulled::Nothing),
        Some(why) => Err(failed(&why, reference)),
    }
}

/// Copies the image of a layout to `reference`.
///
/// # Errors
///
/// skopeo is not installed (exit code 4), or fails (3).
pub fn push(layout: &Utf8Path, tag: &str, reference: &str, host: &Host) -> Result<()> {
    match copy(&format!("oci:{layout}:{tag}"), reference, host)? {
        None => Ok(()),
        Some(why) => Err(failed(&why, reference)),
    }
}

/// Returns the manifest or index of `reference`, if its registry has it.
///
/// # Errors
///
/// skopeo is not installed (exit code 4), or the registry cannot be reached or refuses (3).
pub fn manifest(reference: &str, host: &Host) -> Result<Option<Vec<u8>>> {
    let registry = Registry {
        prefix: String::new(),
        tls_verify: true,
        authfile: None,
        retry_times: 1,
        signing_key: None,
    };
    let served = skopeo::inspect_remote(reference, &registry, &host.cwd)?;
    served.map_err(|stderr| failed(&skopeo::reason(&stderr), reference))
}

/// A copy of an image or index of an image cache.
pub struct SignedPull<'a> {
    pub reference: &'a str,
    /// The layout to write, and the tag in it.
    pub layout: &'a Utf8Path,
    pub tag: &'a str,
    pub signature: &'a RequiredSignature,
    /// An existing directory for skopeo's configuration.
    pub work: &'a Utf8Path,
}

impl SignedPull<'_> {
    /// Copies the image if it has the required signature. Its digest stays the same.
    ///
    /// # Errors
    ///
    /// skopeo is not installed (exit code 4). The registry has no such image, cannot be reached or refuses, or the
    /// signature is missing or wrong (3).
    pub fn run(&self, host: &Host) -> Result<()> {
        let SignedPull { reference, layout, tag, signature, work } = self;
        let mut args = signature.options(work)?;
        args.extend(
            ["--command-timeout", PULL_TIMEOUT, "copy", "--all", "--preserve-digests"].map(str::to_owned),
        );
        args.extend(["--remove-signatures", "--retry-times", "1"].map(str::to_owned));
        args.extend([(*reference).to_owned(), format!("oci:{layout}:{tag}")]);
        match skopeo::run(&skopeo::command(args, &host.cwd), |_| {})? {
            None => Ok(()),
            Some(stderr) => Err(failed(&skopeo::reason(&stderr), reference)),
        }
    }
}

fn failed(why: &str, reference: &str) -> Error {
    Error::fetch(format!("skopeo cannot copy the image: {why}"))
        .hint(format!("check the registry with: skopeo inspect {reference}"))
}

/// Runs `skopeo copy`. Returns why it failed.
fn copy(from: &str, to: &str, host: &Host) -> Result<Option<String>> {
    let args = ["copy", "--retry-times", "3", from, to].map(str::to_owned);
    let stderr = skopeo::run(&skopeo::command(args.into(), &host.cwd), |_| {})?;
    Ok(stderr.map(|stderr| skopeo::reason(&stderr)))
}
