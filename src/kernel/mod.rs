//! What a kernel is called and what is known about it: versions, architectures, flavors, and the
//! catalog of kernels with their pins. Pure: text in, values out.

mod catalog;
mod range;
mod source;
mod version;

pub use catalog::{Catalog, Entry, Series, Status};
pub use range::VersionRange;
pub use source::{SourceSpec, source_package};
pub use version::{Channel, KernelVersion, VersionRequest};

use serde::{Deserialize, Serialize};
use std::fmt;

/// The machine that the kernel is for. Named as container platforms name it (`amd64`, `arm64`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// x86-64.
    Amd64,
    /// AArch64.
    Arm64,
}

impl Arch {
    /// The value of the kernel's `ARCH` variable, and the name in file names of configs.
    pub fn kbuild(self) -> &'static str {
        match self {
            Arch::Amd64 => "x86_64",
            Arch::Arm64 => "arm64",
        }
    }

    /// The name that the kernel's Kconfig gives itself in a `.config` header: `Linux/x86 6.1.7 …`.
    pub fn in_config_header(self) -> &'static str {
        match self {
            Arch::Amd64 => "x86",
            Arch::Arm64 => "arm64",
        }
    }

    /// The target triple of the usual cross compiler, as Debian names its packages.
    pub fn triple(self) -> &'static str {
        match self {
            Arch::Amd64 => "x86_64-linux-gnu",
            Arch::Arm64 => "aarch64-linux-gnu",
        }
    }

    /// From `uname -m`.
    pub fn from_machine(machine: &str) -> Option<Arch> {
        match machine {
            "x86_64" => Some(Arch::Amd64),
            "aarch64" => Some(Arch::Arm64),
            _ => None,
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Arch::Amd64 => "amd64",
            Arch::Arm64 => "arm64",
        })
    }
}

impl std::str::FromStr for Arch {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "amd64" | "x86_64" | "x86" => Ok(Arch::Amd64),
            "arm64" | "aarch64" => Ok(Arch::Arm64),
            _ => Err(format!("unknown architecture `{name}`: amd64 or arm64")),
        }
    }
}

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
