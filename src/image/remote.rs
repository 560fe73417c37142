//! Copies single images between registries and layouts, by skopeo. skopeo's own configuration has the credentials,
//! and the registries without TLS.

use super::push::skopeo;
use crate::host::Host;
use crate::util::error::{Error, Result};
use camino::Utf8Path;

/// The tag of a pulled image in its new layout.
const TAG: &str = "pulled";

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
