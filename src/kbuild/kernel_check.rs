//! Checks the kernel file and the modules by their bytes, not by `.config`. Make may succeed and
//! leave another file under the same name, and two files of a build are called `vmlinux.bin`.

use crate::kernel::binary::kernel::{self, Identity};
use crate::kernel::binary::{Module, Pvh, expected_format};
use crate::kernel::{Arch, Flavor};
use crate::util::error::{Error, Kind, Result, ResultExt, cannot};
use crate::util::read::{Links, open_file};
use camino::Utf8Path;
use walkdir::WalkDir;

/// Checks that the hypervisor can load the kernel file on this architecture. On x86-64 it is an ELF
/// file, for Cloud Hypervisor with a PVH note. On arm64 it is an `Image` with a PE header.
///
/// # Errors
///
/// The file is missing, damaged or of another kind (exit code 1).
pub(super) fn check(path: &Utf8Path, arch: Arch, flavor: Flavor) -> Result<Pvh> {
    let file = match open_file(path, Links::RefuseAnywhere) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::build(format!("make succeeded, but {path} is missing")));
        }
        file => file.context(Kind::Build, || format!("cannot read {path}, which make wrote"))?,
    };
    let identity = kernel::identify(file);
    let Identity { format, pvh, .. } =
        identity.context(Kind::Build, || format!("{path} is a damaged ELF file"))?;
    if format != expected_format(arch) {
        let expected = expected_format(arch);
        return Err(Error::build(format!("make succeeded, but {path} is {format}, expected {expected}")));
    }
    if pvh == Pvh::NoEntry && flavor.requires_pvh(arch) {
        let title = flavor.spec().title;
        return Err(Error::build(format!("{path} has no PVH note, so {title} cannot load it")).hint(
            "set CONFIG_PVH=y, or CONFIG_XEN_PVH=y before Linux 5.0; newer assemblers may hide the note",
        ));
    }
    Ok(pvh)
}

/// Checks that the modules installed below `root` are of this release, since the kernel refuses
/// others. Looks at the name of their directory and at the `vermagic` of the first module.
///
/// # Errors
///
/// The modules are of another release (exit code 1).
pub(super) fn check_modules(root: &Utf8Path, release: &str) -> Result<()> {
    let dir = root.join("lib/modules");
    for entry in dir.read_dir_utf8().context(Kind::Build, cannot("read", &dir))? {
        let entry = entry.context(Kind::Build, cannot("read", &dir))?;
        if entry.file_name() != release {
            return Err(Error::build(format!(
                "the kernel release is {release}, but modules of {} were installed",
                entry.file_name()
            )));
        }
    }
    // Compressed modules (CONFIG_MODULE_COMPRESS) have other suffixes. Their directory is enough.
    let files =
        WalkDir::new(dir.join(release)).sort_by_file_name().into_iter().filter_map(std::result::Result::ok);
    let Some(first) =
        files.map(walkdir::DirEntry::into_path).find(|path| path.extension().is_some_and(|end| end == "ko"))
    else {
        return Ok(());
    };
    let module = open_file(&first, Links::RefuseAnywhere)
        .and_then(|file| Module::read(&first.to_string_lossy(), file))
        .context(Kind::Build, || format!("cannot read {}", first.display()))?;
    match module.release() {
        Some(found) if found != release => Err(Error::build(format!(
            "the kernel release is {release}, but {} was built for {found}",
            first.display()
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use camino::Utf8PathBuf;
    use std::fs;

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
        file[112] = 4; // p_align
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

    fn check_bytes(bytes: &[u8], arch: Arch, flavor: Flavor) -> Result<Pvh, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().join("vmlinux")).unwrap();
        fs::write(&path, bytes).unwrap();
        check(&path, arch, flavor).map_err(|error| error.to_string())
    }

    #[test]
    fn the_pvh_note_is_found_among_other_notes() {
        let (with, without) = (elf(18), elf(17));
        assert_eq!(check_bytes(&with, Arch::Amd64, Flavor::CloudHypervisor), Ok(Pvh::Entry));
        assert_eq!(check_bytes(&without, Arch::Amd64, Flavor::Firecracker), Ok(Pvh::NoEntry));
        let message = check_bytes(&without, Arch::Amd64, Flavor::CloudHypervisor).unwrap_err();
        assert!(message.contains("has no PVH note"), "{message}");
        let arm = check_bytes(&arm64_image(), Arch::Arm64, Flavor::CloudHypervisor);
        assert_eq!(arm, Ok(Pvh::NoEntry));
    }

    #[test]
    fn other_files_are_refused_by_name_of_their_format() {
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
            (foreign, Arch::Amd64, "is an ELF file for arm64"),
            (small, Arch::Amd64, "not a 64-bit"),
            (bz_image, Arch::Amd64, "a bzImage, which is compressed"),
            (vec![0xfc; 4096], Arch::Amd64, "a raw binary"),
            (Vec::new(), Arch::Amd64, "a raw binary"),
            (arm64_image(), Arch::Amd64, "is an arm64 Image"),
            (elf(18), Arch::Arm64, "is an ELF file for x86-64"),
            (vec![0x1f, 0x8b, 8, 0], Arch::Arm64, "a gzip file"),
            (no_efi, Arch::Arm64, "without an EFI header"),
        ] {
            let message = check_bytes(&bytes, arch, Flavor::Firecracker).unwrap_err();
            assert!(message.contains(says), "`{says}` is not in: {message}");
        }
    }

    #[test]
    fn damaged_elf_files_are_refused_without_a_panic() {
        let whole = elf(18);
        for end in 20..whole.len() {
            let _ = check_bytes(&whole[..end], Arch::Amd64, Flavor::Firecracker);
        }
        let mut lying = elf(18);
        lying[100] = 0xff; // p_filesz of more than 1 TiB
        let message = check_bytes(&lying, Arch::Amd64, Flavor::Firecracker).unwrap_err();
        assert!(message.contains("is a damaged ELF file"), "{message}");
        let mut endless = elf(18);
        endless[120..128].fill(0xff); // sizes of the first note
        assert_eq!(check_bytes(&endless, Arch::Amd64, Flavor::Firecracker), Ok(Pvh::NoEntry));
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
