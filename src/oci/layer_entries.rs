//! The entries of a layer that anybody may have made, streamed: nothing is unpacked, and no more is kept
//! than names. Sizes, counts and names are bounded; whatever a reader could take for something else
//! (two entries of one name, sparse files, sizes said twice, bytes behind the end) is refused.
//!
//! All errors of a layer that breaks a rule are verification errors (exit code 3) and name the rule.

use super::blob::{check_digest, open_blob};
use super::tar_entry::HeaderReader;
pub use super::tar_entry::{Attributes, EntryKind, LayerEntry};
use crate::host::process::{self, Interruptible};
use crate::util::digest::{HashingReader, Sha256};
use crate::util::error::{Error, Kind, Result, ResultExt};
use camino::Utf8Path;
use oci_spec::image::{Descriptor, MediaType};
use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};
use tar::Archive;

/// All layers of an image together, unpacked. A kernel with debug information has less than 1 GB, its
/// modules no more.
pub(crate) const MAX_IMAGE: u64 = 4 << 30;
/// A distribution's kernel has about 7000 modules.
const MAX_ENTRIES: usize = 200_000;
/// All names together, which are kept to find two that are equal, and what links lead to: both are kept by those who
/// read images.
const MAX_NAMES: usize = 32 << 20;
/// What a tar is made of.
const BLOCK: u64 = 512;
/// A run may unpack so many bytes for each byte that it reads. gzip makes 1000 of one; kernels and modules are about 4.
const UNPACKED_PER_BYTE: u64 = 64;

/// What a layer was, when all of it has been read and its digests were right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerInfo {
    /// Of the blob.
    pub digest: Sha256,
    /// Of the plain tar.
    pub diff_id: Sha256,
    /// How it is compressed.
    pub media_type: String,
    /// Bytes of the blob.
    pub size: u64,
    /// Bytes of the plain tar.
    pub uncompressed_size: u64,
    /// How many entries it has.
    pub entries: usize,
    /// The keys of PAX records that are for all entries.
    pub global_records: Vec<String>,
}

/// How the tar of a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LayerCompression {
    /// Not at all.
    None,
    /// gzip, of one member or of many.
    Gzip,
    /// Zstandard.
    Zstd,
}

