//! The hypervisors that kernels are built for, and what differs between them.

use super::{Arch, KernelFormat, SourceSpec};
use crate::util::text::join_list;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The hypervisor that a kernel is for. Its directory of configs and its requirement
/// profile have the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flavor {
    /// Loads an ELF `vmlinux`. Virtio over MMIO, a serial console.
    Firecracker,
    /// Loads a stripped ELF file with a PVH note. Virtio over PCI, ACPI.
    CloudHypervisor,
}

spec_table!(Flavor, "flavor", FlavorSpec {
    Firecracker => FIRECRACKER,
    CloudHypervisor => CLOUD_HYPERVISOR,
});

/// The names and properties of a hypervisor.
#[derive(Debug)]
pub struct FlavorSpec {
    /// The name in options, plans and paths.
    pub name: &'static str,
    /// Other spellings that are accepted.
    pub aliases: &'static [&'static str],
    /// The command-line flag that selects it, without dashes.
    pub flag: &'static str,
    /// The name that people read.
    pub title: &'static str,
    /// The first part of the names of its images.
    pub image_prefix: &'static str,
    /// The names of the combined image. Consumers of today pull the last one, and Flintlock before 0.5 and CAPMVM
    /// before 0.8 the first.
    pub combined_images: &'static [&'static str],
    /// The source, unless `--source` or the catalog names another one.
    pub source: SourceSpec,
    /// The kernel file of architectures whose kernels are ELF files.
    pub elf: ElfKernel,
    pub program: &'static str,
    /// The bus of its virtio devices.
    pub bus: Bus,
    /// Its serial port, if it differs from that of the architecture.
    pub serial: Option<&'static str>,
    /// The kernel options that its machine needs on a PC.
    pub pc_options: &'static str,
    /// The kernel options that Flintlock gives this hypervisor by default, and no other.
    pub flintlock_options: &'static [(&'static str, &'static str)],
    /// The kernel options that Flintlock adds on a PC.
    pub flintlock_pc_options: &'static [(&'static str, &'static str)],
}

/// The kernel file of a hypervisor that loads an ELF file.
#[derive(Debug)]
pub struct ElfKernel {
    /// Its name in the image.
    pub file: &'static str,
    pub form: ElfForm,
    /// Whether it loads only kernels with a PVH note.
    pub requires_pvh: bool,
}

/// A `vmlinux` that Kbuild makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElfForm {
    /// `vmlinux` at the top of the build directory.
    Vmlinux,
    /// `arch/x86/boot/compressed/vmlinux.bin`, without symbols.
    Stripped,
}

/// The bus of virtio devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    Mmio,
    Pci,
}

/// The name in the image of a kernel that is a PE file.
const PE_IMAGE: &str = "Image";

static FIRECRACKER: FlavorSpec = FlavorSpec {
    name: "firecracker",
    aliases: &["fc"],
    flag: "fc",
    title: "Firecracker",
    image_prefix: "firecracker",
    combined_images: &["flintlock-kernel", "firecracker-kernel"],
    source: SourceSpec::KernelOrg,
    elf: ElfKernel { file: "vmlinux", form: ElfForm::Vmlinux, requires_pvh: false },
    program: "firecracker",
    bus: Bus::Mmio,
    serial: Some("ttyS0"),
    // It resets the machine by a keyboard controller, and has no PCI by default.
    pc_options: "reboot=k pci=off",
    flintlock_options: &[("console", "ttyS0")],
    flintlock_pc_options: &[
        ("i8042.noaux", ""),
        ("i8042.nomux", ""),
        ("i8042.nopnp", ""),
        ("i8042.dumbkbd", ""),
        ("pci", "off"),
    ],
};

static CLOUD_HYPERVISOR: FlavorSpec = FlavorSpec {
    name: "cloud-hypervisor",
    aliases: &["ch", "cloudhypervisor"],
    flag: "ch",
    title: "Cloud Hypervisor",
    image_prefix: "cloudhypervisor",
    combined_images: &["cloudhypervisor-kernel"],
    source: SourceSpec::Git { url: None, reference: None },
    elf: ElfKernel { file: "vmlinux.bin", form: ElfForm::Stripped, requires_pvh: true },
    program: "cloud-hypervisor",
    bus: Bus::Pci,
    serial: None,
    pc_options: "reboot=t",
    flintlock_options: &[("console", "hvc0"), ("root", "/dev/vda"), ("rw", "")],
    flintlock_pc_options: &[],
};

impl Flavor {
    /// Returns the flags that select a flavor, for a message: `--fc or --ch`.
    pub fn flags() -> String {
        join_list(Flavor::ALL.iter().map(|flavor| format!("--{}", flavor.spec().flag)), "or")
    }

    /// Returns the name of the kernel file in the image.
    pub fn kernel_file(self, arch: Arch) -> &'static str {
        match arch.spec().format {
            KernelFormat::Elf => self.spec().elf.file,
            KernelFormat::PeImage(_) => PE_IMAGE,
        }
    }

    /// Returns the names that kernel files have in images of any flavor.
    pub fn kernel_files() -> Vec<&'static str> {
        let mut seen = BTreeSet::new();
        let files = Flavor::ALL.iter().map(|flavor| flavor.spec().elf.file).chain([PE_IMAGE]);
        files.filter(|file| seen.insert(*file)).collect()
    }

    /// Returns whether a kernel for `arch` must have a PVH note.
    pub fn requires_pvh(self, arch: Arch) -> bool {
        arch.spec().format == KernelFormat::Elf && self.spec().elf.requires_pvh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_round_trip() {
        for flavor in Flavor::ALL {
            let spec = flavor.spec();
            for name in [spec.name, spec.flag].iter().chain(spec.aliases) {
                assert_eq!(name.parse(), Ok(*flavor), "{name}");
            }
            assert_eq!(flavor.to_string(), spec.name);
            assert_eq!(serde_json::to_value(flavor).unwrap(), spec.name);
        }
        type Name = fn(&FlavorSpec) -> &'static str;
        let unique: [Name; 6] = [
            |spec| spec.name,
            |spec| spec.title,
            |spec| spec.flag,
            |spec| spec.image_prefix,
            |spec| spec.combined_images[0],
            |spec| spec.program,
        ];
        for name in unique {
            let names: BTreeSet<_> = Flavor::ALL.iter().map(|flavor| name(flavor.spec())).collect();
            assert_eq!(names.len(), Flavor::ALL.len(), "{names:?}");
        }
        assert_eq!(
            "xen".parse::<Flavor>(),
            Err("unknown flavor `xen`: expected firecracker or cloud-hypervisor".to_owned())
        );
    }
}
