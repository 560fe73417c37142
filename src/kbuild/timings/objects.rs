//! Reads the sizes of vmlinux's object files and of modules. The archives that Kbuild links vmlinux from name
//! them, and their section headers have the sizes. Nothing else in them is read.

use crate::kbuild::archives::{MAX_OBJECTS, below, members};
use crate::util::read::{Links, MAX_JSON, open_file, read_file};
use camino::{Utf8Component, Utf8Path, Utf8PathBuf};
use object::read::elf::{FileHeader, SectionHeader};
use object::read::{ReadCache, ReadRef};
use object::{Endianness, elf};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The sizes of vmlinux and its object files. Only sections that are loaded and have contents
/// count, so not `.bss` and debug information.
#[derive(Debug, Default, Serialize)]
pub struct ObjectSizes {
    /// The size of vmlinux itself.
    pub bytes: u64,
    /// Object files, as paths in the build directory, with their sizes.
    pub objects: BTreeMap<String, u64>,
}

impl ObjectSizes {
    /// Returns the size of all object files. It differs from vmlinux, since the linker merges
    /// strings, drops sections and adds tables.
    pub fn sum(&self) -> u64 {
        self.objects.values().sum()
    }
}

/// Reads the archives and objects of the build directory. Files that are missing or are not ELF
/// files (LLVM's link-time optimization) are left out.
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

/// Returns the sizes of the modules that `modules.order` lists, by their path in the build directory. The list has
/// paths of `.ko` files, which begin with `kernel/` before 5.3, and of `.o` files from 6.2 on.
pub(super) fn modules(build: &Utf8Path) -> BTreeMap<String, u64> {
    let list = read_file(build.join("modules.order"), Links::RefuseAnywhere, MAX_JSON).unwrap_or_default();
    let list = String::from_utf8_lossy(&list);
    let is_inside =
        |path: &str| Utf8Path::new(path).components().all(|part| matches!(part, Utf8Component::Normal(_)));
    let of_module = |line: &str| {
        let stem = line.strip_suffix(".ko").or(line.strip_suffix(".o"))?;
        let paths = [Some(stem), stem.strip_prefix("kernel/")];
        let mut paths =
            paths.into_iter().flatten().map(|stem| format!("{stem}.ko")).filter(|path| is_inside(path));
        paths.find_map(|path| Some((path.clone(), loaded_bytes(&build.join(path))?)))
    };
    list.lines().take(MAX_OBJECTS).filter_map(of_module).collect()
}

/// Returns the archives that vmlinux is linked from. Since 6.1 that is `vmlinux.a` and the
/// libraries. Before, each top directory has its own, and x86 has some below `arch/x86/`.
fn archives(build: &Utf8Path) -> Vec<Utf8PathBuf> {
    let libraries = [build.join("lib"), build.join("arch")];
    let libraries = libraries.iter().flat_map(|dir| below(dir, 2)).map(|dir| dir.join("lib.a"));
    let whole = build.join("vmlinux.a");
    let mut archives: Vec<Utf8PathBuf> = if whole.is_file() {
        vec![whole]
    } else {
        let dirs = below(build, 1).into_iter().chain(below(&build.join("arch"), 2));
        dirs.map(|dir| dir.join("built-in.a")).collect()
    };
    archives.extend(libraries);
    archives.retain(|archive| archive.is_file());
    archives
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
