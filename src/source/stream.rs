//! Unpacks an archive while it arrives. The calling thread receives and hashes it. Other threads
//! decompress it, unpack it and check its signature, with bounded buffers in between. This takes as
//! long as the slowest part.

use super::archive::{HardLinks, XZ_MEMORY, decompress, unpack_tar};
use super::context::check_digest;
use super::tree_manifest::TreeManifest;
use super::tree_writer::TreeWriter;
use crate::host::process;
use crate::report::{Count, PhaseGuard, Unit};
use crate::util::digest::{Hasher, HashingWriter, Sha256};
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::openpgp::{PendingSignature, Signer};
use crate::util::threads;
use camino::Utf8Path;
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ScopedJoinHandle;

/// The largest chunk between two threads.
const CHUNK: usize = 128 << 10;
/// The smallest chunk of the download, which is smaller to show the progress of a slow connection.
const MIN_CHUNK: usize = 64 << 10;
/// The number of chunks that may wait between two threads, which is at most 1 MiB in each pipe.
const QUEUE_LENGTH: usize = 8;
/// The level makes 201 MB of a kernel, in 3 seconds of one core.
const ZSTD_LEVEL: i32 = 3;
/// The limit of decompressed bytes. Kernel archives have 1.4 GB. The tree has its own limit of written bytes.
const MAX_BYTES: u64 = 10 << 30;

/// An archive that is being received.
pub(super) struct Stream<'a, R> {
    /// The name in errors.
    pub name: &'a str,
    pub reader: R,
    /// The number of compressed bytes, if it is known.
    pub total: Option<u64>,
    /// The digest that the compressed bytes must have.
    pub expected: Option<Sha256>,
    /// A signature over the uncompressed archive.
    pub signature: Option<&'a PendingSignature<'a>>,
    pub hard_links: HardLinks,
    /// The number of threads that may decompress an archive with several blocks.
    pub threads: usize,
    /// Where to write a copy that unpacks in a tenth of the time.
    pub copy: Option<&'a Utf8Path>,
}

pub(super) struct Unpacked {
    pub sha256: Sha256,
    /// The size of the archive.
    pub bytes: u64,
    /// The modification time of the top Makefile.
    pub date: u64,
    pub signer: Option<Signer>,
    pub contents: TreeManifest,
    /// The digest of the copy.
    pub copy: Option<Sha256>,
}

/// Unpacks a compressed tarball into `tree`, and checks its digest and signature. After an error,
/// the tree must be removed.
pub(super) fn unpack<R: Read>(
    stream: Stream<'_, R>,
    tree: &Utf8Path,
    phase: &PhaseGuard<'_>,
) -> Result<Unpacked> {
    let (name, expected) = (stream.name, stream.expected);
    let results = run_threads(stream, tree, phase)?;
    // The first failure causes the others: the connection, then this machine, then the digest, then the
    // content.
    let (sha256, bytes) = results.received.context(Kind::Fetch, || format!("cannot read {name}"))?;
    let date = match results.date {
        Err(error) if error.kind != Kind::Fetch => return Err(error),
        date => date,
    };
    if let Some(expected) = expected {
        check_digest(name, expected, sha256).map_err(|error| {
            error.hint("the mirror may be stale or the file damaged; try another --mirror")
        })?;
    }
    results.decompressed?;
    // If only the unpacker failed, the signature has been checked to the end of the stream.
    let signer = results.signer?;
    let date = date?;
    let contents = results.contents.expect("it was unpacked")?;
    Ok(Unpacked { sha256, bytes, date, signer, contents, copy: results.copy? })
}

/// The results of all threads.
struct Results {
    received: io::Result<(Sha256, u64)>,
    decompressed: Result<()>,
    /// `None` if the unpacker failed.
    contents: Option<Result<TreeManifest>>,
    date: Result<u64>,
    signer: Result<Option<Signer>>,
    copy: Result<Option<Sha256>>,
}

