//! Reads the headers of an untrusted tar, of POSIX (with PAX records, also global ones), GNU (long names), or
//! the format before both. Names have limits, and what readers understand differently is an error.

use camino::{Utf8Component, Utf8Path};
use std::io::{self, Read};
use tar::EntryType;

/// Enough for a path and a link, with their PAX keys.
const MAX_PAX: u64 = 16 << 10;
/// The PAX keys of one entry, and of global records.
const MAX_KEYS: usize = 1000;

/// An entry of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerEntry {
    /// The path, relative and without a trailing slash.
    pub path: String,
    pub kind: EntryKind,
    /// The size of a file.
    pub size: u64,
    pub attributes: Attributes,
}

/// The metadata of an entry. A number that is missing or invalid in the header is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The path as the archive has it. A directory's ends in a slash.
    pub stored_path: String,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: Option<u32>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    /// Whether the owner or the group has a name.
    pub is_named: bool,
    /// Seconds since 1970.
    pub mtime: Option<u64>,
    /// The keys of PAX records other than path and link. Readers let them replace the fields above,
    /// or set extended attributes (`SCHILY.xattr.…`).
    pub records: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    Dir,
    File,
    /// Another name of this entry, which comes earlier or is in a lower layer.
    HardLink(String),
    /// A symbolic link with this target.
    SymLink(String),
    /// A device or a pipe.
    Special,
}

/// Reads headers one by one. PAX and GNU headers apply to the next entry.
#[derive(Default)]
pub(super) struct HeaderReader {
    next: PaxRecords,
    /// The keys of global PAX records.
    global: Vec<String>,
}

/// The PAX records or GNU headers of the next entry.
#[derive(Default)]
struct PaxRecords {
    path: Option<String>,
    link: Option<String>,
    others: Vec<String>,
}

