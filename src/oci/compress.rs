//! A layer's bytes on their way into its blob: cut into pieces, compressed by several threads, written in
//! their order. What comes out does not depend on how many threads there are.
//!
//! Each piece becomes a gzip member, or a zstd frame, of its own. Both formats say that several may follow each
//! other and mean all of their contents together (RFC 1952, section 2.2; RFC 8878, section 3).

use super::layout::BlobWriter;
use crate::util::digest::{Hasher, Sha256};
use crate::util::error::{Context, Kind, Result};
use libdeflater::{CompressionLvl, Compressor};
use serde::Serialize;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

/// Compression of the layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Read by everything.
    #[default]
    Gzip,
    /// Smaller and faster; needs containerd 1.5 or Docker 23.
    Zstd,
    /// A plain tar.
    None,
}

/// Changing this changes every digest. Larger pieces compress better by a fraction of a per cent.
const PIECE: usize = 1 << 20;
/// About as small as Go's gzip makes a kernel at its default, in less than half of its time; level 2 would save 8 %
/// and take a tenth longer, level 6 another 4 % and half as long again.
const GZIP_LEVEL: i32 = 1;
/// zstd's own default.
const ZSTD_LEVEL: i32 = 3;
/// More would have to wait for the one that reads, and each holds a few pieces in memory.
const MOST_THREADS: usize = 8;

/// Compresses what `fill` writes into `blob`, by up to `threads` threads. Returns the blob and the digest of
/// what was written, uncompressed.
pub(super) fn compress(
    compression: Compression,
    threads: usize,
    blob: BlobWriter,
    fill: impl FnOnce(&mut Pieces) -> Result<()>,
) -> Result<(BlobWriter, Sha256)> {
    let threads = threads.clamp(1, MOST_THREADS);
    let (work, todo) = sync_channel(threads);
    let (order, done) = sync_channel(2 * threads);
    let todo = Mutex::new(todo);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| compress_pieces(compression, &todo));
        }
        let writing = scope.spawn(move || write_in_order(&done, blob));
        let filled = {
            let mut pieces = Pieces { piece: Vec::new(), hasher: Hasher::default(), work, order };
            fill(&mut pieces).and_then(|()| pieces.finish())
        };
        let written = writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // Where nothing can be written any more, that is why nothing could be handed on.
        Ok((written.context(Kind::Build, || "cannot write a layer".into())?, filled?))
    })
}

/// A piece, and where to send it when it is compressed.
type Work = (Vec<u8>, SyncSender<io::Result<Vec<u8>>>);

