//! Compresses a layer into its blob, by several threads. The blob is one gzip member or one zstd frame,
//! because some readers stop after the first. The bytes do not depend on the number of threads.

use super::gzip;
use super::layout::BlobWriter;
use super::piece::{PIECE, Piece};
use crate::util::digest::{Hasher, Sha256};
use crate::util::error::{Kind, Result, ResultExt};
use crate::util::threads;
use serde::Serialize;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use zstd::zstd_safe::{self, CCtx, CParameter, InBuffer, OutBuffer, SafeResult, zstd_sys::ZSTD_EndDirective};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Works with every client
    #[default]
    Gzip,
    /// Smaller and faster, needs containerd 1.5 or Docker 23
    Zstd,
    /// A plain tar
    None,
}

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoder {
    Gzip {
        /// From 1 to 9. Plans use `GZIP_LEVEL`, and benchmarks other levels.
        level: u32,
    },
    Zstd,
    None,
}

impl From<Compression> for Encoder {
    fn from(compression: Compression) -> Encoder {
        match compression {
            Compression::Gzip => Encoder::Gzip { level: GZIP_LEVEL },
            Compression::Zstd => Encoder::Zstd,
            Compression::None => Encoder::None,
        }
    }
}

/// The version of the layer format, which is part of the plan. It changes whenever the same files get another
/// digest. Reasons are the layout of the tar, the constants below, and an update of an encoder.
pub const LAYER_FORMAT: u32 = 2;

/// docs/benchmarks.md has a table of the levels.
const GZIP_LEVEL: u32 = 2;
/// zstd's own default.
const ZSTD_LEVEL: i32 = 3;
/// More threads would wait for the thread that reads. Each holds a few pieces in memory.
const MAX_THREADS: usize = 8;

/// Compresses what `fill` writes into `blob`, by up to `threads` threads. Returns the digest
/// of the uncompressed bytes too.
pub(super) fn compress(
    encoder: Encoder,
    threads: usize,
    blob: BlobWriter,
    fill: impl FnOnce(&mut PieceWriter) -> Result<()>,
) -> Result<(BlobWriter, Sha256)> {
    let threads = threads.clamp(1, MAX_THREADS);
    let (sender, pieces) = sync_channel(1);
    std::thread::scope(|scope| {
        let writing = threads::spawn_scoped(scope, move || match encoder {
            Encoder::Gzip { level } => gzip::write(pieces, threads, level, blob),
            Encoder::Zstd => write_zstd(pieces, threads, blob),
            Encoder::None => write_plain(pieces, blob),
        })?;
        let filled = {
            let mut pieces = PieceWriter { piece: Piece::default(), hasher: Hasher::default(), sender };
            fill(&mut pieces).and_then(|()| pieces.finish())
        };
        let written = writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // The error of the writer comes first. It is the reason why no piece could be sent.
        Ok((written.context(Kind::Build, || "cannot write a layer".into())?, filled?))
    })
}

/// Cuts the bytes that are written to it into pieces, and sends the pieces.
pub(super) struct PieceWriter {
    piece: Piece,
    hasher: Hasher,
    sender: SyncSender<Piece>,
}

impl PieceWriter {
    fn send(&mut self) -> io::Result<()> {
        let next = self.piece.next();
        let piece = std::mem::replace(&mut self.piece, next);
        self.hasher.update(piece.bytes());
        self.sender.send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn finish(mut self) -> Result<Sha256> {
        self.piece.is_last = true;
        self.send().context(Kind::Build, || "cannot compress a layer".into())?;
        Ok(self.hasher.finish())
    }
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full piece is not sent before more bytes come, because the last piece has to be marked.
        if self.piece.bytes().len() == PIECE && !bytes.is_empty() {
            self.send()?;
        }
        let length = bytes.len().min(PIECE - self.piece.bytes().len());
        self.piece.buffer.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_plain<W: Write>(pieces: Receiver<Piece>, mut output: W) -> io::Result<W> {
    for piece in pieces {
        output.write_all(piece.bytes())?;
    }
    Ok(output)
}

/// Writes one frame with a checksum. zstd's workers compress it in jobs of a fixed size, so
/// their number does not matter.
fn write_zstd<W: Write>(pieces: Receiver<Piece>, threads: usize, mut output: W) -> io::Result<W> {
    let mut context = CCtx::create();
    for parameter in [
        CParameter::CompressionLevel(ZSTD_LEVEL),
        CParameter::ChecksumFlag(true),
        CParameter::NbWorkers(threads as u32),
        CParameter::JobSize(PIECE as u32),
    ] {
        zstd_result(context.set_parameter(parameter))?;
    }
    let mut compressed = Vec::with_capacity(CCtx::out_size());
    for piece in pieces {
        // The end is sent with the last bytes. Alone, after a full job, it may become an empty block,
        // depending on the progress of the workers.
        let operation =
            if piece.is_last { ZSTD_EndDirective::ZSTD_e_end } else { ZSTD_EndDirective::ZSTD_e_continue };
        let mut input = InBuffer::around(piece.bytes());
        loop {
            compressed.clear();
            let mut buffer = OutBuffer::around(&mut compressed);
            let pending = zstd_result(context.compress_stream2(&mut buffer, &mut input, operation))?;
            output.write_all(&compressed)?;
            if input.pos() == piece.bytes().len() && (pending == 0 || !piece.is_last) {
                break;
            }
        }
    }
    Ok(output)
}

fn zstd_result(result: SafeResult) -> io::Result<usize> {
    result.map_err(|code| io::Error::other(zstd_safe::get_error_name(code)))
}

#[cfg(test)]
mod tests {
    use super::super::layout::Layout;
    use super::*;
    use camino::Utf8Path;
    use std::io::Read;

    const ALL: [Compression; 3] = [Compression::Gzip, Compression::Zstd, Compression::None];

    /// Four letters in disorder: short strings come again and again, so that a match which
    /// should not be found is.
    fn bytes(count: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let letter = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b"acgt"[(state >> 30) as usize]
        };
        std::iter::repeat_with(letter).take(count).collect()
    }

    /// The blob, and the digest of what is in it; written in steps of so many bytes.
    fn compressed(compression: Compression, threads: usize, bytes: &[u8], step: usize) -> (Vec<u8>, Sha256) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(Utf8Path::from_path(dir.path()).unwrap(), "x").unwrap();
        let fill = |pieces: &mut PieceWriter| {
            let mut steps = bytes.chunks(step);
            steps.try_for_each(|step| pieces.write_all(step)).context(Kind::Build, String::new)
        };
        let (blob, diff_id) =
            compress(compression.into(), threads, layout.add_blob().unwrap(), fill).unwrap();
        (std::fs::read(layout.blob_path(blob.finish().unwrap().digest)).unwrap(), diff_id)
    }

