//! Searches a stream that is read in chunks.

use memchr::memmem;

/// Finds the first text that follows `needle` and that `fits`. A text ends before a NUL, before a
/// line feed, or after `limit` bytes.
pub(super) struct Finder {
    needle: memmem::Finder<'static>,
    fits: fn(&[u8]) -> bool,
    limit: usize,
    /// The end of the stream so far, which may be the beginning of a match.
    tail: Vec<u8>,
    found: Option<Vec<u8>>,
}

/// Whether the stream has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Open,
    Ended,
}

impl Finder {
    pub(super) fn new(needle: &'static [u8], fits: fn(&[u8]) -> bool, limit: usize) -> Finder {
        Finder { needle: memmem::Finder::new(needle), fits, limit, tail: Vec::new(), found: None }
    }

    pub(super) fn feed(&mut self, chunk: &[u8]) {
        if self.found.is_none() {
            self.tail.extend_from_slice(chunk);
            self.search(Stream::Open);
        }
    }

    /// Ends the stream, and returns the text without the needle.
    pub(super) fn finish(mut self) -> Option<Vec<u8>> {
        if self.found.is_none() {
            self.search(Stream::Ended);
        }
        self.found
    }

    fn search(&mut self, stream: Stream) {
        let mut from = 0;
        while let Some(at) = self.needle.find(&self.tail[from..]).map(|at| from + at) {
            let text = at + self.needle.needle().len();
            let rest = &self.tail[text..];
            let end = rest.iter().take(self.limit).position(|&byte| byte == 0 || byte == b'\n');
            if end.is_none() && rest.len() < self.limit && stream == Stream::Open {
                self.tail.drain(..at);
                return;
            }
            let found = &rest[..end.unwrap_or(self.limit.min(rest.len()))];
            if (self.fits)(found) {
                self.found = Some(found.to_owned());
                self.tail = Vec::new();
                return;
            }
            from = text;
        }
        // The end of this chunk may be the first part of the needle.
        let overlap = (self.needle.needle().len() - 1).min(self.tail.len() - from);
        self.tail.drain(..self.tail.len() - overlap);
    }
}

/// Keeps a few small ranges of a stream.
#[derive(Default)]
pub(super) struct Ranges {
    at: u64,
    ranges: Vec<Range>,
}

struct Range {
    offset: u64,
    length: usize,
    bytes: Vec<u8>,
}

impl Ranges {
    /// Takes the ranges as offset and length, in any order. They may overlap.
    pub(super) fn new(ranges: impl IntoIterator<Item = (u64, usize)>) -> Ranges {
        let ranges = ranges.into_iter().map(|(offset, length)| Range { offset, length, bytes: Vec::new() });
        Ranges { at: 0, ranges: ranges.collect() }
    }

    pub(super) fn feed(&mut self, chunk: &[u8]) {
        let end = self.at + chunk.len() as u64;
        for Range { offset, length, bytes } in &mut self.ranges {
            let next = *offset + bytes.len() as u64;
            let missing = *length - bytes.len();
            if missing > 0 && (self.at..end).contains(&next) {
                let from = usize::try_from(next - self.at).expect("inside the chunk");
                bytes.extend_from_slice(&chunk[from..chunk.len().min(from.saturating_add(missing))]);
            }
        }
        self.at = end;
    }

    /// Returns whether all ranges have been read.
    pub(super) fn is_complete(&self) -> bool {
        self.ranges.iter().all(|range| range.bytes.len() == range.length)
    }

    /// Returns the bytes of the ranges, in the order of `new`. Those behind the end
    /// of the stream are missing.
    pub(super) fn finish(self) -> Vec<Vec<u8>> {
        self.ranges.into_iter().map(|range| range.bytes).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_wherever_the_chunks_end() {
        let stream = b"key=..key=no\nsome more key=yes and so on\0key=later";
        let fits: fn(&[u8]) -> bool = |text| text.starts_with(b"yes");
        for size in 1..stream.len() {
            let mut finder = Finder::new(b"key=", fits, 20);
            stream.chunks(size).for_each(|chunk| finder.feed(chunk));
            assert_eq!(finder.finish().as_deref(), Some(&b"yes and so on"[..]), "chunks of {size}");
        }
        let found = |stream: &[u8], limit| {
            let mut finder = Finder::new(b"key=", |_| true, limit);
            finder.feed(stream);
            finder.finish()
        };
        assert_eq!(found(b"a key=long text", 4).as_deref(), Some(&b"long"[..]));
        assert_eq!(found(b"a key=end", 40).as_deref(), Some(&b"end"[..]));
        assert_eq!(found(b"a key", 40), None);
    }

    #[test]
    fn ranges_are_kept_wherever_the_chunks_end() {
        let stream: Vec<u8> = (0..100).collect();
        for size in 1..stream.len() {
            let mut ranges = Ranges::new([(90, 20), (0, 3), (10, 5), (12, 1), (50, 0)]);
            for chunk in stream.chunks(size) {
                assert!(!ranges.is_complete());
                ranges.feed(chunk);
            }
            let bytes = ranges.finish();
            assert_eq!(bytes[0], &stream[90..], "chunks of {size}: what is not there is missing");
            assert_eq!(bytes[1..], [vec![0, 1, 2], vec![10, 11, 12, 13, 14], vec![12], vec![]]);
        }
    }
}
