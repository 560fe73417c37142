//! Decides whether an argument names a file, an image or a version.

use crate::boot::target::{self, BootTarget, Overrides};
use crate::catalog::project::Project;
use crate::catalog::text::read_config;
use crate::cli::resolve::OUTPUT;
use crate::host::Host;
use crate::kconfig::Config;
use crate::kernel::{Arch, Channel, VersionRequest};
use crate::oci::layout_reader::LayoutReader;
use crate::oci::read::{Image, locate};
use crate::util::error::{Error, Result};
use camino::{Utf8Path, Utf8PathBuf};

/// What an argument names.
pub enum Target {
    /// A file, such as a `.config`.
    File(Utf8PathBuf),
    /// An OCI layout, and the tag if one is given.
    Layout(Utf8PathBuf, Option<String>),
    Version,
}

impl Target {
    /// Returns what `text` names.
    ///
    /// # Errors
    ///
    /// It names nothing that exists, and is not a version (exit code 2).
    pub fn of(text: &str, host: &Host) -> Result<Target> {
        let path = host.absolute(text.into());
        if path.exists() && !path.is_dir() {
            return Ok(Target::File(path));
        }
        let (layout, tag) = locate(&path);
        if layout.is_dir() {
            return Ok(Target::Layout(layout, tag));
        }
        if text.parse::<VersionRequest>().is_ok() || text.parse::<Channel>().is_ok() {
            return Ok(Target::Version);
        }
        Err(Error::usage(format!("{text}: no such file or directory, and not a kernel version"))
            .hint("give a .config file, an OCI layout (LAYOUT[:TAG]) or a kernel version"))
    }
}

/// Reads the settings of a `.config` file.
///
/// # Errors
///
/// Exit code 2: the file is not a config, or a line in it is no setting.
pub fn config_of(path: &Utf8Path) -> Result<Config> {
    Config::parse_given(path.as_str(), &read_config(path)?)
}

/// Opens the newest images of the version or series `text` in the directory `output`, or else in that of the
/// project.
///
/// # Errors
///
/// Exit code 2 if there are none, or some for each hypervisor and `overrides` selects none.
pub fn images_of_version(
    text: &str,
    output: Option<&Utf8Path>,
    overrides: Overrides,
    host: &Host,
) -> Result<BootTarget> {
    let version: VersionRequest = text.parse().map_err(|why: String| Error::usage(why))?;
    let project = Project::find(&host.cwd, None, host.uid)?;
    let output = output.or(project.defaults.output.as_deref()).unwrap_or(OUTPUT.into());
    target::from_version(version, &host.absolute(output), overrides, host.arch.unwrap_or(Arch::Amd64))
}

/// Opens the image that `target` names: the only one of a layout or tag, or the one of an index for `arch`.
pub fn one_image(target: &Utf8Path, arch: Option<&str>) -> Result<Image> {
    let (layout, tag) = locate(target);
    LayoutReader::open(&layout)?.open_image(tag.as_deref(), arch)
}

/// Returns the architectures of the images that `target` names, in their order.
pub fn architectures(target: &Utf8Path) -> Result<Vec<String>> {
    let (layout, tag) = locate(target);
    let reader = LayoutReader::open(&layout)?;
    let images = reader.images(tag.as_deref())?.into_iter().map(|part| reader.image(&part));
    images.map(|image| Ok(image?.config.architecture().to_string())).collect()
}
