//! The entries of a layer that anybody may have made, streamed: nothing is unpacked, and no more is kept
//! than names. Sizes, counts and names are bounded; whatever a reader could take for something else
//! (two entries of one name, sparse files, sizes said twice, bytes behind the end) is refused.
//!
//! All errors of a layer that breaks a rule are verification errors (exit code 3) and name the rule.

use super::blob::{check_digest, open_blob};
use crate::host::process::{self, Interruptible};
use crate::util::digest::{HashingReader, Sha256};
use crate::util::error::{Context, Error, Kind, Result};
use camino::{Utf8Component, Utf8Path};
use oci_spec::image::{Descriptor, MediaType};
use std::collections::BTreeSet;
use std::io::{self, BufReader, Read};
use tar::{Archive, EntryType};

/// All layers of an image together, unpacked. A kernel with debug information has less than 1 GB, its
/// modules no more.
pub(crate) const LARGEST_IMAGE: u64 = 4 << 30;
/// A distribution's kernel has about 7000 modules.
const MOST_ENTRIES: usize = 200_000;
/// All names together, which are kept to find two that are equal, and what links lead to: both are kept by those who
/// read images.
const LARGEST_NAMES: usize = 32 << 20;
/// A path and a link, with their PAX keys.
const LARGEST_PAX: u64 = 16 << 10;

/// An entry of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its path, relative, without a trailing slash.
    pub path: String,
    /// What it is.
    pub kind: FoundKind,
    /// Bytes of a file.
    pub size: u64,
    /// What a reproducible archive has the same everywhere.
    pub attributes: Attributes,
}

/// Whose an entry is, who may do what with it, and from when it is. A number that the header has not, or
/// that is none, is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The path as it stands in the archive: a directory's ends in a slash.
    pub stored_path: String,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: Option<u32>,
    /// Number of the owner.
    pub uid: Option<u64>,
    /// Number of the group.
    pub gid: Option<u64>,
    /// Has the owner or the group a name?
    pub is_named: bool,
    /// Seconds since 1970.
    pub mtime: Option<u64>,
    /// The keys of PAX records other than those of path and link: readers let them replace what is above, or give the
    /// file extended attributes (`SCHILY.xattr.…`).
    pub records: Vec<String>,
}

/// The kinds of entries that kernel images have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundKind {
    /// A directory.
    Dir,
    /// A file.
    File,
    /// A second name of this earlier entry.
    HardLink(String),
    /// A symbolic link with this text.
    SymLink(String),
}

/// What a layer was, when all of it has been read and its digests were right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerRead {
    /// Of the blob.
    pub digest: Sha256,
    /// Of the plain tar.
    pub diff_id: Sha256,
    /// How it is compressed.
    pub media_type: String,
    /// Bytes of the blob.
    pub size: u64,
    /// Bytes of the plain tar.
    pub plain_size: u64,
    /// How many entries it has.
    pub entries: usize,
}

/// One pass over a layer: hashed before and after the decompressor, entry by entry in between. What it takes of
/// `limits` is missing to the next one.
pub(super) fn visit_layer(
    layout: &Utf8Path,
    (layer, diff_id): (&Descriptor, &str),
    limits: &mut Limits,
    visit: &mut impl FnMut(&Found, &mut dyn Read) -> Result<()>,
) -> Result<LayerRead> {
    let (path, digest, file) = open_blob(layout, layer)?;
    let size = layer.size();
    let wrong = || format!("{path} is not a layer of a kernel image");
    let diff_id: Sha256 = diff_id.parse().map_err(|why| Error::fetch(format!("{layout}: diff_id: {why}")))?;
    if size > LARGEST_IMAGE {
        return Err(Error::fetch(format!("{path}: a layer of more than {LARGEST_IMAGE} bytes")));
    }
    let mut packed = HashingReader::new(BufReader::with_capacity(1 << 18, file.take(size)));
    let read = read_plain(&path, layer.media_type(), &mut packed, limits, visit);
    drain(&mut Interruptible(&mut packed), false).context(Kind::Fetch, wrong)?;
    // Where bytes are not those that were meant, what a decompressor makes of them is no news.
    check_digest(&path, digest, packed.finish().0)?;
    let (plain_digest, plain_size, entries) = read?;
    limits.bytes = limits.bytes.saturating_sub(plain_size);
    match plain_digest == diff_id {
        true => Ok(LayerRead {
            digest,
            diff_id,
            media_type: layer.media_type().to_string(),
            size,
            plain_size,
            entries,
        }),
        false => Err(Error::fetch(format!(
            "{path}: its plain tar has the digest {plain_digest}, its diff_id is {diff_id}"
        ))),
    }
}