impl HeaderReader {
    /// Returns the entry of this header, or `None` if the header applies to later entries.
    pub(super) fn read(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> io::Result<Option<LayerEntry>> {
        match entry.header().entry_type() {
            EntryType::XHeader => self.next.join(read_pax(entry)?)?,
            EntryType::XGlobalHeader => {
                let records = read_pax(entry)?;
                if records.path.is_some() || records.link.is_some() {
                    return Err(io::Error::other("a global PAX record gives all entries one name"));
                }
                // git-archive writes it. It changes no entry.
                add_keys(&mut self.global, records.others.into_iter().filter(|key| key != "comment"))?;
            }
            EntryType::GNULongName => {
                self.next.join(PaxRecords { path: Some(long_name(entry)?), ..PaxRecords::default() })?;
            }
            EntryType::GNULongLink => {
                self.next.join(PaxRecords { link: Some(long_name(entry)?), ..PaxRecords::default() })?;
            }
            _ => return entry_from_header(entry.header(), std::mem::take(&mut self.next)).map(Some),
        }
        Ok(None)
    }

    /// Returns the keys of global PAX records.
    pub(super) fn into_global(self) -> Vec<String> {
        self.global
    }
}

impl PaxRecords {
    fn join(&mut self, other: PaxRecords) -> io::Result<()> {
        let both = |one: &Option<String>, other: &Option<String>| one.is_some() && other.is_some();
        if both(&self.path, &other.path) || both(&self.link, &other.link) {
            return Err(io::Error::other("an entry has two long names"));
        }
        self.path = self.path.take().or(other.path);
        self.link = self.link.take().or(other.link);
        add_keys(&mut self.others, other.others)
    }
}

fn add_keys(keys: &mut Vec<String>, new: impl IntoIterator<Item = String>) -> io::Result<()> {
    keys.extend(new);
    if keys.len() > MAX_KEYS {
        return Err(io::Error::other(format!("an entry has more than {MAX_KEYS} PAX records")));
    }
    Ok(())
}

fn read_limited(entry: &mut (impl Read + ?Sized)) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    entry.take(MAX_PAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_PAX {
        return Err(io::Error::other("a PAX header or a long name has more than 16 KiB"));
    }
    Ok(bytes)
}

/// Reads a name of more than 100 bytes as GNU tar writes it, with a NUL at the end.
fn long_name(entry: &mut (impl Read + ?Sized)) -> io::Result<String> {
    let mut bytes = read_limited(entry)?;
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(text(&bytes))
}

fn read_pax(entry: &mut (impl Read + ?Sized)) -> io::Result<PaxRecords> {
    let bytes = read_limited(entry)?;
    let mut records = PaxRecords::default();
    for record in tar::PaxExtensions::new(&bytes) {
        let record = record?;
        let key = record.key().map_err(io::Error::other)?;
        match key {
            // Some readers ignore an empty name and use that of the header.
            "path" | "linkpath" if record.value_bytes().is_empty() => {
                return Err(io::Error::other("a PAX record has an empty name"));
            }
            "path" => records.path = Some(text(record.value_bytes())),
            "linkpath" => records.link = Some(text(record.value_bytes())),
            // A reader without PAX would find other entries after this one.
            "size" => return Err(io::Error::other("a PAX record changes the size of an entry")),
            key if key.starts_with("GNU.sparse") => return Err(io::Error::other("an entry is sparse")),
            other => records.others.push(other.to_owned()),
        }
    }
    Ok(records)
}

fn entry_from_header(header: &tar::Header, records: PaxRecords) -> io::Result<LayerEntry> {
    let path = records.path.unwrap_or_else(|| text(&header.path_bytes()));
    let link = match records.link {
        Some(link) => link,
        None => header.link_name_bytes().map(|link| text(&link)).unwrap_or_default(),
    };
    let escaped = path.escape_debug().to_string();
    let kind = match header.entry_type() {
        // Before POSIX, only the slash marked a directory.
        EntryType::Regular if path.ends_with('/') => EntryKind::Dir,
        EntryType::Regular | EntryType::Continuous => EntryKind::File,
        EntryType::Directory => EntryKind::Dir,
        EntryType::Link => EntryKind::HardLink(clean_path(&link)?),
        EntryType::Symlink => EntryKind::SymLink(link),
        EntryType::Char | EntryType::Block | EntryType::Fifo => EntryKind::Special,
        other => return Err(io::Error::other(format!("{escaped} has the unsupported type {other:?}"))),
    };
    let size = header.size()?;
    if kind != EntryKind::File && size != 0 {
        return Err(io::Error::other(format!("{escaped} is not a file, but has {size} bytes")));
    }
    let is_named = |name: Option<&[u8]>| name.is_some_and(|name| !name.is_empty());
    let attributes = Attributes {
        mode: header.mode().ok(),
        uid: header.uid().ok(),
        gid: header.gid().ok(),
        is_named: is_named(header.username_bytes()) || is_named(header.groupname_bytes()),
        mtime: header.mtime().ok(),
        stored_path: path.clone(),
        records: records.others,
    };
    Ok(LayerEntry { path: clean_path(&path)?, kind, size, attributes })
}

/// Returns a name as text. If it is not UTF-8, which is allowed in root file systems, its bytes are escaped.
fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}

