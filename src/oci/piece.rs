//! A layer is cut into pieces, which several threads compress.

/// The size of a piece.
pub(super) const PIECE: usize = 1 << 20;

/// The distance that deflate can refer back.
pub(super) const WINDOW: usize = 32 << 10;

/// Consecutive bytes of a layer.
#[derive(Default)]
pub(super) struct Piece {
    /// The end of the previous piece, and the piece.
    pub(super) buffer: Vec<u8>,
    /// The start of the piece in the buffer.
    start: usize,
    pub(super) is_last: bool,
}

impl Piece {
    /// Returns the bytes before the piece, at most [`WINDOW`] of them.
    pub(super) fn dictionary(&self) -> &[u8] {
        &self.buffer[..self.start]
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Returns the piece after this one, which is still empty.
    pub(super) fn next(&self) -> Piece {
        let dictionary = &self.buffer[self.buffer.len().saturating_sub(WINDOW)..];
        let mut buffer = Vec::with_capacity(dictionary.len() + PIECE);
        buffer.extend_from_slice(dictionary);
        Piece { start: dictionary.len(), buffer, is_last: false }
    }
}
