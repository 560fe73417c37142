//! Opens files for reading, only regular ones, and reads small ones with a limit. A named pipe would block a
//! reader, and a device may have no end.

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use std::fs::{File, FileType};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// How to treat symbolic links in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Follow them, in paths from the user.
    Follow,
    /// Refuse a link as the last part of a path. kcompile creates none, so another user made it.
    Refuse,
    /// Refuse a link as any part of an absolute path. For files in the cache, whose own path has no link.
    RefuseAnywhere,
}

/// The limit of a file with a few words.
pub const MAX_SMALL_FILE: u64 = 64 << 10;
/// The limit of a TOML file. Parsing takes many times the memory of the text. The built-in catalog has 30 kB.
pub const MAX_TOML: u64 = 1 << 20;
/// The limit of a `.config`. The largest configs of kernels have 400 kB.
pub const MAX_CONFIG: u64 = 2 << 20;
/// The limit of JSON files that kcompile writes.
pub const MAX_JSON: u64 = 4 << 20;

/// Opens a regular file for reading.
pub fn open_file(path: impl AsRef<Path>, links: Links) -> io::Result<File> {
    open_regular(path.as_ref(), OFlags::RDONLY, links)
}

/// Reads a regular file of at most `limit` bytes.
pub fn read_file(path: impl AsRef<Path>, links: Links, limit: u64) -> io::Result<Vec<u8>> {
    read_all(open_file(path, links)?, limit)
}

/// Reads the rest of a file, of at most `limit` bytes.
pub fn read_all(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let too_large = || {
        let limit = if limit < 1 << 20 { format!("{limit} bytes") } else { format!("{} MiB", limit >> 20) };
        io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit}"))
    };
    let size = file.metadata()?.len();
    if size > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    // The file may grow meanwhile, and files in /proc report no size.
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(too_large()) } else { Ok(bytes) }
}

/// Reads a regular file of at most `limit` bytes as UTF-8 text.
pub fn read_text(path: impl AsRef<Path>, links: Links, limit: u64) -> io::Result<String> {
    let bytes = read_file(path, links, limit)?;
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8"))
}

/// Opens a regular file. `O_NONBLOCK` keeps a named pipe from blocking, and has no effect on files.
pub(super) fn open_regular(path: &Path, flags: OFlags, links: Links) -> io::Result<File> {
    let nofollow = if links == Links::Follow { OFlags::empty() } else { OFlags::NOFOLLOW };
    let flags = flags | nofollow | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = match links {
        Links::Follow | Links::Refuse => rustix::fs::open(path, flags, mode_of(flags)),
        Links::RefuseAnywhere => open_without_links(path, flags),
    };
    let file = opened.map(File::from).map_err(|error| {
        let found = if links == Links::Follow { path.metadata() } else { path.symlink_metadata() };
        match found.map(|found| found.file_type()) {
            Ok(kind) if !kind.is_file() => not_regular(kind),
            Ok(_) if error == Errno::LOOP => io::Error::other("a symbolic link leads there"),
            _ => error.into(),
        }
    })?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() { Ok(file) } else { Err(not_regular(kind)) }
}

/// Returns the mode for a new file. openat2(2) refuses a mode without `O_CREAT`.
fn mode_of(flags: OFlags) -> Mode {
    if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(0o644) } else { Mode::empty() }
}

fn open_without_links(path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    match openat2(CWD, path, flags, mode_of(flags), ResolveFlags::NO_SYMLINKS) {
        // The kernel is older than 5.6, or a container forbids unknown system calls.
        Err(Errno::NOSYS | Errno::PERM) => {
            let dir = path.parent().unwrap_or(path);
            if dir.canonicalize().is_ok_and(|real| real != dir) {
                return Err(Errno::LOOP);
            }
            rustix::fs::open(path, flags, mode_of(flags))
        }
        opened => opened,
    }
}

fn not_regular(kind: FileType) -> io::Error {
    let kind = match kind {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_symlink() => "a symbolic link",
        kind if kind.is_fifo() => "a named pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    };
    io::Error::new(io::ErrorKind::InvalidInput, format!("not a regular file, but {kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_regular_files_within_the_limit_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "12345").unwrap();
        symlink("file", at("link")).unwrap();
        symlink("/dev/zero", at("endless")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("pipe"),
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let read =
            |name: &str, links, limit| read_text(at(name), links, limit).map_err(|error| error.to_string());
        for links in [Links::Follow, Links::Refuse] {
            assert_eq!(read("file", links, 5).unwrap(), "12345");
            assert_eq!(read("file", links, 4).unwrap_err(), "larger than 4 bytes");
            for (name, is) in [("pipe", "a named pipe"), ("socket", "a socket"), (".", "a directory")] {
                assert_eq!(read(name, links, 5).unwrap_err(), format!("not a regular file, but {is}"));
            }
            assert_eq!(read_file(at("gone"), links, 5).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
        let real = dir.path().canonicalize().unwrap();
        assert_eq!(read_text(real.join("file"), Links::RefuseAnywhere, 5).unwrap(), "12345");
        fs::create_dir(real.join("dir")).unwrap();
        symlink("dir", real.join("way")).unwrap();
        fs::write(real.join("dir/file"), "").unwrap();
        let on_the_way = read_text(real.join("way/file"), Links::RefuseAnywhere, 5).unwrap_err();
        assert_eq!(on_the_way.to_string(), "a symbolic link leads there");
        assert_eq!(read("link", Links::Follow, 5).unwrap(), "12345");
        assert_eq!(read("link", Links::Refuse, 5).unwrap_err(), "not a regular file, but a symbolic link");
        assert_eq!(read("endless", Links::Follow, 5).unwrap_err(), "not a regular file, but a device");
        // A file whose size is not known before it is read.
        assert_eq!(read("/proc/self/status", Links::Refuse, 10).unwrap_err(), "larger than 10 bytes");
    }
}
