//! What is read of a patch itself, line by line, since a patch may be larger than memory should be: where one mail of a
//! mailbox ends, what diff says that it has left out, and lines that git would ignore.

use std::io::{self, BufRead, Read};

/// The number of bytes that are read of a line. A longer line, of a binary patch, comes in pieces.
const MAX_LINE: u64 = 64 << 10;
/// The limit of the lines that name files: git lists all of them at once. 90,000 files have 20 MB.
const MAX_NAMES: usize = 32 << 20;

/// Reads a text in pieces: lines with their ends, and long lines in parts.
pub(super) struct LinePieces<R> {
    reader: R,
    piece: Vec<u8>,
}

impl<R: BufRead> LinePieces<R> {
    pub(super) fn new(reader: R) -> Self {
        LinePieces { reader, piece: vec![b'\n'] }
    }

    /// The next piece, and whether a line begins with it.
    pub(super) fn next(&mut self) -> io::Result<Option<(&[u8], bool)>> {
        let begins = self.piece.ends_with(b"\n");
        self.piece.clear();
        self.reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut self.piece)?;
        Ok((!self.piece.is_empty()).then_some((&self.piece, begins)))
    }
}

/// Finds the parts of a patch that are applied one after the other: the mails of a mailbox, as `git am` does it, and
/// what `git diff` and `diff` have written in turn.
#[derive(Default)]
pub(super) struct PartFinder {
    /// Which program wrote the last `diff` line of this part.
    writer: Option<Writer>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    Git,
    Diff,
}

impl PartFinder {
    /// Whether a part starts with `line`. No line of a hunk looks like one of these.
    pub(super) fn starts_part(&mut self, line: &[u8]) -> bool {
        if line.starts_with(b"From ") {
            self.writer = None;
            return true;
        }
        let writer = if line.starts_with(b"diff --git ") {
            Writer::Git
        } else if line.starts_with(b"diff -") {
            Writer::Diff
        } else {
            return false;
        };
        self.writer.replace(writer).is_some_and(|last| last != writer)
    }
}

/// What the lines of a patch say.
#[derive(Default)]
pub(super) struct Scan {
    /// The first line by which diff says that it has left a file out, and how many there are.
    pub(super) omissions: Option<(String, usize)>,
    /// The first line that goes on with a hunk after the number of lines that its header gives. git ignores it.
    pub(super) surplus: Option<String>,
    /// The bytes of lines that name files.
    names: usize,
    /// How many lines the hunk still has.
    hunk: Option<Hunk>,
}

struct Hunk {
    old: u64,
    new: u64,
}

impl Scan {
    /// Reads all of a patch.
    pub(super) fn of(reader: impl BufRead) -> io::Result<Scan> {
        let mut scan = Scan::default();
        let mut pieces = LinePieces::new(reader);
        while let Some((piece, begins)) = pieces.next()? {
            if begins {
                scan.line(piece.strip_suffix(b"\n").unwrap_or(piece));
            }
        }
        Ok(scan)
    }

    /// Does it name more files than git's list of them should hold?
    pub(super) fn names_too_much(&self) -> bool {
        self.names > MAX_NAMES
    }

    fn line(&mut self, line: &[u8]) {
        const NAMES: [&[u8]; 5] = [b"diff ", b"+++ ", b"--- ", b"rename ", b"copy "];
        if NAMES.iter().any(|start| line.starts_with(start)) {
            self.names += line.len();
        }
        if let Some(line) = omission(line) {
            self.omissions.get_or_insert((line, 0)).1 += 1;
        }
        if self.surplus.is_none() && self.is_surplus(line) {
            self.surplus = Some(String::from_utf8_lossy(line).into_owned());
        }
    }

    fn is_surplus(&mut self, line: &[u8]) -> bool {
        let kind = line.first();
        if let Some(hunk) = hunk_header(line) {
            self.hunk = Some(hunk);
            return false;
        }
        // A line with a backslash is none of a file.
        let Some(Hunk { old, new }) = self.hunk.as_mut().filter(|_| kind != Some(&b'\\')) else {
            return false;
        };
        if *old > 0 || *new > 0 {
            *old -= u64::from(*old > 0 && kind != Some(&b'+'));
            *new -= u64::from(*new > 0 && kind != Some(&b'-'));
            return false;
        }
        // `-- ` begins a signature, `--- ` the next file.
        let is_removal = line.starts_with(b"-") && !line.starts_with(b"--");
        let is_addition = line.starts_with(b"+") && !line.starts_with(b"+++ ");
        self.hunk = None;
        is_removal || is_addition
    }
}

/// The line, if diff says by it that it has left a file out.
fn omission(line: &[u8]) -> Option<String> {
    let starts: [&[u8]; 3] = [b"Only in ", b"Binary files ", b"File "];
    let line = starts.iter().any(|start| line.starts_with(start)).then(|| String::from_utf8_lossy(line))?;
    let is_omission = match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["Only", "in", dir, _] => dir.ends_with(':'),
        ["Binary", "files", _, "and", _, "differ"] => true,
        ["File", _, "is", "a", ..] => line.contains(" while file "),
        _ => false,
    };
    is_omission.then(|| line.into_owned())
}

/// The numbers of old and new lines of `@@ -1,3 +1,4 @@`.
fn hunk_header(line: &[u8]) -> Option<Hunk> {
    let line = String::from_utf8_lossy(line.strip_prefix(b"@@ -")?);
    let (old, rest) = line.split_once(" +")?;
    let (new, _) = rest.split_once(" @@")?;
    let count = |range: &str| range.split_once(',').map_or(Some(1), |(_, count)| count.parse().ok());
    Some(Hunk { old: count(old)?, new: count(new)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_come_in_pieces() {
        let long = vec![b'x'; MAX_LINE as usize + 5];
        let text = [b"a\n", &long[..], b"\nFrom b"].concat();
        let mut pieces = LinePieces::new(&text[..]);
        let mut lengths = Vec::new();
        while let Some((piece, begins)) = pieces.next().unwrap() {
            lengths.push((piece.len(), begins));
        }
        assert_eq!(lengths, [(2, true), (MAX_LINE as usize, true), (6, false), (6, true)]);
    }

    #[test]
    fn names_are_counted() {
        let line = format!("+++ b/{}\n", "x".repeat(1000));
        let scan = |count: usize| Scan::of(line.repeat(count).as_bytes()).unwrap();
        assert!(!scan(1000).names_too_much() && scan(40_000).names_too_much());
    }
}
