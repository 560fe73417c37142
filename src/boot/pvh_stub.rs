//! Adds a PVH entry to a copy of a kernel that has none. Appends a small program and a note with its address
//! to the ELF file. The file does not change otherwise, except that its program headers move.

use std::io::{self, Read, Seek, SeekFrom, Write};

/// The program, in C.
pub(super) const SOURCE: &str = include_str!("pvh_stub.c");
/// The load address of the program, below the kernel, whose default is 16 MiB.
pub(super) const BASE: u64 = 0x20_0000;
/// The memory that the program uses from there on.
const STUB_SIZE: u64 = 0x2_0000;
/// The sizes of Elf64_Ehdr and Elf64_Phdr.
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
/// A kernel has five or six.
const MAX_HEADERS: usize = 64;

/// What the program has to know about the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct EntryPoint {
    /// The address of the 64-bit entry.
    pub entry: u32,
    /// The program headers.
    table: Vec<u8>,
}

/// Reads the entry point of an ELF file for x86-64.
///
/// # Errors
///
/// The headers are damaged, the entry is above 4 GiB, or a segment overlaps the program.
pub(super) fn read(kernel: &mut (impl Read + Seek)) -> io::Result<EntryPoint> {
    let damaged = || io::Error::other("its ELF headers are damaged");
    let mut header = [0; HEADER];
    kernel.read_exact(&mut header)?;
    // e_entry at 24, e_phoff at 32, e_phentsize at 54, e_phnum at 56.
    let entry = u32::try_from(long(&header, 24)).map_err(|_| damaged())?;
    let count = usize::from(u16::from_le_bytes([header[56], header[57]]));
    if usize::from(u16::from_le_bytes([header[54], header[55]])) != PROGRAM_HEADER
        || !(1..=MAX_HEADERS).contains(&count)
    {
        return Err(damaged());
    }
    kernel.seek(SeekFrom::Start(long(&header, 32)))?;
    let mut table = vec![0; count * PROGRAM_HEADER];
    kernel.read_exact(&mut table)?;
    // Elf64_Phdr: p_type at 0 (PT_LOAD is 1), p_paddr at 24, p_memsz at 40.
    for segment in table.chunks(PROGRAM_HEADER).filter(|segment| segment[..4] == [1, 0, 0, 0]) {
        let (from, size) = (long(segment, 24), long(segment, 40));
        if from < BASE + STUB_SIZE && from.saturating_add(size) > BASE {
            return Err(io::Error::other(format!(
                "a segment is loaded at {from:#x}, where the stub must be"
            )));
        }
    }
    Ok(EntryPoint { entry, table })
}

/// Adds the compiled `program` to `file`, which is a copy of the kernel.
pub(super) fn add(file: &mut (impl Write + Seek), kernel: &EntryPoint, program: &[u8]) -> io::Result<()> {
    // Elf64_Nhdr, and the XEN_ELFNOTE_PHYS32_ENTRY of "Xen", which QEMU reads as 64 bits.
    let mut note = Vec::new();
    for word in [4_u32, 8, 18] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"Xen\0");
    note.extend(BASE.to_le_bytes());

    let end = file.seek(SeekFrom::End(0))?;
    let start = end.next_multiple_of(0x1000);
    let note_at = start + (program.len() as u64).next_multiple_of(8);
    let table_at = note_at + (note.len() as u64).next_multiple_of(8);
    let mut table = kernel.table.clone();
    let size = program.len() as u64;
    // PT_LOAD, readable, writable and executable; PT_NOTE, readable.
    table.extend(segment(1, 7, start, BASE, size, 0x1000));
    table.extend(segment(4, 4, note_at, 0, note.len() as u64, 4));
    for (place, bytes) in [(start, program), (note_at, &note), (table_at, &table)] {
        file.seek(SeekFrom::Start(place))?;
        file.write_all(bytes)?;
    }
    file.seek(SeekFrom::Start(32))?;
    file.write_all(&table_at.to_le_bytes())?;
    file.seek(SeekFrom::Start(56))?;
    file.write_all(&((table.len() / PROGRAM_HEADER) as u16).to_le_bytes())
}

/// Returns an Elf64_Phdr. `address` is virtual and physical, and `size` is that in the file and in memory.
fn segment(kind: u32, flags: u32, offset: u64, address: u64, size: u64, align: u64) -> Vec<u8> {
    let mut header = [kind.to_le_bytes(), flags.to_le_bytes()].concat();
    for long in [offset, address, address, size, size, align] {
        header.extend(long.to_le_bytes());
    }
    header
}

fn long(bytes: &[u8], at: usize) -> u64 {
    let mut long = [0; 8];
    long.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(long)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::binary::{Pvh, identify};
    use std::io::Cursor;

    /// Returns a kernel with one segment at this physical address.
    fn kernel(at: u64) -> Cursor<Vec<u8>> {
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(HEADER, 0);
        file[18] = 62;
        file[24..28].copy_from_slice(&0x100_0000_u32.to_le_bytes());
        file[32] = HEADER as u8;
        file[54] = PROGRAM_HEADER as u8;
        file[56] = 1;
        file.extend(segment(1, 5, 120, at, 4, 8));
        file.extend(b"code");
        Cursor::new(file)
    }

    #[test]
    fn the_stub_is_added_and_the_kernel_is_unchanged() {
        let mut file = kernel(0x100_0000);
        assert_eq!(identify(file.clone()).unwrap().pvh, Pvh::NoEntry);
        let entry_point = read(&mut file).unwrap();
        assert_eq!(entry_point.entry, 0x100_0000);
        add(&mut file, &entry_point, b"program").unwrap();
        assert_eq!(identify(Cursor::new(file.get_ref().clone())).unwrap().pvh, Pvh::Entry);
        assert_eq!(&file.get_ref()[120..124], b"code");
        assert_eq!(&file.get_ref()[0x1000..0x1007], b"program");
        file.set_position(0);
        // The address of the stub is taken now.
        assert!(read(&mut file).unwrap_err().to_string().contains("loaded at 0x200000"));
    }

    #[test]
    fn overlapping_and_damaged_kernels_are_refused() {
        assert!(read(&mut kernel(0x10_0000)).is_ok());
        assert!(read(&mut kernel(BASE + 8)).is_err());
        let whole = kernel(0x100_0000).into_inner();
        for end in 0..120 {
            assert!(read(&mut Cursor::new(&whole[..end])).is_err(), "{end}");
        }
        let mut lying = whole.clone();
        lying[32..40].fill(0xff);
        assert!(read(&mut Cursor::new(lying)).is_err());
    }
}
