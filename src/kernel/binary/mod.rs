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
pub use sections::Anatomy;

use crate::kernel::Arch;
use std::fmt;

/// The `e_machine` of x86-64, as the ELF specification numbers it.
pub const EM_X86_64: u16 = 62;
/// That of arm64.
pub const EM_AARCH64: u16 = 183;

/// What the first bytes of a file say that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// ELF of 64 bits, little endian, for the machine of this number (`e_machine`).
    Elf {
        /// [`EM_X86_64`], [`EM_AARCH64`], or another one.
        machine: u16,
    },
    /// Any other ELF.
    OtherElf,
    /// The arm64 `Image`.
    Arm64Image {
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
        if at(56, b"ARM\x64") {
            return Format::Arm64Image { pe: at(0, b"MZ") };
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
            Format::Elf { machine: EM_X86_64 } => f.write_str("an ELF file for x86-64"),
            Format::Elf { machine: EM_AARCH64 } => f.write_str("an ELF file for arm64"),
            Format::Elf { machine } => write!(f, "an ELF file for another machine (e_machine {machine})"),
            Format::OtherElf => f.write_str("an ELF file, but not of 64 bits, little endian"),
            Format::Arm64Image { pe: true } => f.write_str("an arm64 Image with an EFI header"),
            Format::Arm64Image { pe: false } => {
                f.write_str("an arm64 Image without an EFI header (CONFIG_EFI)")
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

/// What the hypervisors load on this machine: on x86-64 an ELF file, on arm64 an `Image` with a PE header.
pub fn expected_format(arch: Arch) -> Format {
    match arch {
        Arch::Amd64 => Format::Elf { machine: EM_X86_64 },
        Arch::Arm64 => Format::Arm64Image { pe: true },
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
