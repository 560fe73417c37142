//! Writes one gzip member by several threads, as pigz does. Each piece is deflated by itself, with the end of
//! the previous piece as its dictionary, and ends at a byte boundary, so that the next one can follow.

use super::piece::Piece;
use crate::util::threads;
use flate2::{Compress, Compression, Crc, FlushCompress};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

/// A header without name and date, for an unknown system (RFC 1952, section 2.3).
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

struct Deflated {
    bytes: Vec<u8>,
    crc: Crc,
}

/// A piece to compress, and the channel for the result.
struct Work {
    piece: Piece,
    result: SyncSender<io::Result<Deflated>>,
}

/// Writes `pieces` to `output`, compressed by `threads` threads.
pub(super) fn write<W: Write>(
    pieces: Receiver<Piece>,
    threads: usize,
    level: u32,
    mut output: W,
) -> io::Result<W> {
    let (work, todo) = sync_channel(threads);
    let todo = Mutex::new(todo);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            threads::spawn_scoped(scope, || deflate_pieces(level, &todo)).map_err(io::Error::other)?;
        }
        output.write_all(&HEADER)?;
        let mut crc = Crc::new();
        let mut append = |deflated: Receiver<io::Result<Deflated>>| {
            let deflated =
                deflated.recv().map_err(|_| io::Error::other("a compressing thread has ended"))??;
            crc.combine(&deflated.crc);
            output.write_all(&deflated.bytes)
        };
        let mut waiting = VecDeque::new();
        for piece in pieces {
            if waiting.len() == 2 * threads {
                waiting.pop_front().map_or(Ok(()), &mut append)?;
            }
            let (result, deflated) = sync_channel(1);
            work.send(Work { piece, result }).expect("the threads wait for work");
            waiting.push_back(deflated);
        }
        drop(work);
        waiting.into_iter().try_for_each(append)?;
        output.write_all(&crc.sum().to_le_bytes())?;
        output.write_all(&crc.amount().to_le_bytes())?;
        Ok(output)
    })
}

/// Compresses pieces until no more come.
fn deflate_pieces(level: u32, todo: &Mutex<Receiver<Work>>) {
    loop {
        let next = todo.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Work { piece, result }) = next else { return };
        // If writing has failed, nobody waits for the result.
        let _ = result.send(deflate(level, &piece));
    }
}

fn deflate(level: u32, piece: &Piece) -> io::Result<Deflated> {
    // Used once. After `reset` its window still has bytes of another piece, which can change the output.
    let mut compressor = Compress::new(Compression::new(level), false);
    if !piece.dictionary().is_empty() {
        compressor.set_dictionary(piece.dictionary())?;
    }
    let flush = if piece.is_last { FlushCompress::Finish } else { FlushCompress::Sync };
    let room = piece.bytes().len() / 64 + 64;
    let mut bytes = Vec::with_capacity(piece.bytes().len());
    loop {
        bytes.reserve(room);
        let done = compressor.total_in() as usize;
        compressor.compress_vec(&piece.bytes()[done..], &mut bytes, flush)?;
        // By zlib's manual, a flush is complete if there is room left.
        if bytes.len() < bytes.capacity() {
            break;
        }
    }
    let mut crc = Crc::new();
    crc.update(piece.bytes());
    Ok(Deflated { bytes, crc })
}
