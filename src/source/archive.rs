//! The formats of kernel tarballs: compressions told by their first bytes, and tar, of which only
//! what an honest kernel source holds is taken.

use super::tree_writer::TreeWriter;
use crate::util::error::{Error, Kind, Result, ResultExt};
use camino::Utf8Path;
use liblzma::bufread::XzDecoder;
use liblzma::stream::Stream;
use std::cell::Cell;
use std::io::{self, BufRead, Read};

/// xz may ask for its dictionary in memory: at its highest level, 65 MiB.
pub(super) const XZ_MEMORY: u64 = 66 << 20;
/// What several threads may have together; where they would need more, there are fewer of them. A block of
/// 24 MiB, as xz makes them, takes 37 MiB: such blocks come one at a time. That costs nothing, since the thread that
/// writes the files takes longer; two at a time took 105 MB with all else, freed memory that malloc keeps included.
const XZ_THREADS_MEMORY: u64 = 48 << 20;
/// The same limit for zstd's window, as a power of two.
const ZSTD_WINDOW_LOG: u32 = 26;
/// A record before an entry holds a path or two.
const MAX_RECORD: u64 = 64 << 10;

/// The decoder of a tarball. `threads` may decompress at once, where the archive consists of blocks.
pub(super) fn decompress<'a, R: BufRead + 'a>(
    name: &str,
    reader: R,
    threads: usize,
) -> Result<Box<dyn Read + 'a>> {
    decoder(name, reader, threads)?.ok_or_else(|| {
        Error::fetch(format!("{name} is not a compressed tarball"))
            .hint("known are .tar.xz, .tar.gz, .tar.zst and .tar.bz2, told by their first bytes")
    })
}

/// The decoder of a compressed file, `None` of another one: told apart by their first bytes, not by the name.
pub(super) fn decoder<'a, R: BufRead + 'a>(
    name: &str,
    mut reader: R,
    threads: usize,
) -> Result<Option<Box<dyn Read + 'a>>> {
    let mut start = Vec::new();
    let read = reader.by_ref().take(6).read_to_end(&mut start);
    read.context(Kind::Fetch, || format!("cannot read {name}"))?;
    let reader = io::Cursor::new(start.clone()).chain(reader);
    Ok(Some(match &start[..] {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Box::new(XzStreams {
            decoder: Some(
                xz_decoder(reader, threads).context(Kind::Fetch, || format!("cannot decompress {name}"))?,
            ),
            threads,
        }),
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
        _ => return Ok(None),
    }))
}

/// The streams of an .xz, one after another: tools that compress in parallel write several.
struct XzStreams<R> {
    decoder: Option<XzDecoder<R>>,
    threads: usize,
}

fn xz_decoder<R: BufRead>(reader: R, threads: usize) -> io::Result<XzDecoder<R>> {
    if threads < 2 {
        // The other one keeps whole blocks in memory, whatever the number of threads.
        return Ok(XzDecoder::new_stream(reader, Stream::new_stream_decoder(XZ_MEMORY, 0)?));
    }
    let mut builder = liblzma::stream::MtStreamBuilder::new();
    builder.threads(u32::try_from(threads).unwrap_or(1).max(1));
    builder.memlimit_threading(XZ_THREADS_MEMORY).memlimit_stop(XZ_MEMORY);
    Ok(XzDecoder::new_stream(reader, builder.decoder()?))
}

impl<R: BufRead> Read for XzStreams<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(decoder) = &mut self.decoder {
            let read = decoder.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let mut reader = self.decoder.take().map(XzDecoder::into_inner).expect("it is there");
            if skip_padding(&mut reader)? {
                self.decoder = Some(xz_decoder(reader, self.threads)?);
            }
        }
        Ok(0)
    }
}

/// Goes over the zeros that may stand between two streams. Is there another one?
fn skip_padding(reader: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let next = reader.fill_buf()?;
        let zeros = next.iter().take_while(|byte| **byte == 0).count();
        if zeros < next.len() {
            reader.consume(zeros);
            return Ok(true);
        }
        if next.is_empty() {
            return Ok(false);
        }
        reader.consume(zeros);
    }
}

/// Unpacks a tar whose entries all lie in one top directory, without that directory. Returns the tree, which has to be
/// finished, and the modification time of the top Makefile (0 where there is none).
///
/// Entries are read raw: the records before an entry (PAX, GNU long names) are taken in here, with a
/// limit on their size, since the tar crate would read them whole.
pub(super) fn unpack_tar(
    name: &str,
    tar: &mut dyn Read,
    tree: &Utf8Path,
    progress: impl Fn(&str),
) -> Result<(TreeWriter, u64)> {
    let read = Cell::new(0);
    let corrupt = || format!("{name}: corrupt archive, at byte {} of its tar", read.get());
    let mut writer = TreeWriter::create(tree, name)?;
    let mut top = None;
    let mut date = 0;
    let mut before = SeenHeaders::default();
    let mut archive = tar::Archive::new(CountingReader { reader: tar, read: &read });
    for entry in archive.entries().context(Kind::Fetch, corrupt)?.raw(true) {
        let mut entry = entry.context(Kind::Fetch, corrupt)?;
        let kind = entry.header().entry_type();
        if before.accepts(&mut entry).map_err(|why| writer.refuse("(a record before an entry)", &why))? {
            continue;
        }
        let SeenHeaders { path, link, size } = std::mem::take(&mut before);
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
    // The check values of the archive stand at its end, behind the end of the tar.
    io::copy(&mut archive.into_inner(), &mut io::sink())
        .context(Kind::Fetch, || format!("cannot read {name}"))?;
    Ok((writer, date))
}

/// A reader that tells how far it is.
struct CountingReader<'a, R> {
    reader: R,
    read: &'a Cell<u64>,
}

impl<R: Read> Read for CountingReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.read.set(self.read.get() + read as u64);
        Ok(read)
    }
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
struct SeenHeaders {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl SeenHeaders {
    /// Takes in `entry` if it is such a record.
    fn accepts(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> Result<bool, String> {
        let kind = entry.header().entry_type();
        let is_record = kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions()
            || kind.is_gnu_longname()
            || kind.is_gnu_longlink();
        if !is_record {
            return Ok(false);
        }
        if entry.size() > MAX_RECORD {
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
