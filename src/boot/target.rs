//! Finds the images to boot, which are a kernel image and the modules image of the same kernel.

use crate::image::inspect::{self, ReadCache};
use crate::image::kernel_image;
use crate::kernel::{Arch, Flavor, KernelVersion, VersionRequest};
use crate::oci::layout_reader::LayoutReader;
use crate::oci::read::{Image, tag_part};
use crate::plan::annotations;
use crate::plan::request::BUILTIN_SUFFIX;
use crate::util::error::{Error, Result};
use camino::Utf8Path;

#[derive(Clone, Debug)]
pub struct BootTarget {
    /// The image as the user named it.
    pub name: String,
    pub kernel: Image,
    /// `None` if the modules are in the kernel image, or if there are none.
    pub modules: Option<Image>,
    pub flavor: Flavor,
    pub arch: Arch,
    /// The release that uname(2) should report.
    pub release: Option<String>,
    pub notes: Vec<String>,
}

/// Options that replace what the image says, since images of other tools may not say it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Overrides {
    /// `--fc`, `--ch`, `--flavor`.
    pub flavor: Option<Flavor>,
    pub arch: Option<Arch>,
}

/// Where to find the modules of a kernel.
#[derive(Clone, Copy, Debug)]
pub enum ModulesSource<'a> {
    /// In the layout beside the kernel's, under the same tag, or else in the kernel image.
    Sibling,
    Layout(ImageRef<'a>),
    /// In the kernel image, if there are any.
    SameImage,
}

/// An image in a layout. Without a tag it is the only one.
#[derive(Clone, Copy, Debug)]
pub struct ImageRef<'a> {
    pub layout: &'a Utf8Path,
    pub tag: Option<&'a str>,
}

/// Opens an image of a layout. Without `--arch`, selects the image for `host_arch` from an index.
/// `name` is the user's name for it.
///
/// # Errors
///
/// The image is missing, names no hypervisor or architecture (exit code 2), or is invalid (3).
pub fn from_layout(
    name: &str,
    image: ImageRef<'_>,
    modules: ModulesSource<'_>,
    overrides: Overrides,
    host_arch: Option<Arch>,
) -> Result<BootTarget> {
    let ImageRef { layout, tag } = image;
    let kernel = LayoutReader::open(layout)?.open_image(tag, overrides.arch.or(host_arch).map(Arch::name))?;
    let arch_name = kernel.config.architecture().to_string();
    let modules = match modules {
        ModulesSource::Layout(ImageRef { layout, tag }) => {
            let arch = arch_name.parse::<Arch>().ok();
            Some(LayoutReader::open(layout)?.open_image(tag, arch.map(Arch::name))?)
        }
        ModulesSource::Sibling => {
            let tag = kernel.tag.as_deref();
            inspect::counterpart_image(&kernel.layout, tag, &arch_name, &mut ReadCache::default())?
        }
        ModulesSource::SameImage => None,
    };
    let flavor = overrides.flavor.or_else(|| kernel_image::flavor(&kernel)).ok_or_else(|| {
        Error::usage(format!("{name}: the image does not name its hypervisor"))
            .hint(format!("set it with {}", Flavor::flags()))
    })?;
    let arch = match overrides.arch {
        Some(arch) => arch,
        None => arch_name
            .parse()
            .map_err(|why: String| Error::usage(format!("{name}: {why}")).hint("set it with --arch"))?,
    };
    let mut notes = Vec::new();
    if let Some(modules) = &modules {
        let pairings = [&kernel, modules].map(|image| image.annotation(annotations::PAIRING));
        if let [Some(kernel), Some(modules)] = pairings
            && kernel != modules
        {
            notes.push(
                "the modules image belongs to another kernel (their pairing annotations differ)".to_owned(),
            );
        }
    }
    let release = kernel.annotation(annotations::KERNEL_RELEASE).map(str::to_owned);
    let name = match &kernel.tag {
        Some(tag) if !name.ends_with(&format!(":{tag}")) => format!("{name}:{tag}"),
        _ => name.to_owned(),
    };
    Ok(BootTarget { name, kernel, modules, flavor, arch, release, notes })
}

/// Opens the newest image of this version or series in the layouts of `output`.
///
/// # Errors
///
/// There is none, or there is one for each hypervisor and no option selects one (exit code 2).
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
        let versions = reader.names().filter_map(|tag| {
            let own = tag_part(&tag);
            let plain = own.strip_suffix(BUILTIN_SUFFIX).unwrap_or(own);
            Some((plain.parse::<KernelVersion>().ok()?, plain == own, tag.clone()))
        });
        // Of two kernels of one version, the one with modules.
        found.extend(
            versions
                .filter(|(built, ..)| version.admits(*built))
                .max_by_key(|(built, has_modules, _)| (*built, *has_modules))
                .map(|(.., tag)| (layout, tag)),
        );
    }
    match &found[..] {
        [(layout, tag)] => {
            let name = format!("{}:{tag}", layout.file_name().unwrap_or_default());
            from_layout(
                &name,
                ImageRef { layout, tag: Some(tag) },
                ModulesSource::Sibling,
                overrides,
                Some(arch),
            )
        }
        [] => {
            let mut command = format!("kcompile {version}");
            command.extend(overrides.flavor.map(|flavor| format!(" --{}", flavor.spec().flag)));
            command.extend(overrides.arch.map(|arch| format!(" --arch {arch}")));
            Err(Error::usage(format!("no image of {version} for {arch} in {output}"))
                .hint(format!("build it with `{command}`, or name a layout")))
        }
        _ => Err(Error::usage(format!("{output} has an image of {version} for each hypervisor"))
            .hint(format!("choose one with {}", Flavor::flags()))),
    }
}
