//! Reads the files of a layout in a tar archive, as `skopeo copy … oci-archive:FILE` writes it. The archive is
//! untrusted. Nothing is unpacked, and only headers are read to find a file.

use crate::util::error::{Error, Result};
use crate::util::read::{self, Links, MAX_SMALL_FILE};
use camino::Utf8Path;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use tar::{EntryType, Header, PaxExtensions};

const BLOCK: u64 = 512;
/// Archives of skopeo and podman have a few blobs for each image.
const MAX_ENTRIES: usize = 4096;

/// Where the bytes of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Member {
    offset: u64,
    size: u64,
}

/// Returns whether a file begins like a tar archive of POSIX or GNU.
pub fn is_archive(path: &Utf8Path) -> bool {
    let mut start = [0; BLOCK as usize];
    let file = read::open_file(path, Links::Follow);
    file.and_then(|file| file.read_exact_at(&mut start, 0)).is_ok() && start[257..].starts_with(b"ustar")
}

/// Splits the path of a file in an archive, such as `images.tar/index.json`.
pub(super) fn split(path: &Utf8Path) -> Option<(&Utf8Path, &Utf8Path)> {
    let archive = path.ancestors().skip(1).find(|path| path.exists())?;
    Some((archive, path.strip_prefix(archive).ok()?)).filter(|(archive, _)| archive.is_file())
}

/// Opens the file `name` of an archive, and returns its size too. The reader begins at its first byte, and must not
/// read more bytes than that.
///
/// # Errors
///
/// `NotFound` if the archive has no such file, or another error if the archive is not valid.
pub(super) fn open_member(archive: &Utf8Path, name: &str) -> io::Result<(File, u64)> {
    let mut file = read::open_file(archive, Links::Follow)?;
    let members = members(&file).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
    let member = members.get(name).ok_or(io::ErrorKind::NotFound)?;
    file.seek(SeekFrom::Start(member.offset))?;
    Ok((file, member.size))
}