impl LayerCompression {
    /// By the media type of a layer; `None`: it is no tar, or compressed otherwise.
    pub(crate) fn of(media_type: &MediaType) -> Option<LayerCompression> {
        match media_type {
            MediaType::ImageLayer | MediaType::ImageLayerNonDistributable => Some(LayerCompression::None),
            MediaType::ImageLayerGzip | MediaType::ImageLayerNonDistributableGzip => {
                Some(LayerCompression::Gzip)
            }
            MediaType::ImageLayerZstd | MediaType::ImageLayerNonDistributableZstd => {
                Some(LayerCompression::Zstd)
            }
            MediaType::Other(other) => match other.as_str() {
                "application/vnd.docker.image.rootfs.diff.tar" => Some(LayerCompression::None),
                "application/vnd.docker.image.rootfs.diff.tar.gzip"
                | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Some(LayerCompression::Gzip),
                "application/vnd.docker.image.rootfs.diff.tar.zstd" => Some(LayerCompression::Zstd),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Is it the type of a layer of an image, be it one that is not read here? Artifacts have types of their own.
pub(super) fn is_layer(media_type: &MediaType) -> bool {
    let of_images = ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."];
    of_images.iter().any(|prefix| media_type.as_ref().starts_with(prefix))
}

/// One pass over a layer: hashed before and after the decompressor, entry by entry in between. What it takes of
/// `limits` is missing to the next one.
pub(super) fn visit_layer(
    layout: &Utf8Path,
    layer: &Descriptor,
    diff_id: &str,
    limits: &mut Limits,
    visit: &mut impl FnMut(&LayerEntry, &mut dyn Read) -> Result<()>,
) -> Result<LayerInfo> {
    let (path, digest, file) = open_blob(layout, layer)?;
    let size = layer.size();
    let diff_id: Sha256 = diff_id.parse().map_err(|why| Error::fetch(format!("{layout}: diff_id: {why}")))?;
    if size > MAX_IMAGE {
        return Err(Error::fetch(format!("{path}: a layer of more than {MAX_IMAGE} bytes")));
    }
    limits.run.grant(size);
    let mut packed = HashingReader::new(BufReader::with_capacity(1 << 18, file.take(size)));
    let read = read_uncompressed(&path, layer.media_type(), &mut packed, limits, visit);
    let rest = drain(&mut Interruptible(&mut packed), Rest::Any);
    rest.context(Kind::Fetch, || format!("cannot read {path}"))?;
    // Where bytes are not those that were meant, what a decompressor makes of them is no news.
    check_digest(&path, digest, packed.finish().0)?;
    let plain = read?;
    if plain.digest != diff_id {
        let found = plain.digest;
        let message = format!("{path}: its plain tar has the digest {found}, its diff_id is {diff_id}");
        return Err(Error::fetch(message).mark_damaged());
    }
    Ok(LayerInfo {
        digest,
        diff_id,
        media_type: layer.media_type().to_string(),
        size,
        uncompressed_size: plain.size,
        entries: plain.entries,
        global_records: plain.global_records,
    })
}

/// A tar that was read to its end.
struct UncompressedLayer {
    digest: Sha256,
    size: u64,
    entries: usize,
    global_records: Vec<String>,
}

fn read_uncompressed(
    path: &Utf8Path,
    media_type: &MediaType,
    packed: &mut impl Read,
    limits: &mut Limits,
    visit: &mut impl FnMut(&LayerEntry, &mut dyn Read) -> Result<()>,
) -> Result<UncompressedLayer> {
    let message = || format!("{path} cannot be read as a layer");
    let plain: Box<dyn Read + '_> = match LayerCompression::of(media_type) {
        Some(LayerCompression::None) => Box::new(packed),
        Some(LayerCompression::Gzip) => Box::new(flate2::read::MultiGzDecoder::new(packed)),
        Some(LayerCompression::Zstd) => {
            Box::new(zstd::stream::read::Decoder::new(packed).context(Kind::Fetch, message)?)
        }
        None => {
            let other = media_type.to_string();
            return Err(Error::fetch(format!("{path}: a layer of type {}", other.escape_debug())));
        }
    };
    let limit = limits.bytes.min(limits.run.left);
    let mut plain = HashingReader::new(LimitedReader { inner: plain, left: limit, limit });
    let read = visit_entries(path, &mut PaddedReader::new(&mut plain), limits, visit).and_then(|read| {
        // Zeros fill a tar up; anything else is an entry that some readers see and others do not.
        drain(&mut plain, Rest::Zeros).context(Kind::Fetch, message)?;
        Ok(read)
    });
    let (digest, size) = plain.finish();
    limits.bytes = limits.bytes.saturating_sub(size);
    limits.run.left = limits.run.left.saturating_sub(size);
    let read = read?;
    if size < read.end {
        return Err(Error::fetch(format!("{path}: its tar ends in the middle of a file")));
    }
    Ok(UncompressedLayer { digest, size, entries: read.count, global_records: read.global_records })
}

/// The entries of a tar, when all have been seen.
struct EntriesRead {
    count: usize,
    /// Where the bytes of the last one end.
    end: u64,
    global_records: Vec<String>,
}

fn visit_entries(
    path: &Utf8Path,
    tar: &mut impl Read,
    limits: &mut Limits,
    visit: &mut impl FnMut(&LayerEntry, &mut dyn Read) -> Result<()>,
) -> Result<EntriesRead> {
    let message = || format!("{path} cannot be read as a layer");
    let mut archive = Archive::new(tar);
    let mut seen = BTreeMap::new();
    let mut headers = HeaderReader::default();
    let (mut count, mut end) = (0, 0);
    // Raw: the tar crate would read a long name of any length into memory.
    for entry in archive.entries().context(Kind::Fetch, message)?.raw(true) {
        process::check()?;
        let mut entry = entry.context(Kind::Fetch, message)?;
        let Some(found) = headers.read(&mut entry).context(Kind::Fetch, message)? else { continue };
        limits.take(&found).map_err(|why| Error::fetch(format!("{path}: {why}")))?;
        count += 1;
        end = entry.raw_file_position().saturating_add(found.size);
        let is_dir = found.kind == EntryKind::Dir;
        // Some tools write a directory twice, which is one to all readers.
        if seen.insert(found.path.clone(), is_dir).is_some_and(|was_dir| !(was_dir && is_dir)) {
            let name = found.path.escape_debug();
            return Err(Error::fetch(format!("{path}: two entries are called {name}")));
        }
        visit(&found, &mut entry)?;
    }
    Ok(EntriesRead { count, end, global_records: headers.into_global() })
}

/// How many bytes a run of the program may still unpack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnpackBudget {
    left: u64,
}

impl Default for UnpackBudget {
    fn default() -> UnpackBudget {
        UnpackBudget { left: MAX_IMAGE }
    }
}

impl UnpackBudget {
    /// So many bytes are read: more may be unpacked.
    pub(crate) fn grant(&mut self, stored: u64) {
        self.left = self.left.saturating_add(stored.saturating_mul(UNPACKED_PER_BYTE));
    }

    /// So many bytes were unpacked.
    ///
    /// Errors: they were too many.
    pub(crate) fn take(&mut self, unpacked: u64) -> io::Result<()> {
        self.left = self.left.checked_sub(unpacked).ok_or_else(|| {
            io::Error::other(format!("it unpacks to more than {UNPACKED_PER_BYTE} times its size"))
        })?;
        Ok(())
    }
}

/// What may still be read: of an image, all its layers together, and by a run.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Unpacked.
    bytes: u64,
    entries: usize,
    /// Bytes of names, and of what links lead to.
    names: usize,
    run: UnpackBudget,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { bytes: MAX_IMAGE, entries: MAX_ENTRIES, names: MAX_NAMES, run: UnpackBudget::default() }
    }
}