/// Takes bytes, cuts them into pieces and hands these on.
pub(super) struct Pieces {
    piece: Vec<u8>,
    hasher: Hasher,
    work: SyncSender<Work>,
    order: SyncSender<Receiver<io::Result<Vec<u8>>>>,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.piece);
        self.hasher.update(&piece);
        let (result, compressed) = sync_channel(1);
        let handed_on = self.order.send(compressed).is_ok() && self.work.send((piece, result)).is_ok();
        if handed_on { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }

    fn finish(mut self) -> Result<Sha256> {
        if !self.piece.is_empty() {
            self.send().context(Kind::Build, || "cannot compress a layer".into())?;
        }
        Ok(self.hasher.finish())
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.capacity() == 0 {
            self.piece.reserve_exact(PIECE);
        }
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What each thread does until no more pieces come.
fn compress_pieces(compression: Compression, todo: &Mutex<Receiver<Work>>) {
    let level = CompressionLvl::new(GZIP_LEVEL).expect("a level that there is");
    let mut deflate = Compressor::new(level);
    loop {
        let next = todo.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((piece, result)) = next else { return };
        let compressed = match compression {
            Compression::Gzip => gzip(&mut deflate, &piece),
            Compression::Zstd => zstd(&piece),
            Compression::None => Ok(piece),
        };
        // Nobody waits for it where writing has failed.
        let _ = result.send(compressed);
    }
}

/// A member without a name and a date.
fn gzip(deflate: &mut Compressor, piece: &[u8]) -> io::Result<Vec<u8>> {
    let mut member = vec![0; deflate.gzip_compress_bound(piece.len())];
    let size = deflate.gzip_compress(piece, &mut member).map_err(io::Error::other)?;
    member.truncate(size);
    Ok(member)
}

/// A frame that says how large its content is, and has a checksum.
fn zstd(piece: &[u8]) -> io::Result<Vec<u8>> {
    let mut compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
    compressor.include_checksum(true)?;
    compressor.compress(piece)
}

fn write_in_order(
    done: &Receiver<Receiver<io::Result<Vec<u8>>>>,
    mut blob: BlobWriter,
) -> io::Result<BlobWriter> {
    for compressed in done {
        let compressed =
            compressed.recv().map_err(|_| io::Error::other("a thread that compresses has ended"))?;
        blob.write_all(&compressed?)?;
    }
    Ok(blob)
}

#[cfg(test)]
mod tests {
    use super::super::layout::Layout;
    use super::*;
    use camino::Utf8Path;
    use std::io::Read;

    /// A piece and a half of bytes that are neither all the same nor noise.
    fn bytes() -> Vec<u8> {
        (0..PIECE * 3 / 2).map(|at| ((at * at) >> 9) as u8 ^ (at / 1000) as u8).collect()
    }

    fn compressed(compression: Compression, threads: usize, bytes: &[u8]) -> (Vec<u8>, Sha256) {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(Utf8Path::from_path(dir.path()).unwrap(), "x").unwrap();
        let fill = |pieces: &mut Pieces| pieces.write_all(bytes).context(Kind::Build, String::new);
        let (blob, diff_id) = compress(compression, threads, layout.add_blob().unwrap(), fill).unwrap();
        (std::fs::read(layout.blob_path(blob.finish().unwrap().digest)).unwrap(), diff_id)
    }

    #[test]
    fn the_number_of_threads_does_not_matter() {
        let bytes = bytes();
        for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
            let one = compressed(compression, 1, &bytes);
            for threads in [2, 100] {
                assert!(compressed(compression, threads, &bytes) == one, "{compression:?}, {threads}");
            }
            let mut plain = Vec::new();
            match compression {
                Compression::Gzip => {
                    let mut members = flate2::read::MultiGzDecoder::new(&one.0[..]);
                    members.read_to_end(&mut plain).unwrap();
                }
                Compression::Zstd => plain = zstd::decode_all(&one.0[..]).unwrap(),
                Compression::None => plain.clone_from(&one.0),
            }
            assert!(plain == bytes && one.1 == Sha256::of(&bytes), "{compression:?}");
        }
    }

    /// If an update of an encoder changes this, the digest of every image changes with it: say so in the
    /// changelog, and raise the version, which is part of the plan.
    #[test]
    fn the_encoders_are_pinned() {
        let bytes = bytes();
        for (compression, expected) in [
            (Compression::Gzip, "ae6399919bd61c2d31a2b2e59613957b1f96702b9ed3c42d45a8b219e8c64552"),
            (Compression::Zstd, "79d50112813877dcbea5b8d51f50bce357e6c4bc399286da7b6b86ae56ca89f1"),
        ] {
            let digest = Sha256::of(compressed(compression, 2, &bytes).0);
            assert_eq!(digest.to_string(), expected, "{compression:?}");
        }
    }

    #[test]
    fn a_failure_ends_all_threads() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(Utf8Path::from_path(dir.path()).unwrap(), "x").unwrap();
        let blob = || layout.add_blob().unwrap();
        let fails = |pieces: &mut Pieces| {
            pieces.write_all(&bytes()).context(Kind::Build, String::new)?;
            Err(crate::util::error::Error::build("the reader failed"))
        };
        let error = compress(Compression::Gzip, 3, blob(), fails).err().unwrap();
        assert!(error.to_string().contains("the reader failed"), "{error}");
    }
}