    /// The first member or frame, which has to be all there is.
    fn plain(compression: Compression, packed: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        let rest = match compression {
            Compression::Gzip => {
                let mut decoder = flate2::bufread::GzDecoder::new(packed);
                decoder.read_to_end(&mut plain).unwrap();
                decoder.into_inner()
            }
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(packed).unwrap().single_frame();
                decoder.read_to_end(&mut plain).unwrap();
                decoder.finish()
            }
            Compression::None => {
                plain.extend_from_slice(packed);
                &[]
            }
        };
        assert!(rest.is_empty(), "{compression:?}: {} bytes follow", rest.len());
        plain
    }

    #[test]
    fn the_bytes_do_not_depend_on_threads_or_writes() {
        let sizes = [0, 1, 512, PIECE / 2, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 7];
        let all = bytes(3 * PIECE + 7);
        for compression in ALL {
            for bytes in sizes.map(|size| &all[..size]) {
                let one = compressed(compression, 1, bytes, 1 << 16);
                assert!(plain(compression, &one.0) == bytes, "{compression:?}, {}", bytes.len());
                assert_eq!(one.1, Sha256::of(bytes));
                for (threads, step) in [(2, 10_007), (3, PIECE), (8, 2 * PIECE)] {
                    let again = compressed(compression, threads, bytes, step);
                    assert!(again == one, "{compression:?}, {} bytes, {threads} threads", bytes.len());
                }
            }
        }
    }

    #[test]
    fn noise_grows_by_little_and_comes_back() {
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(PIECE + 1000)
        .collect();
        for compression in ALL {
            let (packed, _) = compressed(compression, 1, &noise, PIECE);
            assert!(packed.len() < noise.len() + noise.len() / 1000, "{compression:?}: {}", packed.len());
            assert!(plain(compression, &packed) == noise, "{compression:?}");
            assert!(compressed(compression, 3, &noise, 4096).0 == packed, "{compression:?}");
        }
    }

    /// If an update of an encoder changes this, the digest of every image changes with it: say so in the
    /// changelog, and raise [`LAYER_FORMAT`], which is part of the plan.
    #[test]
    fn the_encoders_are_pinned() {
        assert_eq!(LAYER_FORMAT, 2, "the digests below belong to it");
        let bytes = bytes(PIECE * 3 / 2);
        for (compression, expected) in [
            (Compression::Gzip, "4a0977278fcbfd17e0ef5c19002f25e4e48e0f4ef9707b071034b12315c2865b"),
            (Compression::Zstd, "cd2f6611b36a4fc7d7d2f404a3f18fbbd2488e551aa43862dd35e46cd44c549f"),
        ] {
            let digest = Sha256::of(compressed(compression, 2, &bytes, PIECE).0);
            assert_eq!(digest.to_string(), expected, "{compression:?}");
        }
    }

    #[test]
    fn a_failure_ends_all_threads() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(Utf8Path::from_path(dir.path()).unwrap(), "x").unwrap();
        for compression in ALL {
            let fails = |pieces: &mut PieceWriter| {
                pieces.write_all(&bytes(PIECE * 3 / 2)).context(Kind::Build, String::new)?;
                Err(crate::util::error::Error::build("the reader failed"))
            };
            let error = compress(compression.into(), 3, layout.add_blob().unwrap(), fails).err().unwrap();
            assert!(error.to_string().contains("the reader failed"), "{error}");
        }
    }
}
