//! The hypervisors that kernels are built for.

use super::Arch;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The hypervisor that the kernel is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flavor {
    /// Firecracker: an ELF `vmlinux`, virtio over MMIO, serial console.
    Firecracker,
    /// Cloud Hypervisor: a stripped ELF with a PVH note, virtio over PCI, ACPI.
    CloudHypervisor,
}

impl Flavor {
    /// Both, in the order in which they are listed.
    pub const ALL: [Flavor; 2] = [Flavor::Firecracker, Flavor::CloudHypervisor];

    /// The directory of its configs: `firecracker`, `cloud-hypervisor`.
    pub fn config_dir(self) -> &'static str {
        match self {
            Flavor::Firecracker => "firecracker",
            Flavor::CloudHypervisor => "cloud-hypervisor",
        }
    }

    /// The prefix of its images: `firecracker`, `cloudhypervisor`.
    pub fn image_prefix(self) -> &'static str {
        match self {
            Flavor::Firecracker => "firecracker",
            Flavor::CloudHypervisor => "cloudhypervisor",
        }
    }

    /// The short command-line flag that chooses it.
    pub fn flag(self) -> &'static str {
        match self {
            Flavor::Firecracker => "--fc",
            Flavor::CloudHypervisor => "--ch",
        }
    }

    /// The name that people read.
    pub fn title(self) -> &'static str {
        match self {
            Flavor::Firecracker => "Firecracker",
            Flavor::CloudHypervisor => "Cloud Hypervisor",
        }
    }

    /// Where the kernel lies in the image. On arm64 both hypervisors load the PE file `Image`.
    pub fn kernel_path(self, arch: Arch) -> &'static str {
        match (arch, self) {
            (Arch::Arm64, _) => "bin/Image",
            (Arch::Amd64, Flavor::Firecracker) => "bin/vmlinux",
            (Arch::Amd64, Flavor::CloudHypervisor) => "bin/vmlinux.bin",
        }
    }

    /// The name of the combined image that Flintlock before 0.5 and CAPMVM before 0.8 pull.
    pub fn legacy_image(self) -> &'static str {
        match self {
            Flavor::Firecracker => "flintlock-kernel",
            Flavor::CloudHypervisor => "cloudhypervisor-kernel",
        }
    }
}

impl fmt::Display for Flavor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.config_dir())
    }
}

impl std::str::FromStr for Flavor {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "fc" | "firecracker" => Ok(Flavor::Firecracker),
            "ch" | "cloud-hypervisor" | "cloudhypervisor" => Ok(Flavor::CloudHypervisor),
            _ => Err(format!("unknown flavor `{name}`: firecracker or cloud-hypervisor")),
        }
    }
}
