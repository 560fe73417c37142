//! Streams the entries of an untrusted layer. Nothing is unpacked, and only names are kept. Sizes, counts and
//! names have limits. What readers could understand differently is refused, such as two entries of one name,
//! sparse files, a second size, and bytes behind the end.
//!
//! If a layer breaks a rule, the error names the rule and has exit code 3.

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

/// The uncompressed size of all layers of an image together. A kernel with debug information has less than 1
/// GB, and so have its modules.
pub(crate) const MAX_IMAGE: u64 = 4 << 30;
/// A distribution's kernel has about 7000 modules.
const MAX_ENTRIES: usize = 200_000;
/// The size of all names and link targets together, which are kept in memory.
const MAX_NAMES: usize = 32 << 20;
/// The block size of a tar.
const BLOCK: u64 = 512;
/// The ratio of decompressed to compressed bytes that a run may reach. gzip can reach 1000. Kernels and
/// modules have about 4.
const MAX_RATIO: u64 = 64;

/// A layer that was read whole and had the right digests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerInfo {
    /// The digest of the blob.
    pub digest: Sha256,
    /// The digest of the uncompressed tar.
    pub diff_id: Sha256,
    pub media_type: String,
    /// The size of the blob.
    pub size: u64,
    /// The size of the uncompressed tar.
    pub uncompressed_size: u64,
    /// The number of its entries.
    pub entries: usize,
    /// The keys of global PAX records.
    pub global_records: Vec<String>,
}

/// The compression of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LayerCompression {
    None,
    /// One or more gzip members.
    Gzip,
    Zstd,
}

impl LayerCompression {
    /// Returns the compression of a media type, or `None` if it is not that of a layer that can be read.
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

/// Returns whether this is the media type of a layer of an image, even one that cannot be read here.
pub(super) fn is_layer(media_type: &MediaType) -> bool {
    let of_images = ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."];
    of_images.iter().any(|prefix| media_type.as_ref().starts_with(prefix))
}

/// Reads a layer once, and shows each entry to `visit`. The bytes are hashed before and after decompression.
/// `limits` has what is left for the next layer.
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
        return Err(Error::fetch(format!("{path}: the layer has more than {MAX_IMAGE} bytes")));
    }
    limits.run.grant(size);
    let mut stored = HashingReader::new(BufReader::with_capacity(1 << 18, file.take(size)));
    let read = read_uncompressed(&path, layer.media_type(), &mut stored, limits, visit);
    let rest = drain(&mut Interruptible(&mut stored), Rest::Any);
    rest.context(Kind::Fetch, || format!("cannot read {path}"))?;
    // If the blob is damaged, that is the error, and not what the decompressor found.
    check_digest(&path, digest, stored.finish().0)?;
    let tar = read?;
    if tar.digest != diff_id {
        let found = tar.digest;
        let message = format!("{path}: diff_id mismatch: expected {diff_id}, found {found}");
        return Err(Error::fetch(message).mark_damaged());
    }
    Ok(LayerInfo {
        digest,
        diff_id,
        media_type: layer.media_type().to_string(),
        size,
        uncompressed_size: tar.size,
        entries: tar.entries,
        global_records: tar.global_records,
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
    stored: &mut impl Read,
    limits: &mut Limits,
    visit: &mut impl FnMut(&LayerEntry, &mut dyn Read) -> Result<()>,
) -> Result<UncompressedLayer> {
    let message = || format!("cannot read the layer {path}");
    let tar: Box<dyn Read + '_> = match LayerCompression::of(media_type) {
        Some(LayerCompression::None) => Box::new(stored),
        Some(LayerCompression::Gzip) => Box::new(flate2::read::MultiGzDecoder::new(stored)),
        Some(LayerCompression::Zstd) => {
            Box::new(zstd::stream::read::Decoder::new(stored).context(Kind::Fetch, message)?)
        }
        None => {
            let other = media_type.to_string();
            let message = format!("{path}: layers of type {} are not supported", other.escape_debug());
            return Err(Error::fetch(message));
        }
    };
    let limit = limits.bytes.min(limits.run.left);
    let mut tar = HashingReader::new(LimitedReader { inner: tar, left: limit, limit });
    let read =
        visit_entries(path, &mut PaddedReader { inner: &mut tar, read: 0 }, limits, visit).and_then(|read| {
            // Zeros pad a tar. Other bytes are entries that only some readers see.
            drain(&mut tar, Rest::Zeros).context(Kind::Fetch, message)?;
            Ok(read)
        });
    let (digest, size) = tar.finish();
    limits.bytes = limits.bytes.saturating_sub(size);
    limits.run.left = limits.run.left.saturating_sub(size);
    let read = read?;
    if size < read.end {
        return Err(Error::fetch(format!("{path}: the tar ends in the middle of a file")));
    }
    Ok(UncompressedLayer { digest, size, entries: read.count, global_records: read.global_records })
}

/// The entries of a tar that was read to its end.
struct EntriesRead {
    count: usize,
    /// The end of the last entry's bytes.
    end: u64,
    global_records: Vec<String>,
}

