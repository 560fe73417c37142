//! An archive on its way: received and hashed on the calling thread, decompressed on a second one,
//! unpacked on a third and held against its signature on a fourth, with bounded buffers between them,
//! so that all of it takes hardly longer than the slowest part.

use super::archive::{XZ_MEMORY, decompress, unpack_tar};
use super::context::check_digest;
use super::tree_manifest::TreeManifest;
use super::tree_writer::TreeWriter;
use crate::host::process;
use crate::report::{Count, PhaseGuard, Unit};
use crate::util::digest::{Hasher, HashingWriter, Sha256};
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::openpgp::{PendingSignature, Signer};
use camino::Utf8Path;
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ScopedJoinHandle;

/// At most so many bytes are handed on at a time.
const CHUNK: usize = 128 << 10;
/// A slow line's bytes are handed on sooner, so that it is seen how far they are.
const MIN_CHUNK: usize = 64 << 10;
/// How many chunks may wait between two threads: 1 MiB in each pipe at most.
const QUEUE_LENGTH: usize = 8;
/// 201 MB for a kernel, in 3 seconds of one core.
const ZSTD_LEVEL: i32 = 3;
/// Real kernel archives hold 1.4 GB; the tree's own limit is on what is written, this one on what is read.
const MAX_BYTES: u64 = 10 << 30;

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
    /// A signature over the uncompressed archive.
    pub signature: Option<&'a PendingSignature<'a>>,
    /// How many threads may decompress, where the archive is made for it.
    pub threads: usize,
    /// Where to put a copy that unpacks in a tenth of the time.
    pub copy: Option<&'a Utf8Path>,
}

/// What was unpacked.
pub(super) struct Unpacked {
    pub sha256: Sha256,
    pub bytes: u64,
    /// Modification time of the top Makefile.
    pub date: u64,
    /// Who signed it.
    pub signer: Option<Signer>,
    /// What the tree holds.
    pub contents: TreeManifest,
    /// The digest of the copy.
    pub copy: Option<Sha256>,
}

/// Unpacks a compressed tarball into `tree`, and checks that its digest is the expected one and that
/// its signature holds: on any error the tree must be thrown away.
pub(super) fn unpack<R: Read>(
    stream: Stream<'_, R>,
    tree: &Utf8Path,
    phase: &PhaseGuard<'_>,
) -> Result<Unpacked> {
    let Stream { name, reader, total, expected, signature, threads, copy } = stream;
    let item = Mutex::new(String::new());
    let consumed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (compressed, compressed_out) = pipe(Some(&consumed));
        let (tar, tar_out) = pipe(None);
        let mut uncompressed = Feed { takers: vec![tar] };
        let proving = signature.map(|signature| {
            let (signed, signed_out) = pipe(None);
            uncompressed.takers.push(signed);
            scope.spawn(move || signature.verify(signed_out))
        });
        let copying = copy.map(|copy| {
            let (again, again_out) = pipe(None);
            uncompressed.takers.push(again);
            scope.spawn(move || write_copy(again_out, copy))
        });
        let (writer_in, writer_out) = sync_channel::<TreeWriter>(1);
        let unpacking = scope.spawn(|| {
            let written = writer_in;
            let mut tar = tar_out;
            let progress =
                |path: &str| path.clone_into(&mut item.lock().unwrap_or_else(PoisonError::into_inner));
            let (writer, date) = unpack_tar(name, &mut tar, tree, progress)?;
            let _ = written.send(writer);
            Ok(date)
        });
        let decompressing = scope.spawn(|| {
            let writer_out = writer_out;
            let decompressed = decompress_into(name, compressed_out, &consumed, threads, uncompressed);
            // The list of what the tree holds has room in the decoder's memory, which is this thread's own: 10 MB.
            (decompressed, writer_out.recv().ok().map(TreeWriter::finish))
        });
        let received = receive(reader, Feed { takers: vec![compressed] }, |done| {
            let item = item.lock().unwrap_or_else(PoisonError::into_inner);
            phase.progress(Count { done, total, unit: Unit::Bytes, item: &item });
        });
        let (decompressed, contents) = join(decompressing);
        let unpacked: Result<u64> = join(unpacking);
        let proven = proving.map(join).transpose();
        let copied = copying.map(join).transpose();

        // What went wrong first explains the rest: the line, then this machine, then other bytes than
        // the pinned ones, then what those bytes are.
        let (sha256, bytes) = received.context(Kind::Fetch, || format!("cannot read {name}"))?;
        let unpacked = match unpacked {
            Err(error) if error.kind != Kind::Fetch => return Err(error),
            unpacked => unpacked,
        };
        if let Some(expected) = expected {
            check_digest(name, expected, sha256).map_err(|error| {
                error.hint("the mirror may be stale or the file damaged; try another --mirror")
            })?;
        }
        decompressed?;
        // A stream that broke off in the unpacker has still been read to its end for the signature.
        let signer = proven?;
        let date = unpacked?;
        let contents = contents.expect("it was unpacked")?;
        Ok(Unpacked { sha256, bytes, date, signer, contents, copy: copied? })
    })
}

