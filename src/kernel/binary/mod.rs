//! Reads the format and the metadata of kernels and modules from their bytes. The bytes may come
//! from an archive that somebody else made. They are read once, forward and in chunks, and
//! everything that is kept has a limit.

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

/// The format of a file, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// 64-bit little-endian ELF.
    Elf {
        /// `e_machine`.
        machine: u16,
    },
    /// Any other ELF.
    OtherElf,
    /// `Image`, the format of arm64.
    Image {
        arch: Arch,
        /// Whether it has the PE header that EFI needs.
        pe: bool,
    },
    /// The compressed kernel of x86.
    BzImage,
    /// gzip, as `Image.gz` is.
    Gzip,
    /// Anything else. `objcopy -O binary` writes no header.
    Raw,
}

impl Format {
    /// Returns the format of a file that begins with `head`. 1024 bytes are enough.
    pub fn of(head: &[u8]) -> Format {
        let at = |offset: usize, bytes: &[u8]| head.get(offset..offset + bytes.len()) == Some(bytes);
        if at(0, b"\x7fELF") {
            // EI_CLASS 2 is 64 bits, EI_DATA 1 little endian.
            let machine = read_u16(head, 18).filter(|_| at(4, &[2, 1]));
            return machine.map_or(Format::OtherElf, |machine| Format::Elf { machine });
        }
        // Documentation/arm64/booting.rst has "ARM\x64" at offset 56, and "MZ" at the start of a PE file.
        let has_magic =
            |spec: &ArchSpec| matches!(spec.format, KernelFormat::PeImage(magic) if at(56, &magic));
        if let Some(arch) = Arch::find(has_magic) {
            return Format::Image { arch, pe: at(0, b"MZ") };
        }
        // Documentation/x86/boot.rst has the signature of the setup header at offset 0x202.
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
            Format::OtherElf => f.write_str("an ELF file, but not a 64-bit little-endian one"),
            Format::Image { arch, pe } => {
                let header = if *pe { "with an EFI header" } else { "without an EFI header (CONFIG_EFI)" };
                write!(f, "an {} Image {header}", arch.spec().title)
            }
            Format::BzImage => f.write_str(
                "a bzImage, which is compressed and which Firecracker up to 1.16.1 does not load",
            ),
            Format::Gzip => f.write_str("a gzip file"),
            Format::Raw => f.write_str(
                "a raw binary, as objcopy -O binary writes it (use the vmlinux.bin in arch/x86/boot/compressed/)",
            ),
        }
    }
}

/// Returns the format that hypervisors load on this architecture.
pub fn expected_format(arch: Arch) -> Format {
    match arch.spec().format {
        KernelFormat::Elf => Format::Elf { machine: arch.spec().elf_machine },
        KernelFormat::PeImage(_) => Format::Image { arch, pe: true },
    }
}

/// Returns the little-endian number at this offset.
fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}
