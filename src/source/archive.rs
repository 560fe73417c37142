//! Reads kernel tarballs. Accepts only tar entries that kernel sources have.

use super::tree_writer::TreeWriter;
use crate::util::error::{Error, Kind, Result, ResultExt};
use camino::Utf8Path;
use liblzma::bufread::XzDecoder;
use liblzma::stream::Stream;
use std::cell::Cell;
use std::io::{self, BufRead, Read};
use tar::EntryType;

/// The limit for xz, whose dictionary takes 65 MiB at the highest level.
pub(super) const XZ_MEMORY: u64 = 66 << 20;
/// The limit for all threads of xz together. A block of 24 MiB, which is xz's default, takes 37 MiB, so such
/// blocks are decompressed one at a time. That costs no time, since the thread that writes the files is
/// slower. With two blocks at a time, the process took 105 MB.
const XZ_THREADS_MEMORY: u64 = 48 << 20;
/// The limit for zstd's window, as a power of two.
const ZSTD_WINDOW_LOG: u32 = 26;
/// The limit of a record before an entry, which contains a path or two.
const MAX_RECORD: u64 = 64 << 10;

/// Returns the decoder of a tarball. Up to `threads` threads decompress an archive with several blocks.
pub(super) fn decompress<'a, R: BufRead + 'a>(
    name: &str,
    reader: R,
    threads: usize,
) -> Result<Box<dyn Read + 'a>> {
    decoder(name, reader, threads)?.ok_or_else(|| {
        Error::fetch(format!("{name} is not a compressed tarball")).hint(
            "supported are .tar.xz, .tar.gz, .tar.zst and .tar.bz2, by their content and not their name",
        )
    })
}

/// Returns the decoder of a compressed file, by its first bytes, and `None` for other files.
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

/// Reads the streams of an .xz one after another. Tools that compress in parallel write several.
struct XzStreams<R> {
    decoder: Option<XzDecoder<R>>,
    threads: usize,
}

fn xz_decoder<R: BufRead>(reader: R, threads: usize) -> io::Result<XzDecoder<R>> {
    if threads < 2 {
        // The decoder with threads keeps whole blocks in memory, even with one thread.
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

/// Skips the zeros between two streams. Returns whether there is another stream.
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

/// What a hard link in a tar is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HardLinks {
    /// An error, since kernel sources have none.
    Refuse,
    /// Another name of an earlier file.
    Accept,
}

/// Unpacks a tar whose entries all lie in one top directory, without that directory. Returns the tree, which
/// the caller finishes, and the modification time of the top Makefile, or 0.
///
/// Entries are read raw. The tar crate would read the records before an entry (PAX, GNU long names) without a
/// limit, so they are read here.
pub(super) fn unpack_tar(
    name: &str,
    tar: &mut dyn Read,
    tree: &Utf8Path,
    hard_links: HardLinks,
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
            return Err(writer.refuse(&path, "the sizes in its PAX record and its header differ"));
        }
        let Some(inside) = below_top(&path, kind, &mut top) else {
            if kind.is_dir() && path == "./" {
                continue;
            }
            return Err(not_below_top(&path, top.as_deref(), &writer));
        };
        if kind.is_dir() {
            writer.dir(inside)?;
        } else if kind.is_file() {
            if inside == "Makefile" {
                date = entry.header().mtime().context(Kind::Fetch, corrupt)?;
            }
            let mode = entry.header().mode().context(Kind::Fetch, corrupt)?;
            writer.file(inside, mode, entry.size(), &mut entry)?;
        } else if kind.is_symlink() {
            let target = link.or_else(|| entry.link_name_bytes().map(Into::into)).unwrap_or_default();
            writer.link(inside, &text(target, &writer)?)?;
        } else if kind.is_hard_link() && hard_links == HardLinks::Accept {
            let target = link.or_else(|| entry.link_name_bytes().map(Into::into)).unwrap_or_default();
            let target = text(target, &writer)?;
            let Some(earlier) = below_top(&target, EntryType::Regular, &mut top) else {
                return Err(not_below_top(&target, top.as_deref(), &writer));
            };
            writer.hard_link(inside, earlier)?;
        } else {
            return Err(writer.refuse(&path, &format!("of type {kind:?}")));
        }
        if writer.entries().is_multiple_of(64) {
            progress(inside);
        }
    }
    // The checksums of the compression follow the end of the tar.
    io::copy(&mut archive.into_inner(), &mut io::sink())
        .context(Kind::Fetch, || format!("cannot read {name}"))?;
    Ok((writer, date))
}

/// Counts the bytes that are read.
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

/// Returns `path` without the top directory. All entries must have the top directory of the first one.
fn below_top<'a>(path: &'a str, kind: EntryType, top: &mut Option<String>) -> Option<&'a str> {
    let path = path.strip_prefix("./").unwrap_or(path);
    let (first, rest) = path.split_once('/').or(kind.is_dir().then_some((path, "")))?;
    let is_name = !matches!(first, "" | "." | "..");
    (is_name && top.get_or_insert_with(|| first.to_owned()) == first).then_some(rest)
}

/// Returns the error of an entry that is not in the one top directory, which is `top` if there is one so far.
fn not_below_top(path: &str, top: Option<&str>, writer: &TreeWriter) -> Error {
    let in_top = path.strip_prefix("./").unwrap_or(path);
    let why = if in_top.is_empty() || in_top.split('/').any(|part| matches!(part, "" | ".." | ".")) {
        "outside the archive's top directory".to_owned()
    } else {
        match top {
            Some(top) => {
                format!("the archive has more at its top than the directory `{}`", top.escape_debug())
            }
            None => "a file at the top of the archive".to_owned(),
        }
    };
    writer.refuse(path, &why).hint(
        "a kernel tarball has one top directory, such as linux-6.1.7/, and everything in it: unpack this one, and \
         give the directory with the source as --source",
    )
}

/// The records before an entry, which override its header.
#[derive(Default)]
struct SeenHeaders {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl SeenHeaders {
    /// Reads `entry` if it is such a record.
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