fn run_threads<R: Read>(stream: Stream<'_, R>, tree: &Utf8Path, phase: &PhaseGuard<'_>) -> Result<Results> {
    let Stream { name, reader, total, signature, hard_links, threads, copy, .. } = stream;
    let item = Mutex::new(String::new());
    let consumed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (compressed, compressed_out) = pipe(Some(&consumed));
        let (tar, tar_out) = pipe(None);
        let mut uncompressed = Feed { takers: vec![tar] };
        let verifying = signature.map(|signature| {
            let (signed, signed_out) = pipe(None);
            uncompressed.takers.push(signed);
            threads::spawn_scoped(scope, move || signature.verify(signed_out))
        });
        let copying = copy.map(|copy| {
            let (again, again_out) = pipe(None);
            uncompressed.takers.push(again);
            threads::spawn_scoped(scope, move || write_copy(again_out, copy))
        });
        // After an error the ends of all pipes are dropped, so that the other threads end.
        let (verifying, copying) = (verifying.transpose()?, copying.transpose()?);
        let (writer_in, writer_out) = sync_channel::<TreeWriter>(1);
        let unpacking = threads::spawn_scoped(scope, || {
            let written = writer_in;
            let mut tar = tar_out;
            let progress =
                |path: &str| path.clone_into(&mut item.lock().unwrap_or_else(PoisonError::into_inner));
            let (writer, date) = unpack_tar(name, &mut tar, tree, hard_links, progress)?;
            let _ = written.send(writer);
            Ok(date)
        })?;
        let decompressing = threads::spawn_scoped(scope, || {
            let writer_out = writer_out;
            let decompressed = decompress_into(name, compressed_out, &consumed, threads, uncompressed);
            // The list of the tree's files takes 10 MB. Here it reuses the memory of the decoder, which is
            // this thread's.
            (decompressed, writer_out.recv().ok().map(TreeWriter::finish))
        })?;
        let received = receive(reader, Feed { takers: vec![compressed] }, |done| {
            let item = item.lock().unwrap_or_else(PoisonError::into_inner);
            phase.progress(Count {
                done,
                total,
                estimated: false,
                work: None,
                unit: Unit::Bytes,
                item: &item,
            });
        });
        let (decompressed, contents) = join(decompressing);
        Ok(Results {
            received,
            decompressed,
            contents,
            date: join(unpacking),
            signer: verifying.map(join).transpose(),
            copy: copying.map(join).transpose(),
        })
    })
}

/// Compresses all of `tar` with zstd, which is fast to decompress, into the new file `path`.
fn write_copy(tar: impl Read, path: &Utf8Path) -> Result<Sha256> {
    let write = || {
        let mut file = HashingWriter::new(File::create_new(path)?);
        zstd::stream::copy_encode(tar, &mut file, ZSTD_LEVEL)?;
        Ok::<_, io::Error>(file.finish())
    };
    write().context(Kind::Build, || format!("cannot write {path}"))
}

/// Returns the result of a thread. Resumes its panic.
fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Reads all of `reader`, since the digest covers all bytes, even if nobody listens any more.
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

/// Decompresses until the end, or until nobody listens any more.
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
                let limit = XZ_MEMORY >> 20;
                return Error::fetch(format!(
                    "{name}: decompression needs more memory than the limit of {limit} MiB"
                ));
            }
            let at = consumed.load(Ordering::Relaxed);
            Error::fetch(format!("{name}: corrupt archive, at byte {at}"))
                .caused_by(error)
                .hint("fetch it again; if the error remains, try another --mirror")
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
    // zstd has no error code for it.
    matches!(xz, Some(liblzma::stream::Error::MemLimit)) || error.to_string().contains("too much memory")
}

/// Reads a chunk of at least `enough` bytes, unless it is the last one. The chunk is empty at the end.
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

/// The writing ends of pipes that all get the same bytes.
struct Feed {
    takers: Vec<SyncSender<Chunk>>,
}

impl Feed {
    /// Sends a chunk to all readers, and waits for the slowest. Returns whether any reader is left.
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

/// The reading end of a pipe, which ends when the writing end is dropped.
struct PipeReader<'a> {
    receiver: Receiver<Chunk>,
    chunk: Chunk,
    at: usize,
    /// Counts the bytes that have been read.
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