/// The digest and size of the plain tar, and how many entries it has.
fn read_plain(
    path: &Utf8Path,
    media_type: &MediaType,
    packed: &mut impl Read,
    limits: &mut Limits,
    visit: &mut impl FnMut(&Found, &mut dyn Read) -> Result<()>,
) -> Result<(Sha256, u64, usize)> {
    let wrong = || format!("{path} is not a layer of a kernel image");
    let plain: Box<dyn Read + '_> = match media_type {
        MediaType::ImageLayer => Box::new(packed),
        MediaType::ImageLayerGzip => Box::new(flate2::read::MultiGzDecoder::new(packed)),
        MediaType::ImageLayerZstd => {
            Box::new(zstd::stream::read::Decoder::new(packed).context(Kind::Fetch, wrong)?)
        }
        other => {
            let other = other.to_string();
            return Err(Error::fetch(format!("{path}: a layer of type {}", other.escape_debug())));
        }
    };
    let mut plain = HashingReader::new(Bounded { inner: plain, left: limits.bytes });
    let entries = visit_entries(path, &mut plain, limits, visit)?;
    // Zeros fill a tar up; anything else is an entry that some readers see and others do not.
    drain(&mut plain, true).context(Kind::Fetch, wrong)?;
    let (digest, size) = plain.finish();
    Ok((digest, size, entries))
}

fn visit_entries(
    path: &Utf8Path,
    tar: &mut impl Read,
    limits: &mut Limits,
    visit: &mut impl FnMut(&Found, &mut dyn Read) -> Result<()>,
) -> Result<usize> {
    let wrong = || format!("{path} is not a layer of a kernel image");
    let mut archive = Archive::new(tar);
    let mut seen = BTreeSet::new();
    let mut records = Records::default();
    // Raw: the tar crate would read a long name of any length into memory.
    for entry in archive.entries().context(Kind::Fetch, wrong)?.raw(true) {
        process::check()?;
        let mut entry = entry.context(Kind::Fetch, wrong)?;
        if entry.header().entry_type() == EntryType::XHeader {
            records = read_pax(&mut entry).context(Kind::Fetch, wrong)?;
            continue;
        }
        let found = read_header(&entry, std::mem::take(&mut records)).context(Kind::Fetch, wrong)?;
        limits.take(&found).map_err(|why| Error::fetch(format!("{path}: {why}")))?;
        if !seen.insert(found.path.clone()) {
            let name = found.path.escape_debug();
            return Err(Error::fetch(format!("{path}: two entries are called {name}")));
        }
        visit(&found, &mut entry)?;
    }
    Ok(seen.len())
}

/// What an image may still have, all its layers together.
pub(super) struct Limits {
    /// Unpacked.
    bytes: u64,
    entries: usize,
    /// Bytes of names, and of what links lead to.
    names: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { bytes: LARGEST_IMAGE, entries: MOST_ENTRIES, names: LARGEST_NAMES }
    }
}

impl Limits {
    /// Errors: there are too many entries or names.
    fn take(&mut self, found: &Found) -> std::result::Result<(), String> {
        let link = match &found.kind {
            FoundKind::HardLink(to) | FoundKind::SymLink(to) => to.len(),
            _ => 0,
        };
        let entries = self.entries.checked_sub(1);
        self.entries = entries.ok_or_else(|| format!("more than {MOST_ENTRIES} entries"))?;
        let names = self.names.checked_sub(found.path.len() + link);
        self.names = names.ok_or_else(|| format!("names of more than {LARGEST_NAMES} bytes"))?;
        Ok(())
    }
}

/// What PAX records say of the entry after them.
#[derive(Default)]
struct Records {
    path: Option<String>,
    link: Option<String>,
    others: Vec<String>,
}

