//! Decides whether an argument names a file, an image or a version.

use crate::boot::target::{self, BootTarget, BuiltKernel, Overrides};
use crate::catalog::project::Project;
use crate::catalog::text::read_config;
use crate::cli::resolve::OUTPUT;
use crate::host::Host;
use crate::kconfig::Config;
use crate::kernel::{Arch, Channel, Variant, VersionRequest};
use crate::oci::archive::is_archive;
use crate::oci::layout_reader::LayoutReader;
use crate::oci::read::{self, Image, Reference};
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
        if path.exists() && !path.is_dir() && !is_archive(&path) {
            return Ok(Target::File(path));
        }
        let Reference { layout, tag } = locate(text.into(), host);
        if layout.is_dir() || is_archive(&layout) {
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
/// project. They are of `variant`, or else of the project's.
///
/// # Errors
///
/// Exit code 2 if there are none, or some for each hypervisor and `overrides` selects none.
pub fn images_of_version(
    text: &str,
    variant: Option<Variant>,
    output: Option<&Utf8Path>,
    overrides: Overrides,
    host: &Host,
) -> Result<BootTarget> {
    let version: VersionRequest = text.parse().map_err(|why: String| Error::usage(why))?;
    let project = Project::find(&host.cwd, None, host.uid)?;
    let output = output.or(project.defaults.output.as_deref()).unwrap_or(OUTPUT.into());
    let of_project = || project.defaults.variant.map(|choice| choice.variants()[0]);
    let wanted = BuiltKernel { version, variant: variant.or_else(of_project).unwrap_or_default() };
    target::from_version(wanted, &host.absolute(output), overrides, host.arch.unwrap_or(Arch::Amd64))
}

/// Returns the layout or the archive that a user names, and the tag. The name may begin with skopeo's `oci:` or
/// `oci-archive:`.
pub fn locate(name: &Utf8Path, host: &Host) -> Reference {
    let path = host.absolute(name);
    let plain = ["oci:", "oci-archive:"].iter().find_map(|transport| name.as_str().strip_prefix(transport));
    match plain.filter(|_| !path.exists()) {
        Some(plain) => read::locate(&host.absolute(plain.into())),
        None => read::locate(&path),
    }
}

/// Returns the images that a user names, or else all layouts in the output directory. Of several names, those of
/// receipts and reports are left out, since `out/*` gives them, too.
///
/// # Errors
///
/// Exit code 2: there is no layout in the output directory.
pub fn references(names: &[Utf8PathBuf], host: &Host) -> Result<Vec<Reference>> {
    if names.is_empty() {
        let project = Project::find(&host.cwd, None, host.uid)?;
        let output = project.defaults.output.unwrap_or(OUTPUT.into());
        let layouts = read::layouts_in(&host.absolute(&output))?;
        return Ok(layouts.into_iter().map(|layout| Reference { layout, tag: None }).collect());
    }
    let mut all: Vec<Reference> = names.iter().map(|name| locate(name, host)).collect();
    let is_document = |one: &Reference| {
        one.layout.is_file() && matches!(one.layout.extension(), Some("json" | "html" | "gz"))
    };
    if !all.iter().all(is_document) {
        all.retain(|one| !is_document(one));
    }
    Ok(all)
}

/// Opens the image of a reference: the only one of a layout or tag, or the one of an index for `arch`.
pub fn one_image(reference: &Reference, arch: Option<&str>) -> Result<Image> {
    LayoutReader::open(&reference.layout)?.open_image(reference.tag.as_deref(), arch)
}

/// Returns the architectures of the images of a reference, in their order.
pub fn architectures(reference: &Reference) -> Result<Vec<String>> {
    let reader = LayoutReader::open(&reference.layout)?;
    let images = reader.images(reference.tag.as_deref())?.into_iter().map(|part| reader.image(&part));
    images.map(|image| Ok(image?.config.architecture().to_string())).collect()
}