/// Reads a file of an archive, of at most `limit` bytes.
pub(super) fn read_member(archive: &Utf8Path, name: &str, limit: u64) -> io::Result<Vec<u8>> {
    let (file, size) = open_member(archive, name)?;
    if size > limit {
        let message = format!("larger than {} MiB", limit >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    let mut bytes = Vec::new();
    file.take(size).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Checks that an archive has a layout.
///
/// # Errors
///
/// Exit code 2 if it is not a tar or has no layout, and 3 if it is not valid.
pub(super) fn check(archive: &Utf8Path) -> Result<()> {
    if !is_archive(archive) {
        return Err(Error::usage(format!("{archive}: neither an OCI layout nor an uncompressed tar of one"))
            .hint("name a layout directory, or an archive as `skopeo copy … oci-archive:FILE` writes it"));
    }
    match open_member(archive, "oci-layout") {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::usage(format!(
            "{archive} is not an oci-archive: the file oci-layout is missing"
        ))
        .hint("convert an archive of `docker save` with `skopeo copy docker-archive:FILE oci-archive:NEW`")),
        Err(error) => Err(Error::fetch(format!("cannot read {archive}")).caused_by(error)),
    }
}

/// Lists the files of a layout in an archive. Other files are skipped.
fn members(file: &File) -> std::result::Result<BTreeMap<String, Member>, String> {
    let end = file.metadata().map_err(|error| error.to_string())?.len();
    let mut members = BTreeMap::new();
    let mut long_name = None;
    let mut at = 0;
    for _ in 0..MAX_ENTRIES {
        let Some(header) = header_at(file, at, end)? else { return Ok(members) };
        let kind = header.entry_type();
        let size = header.entry_size().map_err(|error| format!("entry at byte {at}: {error}"))?;
        let data = at + BLOCK;
        let next = size.checked_next_multiple_of(BLOCK).and_then(|size| data.checked_add(size));
        let next =
            next.filter(|next| *next <= end).ok_or_else(|| format!("entry at byte {at} is truncated"))?;
        let member = Member { offset: data, size };
        match kind {
            EntryType::GNULongName => long_name = Some(read_header_content(file, member)?),
            EntryType::XHeader => {
                long_name = pax_name(&read_header_content(file, member)?, at)?.or(long_name);
            }
            EntryType::XGlobalHeader => {
                if pax_name(&read_header_content(file, member)?, at)?.is_some() {
                    return Err(format!("entry at byte {at}: a global header with a path"));
                }
            }
            EntryType::GNULongLink => {}
            EntryType::GNUSparse => {
                return Err(format!("entry at byte {at}: sparse files are not supported"));
            }
            _ => {
                let name = long_name.take().unwrap_or_else(|| header.path_bytes().into_owned());
                add(&mut members, &name, kind, member)?;
            }
        }
        at = next;
    }
    Err(format!("more than {MAX_ENTRIES} entries"))
}

/// Reads the header at a byte. Returns `None` at the end of the archive.
fn header_at(file: &File, at: u64, end: u64) -> std::result::Result<Option<Header>, String> {
    if at == end {
        return Ok(None);
    }
    let mut header = Header::new_old();
    file.read_exact_at(header.as_mut_bytes(), at).map_err(|_| format!("truncated at byte {at}"))?;
    if header.as_bytes().iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    // The sum of all bytes, with spaces in place of the checksum.
    let bytes = header.as_bytes().iter().enumerate();
    let sum: u32 =
        bytes.map(|(index, byte)| u32::from(if (148..156).contains(&index) { b' ' } else { *byte })).sum();
    if header.cksum().ok() != Some(sum) {
        return Err(format!("entry at byte {at} has a wrong checksum"));
    }
    Ok(Some(header))
}

/// Reads a name or the records of a header.
fn read_header_content(file: &File, member: Member) -> std::result::Result<Vec<u8>, String> {
    let Member { offset, size } = member;
    if size > MAX_SMALL_FILE {
        return Err(format!("a header of {size} bytes at byte {offset}"));
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
    file.read_exact_at(&mut bytes, offset).map_err(|error| error.to_string())?;
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(bytes)
}

/// Returns the path in the records of a header. Readers disagree about entries with two sizes.
fn pax_name(records: &[u8], at: u64) -> std::result::Result<Option<Vec<u8>>, String> {
    let mut name = None;
    for record in PaxExtensions::new(records) {
        let record = record.map_err(|error| format!("entry at byte {at}: {error}"))?;
        match record.key_bytes() {
            b"path" => name = Some(record.value_bytes().to_owned()),
            key if key == b"size" || key.starts_with(b"GNU.sparse.") => {
                return Err(format!("entry at byte {at}: a header with `{}`", String::from_utf8_lossy(key)));
            }
            _ => {}
        }
    }
    Ok(name)
}

/// Adds a file of the layout, and skips others.
fn add(
    members: &mut BTreeMap<String, Member>,
    name: &[u8],
    kind: EntryType,
    member: Member,
) -> std::result::Result<(), String> {
    if !kind.is_file() && member.size != 0 {
        return Err(format!(
            "entry at byte {}: a link, directory or device with content",
            member.offset - BLOCK
        ));
    }
    let Ok(name) = std::str::from_utf8(name) else { return Ok(()) };
    let name = name.trim_start_matches("./").trim_end_matches('/');
    let is_blob = |digest: &str| digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !["oci-layout", "index.json"].contains(&name)
        && !name.strip_prefix("blobs/sha256/").is_some_and(is_blob)
    {
        return Ok(());
    }
    if !kind.is_file() {
        return Err(format!("{name} is not a regular file"));
    }
    match members.insert(name.to_owned(), member) {
        None => Ok(()),
        Some(_) => Err(format!("{name} is there twice")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const BLOB: &str = "blobs/sha256/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// Writes an archive with these entries, and lists it.
    fn list(entries: &[(&str, EntryType, &str)]) -> std::result::Result<Vec<String>, String> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = Header::new_ustar();
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
        list_bytes(&builder.into_inner().unwrap())
    }

    fn list_bytes(bytes: &[u8]) -> std::result::Result<Vec<String>, String> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Ok(members(&file)?.into_keys().collect())
    }

    #[test]
    fn only_files_of_a_layout_are_listed() {
        use EntryType::{Directory, Regular, Symlink};
        let all = [
            ("blobs/", Directory, ""),
            ("./index.json", Regular, "{}"),
            (BLOB, Regular, ""),
            ("manifest.json", Regular, "[]"),
            ("../evil", Regular, "x"),
            ("latest", Symlink, ""),
        ];
        assert_eq!(list(&all).unwrap(), [BLOB, "index.json"]);
    }

    #[test]
    fn archives_that_readers_may_understand_differently_are_refused() {
        use EntryType::{Fifo, GNUSparse, Link, Regular, Symlink, XGlobalHeader, XHeader};
        for (entries, says) in [
            (&[("index.json", Regular, "a"), ("./index.json", Regular, "b")][..], "there twice"),
            (&[(BLOB, Symlink, "")], "not a regular file"),
            (&[(BLOB, Link, "")], "not a regular file"),
            (&[("oci-layout", Fifo, "")], "not a regular file"),
            (&[("x", Link, "content")], "with content"),
            (&[("x", GNUSparse, "")], "sparse"),
            (&[("x", XHeader, "11 size=42\n"), ("index.json", Regular, "{}")], "`size`"),
            (&[("x", XHeader, "29 GNU.sparse.name=xxxxxxxxx\n")], "`GNU.sparse.name`"),
            (&[("x", XGlobalHeader, "10 path=x\n")], "global header"),
        ] {
            let why = list(entries).unwrap_err();
            assert!(why.contains(says), "`{says}` is not in: {why}");
        }
    }

    #[test]
    fn damaged_and_endless_archives_are_refused() {
        let mut header = Header::new_ustar();
        header.set_size(10_000);
        header.set_cksum();
        assert!(list_bytes(header.as_bytes()).unwrap_err().contains("truncated"));
        assert!(list_bytes(&header.as_bytes()[..100]).unwrap_err().contains("truncated"));
        let mut flipped = *header.as_bytes();
        flipped[0] ^= 1;
        assert!(list_bytes(&flipped).unwrap_err().contains("wrong checksum"));
        header.set_size(0);
        header.set_cksum();
        assert!(list_bytes(&header.as_bytes().repeat(MAX_ENTRIES + 1)).unwrap_err().contains("more than"));
        let mut long = Header::new_ustar();
        long.set_entry_type(EntryType::GNULongName);
        long.set_size(MAX_SMALL_FILE + 1);
        long.set_cksum();
        let mut bytes = long.as_bytes().to_vec();
        bytes.resize(MAX_SMALL_FILE as usize + 2048, b'x');
        assert!(list_bytes(&bytes).unwrap_err().contains("a header of"));
    }
}
