//! What kernels and modules are, from their bytes: their format, and what they say of themselves. The
//! bytes are read once, forward and in pieces, with bounds on all that is kept: they may come out of an
//! archive that somebody else made. Pure, but for the reading.

pub mod ikconfig;
pub mod kernel;
pub mod module;
pub mod sections;

mod scan;

pub use kernel::{Kernel, Pvh, identify};
pub use module::Module;
pub use sections::ElfSections;

use crate::kernel::{Arch, ArchSpec, KernelFormat};
use std::fmt;

/// What the first bytes of a file say that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// ELF of 64 bits, little endian, for the machine of this number (`e_machine`).
    Elf {
        /// As the ELF specification numbers it.
        machine: u16,
    },
    /// Any other ELF.
    OtherElf,
    /// `Image`, as arm64 has it.
    Image {
        /// By its magic bytes.
        arch: Arch,
        /// With a PE header, as EFI loads it.
        pe: bool,
    },
    /// x86's compressed kernel.
    BzImage,
    /// gzip, as in `Image.gz`.
    Gzip,
    /// None of these: `objcopy -O binary` leaves no header.
    Raw,
}

impl Format {
    /// Goes by the first bytes of a file; 1024 of them are enough.
    pub fn of(head: &[u8]) -> Format {
        let at = |offset: usize, bytes: &[u8]| head.get(offset..offset + bytes.len()) == Some(bytes);
        if at(0, b"\x7fELF") {
            // EI_CLASS 2 is 64 bits, EI_DATA 1 little endian.
            return match (at(4, &[2, 1]), half(head, 18)) {
                (true, Some(machine)) => Format::Elf { machine },
                _ => Format::OtherElf,
            };
        }
        // Documentation/arm64/booting.rst: "ARM\x64" at offset 56; "MZ" makes it a PE file.
        let has_magic =
            |spec: &ArchSpec| matches!(spec.format, KernelFormat::PeImage(magic) if at(56, &magic));
        if let Some(arch) = Arch::find(has_magic) {
            return Format::Image { arch, pe: at(0, b"MZ") };
        }
        // Documentation/x86/boot.rst: the setup header's signature at offset 0x202.
        if at(0x202, b"HdrS") {
            return Format::BzImage;
        }
        if at(0, &[0x1f, 0x8b]) { Format::Gzip } else { Format::Raw }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Format::Elf { machine } => match Arch::find(|spec| spec.elf_machine == *machine) {
                Some(arch) => write!(f, "an ELF file for {}", arch.spec().title),
                None => write!(f, "an ELF file for another machine (e_machine {machine})"),
            },
            Format::OtherElf => f.write_str("an ELF file, but not of 64 bits, little endian"),
            Format::Image { arch, pe } => {
                let header = if *pe { "with an EFI header" } else { "without an EFI header (CONFIG_EFI)" };
                write!(f, "an {} Image {header}", arch.spec().title)
            }
            Format::BzImage => f.write_str("a bzImage, compressed, which Firecracker does not load"),
            Format::Gzip => f.write_str("compressed by gzip"),
            Format::Raw => f.write_str(
                "a raw binary, as objcopy -O binary makes it (of the two files vmlinux.bin, the one in \
                 arch/x86/boot/compressed/ is right)",
            ),
        }
    }
}

/// Returns what the hypervisors load on this machine.
pub fn expected_format(arch: Arch) -> Format {
    match arch.spec().format {
        KernelFormat::Elf => Format::Elf { machine: arch.spec().elf_machine },
        KernelFormat::PeImage(_) => Format::Image { arch, pe: true },
    }
}

/// The little-endian number of two bytes at this place.
fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// Of four bytes.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// Of eight bytes.
fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}
