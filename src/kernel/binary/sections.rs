//! The ELF sections of a file, and the absolute paths and the compiler in it, to compare
//! two files of one name.

use super::module::SIGNED;
use crate::util::digest::Sha256;
use memchr::memchr_iter;
use object::Endianness;
use object::elf::FileHeader64;
use object::read::elf::{FileHeader, SectionHeader};
use std::collections::{BTreeMap, BTreeSet};

/// A module has a few dozen sections, or some thousands with a section for each function.
const MAX_SECTIONS: usize = 20_000;
/// The number of paths that are kept of one file.
const MAX_PATHS: usize = 4_000;
/// Compilers write no longer paths.
const MAX_PATH: usize = 256;

/// The content of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ElfSections {
    /// Section → digest of its bytes. A second section of the same name is `name#2`. Empty if
    /// the file is not ELF.
    pub sections: BTreeMap<String, Sha256>,
    /// Texts that are absolute paths of two parts or more.
    pub paths: BTreeSet<String>,
    /// The compilers, from `.comment`.
    pub compilers: Option<String>,
    /// Whether the file ends in a module's signature.
    pub is_signed: bool,
}

impl ElfSections {
    /// Reads all bytes of a file. Sections whose headers make no sense are left out.
    pub fn of(bytes: &[u8]) -> ElfSections {
        let mut elf =
            ElfSections { paths: paths(bytes), is_signed: bytes.ends_with(SIGNED), ..ElfSections::default() };
        elf.add_sections(bytes).unwrap_or_default();
        elf
    }

    /// Returns `None` if the rest of the sections cannot be read.
    fn add_sections(&mut self, bytes: &[u8]) -> Option<()> {
        let header = FileHeader64::<Endianness>::parse(bytes).ok()?;
        let endian = header.endian().ok()?;
        let table = header.sections(endian, bytes).ok()?;
        // A small file with overlapping sections or names would take long to read.
        let mut left = 3 * bytes.len();
        for section in table.iter().take(MAX_SECTIONS) {
            let Ok(data) = section.data(endian, bytes) else { continue };
            let name = table.section_name(endian, section).unwrap_or_default();
            if name.is_empty() {
                continue;
            }
            left = left.checked_sub(data.len() + name.len())?;
            let name = String::from_utf8_lossy(&name[..name.len().min(MAX_PATH)]).into_owned();
            if name == ".comment" {
                let text = String::from_utf8_lossy(&data[..data.len().min(1024)]);
                let texts: BTreeSet<&str> = text.split('\0').filter(|text| !text.is_empty()).collect();
                self.compilers = Some(texts.into_iter().collect::<Vec<_>>().join(", "));
            }
            // Nobody could tell more than 64 sections of one name apart.
            let mut names = (2..=65).map(|count| format!("{name}#{count}"));
            let mut unique = name.clone();
            while self.sections.contains_key(&unique)
                && let Some(next) = names.next()
            {
                unique = next;
            }
            self.sections.insert(unique, Sha256::of(data));
        }
        Some(())
    }

    /// Returns about how much memory this takes.
    pub fn memory(&self) -> usize {
        let texts = self.sections.keys().chain(&self.paths);
        texts.map(|text| text.len() + 64).sum()
    }

    /// Returns the names of the sections that differ or that only one has, sorted.
    pub fn differing_sections(&self, other: &ElfSections) -> Vec<String> {
        let names: BTreeSet<&String> = self.sections.keys().chain(other.sections.keys()).collect();
        names
            .into_iter()
            .filter(|name| self.sections.get(*name) != other.sections.get(*name))
            .cloned()
            .collect()
    }
}

/// Returns the texts that follow a NUL, begin with a slash, and have another slash in them.
fn paths(bytes: &[u8]) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for at in memchr_iter(b'/', bytes) {
        if at.checked_sub(1).is_some_and(|before| bytes[before] != 0) {
            continue;
        }
        let rest = &bytes[at..bytes.len().min(at + MAX_PATH)];
        let end = rest.iter().position(|&byte| !byte.is_ascii_graphic());
        let Some(end) = end.filter(|&end| rest[end] == 0) else { continue };
        let text = &rest[1..end];
        if text.contains(&b'/') && text.first().is_some_and(u8::is_ascii_alphanumeric) {
            paths.insert(String::from_utf8_lossy(&rest[..end]).into_owned());
            if paths.len() == MAX_PATHS {
                break;
            }
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_whole_texts() {
        let bytes = b"x/y/z\0/home/me/linux/init/main.c\0/proc\0 /a/b\0//c/d\0/e/f g\0/tail/cut";
        assert_eq!(paths(bytes).into_iter().collect::<Vec<_>>(), ["/home/me/linux/init/main.c"]);
    }

    #[test]
    fn sections_are_compared_by_their_bytes() {
        // This test itself is an ELF file.
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let one = ElfSections::of(&bytes);
        assert!(one.sections.contains_key(".text") && one.compilers.is_some(), "{:?}", one.sections.keys());
        let mut changed = bytes.clone();
        // Other sections may also have the name of the compiler, depending on linker and profile.
        let header = FileHeader64::<Endianness>::parse(&*bytes).unwrap();
        let endian = header.endian().unwrap();
        let table = header.sections(endian, &*bytes).unwrap();
        let (_, comment) = table.section_by_name(endian, b".comment").unwrap();
        let at =
            comment.data(endian, &*bytes).unwrap().windows(5).position(|found| found == b"rustc").unwrap();
        changed[comment.sh_offset(endian) as usize + at] = b'R';
        let other = ElfSections::of(&changed);
        assert_eq!(one.differing_sections(&other), [".comment"]);
        assert_ne!(one.compilers, other.compilers);
    }

    #[test]
    fn reading_names_is_bounded() {
        let count = 200u16;
        let names = vec![b'n'; 1 << 16];
        let header = |name: u32, kind: u32, from: u64, size: u64| {
            let mut header = [0; 64];
            header[0..4].copy_from_slice(&name.to_le_bytes());
            header[4..8].copy_from_slice(&kind.to_le_bytes());
            header[24..32].copy_from_slice(&from.to_le_bytes());
            header[32..40].copy_from_slice(&size.to_le_bytes());
            header
        };
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(64, 0);
        file[40] = 64; // e_shoff
        file[58] = 64; // e_shentsize
        file[60..62].copy_from_slice(&(count + 2).to_le_bytes()); // e_shnum
        file[62] = 1; // e_shstrndx
        file.extend(header(0, 0, 0, 0));
        file.extend(header(0, 3, 64 * (u64::from(count) + 3), names.len() as u64 + 1));
        (0..u32::from(count)).for_each(|number| file.extend(header(number, 1, 0, 0)));
        file.extend(names);
        file.push(0);
        let sections = ElfSections::of(&file).sections.len();
        assert!((1..10).contains(&sections), "{sections} sections");
    }

    #[test]
    fn nonsense_has_no_sections() {
        assert_eq!(ElfSections::of(b"\x7fELF and no more").sections.len(), 0);
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(4096, 0xff);
        assert!(ElfSections::of(&bytes).sections.is_empty());
    }
}