impl Limits {
    /// The next image may have as much as the one before it, but for what the run may unpack.
    pub(crate) fn next_image(&mut self) {
        *self = Limits { run: self.run, ..Limits::default() };
    }

    /// Takes what a layer has that was read before.
    ///
    /// Errors (exit code 3): the image has too many entries or bytes.
    pub(crate) fn take_layer(&mut self, read: &LayerInfo) -> Result<()> {
        let (entries, bytes) =
            (self.entries.checked_sub(read.entries), self.bytes.checked_sub(read.uncompressed_size));
        let (Some(entries), Some(bytes)) = (entries, bytes) else {
            let message = format!("layers with more than {MAX_ENTRIES} entries or {MAX_IMAGE} bytes");
            return Err(Error::fetch(message));
        };
        (self.entries, self.bytes) = (entries, bytes);
        Ok(())
    }

    /// Errors: there are too many entries or names.
    fn take(&mut self, found: &LayerEntry) -> std::result::Result<(), String> {
        let link = match &found.kind {
            EntryKind::HardLink(to) | EntryKind::SymLink(to) => to.len(),
            _ => 0,
        };
        let records: usize = found.attributes.records.iter().map(String::len).sum();
        let entries = self.entries.checked_sub(1);
        self.entries = entries.ok_or_else(|| format!("more than {MAX_ENTRIES} entries"))?;
        let names = self.names.checked_sub(found.path.len() + link + records);
        self.names = names.ok_or_else(|| format!("names of more than {MAX_NAMES} bytes"))?;
        Ok(())
    }
}

/// Refuses to go on after so many bytes: a few kilobytes can unpack to more than any disk holds.
struct LimitedReader<R> {
    inner: R,
    left: u64,
    limit: u64,
}

impl<R: Read> Read for LimitedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let left = self.left.checked_sub(read as u64);
        // Whoever reads on after the error does not get past it.
        self.left = left.unwrap_or(0);
        if left.is_none() {
            return Err(io::Error::other(format!("it unpacks to more than {} bytes", self.limit)));
        }
        Ok(read)
    }
}

/// Fills the last block of a tar up, which `umoci insert` does not: all tools in Go read that.
struct PaddedReader<R> {
    inner: R,
    read: u64,
}

impl<R> PaddedReader<R> {
    fn new(inner: R) -> PaddedReader<R> {
        PaddedReader { inner, read: 0 }
    }
}

impl<R: Read> Read for PaddedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut read = self.inner.read(buffer)?;
        if read == 0 {
            let missing = self.read.next_multiple_of(BLOCK) - self.read;
            read = buffer.len().min(usize::try_from(missing).expect("less than a block"));
            buffer[..read].fill(0);
        }
        self.read += read as u64;
        Ok(read)
    }
}

/// What may stand behind the end of what is read.
#[derive(Clone, Copy)]
enum Rest {
    Any,
    Zeros,
}

fn drain(reader: &mut impl Read, rest: Rest) -> io::Result<()> {
    let mut buffer = [0; 1 << 14];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(()),
            read if matches!(rest, Rest::Zeros) && buffer[..read].iter().any(|&byte| byte != 0) => {
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
    fn names_and_what_links_lead_to_are_bounded() {
        let to = "x".repeat(MAX_NAMES / 4);
        for kind in [EntryKind::HardLink(to.clone()), EntryKind::SymLink(to)] {
            let mut limits = Limits::default();
            let mut take = |path: &str| {
                let attributes = Attributes::default();
                limits.take(&LayerEntry { path: path.into(), kind: kind.clone(), size: 0, attributes })
            };
            assert_eq!(["a", "b", "c"].map(&mut take), [Ok(()), Ok(()), Ok(())]);
            assert_eq!(take("d").unwrap_err(), "names of more than 33554432 bytes");
        }
        let mut limits = Limits { entries: 1, ..Limits::default() };
        let found =
            LayerEntry { path: "a".into(), kind: EntryKind::Dir, size: 0, attributes: Attributes::default() };
        assert_eq!(limits.take(&found), Ok(()));
        assert_eq!(limits.take(&found).unwrap_err(), "more than 200000 entries");
    }

    #[test]
    fn a_block_that_is_not_full_is_filled_up() {
        for (length, padded) in [(0, 0), (1, 512), (511, 512), (512, 512), (513, 1024)] {
            let mut all = Vec::new();
            PaddedReader::new(&vec![7; length][..]).read_to_end(&mut all).unwrap();
            assert_eq!(all.len(), padded, "{length}");
            assert!(all[length..].iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn a_bomb_ends_at_the_limit() {
        let mut bounded = LimitedReader { inner: io::repeat(0), left: 1 << 20, limit: 1 << 20 };
        let error = io::copy(&mut bounded, &mut io::sink()).unwrap_err();
        assert!(error.to_string().contains("unpacks to more than"), "{error}");
        let behind = &b"\0\0\x01"[..];
        assert!(drain(&mut &behind[..], Rest::Zeros).is_err() && drain(&mut &behind[..], Rest::Any).is_ok());
    }
}