fn visit_entries(
    path: &Utf8Path,
    tar: &mut impl Read,
    limits: &mut Limits,
    visit: &mut impl FnMut(&LayerEntry, &mut dyn Read) -> Result<()>,
) -> Result<EntriesRead> {
    let message = || format!("cannot read the layer {path}");
    let mut archive = Archive::new(tar);
    let mut seen = BTreeMap::new();
    let mut headers = HeaderReader::default();
    let (mut count, mut end) = (0, 0);
    // Raw, because the tar crate would read a long name of any length into memory.
    for entry in archive.entries().context(Kind::Fetch, message)?.raw(true) {
        process::check()?;
        let mut entry = entry.context(Kind::Fetch, message)?;
        let Some(found) = headers.read(&mut entry).context(Kind::Fetch, message)? else { continue };
        limits.take(&found).map_err(|why| Error::fetch(format!("{path}: {why}")))?;
        count += 1;
        end = entry.raw_file_position().saturating_add(found.size);
        let is_dir = found.kind == EntryKind::Dir;
        // Some tools write a directory twice, which all readers take as one.
        if seen.insert(found.path.clone(), is_dir).is_some_and(|was_dir| !(was_dir && is_dir)) {
            let name = found.path.escape_debug();
            return Err(Error::fetch(format!("{path}: two entries have the name {name}")));
        }
        visit(&found, &mut entry)?;
    }
    Ok(EntriesRead { count, end, global_records: headers.into_global() })
}

/// The bytes that a run of the program may still decompress.
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
    /// Adds what `stored` bytes may decompress to.
    pub(crate) fn grant(&mut self, stored: u64) {
        self.left = self.left.saturating_add(stored.saturating_mul(MAX_RATIO));
    }

    /// Takes bytes that were decompressed.
    ///
    /// # Errors
    ///
    /// There are not so many left.
    pub(crate) fn take(&mut self, decompressed: u64) -> io::Result<()> {
        self.left = self.left.checked_sub(decompressed).ok_or_else(|| {
            io::Error::other(format!("it is more than {MAX_RATIO} times as large when decompressed"))
        })?;
        Ok(())
    }
}

/// What may still be read of an image and by a run.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Uncompressed bytes of all layers.
    bytes: u64,
    entries: usize,
    /// Bytes of names and link targets.
    names: usize,
    run: UnpackBudget,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { bytes: MAX_IMAGE, entries: MAX_ENTRIES, names: MAX_NAMES, run: UnpackBudget::default() }
    }
}

impl Limits {
    /// Resets the limits of an image, but not those of the run.
    pub(crate) fn next_image(&mut self) {
        *self = Limits { run: self.run, ..Limits::default() };
    }

    /// Takes the entries and bytes of a layer that was read before.
    ///
    /// # Errors
    ///
    /// Exit code 3 if the image has too many entries or bytes.
    pub(crate) fn take_layer(&mut self, read: &LayerInfo) -> Result<()> {
        let entries = self.entries.checked_sub(read.entries);
        let bytes = self.bytes.checked_sub(read.uncompressed_size);
        let (Some(entries), Some(bytes)) = (entries, bytes) else {
            let message = format!("the image has more than {MAX_ENTRIES} entries or {MAX_IMAGE} bytes");
            return Err(Error::fetch(message));
        };
        (self.entries, self.bytes) = (entries, bytes);
        Ok(())
    }

    fn take(&mut self, found: &LayerEntry) -> std::result::Result<(), String> {
        let link = match &found.kind {
            EntryKind::HardLink(to) | EntryKind::SymLink(to) => to.len(),
            _ => 0,
        };
        let records: usize = found.attributes.records.iter().map(String::len).sum();
        let entries = self.entries.checked_sub(1);
        self.entries = entries.ok_or_else(|| format!("the image has more than {MAX_ENTRIES} entries"))?;
        let names = self.names.checked_sub(found.path.len() + link + records);
        self.names =
            names.ok_or_else(|| format!("the names of the image have more than {MAX_NAMES} bytes"))?;
        Ok(())
    }
}

/// Fails after `limit` bytes. A few kilobytes can decompress to more than a disk has.
struct LimitedReader<R> {
    inner: R,
    left: u64,
    limit: u64,
}

impl<R: Read> Read for LimitedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let left = self.left.checked_sub(read as u64);
        // Reading on after the error fails again.
        self.left = left.unwrap_or(0);
        if left.is_none() {
            let message = format!("it is larger than {} bytes when decompressed", self.limit);
            return Err(io::Error::other(message));
        }
        Ok(read)
    }
}

/// Pads the last block of a tar, which `umoci insert` does not. All tools in Go accept such a tar.
struct PaddedReader<R> {
    inner: R,
    read: u64,
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

/// What may follow the bytes that were read.
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
                return Err(io::Error::other("the layer has bytes after the end of the tar"));
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
            assert_eq!(take("d").unwrap_err(), "the names of the image have more than 33554432 bytes");
        }
        let mut limits = Limits { entries: 1, ..Limits::default() };
        let found =
            LayerEntry { path: "a".into(), kind: EntryKind::Dir, size: 0, attributes: Attributes::default() };
        assert_eq!(limits.take(&found), Ok(()));
        assert_eq!(limits.take(&found).unwrap_err(), "the image has more than 200000 entries");
    }

    #[test]
    fn a_block_that_is_not_full_is_filled_up() {
        for (length, padded) in [(0, 0), (1, 512), (511, 512), (512, 512), (513, 1024)] {
            let mut all = Vec::new();
            PaddedReader { inner: &vec![7; length][..], read: 0 }.read_to_end(&mut all).unwrap();
            assert_eq!(all.len(), padded, "{length}");
            assert!(all[length..].iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn a_bomb_ends_at_the_limit() {
        let mut bounded = LimitedReader { inner: io::repeat(0), left: 1 << 20, limit: 1 << 20 };
        let error = io::copy(&mut bounded, &mut io::sink()).unwrap_err();
        assert!(error.to_string().contains("when decompressed"), "{error}");
        let behind = &b"\0\0\x01"[..];
        assert!(drain(&mut &behind[..], Rest::Zeros).is_err() && drain(&mut &behind[..], Rest::Any).is_ok());
    }
}