/// Compresses all of `tar` with zstd, which is quickly undone, into the new file `path`.
fn write_copy(tar: impl Read, path: &Utf8Path) -> Result<Sha256> {
    let message = || format!("cannot write {path}");
    let mut file = HashingWriter::new(File::create_new(path).context(Kind::Build, message)?);
    zstd::stream::copy_encode(tar, &mut file, ZSTD_LEVEL).context(Kind::Build, message)?;
    Ok(file.finish())
}

/// The thread's result; that it panicked is a fault of ours, and told as what it is.
fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Reads all of `reader`, whether or not somebody still takes it: the digest is that of all bytes.
fn receive(mut reader: impl Read, mut takers: Feed, progress: impl Fn(u64)) -> io::Result<(Sha256, u64)> {
    let (mut hasher, mut done) = (Hasher::default(), 0);
    loop {
        process::check().map_err(io::Error::other)?;
        let chunk = read_chunk(&mut reader, MIN_CHUNK)?;
        if chunk.is_empty() {
            return Ok((hasher.finish(), done));
        }
        hasher.update(&chunk);
        done += chunk.len() as u64;
        progress(done);
        takers.send(chunk);
    }
}

/// Decompresses until the end, or until nobody takes it any more.
fn decompress_into(
    name: &str,
    compressed: PipeReader<'_>,
    consumed: &AtomicU64,
    threads: usize,
    mut takers: Feed,
) -> Result<()> {
    let mut reader = decompress(name, compressed, threads)?;
    let mut done = 0;
    loop {
        let chunk = read_chunk(&mut reader, CHUNK).map_err(|error| {
            if wants_too_much_memory(&error) {
                return Error::fetch(format!(
                    "{name}: asks for more memory than the limit of {} MiB to be decompressed",
                    XZ_MEMORY >> 20
                ));
            }
            let at = consumed.load(Ordering::Relaxed);
            let why = Error::fetch(format!("{name}: corrupt archive, at byte {at} of what was sent"));
            why.caused_by(error).hint("fetch it again; if it stays so, try another --mirror")
        })?;
        done += chunk.len() as u64;
        if done > MAX_BYTES {
            return Err(Error::fetch(format!("{name}: more than {} GiB when decompressed", MAX_BYTES >> 30)));
        }
        if chunk.is_empty() || !takers.send(chunk) {
            return Ok(());
        }
    }
}

fn wants_too_much_memory(error: &io::Error) -> bool {
    let xz = error.get_ref().and_then(|inner| inner.downcast_ref::<liblzma::stream::Error>());
    // zstd has only words for it.
    matches!(xz, Some(liblzma::stream::Error::MemLimit)) || error.to_string().contains("too much memory")
}

/// The next chunk, of `enough` bytes at least unless it is the last; empty at the end.
fn read_chunk(reader: &mut impl Read, enough: usize) -> io::Result<Vec<u8>> {
    let mut chunk = vec![0; CHUNK];
    let mut filled = 0;
    while filled < enough {
        match reader.read(&mut chunk[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    chunk.truncate(filled);
    Ok(chunk)
}

type Chunk = Arc<Vec<u8>>;

/// The writing ends of pipes that all get the same.
struct Feed {
    takers: Vec<SyncSender<Chunk>>,
}

impl Feed {
    /// Hands a chunk to everyone who still listens, waiting for the slowest. Is there anyone left?
    fn send(&mut self, chunk: Vec<u8>) -> bool {
        let chunk = Arc::new(chunk);
        self.takers.retain(|taker| taker.send(chunk.clone()).is_ok());
        !self.takers.is_empty()
    }
}

fn pipe(consumed: Option<&AtomicU64>) -> (SyncSender<Chunk>, PipeReader<'_>) {
    let (sender, receiver) = sync_channel(QUEUE_LENGTH);
    (sender, PipeReader { receiver, chunk: Chunk::default(), at: 0, consumed })
}

/// The reading end; at its end when the writing end is gone.
struct PipeReader<'a> {
    receiver: Receiver<Chunk>,
    chunk: Chunk,
    at: usize,
    /// Counts what has been read.
    consumed: Option<&'a AtomicU64>,
}

impl BufRead for PipeReader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.chunk.len() {
            (self.chunk, self.at) = (self.receiver.recv().unwrap_or_default(), 0);
        }
        Ok(&self.chunk[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount;
        if let Some(consumed) = self.consumed {
            consumed.fetch_add(amount as u64, Ordering::Relaxed);
        }
    }
}

impl Read for PipeReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}
