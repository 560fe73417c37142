//! Copies single images between registries and layouts, by skopeo. skopeo's own configuration has the credentials,
//! and the registries without TLS.

use super::push::{is_missing, skopeo_reason};
use crate::host::process::{self, CommandLine};
use crate::host::{self, Host};
use crate::util::error::{Error, Kind, Result, ResultExt};
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
        Some(why) if is_missing(&why) => Ok(Pulled::Nothing),
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
    let args = ["copy", "--retry-times", "3", from, to].map(str::to_owned).into();
    let command =
        CommandLine { program: "skopeo".into(), args, env: host::full_env(), cwd: host.cwd.clone() };
    let log = tempfile::tempfile().context(Kind::Build, || "cannot create a temporary file".into())?;
    let mut stderr = String::new();
    let status = process::run(&command, &log, None, |stream, line| {
        if stream == process::Stream::Err {
            line.clone_into(&mut stderr);
        }
    })?;
    Ok((!status.success()).then(|| skopeo_reason(&stderr)))
}
