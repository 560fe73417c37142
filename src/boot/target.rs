//! What is booted: a kernel image, and the modules image of the same kernel.

use crate::image::inspect::{self, ReadCache};
use crate::image::kernel_image;
use crate::kernel::{Arch, Flavor, KernelVersion, VersionRequest};
use crate::oci::layout_reader::LayoutReader;
use crate::oci::read::Image;
use crate::plan::annotations;
use crate::util::error::{Error, Result};
use camino::Utf8Path;

/// What is booted.
#[derive(Clone, Debug)]
pub struct BootTarget {
    /// The image as the user knows it.
    pub name: String,
    /// Holds the kernel.
    pub kernel: Image,
    /// Holds the modules; `None`: they are in the image of the kernel, or there are none.
    pub modules: Option<Image>,
    /// Which hypervisor it is for.
    pub flavor: Flavor,
    /// Which machine.
    pub arch: Arch,
    /// What uname(2) should say.
    pub release: Option<String>,
    /// What the user should know before it is booted.
    pub notes: Vec<String>,
}

/// What cannot be told by an image that somebody else made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Overrides {
    /// `--fc`, `--ch`, `--flavor`.
    pub flavor: Option<Flavor>,
    /// `--arch`.
    pub arch: Option<Arch>,
}

/// Where the modules of a kernel are.
#[derive(Clone, Copy, Debug)]
pub enum ModulesSource<'a> {
    /// In the layout beside the kernel's, under the same tag, if they are there; else in its own image.
    Sibling,
    /// In this layout.
    Layout(&'a Utf8Path, Option<&'a str>),
    /// In the kernel's own image, or nowhere.
    SameImage,
}

/// The image of this tag, or the only one, of a layout, and of an index the one for `host_arch` where no other
/// is told. `name` is what the user calls it.
///
/// Errors: no such image, or nothing tells what it is for (exit code 2); a layout breaks a rule (3).
pub fn from_layout(
    name: &str,
    (layout, tag): (&Utf8Path, Option<&str>),
    modules: ModulesSource<'_>,
    overrides: Overrides,
    host_arch: Option<Arch>,
) -> Result<BootTarget> {
    let kernel = LayoutReader::open(layout)?.open_image(tag, overrides.arch.or(host_arch).map(Arch::name))?;
    let arch = kernel.config.architecture().to_string().parse().ok();
    let modules = match modules {
        ModulesSource::Layout(layout, tag) => {
            Some(LayoutReader::open(layout)?.open_image(tag, arch.map(Arch::name))?)
        }
        ModulesSource::Sibling => {
            let arch = kernel.config.architecture().to_string();
            inspect::counterpart_image(
                &kernel.layout,
                kernel.tag.as_deref(),
                &arch,
                &mut ReadCache::default(),
            )?
        }
        ModulesSource::SameImage => None,
    };
    let flavor = overrides.flavor.or_else(|| kernel_image::flavor(&kernel)).ok_or_else(|| {
        Error::usage(format!("{name}: nothing in it tells which hypervisor it is for"))
            .hint(format!("say it with {}", Flavor::flags()))
    })?;
    let arch = match overrides.arch {
        Some(arch) => arch,
        None => kernel
            .config
            .architecture()
            .to_string()
            .parse()
            .map_err(|why: String| Error::usage(format!("{name}: {why}")).hint("say it with --arch"))?,
    };
    let mut notes = Vec::new();
    if let Some(modules) = &modules {
        let pairings = [&kernel, modules].map(|image| image.annotation(annotations::PAIRING));
        if let [Some(kernel), Some(modules)] = pairings
            && kernel != modules
        {
            notes.push("the modules image was not made with this kernel: their pairings differ".to_owned());
        }
    }
    let release = kernel.annotation(annotations::KERNEL_RELEASE).map(str::to_owned);
    let name = match &kernel.tag {
        Some(tag) if !name.ends_with(&format!(":{tag}")) => format!("{name}:{tag}"),
        _ => name.to_owned(),
    };
    Ok(BootTarget { name, kernel, modules, flavor, arch, release, notes })
}

/// The newest image of this version, or of its series, among the layouts of `output`.
///
/// Errors (exit code 2): there is none, or there is one for each hypervisor and nothing says which.
pub fn from_version(
    version: VersionRequest,
    output: &Utf8Path,
    overrides: Overrides,
    arch: Arch,
) -> Result<BootTarget> {
    let arch = overrides.arch.unwrap_or(arch);
    let flavors = overrides.flavor.map_or(Flavor::ALL.to_vec(), |flavor| vec![flavor]);
    let mut found = Vec::new();
    for flavor in flavors {
        let layout = output.join(format!("{}-kernel-bin-{arch}", flavor.spec().image_prefix));
        if !layout.is_dir() {
            continue;
        }
        let reader = LayoutReader::open(&layout)?;
        let versions = reader.names().filter_map(|tag| Some((tag.parse::<KernelVersion>().ok()?, tag)));
        found.extend(
            versions
                .filter(|(built, _)| version.admits(*built))
                .max_by_key(|(built, _)| *built)
                .map(|(_, tag)| (layout, tag)),
        );
    }
    match &found[..] {
        [(layout, tag)] => {
            let name = format!("{}:{tag}", layout.file_name().unwrap_or_default());
            from_layout(&name, (layout, Some(tag)), ModulesSource::Sibling, overrides, Some(arch))
        }
        [] => Err(Error::usage(format!("there is no image of {version} for {arch} in {output}"))
            .hint(format!("build it first (kcompile {version}), or name a layout"))),
        _ => Err(Error::usage(format!("{output} has an image of {version} for each hypervisor"))
            .hint(format!("choose with {}", Flavor::flags()))),
    }
}