fn read_pax(entry: &mut (impl Read + ?Sized)) -> io::Result<Records> {
    let mut bytes = Vec::new();
    entry.take(LARGEST_PAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_PAX {
        return Err(io::Error::other("a PAX header of more than 16 KiB"));
    }
    let mut records = Records::default();
    for record in tar::PaxExtensions::new(&bytes) {
        let record = record?;
        let key = record.key().map_err(io::Error::other)?;
        let value = || record.value().map(str::to_owned).map_err(io::Error::other);
        match key {
            // Some readers take an empty name for none, and go by the header.
            "path" | "linkpath" if record.value_bytes().is_empty() => {
                return Err(io::Error::other("a PAX record with an empty name"));
            }
            "path" => records.path = Some(value()?),
            "linkpath" => records.link = Some(value()?),
            // A reader without PAX would see another tar from here on.
            "size" => return Err(io::Error::other("a PAX record that changes the size of an entry")),
            key if key.starts_with("GNU.sparse") => return Err(io::Error::other("a sparse entry")),
            other => records.others.push(other.to_owned()),
        }
    }
    Ok(records)
}

fn read_header<R: Read>(entry: &tar::Entry<'_, R>, records: Records) -> io::Result<Found> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(io::Error::other);
    let header = entry.header();
    let path = records.path.map_or_else(|| text(&header.path_bytes()), Ok)?;
    let link = match records.link {
        Some(link) => link,
        None => header.link_name_bytes().map(|link| text(&link)).transpose()?.unwrap_or_default(),
    };
    let shown = path.escape_debug().to_string();
    let kind = match header.entry_type() {
        EntryType::Regular => FoundKind::File,
        EntryType::Directory => FoundKind::Dir,
        EntryType::Link => FoundKind::HardLink(plain_path(&link)?),
        EntryType::Symlink => FoundKind::SymLink(link),
        other => return Err(io::Error::other(format!("{shown} is an entry of type {other:?}"))),
    };
    let size = header.size()?;
    if kind != FoundKind::File && size != 0 {
        return Err(io::Error::other(format!("{shown} is no file and has {size} bytes")));
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
    Ok(Found { path: plain_path(&path)?, kind, size, attributes })
}

/// A path that stays inside: relative, without `..`; a leading `./` and a trailing `/` are left aside.
fn plain_path(path: &str) -> io::Result<String> {
    let mut parts = Vec::new();
    for part in Utf8Path::new(path).components() {
        match part {
            Utf8Component::CurDir => {}
            Utf8Component::Normal(part) if !part.contains('\0') => parts.push(part),
            _ => {
                return Err(io::Error::other(format!(
                    "`{}` is no path inside an image",
                    path.escape_debug()
                )));
            }
        }
    }
    Ok(parts.join("/"))
}

/// Refuses to go on after so many bytes: a few kilobytes can unpack to more than any disk holds.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => return Err(io::Error::other(format!("it unpacks to more than {LARGEST_IMAGE} bytes"))),
        }
        Ok(read)
    }
}

fn drain(reader: &mut impl Read, only_zeros: bool) -> io::Result<()> {
    let mut buffer = [0; 1 << 14];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(()),
            read if only_zeros && buffer[..read].iter().any(|&byte| byte != 0) => {
                return Err(io::Error::other("something stands behind the end of its tar"));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        assert_eq!(plain_path("./lib/modules/").unwrap(), "lib/modules");
        for wrong in ["/etc", "../x", "a/../b", "a\0b"] {
            assert!(plain_path(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn names_and_what_links_lead_to_are_bounded() {
        let to = "x".repeat(LARGEST_NAMES / 4);
        for kind in [FoundKind::HardLink(to.clone()), FoundKind::SymLink(to)] {
            let mut limits = Limits::default();
            let mut take = |path: &str| {
                let attributes = Attributes::default();
                limits.take(&Found { path: path.into(), kind: kind.clone(), size: 0, attributes })
            };
            assert_eq!(["a", "b", "c"].map(&mut take), [Ok(()), Ok(()), Ok(())]);
            assert_eq!(take("d").unwrap_err(), "names of more than 33554432 bytes");
        }
        let mut limits = Limits { entries: 1, ..Limits::default() };
        let found =
            Found { path: "a".into(), kind: FoundKind::Dir, size: 0, attributes: Attributes::default() };
        assert_eq!(limits.take(&found), Ok(()));
        assert_eq!(limits.take(&found).unwrap_err(), "more than 200000 entries");
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
        for wrong in [record("path", ""), record("linkpath", ""), record("size", "1")] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_bomb_ends_at_the_limit() {
        let mut bounded = Bounded { inner: io::repeat(0), left: 1 << 20 };
        let error = io::copy(&mut bounded, &mut io::sink()).unwrap_err();
        assert!(error.to_string().contains("unpacks to more than"), "{error}");
        assert!(drain(&mut &b"\0\0\x01"[..], true).is_err() && drain(&mut &b"\0\0\x01"[..], false).is_ok());
    }
}
