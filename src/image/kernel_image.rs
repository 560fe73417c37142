//! What an image says of the kernel in it: its flavor and its config.

use crate::kernel::binary::{Format, Kernel};
use crate::kernel::{Arch, Flavor};
use crate::oci::read::Image;
use crate::plan::annotations;

/// Where kernels lie in images.
const KERNEL_DIRS: [&str; 2] = ["bin", "boot"];

/// The path that configurations of the hypervisor name for the kernel of an image.
pub(crate) fn kernel_path(flavor: Flavor, arch: Arch) -> String {
    format!("{}/{}", KERNEL_DIRS[0], flavor.kernel_file(arch))
}

/// The paths of kernels in images, in the order in which they are looked for.
pub(crate) fn kernel_paths() -> Vec<String> {
    let files = Flavor::kernel_files();
    let of_dir = |dir: &&str| files.iter().map(|file| format!("{dir}/{file}")).collect::<Vec<_>>();
    KERNEL_DIRS.iter().flat_map(of_dir).collect()
}

/// The flavor: as the image says, else by its title or the layout's name, which begin with it.
pub fn flavor(image: &Image) -> Option<Flavor> {
    if let Some(flavor) = image.annotation(annotations::FLAVOR).and_then(|name| name.parse().ok()) {
        return Some(flavor);
    }
    let names = [image.oci_annotation("title"), image.layout.file_name()];
    let is_of = |name: &str, flavor: Flavor| {
        name.starts_with(&format!("{}-kernel", flavor.spec().image_prefix))
            || name.starts_with(flavor.spec().combined_image)
    };
    let mut names = names.into_iter().flatten();
    names.find_map(|name| Flavor::ALL.iter().copied().find(|&flavor| is_of(name, flavor)))
}

/// Tells whether a file is a kernel. An ELF file is one if it names its Linux version. A file of any format is one at a
/// path where boot loaders look for kernels.
pub(crate) fn is_kernel(path: &str, kernel: &Kernel) -> bool {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let is_named = || name.starts_with("vmlinu") || name.starts_with("Image");
    match kernel.identity.format {
        Format::Image { .. } | Format::BzImage => true,
        Format::Elf { .. } | Format::OtherElf if kernel.banner.is_some() => true,
        Format::Gzip if is_named() => true,
        _ => KERNEL_DIRS.contains(&dir) && Flavor::kernel_files().contains(&name),
    }
}

/// Is it a path at which images have the config of their kernel? `usr/lib` is what `lib` leads to in most root file
/// systems.
pub(crate) fn is_kernel_config(path: &str) -> bool {
    match path.strip_prefix("usr/").unwrap_or(path).split('/').collect::<Vec<_>>()[..] {
        ["config"] | ["lib", "modules", _, "config"] => true,
        ["boot", name] => name.starts_with("config-"),
        _ => false,
    }
}
