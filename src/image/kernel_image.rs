//! Finds the flavor, the kernel and the config of any image.

use crate::kernel::binary::{Format, Kernel};
use crate::kernel::{Arch, Flavor};
use crate::oci::read::Image;
use crate::plan::annotations;

/// The directories of kernels in images.
const KERNEL_DIRS: [&str; 2] = ["bin", "boot"];

/// Returns the path of the kernel that configurations of the hypervisor name.
pub(crate) fn kernel_path(flavor: Flavor, arch: Arch) -> String {
    format!("{}/{}", KERNEL_DIRS[0], flavor.kernel_file(arch))
}

/// Returns the paths at which kernels are looked for, in this order.
pub(crate) fn kernel_paths() -> Vec<String> {
    let files = Flavor::kernel_files();
    let of_dir = |dir: &&str| files.iter().map(|file| format!("{dir}/{file}")).collect::<Vec<_>>();
    KERNEL_DIRS.iter().flat_map(of_dir).collect()
}

/// Returns the flavor, from the annotation or from the start of the title or of the layout's name.
pub fn flavor(image: &Image) -> Option<Flavor> {
    if let Some(flavor) = image.annotation(annotations::FLAVOR).and_then(|name| name.parse().ok()) {
        return Some(flavor);
    }
    let names = [image.oci_annotation("title"), image.layout.file_name()];
    let is_of = |name: &str, flavor: Flavor| {
        name.starts_with(&format!("{}-kernel", flavor.spec().image_prefix))
            || flavor.spec().combined_images.iter().any(|combined| name.starts_with(combined))
    };
    let mut names = names.into_iter().flatten();
    names.find_map(|name| Flavor::ALL.iter().copied().find(|&flavor| is_of(name, flavor)))
}

/// Returns whether a file is a kernel. An ELF file is a kernel if it has a banner. Any file is one at a path
/// where hypervisors look for kernels.
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

/// Returns whether images have the config of their kernel at this path. `lib` is a link to
/// `usr/lib` in most root file systems.
pub(crate) fn is_kernel_config(path: &str) -> bool {
    match path.strip_prefix("usr/").unwrap_or(path).split('/').collect::<Vec<_>>()[..] {
        ["config"] | ["lib", "modules", _, "config"] => true,
        ["boot", name] => name.starts_with("config-"),
        _ => false,
    }
}
