//! What a file consists of, so that two of one name can be compared where their bytes differ: its ELF
//! sections by digest, the absolute paths and the compiler that are written in it.

use super::module::SIGNED;
use crate::util::digest::Sha256;
use memchr::memchr_iter;
use object::Endianness;
use object::elf::FileHeader64;
use object::read::elf::{FileHeader, SectionHeader};
use std::collections::{BTreeMap, BTreeSet};

/// A module has a few dozen sections, with a section for each function some thousands.
const MAX_SECTIONS: usize = 20_000;
/// Paths that are kept of one file.
const MAX_PATHS: usize = 4_000;
/// Longer than any path that a compiler writes.
const MAX_PATH: usize = 256;

/// What a file consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ElfSections {
    /// Section → digest of its bytes; of a name that comes twice, `name#2`. Empty: it is no ELF file.
    pub sections: BTreeMap<String, Sha256>,
    /// Texts that are absolute paths of two parts or more.
    pub paths: BTreeSet<String>,
    /// What the compilers left in `.comment`.
    pub compilers: Option<String>,
    /// Does it end in a module's signature?
    pub is_signed: bool,
}

impl ElfSections {
    /// Of all bytes of a file. What of an ELF file's headers makes no sense is left out.
    pub fn of(bytes: &[u8]) -> ElfSections {
        let mut anatomy =
            ElfSections { paths: paths(bytes), is_signed: bytes.ends_with(SIGNED), ..ElfSections::default() };
        anatomy.add_sections(bytes).unwrap_or_default();
        anatomy
    }

    /// `None` where the rest cannot be read.
    fn add_sections(&mut self, bytes: &[u8]) -> Option<()> {
        let header = FileHeader64::<Endianness>::parse(bytes).ok()?;
        let endian = header.endian().ok()?;
        let table = header.sections(endian, bytes).ok()?;
        // Sections that overlap would let a small file keep us busy.
        let mut left = 2 * bytes.len();
        for section in table.iter().take(MAX_SECTIONS) {
            let Ok(data) = section.data(endian, bytes) else { continue };
            let name = table.section_name(endian, section).unwrap_or_default();
            if name.is_empty() {
                continue;
            }
            left = left.checked_sub(data.len())?;
            let name = String::from_utf8_lossy(&name[..name.len().min(MAX_PATH)]).into_owned();
            if name == ".comment" {
                let text = String::from_utf8_lossy(&data[..data.len().min(1024)]);
                let texts: BTreeSet<&str> = text.split('\0').filter(|text| !text.is_empty()).collect();
                self.compilers = Some(texts.into_iter().collect::<Vec<_>>().join(", "));
            }
            let mut unique = name.clone();
            let mut count = 1;
            while self.sections.contains_key(&unique) {
                count += 1;
                unique = format!("{name}#{count}");
                // Thousands of one name are nothing that anybody could tell apart.
                if count > 64 {
                    break;
                }
            }
            self.sections.insert(unique, Sha256::of(data));
        }
        Some(())
    }

    /// The sections that the two do not have the same, in the order of their names.
    pub fn differing_sections(&self, other: &ElfSections) -> Vec<String> {
        let names: BTreeSet<&String> = self.sections.keys().chain(other.sections.keys()).collect();
        names
            .into_iter()
            .filter(|name| self.sections.get(*name) != other.sections.get(*name))
            .cloned()
            .collect()
    }
}

/// Texts that begin after a NUL with a slash, and have another slash in them.
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
    fn sections_are_told_apart_by_their_bytes() {
        // This test itself is an ELF file.
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let one = ElfSections::of(&bytes);
        assert!(one.sections.contains_key(".text") && one.compilers.is_some(), "{:?}", one.sections.keys());
        let mut changed = bytes.clone();
        // The name of the compiler stands in other sections, too, in which ones hangs on linker and profile.
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
    fn nonsense_has_no_sections() {
        assert_eq!(ElfSections::of(b"\x7fELF and no more").sections.len(), 0);
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(4096, 0xff);
        assert!(ElfSections::of(&bytes).sections.is_empty());
    }
}
