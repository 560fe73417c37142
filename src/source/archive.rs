//! Kernel tarballs, from a stream: decompressed, checked and unpacked as the bytes come.

use super::directory::check_tree;
use super::write::TreeWriter;
use super::{Fetching, Tree, keep, verify};
use crate::digest::{HashingReader, Sha256};
use crate::error::{Context, Error, Kind, Result};
use crate::plan::SourceIdentity;
use crate::process::Interruptible;
use crate::report::{Count, Running, Unit};
use crate::words::size;
use camino::Utf8Path;
use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

/// xz may ask for its dictionary in memory: at its highest level, 65 MiB.
const XZ_MEMORY: u64 = 66 << 20;
/// The same limit for zstd's window, as a power of two.
const ZSTD_WINDOW_LOG: u32 = 26;
/// A record before an entry holds a path or two.
const LARGEST_RECORD: u64 = 64 << 10;

/// Unpacks a tarball of this machine, unless its tree is in the cache. `sha256` is what the file
/// was when the plan was made.
pub(super) fn unpack_file(
    path: &Utf8Path,
    sha256: Sha256,
    fetching: &Fetching<'_>,
    running: &Running<'_>,
) -> Result<Tree> {
    let name = path.file_name().unwrap_or(path.as_str());
    let wrong = || format!("cannot read {path}");
    keep(&sha256.oci(), fetching, |tree| {
        let file = File::open(path).context(Kind::Fetch, wrong)?;
        let total = file.metadata().context(Kind::Fetch, wrong)?.len();
        let stream = Stream { name, reader: file, total: Some(total), expected: Some(sha256) };
        let Unpacked { bytes, date, .. } = unpack(stream, tree, running)?;
        Ok(SourceIdentity {
            origin: None,
            digest: sha256.oci(),
            version: check_tree(tree, name)?,
            date,
            verified: format!("{}, from a local file", size(bytes)),
            trusted: true,
        })
    })
}

/// Bytes of an archive on their way.
pub(super) struct Stream<'a, R> {
    /// What to call it.
    pub name: &'a str,
    /// The bytes as they were sent.
    pub reader: R,
    /// How many there will be.
    pub total: Option<u64>,
    /// The digest that they must have.
    pub expected: Option<Sha256>,
}

/// What was unpacked.
pub(super) struct Unpacked {
    pub sha256: Sha256,
    pub bytes: u64,
    /// Modification time of the top Makefile.
    pub date: u64,
}

/// Unpacks a compressed tarball into `tree`, and checks that its digest is the expected one: on any
/// error the tree must be thrown away.
pub(super) fn unpack<R: Read>(
    stream: Stream<'_, R>,
    tree: &Utf8Path,
    running: &Running<'_>,
) -> Result<Unpacked> {
    let Stream { name, reader, total, expected } = stream;
    let seen = Cell::new(0);
    let mut hashing = HashingReader::new(Counting { inner: Interruptible(reader), seen: &seen });
    let progress = |item: &str| running.progress(Count { done: seen.get(), total, unit: Unit::Bytes, item });
    let unpacked = {
        let compressed = BufReader::with_capacity(1 << 20, &mut hashing);
        decompress(name, compressed).and_then(|mut tar| {
            let date = unpack_tar(name, &mut tar, tree, progress)?;
            // The check values of the archive stand at its end, behind the end of the tar.
            io::copy(&mut tar, &mut io::sink())
                .context(Kind::Fetch, || format!("{name}: corrupt archive"))?;
            Ok(date)
        })
    };
    // Other bytes than the pinned ones are the better explanation of whatever was wrong in them.
    let is_archives_fault = !matches!(&unpacked, Err(error) if error.kind != Kind::Fetch);
    if let Some(expected) = expected.filter(|_| is_archives_fault) {
        let drained = io::copy(&mut hashing, &mut io::sink());
        let (sha256, bytes) = hashing.finish();
        drained.context(Kind::Fetch, || format!("{name}: broke off after {bytes} bytes"))?;
        verify(name, expected, sha256).map_err(|error| {
            error.hint("the mirror may be stale or the file damaged; try another --mirror")
        })?;
        return Ok(Unpacked { sha256, bytes, date: unpacked? });
    }
    let date = unpacked?;
    io::copy(&mut hashing, &mut io::sink()).context(Kind::Fetch, || format!("cannot read {name}"))?;
    let (sha256, bytes) = hashing.finish();
    Ok(Unpacked { sha256, bytes, date })
}

