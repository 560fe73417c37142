//! The architectures that kernels are built for, and what differs between them.

use serde::{Deserialize, Serialize};

/// The architecture of a kernel, by its name in OCI (`amd64`, `arm64`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    Amd64,
    Arm64,
}

spec_table!(Arch, "architecture", ArchSpec { Amd64 => AMD64, Arm64 => ARM64 });

/// The names and properties of an architecture.
#[derive(Debug)]
pub struct ArchSpec {
    /// Its name in OCI and on container platforms.
    pub name: &'static str,
    /// Other spellings that are accepted.
    pub aliases: &'static [&'static str],
    /// The name that people read.
    pub title: &'static str,
    /// `uname -m`.
    pub uname: &'static str,
    /// The value of the kernel's `ARCH` variable, and the name in file names of configs.
    pub kbuild: &'static str,
    /// Its directory below `arch/`, which is also its name in a `.config` header: `Linux/x86 6.1.7 …`.
    pub srcarch: &'static str,
    /// The Kconfig symbol that only its configs set.
    pub symbol: &'static str,
    /// The target triple of the usual cross compiler.
    pub triple: &'static str,
    /// The packages of that compiler on Debian, Fedora, Arch, Alpine and openSUSE.
    pub cross_packages: [&'static str; 5],
    /// `e_machine` of its ELF files.
    pub elf_machine: u16,
    /// The format of the kernel file that hypervisors load.
    pub format: KernelFormat,
    /// The make target of the kernel.
    pub target: &'static str,
    /// The file in the build directory that the target makes.
    pub built_kernel: &'static str,
    pub platform: Platform,
    /// Its first serial port, as the kernel's command line names it.
    pub serial: &'static str,
    /// The kernel option for messages before that port has its driver.
    pub early_console: &'static str,
    /// What follows the name of the combined image. Older clients know only the name for amd64.
    pub combined_suffix: &'static str,
    pub qemu: QemuSpec,
}

/// A format of kernel files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelFormat {
    /// `vmlinux`, an ELF file. Some hypervisors and QEMU enter it by its PVH note.
    Elf,
    /// `Image`, with a PE header and these bytes at offset 56.
    PeImage([u8; 4]),
}

/// How the kernel finds the devices of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Platform {
    /// As on a PC, where the kernel also looks for a keyboard controller.
    Pc,
    /// In a device tree.
    DeviceTree,
}

/// QEMU's program and machines for an architecture.
#[derive(Debug)]
pub struct QemuSpec {
    pub program: &'static str,
    /// Its packages on Debian, Fedora, Arch, Alpine and openSUSE.
    pub packages: [&'static str; 5],
    /// The processor that is emulated.
    pub cpu: &'static str,
    /// The machine with virtio on MMIO that names its devices on the kernel's command line.
    pub mmio: &'static str,
    /// The machine with virtio on MMIO that names its devices in ACPI.
    pub mmio_acpi: &'static str,
    /// The machine with virtio on PCI.
    pub pci: &'static str,
}

static AMD64: ArchSpec = ArchSpec {
    name: "amd64",
    aliases: &["x86_64", "x86"],
    title: "x86-64",
    uname: "x86_64",
    kbuild: "x86_64",
    srcarch: "x86",
    symbol: "X86_64",
    triple: "x86_64-linux-gnu",
    cross_packages: ["gcc-x86-64-linux-gnu", "gcc-x86_64-linux-gnu", "", "", "cross-x86_64-gcc13"],
    elf_machine: 62,
    format: KernelFormat::Elf,
    target: "vmlinux",
    built_kernel: "vmlinux",
    platform: Platform::Pc,
    serial: "ttyS0",
    early_console: "earlyprintk=ttyS0",
    combined_suffix: "",
    qemu: QemuSpec {
        program: "qemu-system-x86_64",
        packages: ["qemu-system-x86", "qemu-system-x86", "qemu-system-x86", "qemu-system-x86_64", "qemu-x86"],
        cpu: "max",
        mmio: "microvm,acpi=off",
        mmio_acpi: "microvm,acpi=on",
        pci: "q35",
    },
};

static ARM64: ArchSpec = ArchSpec {
    name: "arm64",
    aliases: &["aarch64"],
    title: "arm64",
    uname: "aarch64",
    kbuild: "arm64",
    srcarch: "arm64",
    symbol: "ARM64",
    triple: "aarch64-linux-gnu",
    cross_packages: [
        "gcc-aarch64-linux-gnu",
        "gcc-aarch64-linux-gnu",
        "aarch64-linux-gnu-gcc",
        "",
        "cross-aarch64-gcc13",
    ],
    elf_machine: 183,
    format: KernelFormat::PeImage(*b"ARM\x64"),
    target: "Image",
    built_kernel: "arch/arm64/boot/Image",
    platform: Platform::DeviceTree,
    serial: "ttyAMA0",
    early_console: "earlycon",
    combined_suffix: "-arm64",
    qemu: QemuSpec {
        program: "qemu-system-aarch64",
        packages: [
            "qemu-system-arm",
            "qemu-system-aarch64",
            "qemu-system-aarch64",
            "qemu-system-aarch64",
            "qemu-arm",
        ],
        // `max` has features that older kernels fail on.
        cpu: "cortex-a72",
        mmio: "virt",
        mmio_acpi: "virt",
        pci: "virt",
    },
};

impl Arch {
    /// Returns the architecture whose spec `fits`.
    pub fn find(fits: impl Fn(&ArchSpec) -> bool) -> Option<Arch> {
        Arch::ALL.iter().copied().find(|arch| fits(arch.spec()))
    }

    /// Returns whether `name` stands for this architecture in the header of a `.config`.
    pub fn is_in_config_header(self, name: &str) -> bool {
        let spec = self.spec();
        name == spec.srcarch || name == spec.kbuild
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_round_trip() {
        for arch in Arch::ALL {
            let spec = arch.spec();
            for name in [spec.name].iter().chain(spec.aliases) {
                assert_eq!(name.parse(), Ok(*arch), "{name}");
            }
            assert_eq!(arch.to_string(), spec.name);
            assert_eq!(serde_json::to_value(arch).unwrap(), spec.name);
            assert_eq!(Arch::find(|other| other.uname == spec.uname), Some(*arch));
        }
        type Name = fn(&ArchSpec) -> &'static str;
        let unique: [Name; 8] = [
            |spec| spec.name,
            |spec| spec.title,
            |spec| spec.uname,
            |spec| spec.kbuild,
            |spec| spec.srcarch,
            |spec| spec.symbol,
            |spec| spec.triple,
            |spec| spec.combined_suffix,
        ];
        for name in unique {
            let names: BTreeSet<_> = Arch::ALL.iter().map(|arch| name(arch.spec())).collect();
            assert_eq!(names.len(), Arch::ALL.len(), "{names:?}");
        }
        let machines: BTreeSet<_> = Arch::ALL.iter().map(|arch| arch.spec().elf_machine).collect();
        assert_eq!(machines.len(), Arch::ALL.len());
        assert_eq!(
            "mips".parse::<Arch>(),
            Err("unknown architecture `mips`: expected amd64 or arm64".to_owned())
        );
    }
}
