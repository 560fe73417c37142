//! The hypervisors that kernels are built for, and all that differs between them.

use super::{Arch, KernelFormat, SourceSpec};
use crate::util::text::join_list;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The hypervisor that the kernel is made for. Its name is also that of its directory of configs and of its
/// requirement profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flavor {
    /// Firecracker: an ELF `vmlinux`, virtio over MMIO, serial console.
    Firecracker,
    /// Cloud Hypervisor: a stripped ELF with a PVH note, virtio over PCI, ACPI.
    CloudHypervisor,
}

spec_table!(Flavor, "flavor", FlavorSpec {
    Firecracker => FIRECRACKER,
    CloudHypervisor => CLOUD_HYPERVISOR,
});

/// What the programs of this project need to know of a hypervisor.
#[derive(Debug)]
pub struct FlavorSpec {
    /// The name in options, plans and paths.
    pub name: &'static str,
    /// Other spellings that are accepted.
    pub aliases: &'static [&'static str],
    /// The command-line flag that chooses it, without dashes.
    pub flag: &'static str,
    /// The name that people read.
    pub title: &'static str,
    /// What the names of its images begin with.
    pub image_prefix: &'static str,
    /// The name of the combined image that Flintlock before 0.5 and CAPMVM before 0.8 pull.
    pub combined_image: &'static str,
    /// Where its kernels come from unless `--source` or the catalog names another source.
    pub source: SourceSpec,
    /// The kernel file where kernels are ELF files.
    pub elf: ElfKernel,
    /// Its own program.
    pub program: &'static str,
    /// What its virtio devices are attached to.
    pub bus: Bus,
    /// Its serial port, where that is not the usual one of the architecture.
    pub serial: Option<&'static str>,
    /// Kernel options that its own machine needs on a PC.
    pub pc_options: &'static str,
    /// The kernel options that Flintlock gives it by default, beside those that it gives every hypervisor.
    pub flintlock_options: &'static [(&'static str, &'static str)],
    /// Those that it adds on a PC.
    pub flintlock_pc_options: &'static [(&'static str, &'static str)],
}

/// The kernel file of a hypervisor that loads an ELF file.
#[derive(Debug)]
pub struct ElfKernel {
    /// Its name in the image.
    pub file: &'static str,
    /// Which of the two files that Kbuild makes.
    pub form: ElfForm,
    /// Does it enter the kernel by its PVH note only?
    pub requires_pvh: bool,
}

/// A form of `vmlinux`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElfForm {
    /// As Kbuild leaves it at the top of the build directory.
    Vmlinux,
    /// Without symbols, as `arch/x86/boot/compressed/vmlinux.bin`.
    Stripped,
}

/// What virtio devices are attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// Memory-mapped.
    Mmio,
    /// PCI.
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
    combined_image: "flintlock-kernel",
    source: SourceSpec::KernelOrg,
    elf: ElfKernel { file: "vmlinux", form: ElfForm::Vmlinux, requires_pvh: false },
    program: "firecracker",
    bus: Bus::Mmio,
    serial: Some("ttyS0"),
    // It has a keyboard controller to reset the machine by, and no PCI unless it is asked for.
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
    combined_image: "cloudhypervisor-kernel",
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
    /// Returns the flags that choose one, for a message: `--fc or --ch`.
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
            |spec| spec.combined_image,
            |spec| spec.program,
        ];
        for name in unique {
            let names: BTreeSet<_> = Flavor::ALL.iter().map(|flavor| name(flavor.spec())).collect();
            assert_eq!(names.len(), Flavor::ALL.len(), "{names:?}");
        }
        assert_eq!(
            "xen".parse::<Flavor>(),
            Err("unknown flavor `xen`: firecracker or cloud-hypervisor".to_owned())
        );
    }
}
