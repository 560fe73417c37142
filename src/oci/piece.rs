//! What a layer is cut into to be compressed.

/// Each thread compresses pieces of this size.
pub(super) const PIECE: usize = 1 << 20;

/// As far back as deflate can refer.
pub(super) const WINDOW: usize = 32 << 10;

/// Consecutive bytes of a layer.
#[derive(Default)]
pub(super) struct Piece {
    /// The end of the piece before it, and the piece.
    pub(super) buffer: Vec<u8>,
    /// Where the piece begins in the buffer.
    start: usize,
    pub(super) is_last: bool,
}

impl Piece {
    /// The bytes before the piece, at most [`WINDOW`] of them.
    pub(super) fn dictionary(&self) -> &[u8] {
        &self.buffer[..self.start]
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// The piece after this one, still empty.
    pub(super) fn next(&self) -> Piece {
        let dictionary = &self.buffer[self.buffer.len().saturating_sub(WINDOW)..];
        let mut buffer = Vec::with_capacity(dictionary.len() + PIECE);
        buffer.extend_from_slice(dictionary);
        Piece { start: dictionary.len(), buffer, is_last: false }
    }
}
