//! What is in vmlinux, object file by object file. Which ones there are say the archives that Kbuild links it from;
//! how large each is, its section headers: of all else in it nothing is read.

use crate::util::read::{Links, open_file, read_file};
use camino::{Utf8Path, Utf8PathBuf};
use object::read::archive::ArchiveFile;
use object::read::elf::{FileHeader, SectionHeader};
use object::read::{ReadCache, ReadRef};
use object::{Endianness, elf};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// More than any archive of Kbuild's: they are thin, and hold only names.
const MAX_ARCHIVE: u64 = 64 << 20;
/// More objects than any kernel has.
const MAX_OBJECTS: usize = 100_000;

/// What is in vmlinux. Bytes are those of sections that are loaded and have contents: `.bss` is none of them, nor is
/// debug information.
#[derive(Debug, Default, Serialize)]
pub struct ObjectSizes {
    /// Of vmlinux itself.
    pub bytes: u64,
    /// Object file, as a path in the build directory → bytes.
    pub objects: BTreeMap<String, u64>,
}

impl ObjectSizes {
    /// What the object files have together: other than vmlinux, since the linker merges texts, drops sections, and
    /// adds its own tables.
    pub fn sum(&self) -> u64 {
        self.objects.values().sum()
    }
}

/// Reads the archives and objects of the build directory. What is missing or cannot be read (objects of LLVM's link
/// time optimisation are no ELF files) counts for nothing.
pub(super) fn read(build: &Utf8Path) -> ObjectSizes {
    let members: BTreeSet<Utf8PathBuf> =
        archives(build).iter().flat_map(|archive| members(archive)).collect();
    let of_object = |path: &Utf8PathBuf| {
        let name = path.strip_prefix(build).ok()?.as_str().to_owned();
        Some((name, loaded_bytes(path)?))
    };
    ObjectSizes {
        bytes: loaded_bytes(&build.join("vmlinux")).unwrap_or(0),
        objects: members.iter().take(MAX_OBJECTS).filter_map(of_object).collect(),
    }
}

/// The archives that vmlinux is linked from. Kbuild puts them all into one, `vmlinux.a`, since 6.1, but for the
/// libraries; before, each directory of the top has its own, and x86 some below `arch/x86/`.
fn archives(build: &Utf8Path) -> Vec<Utf8PathBuf> {
    let libraries = [build.join("lib"), build.join("arch")];
    let libraries = libraries.iter().flat_map(|dir| below(dir, 2)).map(|dir| dir.join("lib.a"));
    let whole = build.join("vmlinux.a");
    let mut archives: Vec<Utf8PathBuf> = match whole.is_file() {
        true => vec![whole],
        false => {
            let mut dirs = below(build, 1);
            dirs.extend(below(&build.join("arch"), 2));
            dirs.into_iter().map(|dir| dir.join("built-in.a")).collect()
        }
    };
    archives.extend(libraries);
    archives.retain(|archive| archive.is_file());
    archives
}

/// `dir` and the directories in it, to this depth.
fn below(dir: &Utf8Path, depth: usize) -> Vec<Utf8PathBuf> {
    let walk = walkdir::WalkDir::new(dir).max_depth(depth).into_iter();
    let dirs = walk.filter_map(Result::ok).filter(|entry| entry.file_type().is_dir());
    dirs.filter_map(|entry| Utf8PathBuf::from_path_buf(entry.into_path()).ok()).collect()
}

/// The object files that an archive names; they lie where it says, seen from its directory.
fn members(archive: &Utf8Path) -> Vec<Utf8PathBuf> {
    let Ok(bytes) = read_file(archive, Links::RefuseAnywhere, MAX_ARCHIVE) else { return Vec::new() };
    let Ok(parsed) = ArchiveFile::parse(&*bytes) else { return Vec::new() };
    let dir = archive.parent().unwrap_or(archive);
    let names = parsed.members().map_while(Result::ok).filter_map(|member| {
        let name = std::str::from_utf8(member.name()).ok()?;
        (name.ends_with(".o") && !name.contains("..")).then(|| dir.join(name))
    });
    names.take(MAX_OBJECTS).collect()
}

fn loaded_bytes(path: &Utf8Path) -> Option<u64> {
    let file = ReadCache::new(open_file(path, Links::RefuseAnywhere).ok()?);
    elf_bytes(&file)
}

fn elf_bytes<'a>(data: impl ReadRef<'a>) -> Option<u64> {
    let header = elf::FileHeader64::<Endianness>::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.section_headers(endian, data).ok()?;
    let loaded = sections.iter().filter(|section| {
        let flags = section.sh_flags(endian);
        flags.0 & elf::SHF_ALLOC.0 != 0 && section.sh_type(endian) != elf::SHT_NOBITS
    });
    Some(loaded.map(|section| section.sh_size(endian)).fold(0, u64::saturating_add))
}
