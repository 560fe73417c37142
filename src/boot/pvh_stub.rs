//! An entry by PVH for a kernel that has none: a small program and the note that names it are added to a
//! copy of the ELF file. Nothing that the file has is changed but where its program headers stand.

use std::io::{self, Read, Seek, SeekFrom, Write};

/// The program, in C; see there.
pub(super) const SOURCE: &str = include_str!("pvh_stub.c");
/// Where it is loaded: below every kernel, which starts at 16 MiB unless somebody chose otherwise.
pub(super) const BASE: u64 = 0x20_0000;
/// What it takes from there on.
const STUB_SIZE: u64 = 0x2_0000;
/// Elf64_Ehdr and Elf64_Phdr.
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
/// Kernels have five or six.
const MAX_HEADERS: usize = 64;

/// What the program needs to know of the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct EntryPoint {
    /// Its 64-bit entry.
    pub entry: u32,
    table: Vec<u8>,
}

/// Reads where an ELF file for x86-64 is entered.
///
/// Errors: its headers are damaged; something of it lies where the program goes; it lies too high.
pub(super) fn read(kernel: &mut (impl Read + Seek)) -> io::Result<EntryPoint> {
    let damaged = || io::Error::other("its headers are not those of a kernel");
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
            return Err(io::Error::other(format!("it is loaded at {from:#x}, where its entry has to be")));
        }
    }
    Ok(EntryPoint { entry, table })
}

/// Adds the compiled `program` to a copy of the kernel. `file` is that copy.
pub(super) fn add(file: &mut (impl Write + Seek), kernel: &EntryPoint, program: &[u8]) -> io::Result<()> {
    // Elf64_Nhdr and its content, which QEMU reads as 64 bits: XEN_ELFNOTE_PHYS32_ENTRY of "Xen".
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

/// An Elf64_Phdr: type, flags, place in the file, address (virtual and physical), size (there and in
/// memory), alignment.
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

    /// A kernel with one segment at this physical address.
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
    fn a_kernel_gets_an_entry_and_stays_what_it_was() {
        let mut file = kernel(0x100_0000);
        assert_eq!(identify(file.clone()).unwrap().pvh, Pvh::NoEntry);
        let entry_point = read(&mut file).unwrap();
        assert_eq!(entry_point.entry, 0x100_0000);
        add(&mut file, &entry_point, b"program").unwrap();
        assert_eq!(identify(Cursor::new(file.get_ref().clone())).unwrap().pvh, Pvh::Entry);
        assert_eq!(&file.get_ref()[120..124], b"code");
        assert_eq!(&file.get_ref()[0x1000..0x1007], b"program");
        file.set_position(0);
        // What was added lies where it would have to go.
        assert!(read(&mut file).unwrap_err().to_string().contains("loaded at 0x200000"));
    }

    #[test]
    fn a_kernel_that_leaves_no_room_or_is_damaged_is_refused() {
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