/// Told apart by their first bytes, not by the name.
pub(super) fn decompress<'a, R: BufRead + 'a>(name: &str, mut reader: R) -> Result<Box<dyn Read + 'a>> {
    let mut start = Vec::new();
    let read = reader.by_ref().take(6).read_to_end(&mut start);
    read.context(Kind::Fetch, || format!("cannot read {name}"))?;
    let reader = io::Cursor::new(start.clone()).chain(reader);
    Ok(match &start[..] {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            let stream =
                liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)
                    .context(Kind::Fetch, || format!("cannot decompress {name}"))?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(reader, stream))
        }
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)
                .context(Kind::Fetch, || format!("cannot decompress {name}"))?;
            decoder
                .window_log_max(ZSTD_WINDOW_LOG)
                .context(Kind::Fetch, || format!("cannot decompress {name}"))?;
            Box::new(decoder)
        }
        [b'B', b'Z', b'h', ..] => Box::new(bzip2::bufread::MultiBzDecoder::new(reader)),
        _ => {
            return Err(Error::fetch(format!("{name} is not a compressed tarball"))
                .hint("known are .tar.xz, .tar.gz, .tar.zst and .tar.bz2, told by their first bytes"));
        }
    })
}

/// Unpacks a tar whose entries all lie in one top directory, without that directory. Returns the
/// modification time of the top Makefile, 0 where there is none.
///
/// Entries are read raw: the records before an entry (PAX, GNU long names) are taken in here, with a
/// limit on their size, since the tar crate would read them whole.
fn unpack_tar(name: &str, tar: &mut dyn Read, tree: &Utf8Path, progress: impl Fn(&str)) -> Result<u64> {
    let corrupt = || format!("{name}: corrupt archive");
    let mut writer = TreeWriter::create(tree, name)?;
    let mut top = None;
    let mut date = 0;
    let mut before = Before::default();
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries().context(Kind::Fetch, corrupt)?.raw(true) {
        let mut entry = entry.context(Kind::Fetch, corrupt)?;
        let kind = entry.header().entry_type();
        if before.takes(&mut entry).map_err(|why| writer.refuse("(a record before an entry)", &why))? {
            continue;
        }
        let Before { path, link, size } = std::mem::take(&mut before);
        let path = text(path.unwrap_or_else(|| entry.path_bytes().into_owned()), &writer)?;
        if size.is_some_and(|size| size != entry.size()) {
            return Err(writer.refuse(&path, "its PAX record says another size than its header"));
        }
        let Some(inside) = below_top(&path, kind.is_dir(), &mut top) else {
            if kind.is_dir() && path == "./" {
                continue;
            }
            return Err(writer.refuse(&path, "outside the archive's top directory"));
        };
        if kind.is_dir() {
            writer.dir(inside)?;
        } else if kind.is_file() {
            if inside == "Makefile" {
                date = entry.header().mtime().context(Kind::Fetch, corrupt)?;
            }
            let executable = entry.header().mode().context(Kind::Fetch, corrupt)? & 0o100 != 0;
            writer.file(inside, executable, entry.size(), &mut entry)?;
        } else if kind.is_symlink() {
            let target = link.or_else(|| entry.link_name_bytes().map(Into::into)).unwrap_or_default();
            writer.link(inside, &text(target, &writer)?)?;
        } else {
            return Err(writer.refuse(&path, &format!("of type {kind:?}")));
        }
        if writer.entries().is_multiple_of(64) {
            progress(inside);
        }
    }
    writer.finish()?;
    Ok(date)
}

fn text(bytes: Vec<u8>, writer: &TreeWriter) -> Result<String> {
    String::from_utf8(bytes)
        .map_err(|error| writer.refuse(&String::from_utf8_lossy(error.as_bytes()), "not UTF-8"))
}

/// `path` without the top directory that all entries share; the first one seen is it.
fn below_top<'a>(path: &'a str, is_dir: bool, top: &mut Option<String>) -> Option<&'a str> {
    let path = path.strip_prefix("./").unwrap_or(path);
    let (first, rest) = path.split_once('/').or(is_dir.then_some((path, "")))?;
    let is_name = !matches!(first, "" | "." | "..");
    (is_name && top.get_or_insert_with(|| first.to_owned()) == first).then_some(rest)
}

/// What stands before an entry and overrides its header.
#[derive(Default)]
struct Before {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Before {
    /// Takes in `entry` if it is such a record.
    fn takes(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> Result<bool, String> {
        let kind = entry.header().entry_type();
        let is_record = kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions()
            || kind.is_gnu_longname()
            || kind.is_gnu_longlink();
        if !is_record {
            return Ok(false);
        }
        if entry.size() > LARGEST_RECORD {
            return Err(format!("{} bytes long", entry.size()));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        if kind.is_pax_local_extensions() {
            for record in tar::PaxExtensions::new(&bytes) {
                let record = record.map_err(|error| error.to_string())?;
                match record.key_bytes() {
                    b"path" => self.path = Some(record.value_bytes().to_vec()),
                    b"linkpath" => self.link = Some(record.value_bytes().to_vec()),
                    b"size" => self.size = record.value().ok().and_then(|size| size.parse().ok()),
                    _ => {}
                }
            }
        } else if !kind.is_pax_global_extensions() {
            while bytes.last() == Some(&0) {
                bytes.pop();
            }
            *(if kind.is_gnu_longname() { &mut self.path } else { &mut self.link }) = Some(bytes);
        }
        Ok(true)
    }
}

struct Counting<'a, R> {
    inner: R,
    seen: &'a Cell<u64>,
}

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.seen.set(self.seen.get() + read as u64);
        Ok(read)
    }
}
