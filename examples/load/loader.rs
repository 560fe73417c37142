//! Loads a kernel file as Firecracker and Cloud Hypervisor do, with their own crate.

use linux_loader::loader::KernelLoader;
use std::fmt;
use std::fs::File;
use std::path::Path;
use vm_memory::{GuestAddress, GuestMemoryMmap};

/// The memory of the guest. Only the pages that the kernel touches are allocated.
const MEMORY: usize = 1 << 30;
/// Both hypervisors refuse a kernel below the first megabyte.
#[cfg(target_arch = "x86_64")]
const HIGH_MEMORY: GuestAddress = GuestAddress(1 << 20);

/// A kernel that was loaded.
#[derive(Debug, PartialEq, Eq)]
pub enum Loaded {
    #[cfg(target_arch = "x86_64")]
    /// An ELF file for x86-64, with the addresses of its 64-bit entry and of its PVH entry.
    Elf { entry: u64, pvh: Option<u64> },
    #[cfg(target_arch = "x86_64")]
    /// A bzImage for x86-64, with the version of its boot protocol.
    BzImage { protocol: (u8, u8), entry: u64 },
    #[cfg(target_arch = "aarch64")]
    /// An `Image` for arm64.
    Image { address: u64 },
}

impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            #[cfg(target_arch = "x86_64")]
            Loaded::Elf { entry, pvh: Some(pvh) } => write!(f, "ELF, entry {entry:#x}, PVH entry {pvh:#x}"),
            #[cfg(target_arch = "x86_64")]
            Loaded::Elf { entry, pvh: None } => write!(f, "ELF, entry {entry:#x}, no PVH entry"),
            #[cfg(target_arch = "x86_64")]
            Loaded::BzImage { protocol: (major, minor), entry } => {
                write!(f, "bzImage, boot protocol {major}.{minor}, entry {entry:#x}")
            }
            #[cfg(target_arch = "aarch64")]
            Loaded::Image { address } => write!(f, "arm64 Image, at {address:#x}"),
        }
    }
}

/// Loads an ELF file or a bzImage. The loader of an arm64 `Image` is compiled for aarch64 only.
///
/// # Errors
///
/// The text of the loader's error, or of the file's.
pub fn load(kernel: &Path) -> Result<Loaded, String> {
    let mut file = File::open(kernel).map_err(|error| error.to_string())?;
    let memory: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)])
        .map_err(|error| format!("cannot allocate the memory of a guest: {error}"))?;
    load_into(&memory, &mut file)
}

#[cfg(target_arch = "x86_64")]
fn load_into(memory: &GuestMemoryMmap, file: &mut File) -> Result<Loaded, String> {
    use linux_loader::loader::elf::{Elf, PvhBootCapability};
    use linux_loader::loader::{BzImage, Error, elf};
    match Elf::load(memory, None, file, Some(HIGH_MEMORY)) {
        Ok(loaded) => Ok(Loaded::Elf {
            entry: loaded.kernel_load.0,
            pvh: match loaded.pvh_boot_cap {
                PvhBootCapability::PvhEntryPresent(entry) => Some(entry.0),
                PvhBootCapability::PvhEntryNotPresent | PvhBootCapability::PvhEntryIgnored => None,
            },
        }),
        // Both hypervisors then try the other format.
        Err(Error::Elf(elf::Error::InvalidElfMagicNumber)) => {
            let loaded =
                BzImage::load(memory, None, file, Some(HIGH_MEMORY)).map_err(|error| error.to_string())?;
            let header = loaded.setup_header.ok_or("the bzImage has no header")?;
            let [minor, major] = header.version.to_le_bytes();
            Ok(Loaded::BzImage { protocol: (major, minor), entry: loaded.kernel_load.0 })
        }
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(target_arch = "aarch64")]
fn load_into(memory: &GuestMemoryMmap, file: &mut File) -> Result<Loaded, String> {
    use linux_loader::loader::pe::PE;
    let loaded = PE::load(memory, Some(GuestAddress(0)), file, None).map_err(|error| error.to_string())?;
    Ok(Loaded::Image { address: loaded.kernel_load.0 })
}
