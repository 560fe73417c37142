//! What a kernel file is, from its bytes: make may succeed and leave something else under its name,
//! and two files of a build are called `vmlinux.bin`. Nothing of this is read from `.config`.

use crate::error::{Context, Error, Kind, Result};
use crate::kernel::{Arch, Flavor};
use camino::Utf8Path;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use walkdir::WalkDir;

/// More than any kernel's program headers and notes together.
const LARGEST_NOTES: u64 = 1 << 20;
/// The type of Xen's note that holds the PVH entry: XEN_ELFNOTE_PHYS32_ENTRY of
/// `include/xen/interface/elfnote.h`.
const PHYS32_ENTRY: u32 = 18;

/// Is the kernel entered by PVH?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pvh {
    /// Its ELF notes have Xen's PHYS32_ENTRY.
    Entry,
    /// They have not, or the format has no notes.
    NoEntry,
}

/// What the first bytes of a file say that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// ELF of 64 bits, little endian, for the machine of this number (`e_machine`).
    Elf { machine: u16 },
    /// Any other ELF.
    OtherElf,
    /// The arm64 `Image`; with a PE header, as EFI loads it, or without.
    Arm64Image { pe: bool },
    /// x86's compressed kernel.
    BzImage,
    /// gzip, as in `Image.gz`.
    Gzip,
    /// None of these: `objcopy -O binary` leaves no header.
    Raw,
}

/// The kernel file must be one that the hypervisor loads on this machine: on x86-64 an ELF file, for
/// Cloud Hypervisor with a PVH note; on arm64 an `Image` with a PE header.
///
/// Errors (exit code 1): it is missing, empty, or something else, and then what.
pub(super) fn check(path: &Utf8Path, arch: Arch, flavor: Flavor) -> Result<Pvh> {
    let missing = || format!("make succeeded, but {path} is missing");
    let mut file = File::open(path).context(Kind::Build, missing)?;
    let mut head = Vec::new();
    Read::take(&mut file, 1024).read_to_end(&mut head).context(Kind::Build, missing)?;
    let found = format(&head);
    let (fits, expected) = match arch {
        Arch::Amd64 => (found == Format::Elf { machine: 62 }, "an ELF file for x86-64"),
        Arch::Arm64 => (found == Format::Arm64Image { pe: true }, "an arm64 Image with an EFI header"),
    };
    if !fits {
        return Err(Error::build(format!(
            "make succeeded, but {path} is not {expected}: it is {}",
            described(found)
        )));
    }
    if arch == Arch::Arm64 {
        return Ok(Pvh::NoEntry);
    }
    let pvh = pvh(&mut file, &head).context(Kind::Build, || format!("{path} is a damaged ELF file"))?;
    if (pvh, flavor) == (Pvh::NoEntry, Flavor::CloudHypervisor) {
        return Err(Error::build(format!("{path} has no PVH note: Cloud Hypervisor would not load it"))
            .hint(
                "CONFIG_PVH gives it from Linux 5.0 on, CONFIG_XEN_PVH before; newer assemblers may hide it",
            ));
    }
    Ok(pvh)
}

fn described(format: Format) -> String {
    match format {
        Format::Elf { machine } => format!("an ELF file for another machine (e_machine {machine})"),
        Format::OtherElf => "an ELF file, but not of 64 bits, little endian".into(),
        Format::Arm64Image { pe: true } => "an arm64 Image".into(),
        Format::Arm64Image { pe: false } => "an arm64 Image without an EFI header (CONFIG_EFI)".into(),
        Format::BzImage => "a bzImage, compressed, which Firecracker does not load".into(),
        Format::Gzip => "compressed by gzip".into(),
        Format::Raw => {
            "a raw binary, as objcopy -O binary makes it (of the two files vmlinux.bin, the one in \
             arch/x86/boot/compressed/ is right)"
                .into()
        }
    }
}

