//! Writes an initramfs, a `newc` cpio archive (early-userspace/buffer-format.rst of the kernel's docs).

use crate::util::read::{Links, open_file};
use std::io::{self, Write};
use std::path::Path;
use walkdir::WalkDir;

/// S_IFDIR, S_IFREG and S_IFCHR with permissions.
const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
const CONSOLE: u32 = 0o020_600;

/// Writes everything below `root` to `out`, and the console that the kernel opens for its first process.
pub(super) fn write(root: &Path, out: &mut impl Write) -> io::Result<()> {
    let mut archive = Archive { out, inode: 0, padding: 0 };
    for found in WalkDir::new(root).min_depth(1).sort_by_file_name() {
        let found = found?;
        let name = found.path().strip_prefix(root).map_err(io::Error::other)?;
        let name = name.to_str().ok_or_else(|| io::Error::other("a file name is not UTF-8"))?;
        if found.file_type().is_dir() {
            archive.entry(name, DIRECTORY, 0)?;
        } else {
            let mut file = open_file(found.path(), Links::Refuse)?;
            archive.entry(name, FILE, file.metadata()?.len())?;
            io::copy(&mut file, archive.out)?;
        }
    }
    archive.entry("dev/console", CONSOLE, 0)?;
    archive.entry("TRAILER!!!", 0, 0)?;
    archive.pad()
}

struct Archive<'a, W> {
    out: &'a mut W,
    inode: u32,
    /// The padding that the previous content still needs.
    padding: usize,
}

impl<W: Write> Archive<'_, W> {
    /// Writes a header and a name. The caller writes `size` bytes after it.
    fn entry(&mut self, name: &str, mode: u32, size: u64) -> io::Result<()> {
        self.pad()?;
        let size =
            u32::try_from(size).map_err(|_| io::Error::other(format!("{name} is larger than 4 GiB")))?;
        self.inode += 1;
        let [major, minor] = if mode == CONSOLE { [5, 1] } else { [0, 0] };
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name.len() as u32 + 1, 0];
        let mut header = "070701".to_owned();
        header.extend(fields.iter().map(|field| format!("{field:08X}")));
        write!(self.out, "{header}{name}\0")?;
        self.padding = padding_for(header.len() + name.len() + 1);
        self.pad()?;
        self.padding = padding_for(size as usize);
        Ok(())
    }

    fn pad(&mut self) -> io::Result<()> {
        self.out.write_all(&[0; 4][..self.padding])?;
        self.padding = 0;
        Ok(())
    }
}

/// Headers and contents are aligned to four bytes.
fn padding_for(length: usize) -> usize {
    length.next_multiple_of(4) - length
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::{Command, Stdio};

    #[test]
    fn cpio_reads_the_archive() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("lib/deep")).unwrap();
        fs::write(dir.path().join("init"), "12345").unwrap();
        fs::write(dir.path().join("lib/deep/x.ko"), "").unwrap();
        let mut bytes = Vec::new();
        write(dir.path(), &mut bytes).unwrap();
        assert!(bytes.starts_with(b"070701") && bytes.len() % 4 == 0);
        let cpio = Command::new("cpio").arg("-itv").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let Ok(mut cpio) = cpio else {
            // The test harness hides what a passing test prints by `eprintln!`.
            writeln!(io::stderr(), "skipped: cpio is not installed").unwrap();
            return;
        };
        cpio.stdin.take().unwrap().write_all(&bytes).unwrap();
        let listed = String::from_utf8(cpio.wait_with_output().unwrap().stdout).unwrap();
        for says in ["5 ", " init\n", " lib/deep/x.ko\n", "5,   1", " dev/console\n"] {
            assert!(listed.contains(says), "`{says}` is not in {listed}");
        }
    }

    #[test]
    fn headers_and_contents_are_aligned() {
        let mut bytes = Vec::new();
        let mut archive = Archive { out: &mut bytes, inode: 0, padding: 0 };
        archive.entry("ab", FILE, 5).unwrap();
        archive.out.extend(b"12345");
        archive.entry("TRAILER!!!", 0, 0).unwrap();
        archive.pad().unwrap();
        let name = 6 + 13 * 8;
        assert_eq!((&bytes[..14], &bytes[name..name + 3]), (&b"07070100000001"[..], &b"ab\0"[..]));
        let content = (name + 3_usize).next_multiple_of(4);
        assert_eq!(&bytes[content..content + 8], b"12345\0\0\0");
        assert_eq!(&bytes[content + 8..content + 14], b"070701");
    }
}
