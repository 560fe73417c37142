//! Finds the images to boot, which are a kernel image and the modules image of the same kernel.

use crate::image::inspect::{self, ReadCache};
use crate::image::kernel_image;
use crate::kernel::{Arch, Flavor, KernelVersion, Variant, VersionRequest};
use crate::oci::layout_reader::LayoutReader;
use crate::oci::read::{Image, tag_part};
use crate::plan::annotations;
use crate::plan::request::TagSuffix;
use crate::util::error::{Error, Result};
use camino::{Utf8Path, Utf8PathBuf};

#[derive(Clone, Debug)]
pub struct BootTarget {
    /// The image as the user named it.
    pub name: String,
    pub kernel: Image,
    /// `None` if the modules are in the kernel image, or if there are none.
    pub modules: Option<Image>,
    pub flavor: Flavor,
    pub arch: Arch,
    pub variant: Variant,
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
    let variant = annotations::variant(kernel.annotation(annotations::VARIANT));
    Ok(BootTarget { name, kernel, modules, flavor, arch, variant, release, notes })
}

/// A kernel that was built, by its version or series.
#[derive(Clone, Copy, Debug)]
pub struct BuiltKernel {
    pub version: VersionRequest,
    pub variant: Variant,
}

impl BuiltKernel {
    /// Selects the newest of `tags` that fits. Of two kernels of one version, it is the one with modules.
    fn select(self, tags: impl Iterator<Item = String>) -> Option<String> {
        let fitting = tags.filter_map(|tag| {
            let (version, suffix) = TagSuffix::split(tag_part(&tag));
            let built: KernelVersion = version.parse().ok()?;
            let fits = self.version.admits(built) && suffix.variant() == self.variant;
            fits.then_some((built, suffix == TagSuffix::None, tag))
        });
        fitting.max_by_key(|(built, has_modules, _)| (*built, *has_modules)).map(|(.., tag)| tag)
    }

    /// Returns the hint for a kernel that is not in `output`.
    fn hint(self, overrides: Overrides, layouts: &[Utf8PathBuf]) -> String {
        let of = |variant: Variant| BuiltKernel { variant, ..self };
        for other in Variant::ALL.iter().filter(|other| **other != self.variant) {
            let readers = layouts.iter().filter_map(|layout| LayoutReader::open(layout).ok());
            let found = readers.filter_map(|reader| of(*other).select(reader.names())).next();
            if let Some(tag) = found {
                return format!("there is {}; choose it with --variant {other}", tag_part(&tag));
            }
        }
        let mut command = format!("kcompile {}", self.version);
        command.extend(overrides.flavor.map(|flavor| format!(" --{}", flavor.spec().flag)));
        command.extend(overrides.arch.map(|arch| format!(" --arch {arch}")));
        command.extend((!self.variant.is_default()).then(|| format!(" --variant {}", self.variant)));
        format!("build it with `{command}`, or name a layout")
    }
}

/// Opens the newest image of this kernel in the layouts of `output`.
///
/// # Errors
///
/// There is none, or there is one for each hypervisor and no option selects one (exit code 2).
pub fn from_version(
    wanted: BuiltKernel,
    output: &Utf8Path,
    overrides: Overrides,
    arch: Arch,
) -> Result<BootTarget> {
    let arch = overrides.arch.unwrap_or(arch);
    let flavors = overrides.flavor.map_or(Flavor::ALL.to_vec(), |flavor| vec![flavor]);
    let layout = |flavor: Flavor| output.join(format!("{}-kernel-bin-{arch}", flavor.spec().image_prefix));
    let layouts: Vec<Utf8PathBuf> =
        flavors.into_iter().map(layout).filter(|layout| layout.is_dir()).collect();
    let mut found = Vec::new();
    for layout in &layouts {
        let reader = LayoutReader::open(layout)?;
        found.extend(wanted.select(reader.names()).map(|tag| (layout, tag)));
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
            let what = if wanted.variant.is_default() { "image" } else { "minimal image" };
            Err(Error::usage(format!("no {what} of {} for {arch} in {output}", wanted.version))
                .hint(wanted.hint(overrides, &layouts)))
        }
        _ => Err(Error::usage(format!("{output} has an image of {} for each hypervisor", wanted.version))
            .hint(format!("choose one with {}", Flavor::flags()))),
    }
}
