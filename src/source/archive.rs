//! Kernel tarballs, from a stream: decompressed, checked and unpacked as the bytes come.

use super::write::TreeWriter;
use super::{Fetching, Tree, identify, keep, keep_unlocked, verify};
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

/// xz may ask for its dictionary in memory: kernel.org's and Debian's need 65 MB at most.
const XZ_MEMORY: u64 = 256 << 20;
/// The same limit for zstd's window, as a power of two.
const ZSTD_WINDOW_LOG: u32 = 27;

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
    let file = File::open(path).context(Kind::Fetch, wrong)?;
    let total = file.metadata().context(Kind::Fetch, wrong)?.len();
    keep(&sha256.oci(), fetching, |tree| {
        let stream = Stream { name, reader: file, total: Some(total), expected: Some(sha256) };
        let unpacked = unpack(stream, tree, running)?;
        unpacked.identity(name, tree, "from a local file")
    })
}

/// A download whose digest may only be known at its end. `verified` says what it was checked against.
pub(super) fn unpack_download<R: Read>(
    stream: Stream<'_, R>,
    verified: &str,
    fetching: &Fetching<'_>,
    running: &Running<'_>,
) -> Result<Tree> {
    let (name, expected) = (stream.name, stream.expected);
    let fill = |tree: &Utf8Path| unpack(stream, tree, running)?.identity(name, tree, verified);
    match expected {
        Some(digest) => keep(&digest.oci(), fetching, fill),
        None => keep_unlocked(fetching, fill),
    }
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

impl Unpacked {
    fn identity(&self, name: &str, tree: &Utf8Path, verified: &str) -> Result<SourceIdentity> {
        Ok(SourceIdentity {
            name: name.to_owned(),
            digest: self.sha256.oci(),
            version: identify(tree, name)?,
            date: self.date,
            verified: format!("{}, {verified}", size(self.bytes)),
        })
    }
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
    // Whatever was wrong in it: other bytes than the pinned ones are the better explanation.
    let drained = io::copy(&mut hashing, &mut io::sink());
    let (sha256, bytes) = hashing.finish();
    match (&unpacked, drained) {
        (Err(error), _) if matches!(error.kind, Kind::Interrupted(_)) => {}
        (_, Err(error)) => {
            return Err(error).context(Kind::Fetch, || format!("{name}: broke off after {bytes} bytes"));
        }
        _ => {
            if let Some(expected) = expected {
                verify(name, expected, sha256).map_err(|error| {
                    error.hint("the mirror may be stale or the file damaged; try another --mirror")
                })?;
            }
        }
    }
    Ok(Unpacked { sha256, bytes, date: unpacked? })
}

/// Told apart by their first bytes, not by the name.
pub(super) fn decompress<'a, R: BufRead + 'a>(name: &str, mut reader: R) -> Result<Box<dyn Read + 'a>> {
    let start = reader.fill_buf().context(Kind::Fetch, || format!("cannot read {name}"))?;
    Ok(match start {
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
fn unpack_tar(name: &str, tar: &mut dyn Read, tree: &Utf8Path, progress: impl Fn(&str)) -> Result<u64> {
    let corrupt = || format!("{name}: corrupt archive");
    let mut writer = TreeWriter::create(tree, name)?;
    let mut top: Option<String> = None;
    let mut date = 0;
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries().context(Kind::Fetch, corrupt)? {
        let mut entry = entry.context(Kind::Fetch, corrupt)?;
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            continue;
        }
        let path = entry.path_bytes().into_owned();
        let path = std::str::from_utf8(&path)
            .map_err(|_| writer.refuse(&String::from_utf8_lossy(&path), "not UTF-8"))?;
        let inside = match path.strip_prefix("./").unwrap_or(path).split_once('/') {
            Some((first, rest)) if *top.get_or_insert_with(|| first.to_owned()) == first => rest,
            None if kind.is_dir() && path == "." => continue,
            None if kind.is_dir() && *top.get_or_insert_with(|| path.to_owned()) == path => continue,
            _ => return Err(writer.refuse(path, "outside the archive's top directory")),
        };
        let mode = entry.header().mode().context(Kind::Fetch, corrupt)?;
        if kind.is_dir() {
            writer.dir(inside)?;
        } else if kind.is_file() {
            let size = entry.size();
            if inside == "Makefile" {
                date = entry.header().mtime().context(Kind::Fetch, corrupt)?;
            }
            writer.file(inside, mode & 0o100 != 0, size, &mut entry)?;
        } else if kind.is_symlink() {
            let target = entry.link_name_bytes().unwrap_or_default().into_owned();
            let target =
                std::str::from_utf8(&target).map_err(|_| writer.refuse(path, "a link that is not UTF-8"))?;
            writer.link(inside, target)?;
        } else {
            return Err(writer.refuse(path, &format!("of type {kind:?}")));
        }
        if writer.entries() % 64 == 0 {
            progress(inside);
        }
    }
    writer.finish()?;
    Ok(date)
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
