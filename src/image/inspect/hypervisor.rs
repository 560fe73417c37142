//! Writes what a hypervisor needs to boot a kernel that `kcompile extract` wrote to the current directory: a
//! configuration file for Firecracker, a command line for Cloud Hypervisor. Root file system, CPUs and memory
//! are examples.

use super::ImageInfo;
use crate::kernel::{Arch, Flavor, Platform};
use crate::util::error::{Error, Result};
use camino::Utf8Path;
use serde_json::json;

/// A part of a specification.
#[derive(Debug)]
pub struct SpecFragment {
    pub text: String,
    /// Notes for the user.
    pub notes: Vec<String>,
}

/// The root file system of the example.
const ROOT: &str = "rootfs.ext4";
const CPUS: u32 = 2;
const MEMORY_MIB: u32 = 1024;

/// Returns a file for `firecracker --config-file` or a command line of `cloud-hypervisor`.
///
/// # Errors
///
/// Exit code 2 if the image has no kernel, or is for another hypervisor.
pub fn example(flavor: Flavor, kernel: &ImageInfo, modules: Option<&ImageInfo>) -> Result<SpecFragment> {
    if let Some(other) = kernel.flavor.filter(|other| *other != flavor) {
        let (layout, title) = (&kernel.layout, other.spec().title);
        return Err(Error::usage(format!("{layout}: the kernel is for {title}"))
            .hint(format!("use --as {}", other.spec().name)));
    }
    let path = filename(kernel)?;
    let file = Utf8Path::new(path).file_name().unwrap_or(path);
    let boot_args = kernel_options(flavor, kernel.arch.parse().ok());
    let text = match flavor {
        Flavor::Firecracker => firecracker(file, &boot_args),
        Flavor::CloudHypervisor => cloud_hypervisor(file, &boot_args),
    };
    let version = kernel.version.as_deref().unwrap_or("LAYOUT:TAG");
    let extract = format!("kcompile extract {version} --{}", flavor.spec().flag);
    let mut notes = vec![format!("`{extract}` writes {file}; {ROOT} is your own root file system")];
    if modules.is_some() {
        notes.push(format!(
            "`{extract} --modules DIR` writes the modules into the directory of a root file system"
        ));
    }
    Ok(SpecFragment { text, notes })
}

/// Returns the path of the kernel in its image.
///
/// # Errors
///
/// Exit code 2 if the image has no kernel.
pub(super) fn filename(kernel: &ImageInfo) -> Result<&str> {
    match (&kernel.kernel_path, kernel.scan.main_kernel()) {
        (Some(at), Some(_)) if at.exists => Ok(&at.path),
        (_, Some((path, _))) => Ok(path),
        (at, None) => {
            let problem = at.as_ref().and_then(|at| Some(format!(": {}", at.problem.as_ref()?)));
            let problem = problem.unwrap_or_default();
            Err(Error::usage(format!("{} has no kernel{problem}", kernel.layout))
                .hint("name the layout of the kernel"))
        }
    }
}

/// Returns the options for a serial console and the hypervisor's way to restart.
fn kernel_options(flavor: Flavor, arch: Option<Arch>) -> String {
    let arch = arch.unwrap_or(Arch::Amd64).spec();
    let console = flavor.spec().serial.unwrap_or(arch.serial);
    let mut options = vec![format!("console={console}"), "panic=1".to_owned()];
    if arch.platform == Platform::Pc {
        options.push(flavor.spec().pc_options.to_owned());
    }
    options.join(" ")
}

/// Returns a file for `--config-file`. Firecracker adds the root device to the options itself.
fn firecracker(kernel: &str, boot_args: &str) -> String {
    let config = json!({
        "boot-source": {"kernel_image_path": kernel, "boot_args": boot_args},
        "drives": [
            {"drive_id": "rootfs", "path_on_host": ROOT, "is_root_device": true, "is_read_only": false},
        ],
        "machine-config": {"vcpu_count": CPUS, "mem_size_mib": MEMORY_MIB},
    });
    format!("{config:#}\n")
}

fn cloud_hypervisor(kernel: &str, boot_args: &str) -> String {
    format!(
        "cloud-hypervisor --kernel {kernel} --disk path={ROOT} \\\n  --cmdline '{boot_args} root=/dev/vda rw' \\\n  \
         --cpus boot={CPUS} --memory size={MEMORY_MIB}M --serial tty --console off\n"
    )
}