/// Returns a path without a leading `./` and a trailing `/`. Absolute paths and `..` are errors.
fn clean_path(path: &str) -> io::Result<String> {
    let mut parts = Vec::new();
    for part in Utf8Path::new(path).components() {
        match part {
            Utf8Component::CurDir => {}
            Utf8Component::Normal(part) if !part.contains('\0') => parts.push(part),
            _ => {
                let path = path.escape_debug();
                return Err(io::Error::other(format!("`{path}` is not a path inside the image")));
            }
        }
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        assert_eq!(clean_path("./lib/modules/").unwrap(), "lib/modules");
        for invalid in ["/etc", "../x", "a/../b", "a\0b"] {
            assert!(clean_path(invalid).is_err(), "{invalid:?}");
        }
    }

    #[test]
    fn records_that_readers_obey_are_told_or_refused() {
        let record = |key: &str, value: &str| {
            let length = key.len() + value.len() + 3;
            let digits = (length + 2).to_string();
            format!("{} {key}={value}\n", length + digits.len())
        };
        let read = |text: String| read_pax(&mut text.as_bytes());
        let other =
            read(record("path", "some/where") + &record("SCHILY.xattr.security.capability", "x")).unwrap();
        assert_eq!(other.path.as_deref(), Some("some/where"));
        assert_eq!(other.others, ["SCHILY.xattr.security.capability"]);
        for invalid in [record("path", ""), record("linkpath", ""), record("size", "1")] {
            assert!(read(invalid.clone()).is_err(), "{invalid}");
        }
    }

    /// The entries of a tar, and the keys of its global records.
    fn entries(tar: &[u8]) -> io::Result<(Vec<LayerEntry>, Vec<String>)> {
        let (mut reader, mut all) = (HeaderReader::default(), Vec::new());
        for entry in tar::Archive::new(tar).entries()?.raw(true) {
            all.extend(reader.read(&mut entry?)?);
        }
        Ok((all, reader.into_global()))
    }

    fn tar_of(entries: &[(EntryType, &str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (kind, path, bytes) in entries {
            let mut header = tar::Header::new_gnu();
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(bytes.len() as u64);
            header.set_cksum();
            tar.append(&header, *bytes).unwrap();
        }
        tar.into_inner().unwrap()
    }

    #[test]
    fn what_gnu_tar_git_and_old_tools_write_is_read() {
        let long = format!("{}x", "long/".repeat(50));
        let terminated = format!("{long}\0");
        let global = b"52 comment=0123456789012345678901234567890123456789\n";
        let tar = tar_of(&[
            (EntryType::XGlobalHeader, "pax_global_header", global),
            (EntryType::GNULongName, "././@LongLink", terminated.as_bytes()),
            (EntryType::Regular, "long/long", b"bytes"),
            (EntryType::GNULongLink, "././@LongLink", terminated.as_bytes()),
            (EntryType::Symlink, "link", b""),
            (EntryType::Regular, "old/", b""),
            (EntryType::Fifo, "pipe", b""),
        ]);
        let (found, global) = entries(&tar).unwrap();
        let kinds: Vec<(&str, &EntryKind)> = found.iter().map(|one| (one.path.as_str(), &one.kind)).collect();
        let link = EntryKind::SymLink(long.clone());
        assert_eq!(
            kinds,
            [
                (long.as_str(), &EntryKind::File),
                ("link", &link),
                ("old", &EntryKind::Dir),
                ("pipe", &EntryKind::Special)
            ]
        );
        assert!(global.is_empty());
        let capability = b"39 SCHILY.xattr.security.capability=xx\n";
        let (_, global) = entries(&tar_of(&[(EntryType::XGlobalHeader, "g", capability)])).unwrap();
        assert_eq!(global, ["SCHILY.xattr.security.capability"], "it is for every entry");
    }

    #[test]
    fn names_that_readers_understand_differently_are_refused() {
        let long = |kind| (kind, "x", &b"name\0"[..]);
        let path = (EntryType::XHeader, "x", &b"13 path=name\n"[..]);
        for (message, says) in [
            (vec![long(EntryType::GNULongName), long(EntryType::GNULongName)], "two long names"),
            (vec![path, long(EntryType::GNULongName)], "two long names"),
            (vec![(EntryType::XGlobalHeader, "g", &b"13 path=name\n"[..])], "gives all entries one name"),
            (vec![(EntryType::GNULongName, "x", &[b'x'; 20 << 10][..])], "more than 16 KiB"),
            (vec![(EntryType::GNUSparse, "x", &b""[..])], "unsupported type GNUSparse"),
        ] {
            let error = entries(&tar_of(&message)).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
        let latin = entries(&tar_of(&[(EntryType::Regular, "x", b"")])).unwrap();
        assert_eq!(latin.0[0].path, "x");
        assert_eq!(text(b"caf\xe9"), "caf\\xe9");
    }
}