fn format(head: &[u8]) -> Format {
    let at = |offset: usize, bytes: &[u8]| head.get(offset..offset + bytes.len()) == Some(bytes);
    if at(0, b"\x7fELF") {
        // EI_CLASS 2 is 64 bits, EI_DATA 1 little endian.
        return match (at(4, &[2, 1]), head.get(18..20)) {
            (true, Some(machine)) => Format::Elf { machine: u16::from_le_bytes([machine[0], machine[1]]) },
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

/// Looks through the PT_NOTE segments of a 64-bit little-endian ELF file that begins with `head`.
fn pvh(file: &mut (impl Read + Seek), head: &[u8]) -> io::Result<Pvh> {
    let damaged = || io::Error::other("its program headers are not where its header says");
    let half = |bytes: &[u8], at: usize| bytes.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let word =
        |bytes: &[u8], at: usize| bytes.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let long = |bytes: &[u8], at: usize| -> Option<u64> {
        Some(u64::from(word(bytes, at)?) | u64::from(word(bytes, at + 4)?) << 32)
    };
    // Elf64_Ehdr: e_phoff at 32, e_phentsize at 54, e_phnum at 56.
    let (offset, size, count) = (long(head, 32), half(head, 54), half(head, 56));
    let (offset, size, count) = (
        offset.ok_or_else(damaged)?,
        usize::from(size.ok_or_else(damaged)?),
        usize::from(count.ok_or_else(damaged)?),
    );
    if count == 0 {
        return Ok(Pvh::NoEntry);
    }
    let table = read_at(file, offset, (size * count) as u64)?;
    // Elf64_Phdr: p_type at 0 (PT_NOTE is 4), p_offset at 8, p_filesz at 32.
    for entry in table.chunks(size.max(1)).filter(|entry| word(entry, 0) == Some(4)) {
        let (from, length) = (long(entry, 8).ok_or_else(damaged)?, long(entry, 32).ok_or_else(damaged)?);
        let notes = read_at(file, from, length)?;
        let mut rest = &notes[..];
        // Elf64_Nhdr: sizes of name and content, type; name and content padded to four bytes.
        while let (Some(name), Some(content), Some(kind)) = (word(rest, 0), word(rest, 4), word(rest, 8)) {
            let padded = |size: u32| (size as usize).next_multiple_of(4);
            if kind == PHYS32_ENTRY && name == 4 && rest.get(12..16) == Some(b"Xen\0") {
                return Ok(Pvh::Entry);
            }
            rest = rest.get(12 + padded(name) + padded(content)..).unwrap_or_default();
        }
    }
    Ok(Pvh::NoEntry)
}

fn read_at(file: &mut (impl Read + Seek), offset: u64, length: u64) -> io::Result<Vec<u8>> {
    if length > LARGEST_NOTES {
        return Err(io::Error::other(format!("{length} bytes of program headers or notes")));
    }
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The modules installed below `root` must be those of the kernel of this release, which would
/// refuse to load others: by the name of their directory, and by the `vermagic` of the first of them.
///
/// Errors (exit code 1): they are of another release.
pub(super) fn check_modules(root: &Utf8Path, release: &str) -> Result<()> {
    let dir = root.join("lib/modules");
    let wrong = || format!("cannot read {dir}");
    for entry in dir.read_dir_utf8().context(Kind::Build, wrong)? {
        let entry = entry.context(Kind::Build, wrong)?;
        if entry.file_name() != release {
            return Err(Error::build(format!(
                "the kernel is {release}, but modules of {} were installed",
                entry.file_name()
            )));
        }
    }
    // Compressed modules (CONFIG_MODULE_COMPRESS) have other endings, and their directory is enough.
    let files =
        WalkDir::new(dir.join(release)).sort_by_file_name().into_iter().filter_map(std::result::Result::ok);
    let Some(first) =
        files.map(walkdir::DirEntry::into_path).find(|path| path.extension().is_some_and(|end| end == "ko"))
    else {
        return Ok(());
    };
    let bytes = fs::read(&first).context(Kind::Build, || format!("cannot read {}", first.display()))?;
    match vermagic_release(&bytes) {
        Some(found) if found != release => Err(Error::build(format!(
            "the kernel is {release}, but {} was built for {found}",
            first.display()
        ))),
        _ => Ok(()),
    }
}

/// The first word of a module's `vermagic`: the release of the kernel that it was built for.
fn vermagic_release(module: &[u8]) -> Option<&str> {
    const KEY: &[u8] = b"\0vermagic=";
    let start = module.windows(KEY.len()).position(|bytes| bytes == KEY)? + KEY.len();
    let rest = &module[start..];
    let end = rest.iter().position(|&byte| byte == b' ' || byte == 0)?;
    std::str::from_utf8(&rest[..end]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use camino::Utf8PathBuf;

    /// An ELF file for x86-64 with one PT_NOTE segment that holds a note of GNU's, then one of Xen's.
    fn elf(xen_type: u32) -> Vec<u8> {
        let note = |name: &[u8; 4], kind: u32, content: &[u8]| {
            let mut note = Vec::new();
            for word in [4, content.len() as u32, kind] {
                note.extend_from_slice(&word.to_le_bytes());
            }
            note.extend_from_slice(name);
            note.extend_from_slice(content);
            note.resize(note.len().next_multiple_of(4), 0);
            note
        };
        let notes = [note(b"GNU\0", 3, b"build"), note(b"Xen\0", xen_type, &[0; 8])].concat();
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(120, 0);
        file[18] = 62;
        file[32] = 64; // e_phoff
        file[54] = 56; // e_phentsize
        file[56] = 1; // e_phnum
        file[64] = 4; // PT_NOTE
        file[72] = 120; // p_offset
        file[96] = notes.len() as u8; // p_filesz
        file.extend(notes);
        file
    }

    fn arm64_image() -> Vec<u8> {
        let mut file = b"MZ".to_vec();
        file.resize(56, 0);
        file.extend(b"ARM\x64");
        file.resize(4096, 0);
        file
    }

    fn judged(bytes: &[u8], arch: Arch, flavor: Flavor) -> Result<Pvh, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().join("vmlinux")).unwrap();
        fs::write(&path, bytes).unwrap();
        check(&path, arch, flavor).map_err(|error| error.to_string())
    }

    #[test]
    fn the_pvh_note_is_found_among_others() {
        let (with, without) = (elf(18), elf(17));
        assert_eq!(judged(&with, Arch::Amd64, Flavor::CloudHypervisor), Ok(Pvh::Entry));
        assert_eq!(judged(&without, Arch::Amd64, Flavor::Firecracker), Ok(Pvh::NoEntry));
        let said = judged(&without, Arch::Amd64, Flavor::CloudHypervisor).unwrap_err();
        assert!(said.contains("has no PVH note"), "{said}");
        let arm = judged(&arm64_image(), Arch::Arm64, Flavor::CloudHypervisor);
        assert_eq!(arm, Ok(Pvh::NoEntry));
    }

    #[test]
    fn anything_else_is_refused_by_what_it_is() {
        let mut foreign = elf(18);
        foreign[18] = 183;
        let mut small = elf(18);
        small[4] = 1;
        let mut bz_image = b"MZ".to_vec();
        bz_image.resize(0x202, 0);
        bz_image.extend(b"HdrS");
        let mut no_efi = arm64_image();
        no_efi[..2].fill(0);
        for (bytes, arch, says) in [
            (foreign, Arch::Amd64, "for another machine (e_machine 183)"),
            (small, Arch::Amd64, "not of 64 bits"),
            (bz_image, Arch::Amd64, "a bzImage, compressed"),
            (vec![0xfc; 4096], Arch::Amd64, "a raw binary"),
            (Vec::new(), Arch::Amd64, "a raw binary"),
            (arm64_image(), Arch::Amd64, "it is an arm64 Image"),
            (elf(18), Arch::Arm64, "for another machine (e_machine 62)"),
            (vec![0x1f, 0x8b, 8, 0], Arch::Arm64, "compressed by gzip"),
            (no_efi, Arch::Arm64, "without an EFI header"),
        ] {
            let said = judged(&bytes, arch, Flavor::Firecracker).unwrap_err();
            assert!(said.contains(says), "`{says}` is not in: {said}");
        }
    }

    #[test]
    fn a_cut_off_or_lying_elf_is_damaged_not_a_panic() {
        let whole = elf(18);
        for end in 20..whole.len() {
            let _ = judged(&whole[..end], Arch::Amd64, Flavor::Firecracker);
        }
        let mut lying = elf(18);
        lying[100] = 0xff; // p_filesz of more than 1 TiB
        let said = judged(&lying, Arch::Amd64, Flavor::Firecracker).unwrap_err();
        assert!(said.contains("is a damaged ELF file"), "{said}");
        let mut endless = elf(18);
        endless[120..128].fill(0xff); // sizes of the first note
        assert_eq!(judged(&endless, Arch::Amd64, Flavor::Firecracker), Ok(Pvh::NoEntry));
    }

    #[test]
    fn modules_of_another_release_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(dir.path()).unwrap();
        let modules = root.join("lib/modules/6.1.7/kernel");
        fs::create_dir_all(&modules).unwrap();
        check_modules(root, "6.1.7").unwrap();
        assert!(check_modules(root, "6.1.8").unwrap_err().to_string().contains("modules of 6.1.7 were"));
        fs::write(modules.join("a.ko"), b"\x7fELF\0license=GPL\0vermagic=6.1.7 SMP mod_unload \0").unwrap();
        check_modules(root, "6.1.7").unwrap();
        fs::write(modules.join("a.ko"), b"\x7fELF\0vermagic=6.1.6-old SMP \0").unwrap();
        assert!(check_modules(root, "6.1.7").unwrap_err().to_string().contains("was built for 6.1.6-old"));
    }
}
