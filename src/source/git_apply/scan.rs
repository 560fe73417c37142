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
    /// The first line with a change that git would ignore.
    pub(super) ignored: Option<Ignored>,
    /// The bytes of lines that name files.
    names: usize,
    /// How many lines the hunk still has.
    hunk: Option<Hunk>,
    place: Place,
}

/// A line with a change that git would ignore.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ignored {
    /// It goes on with a hunk after the number of lines that the hunk's header gives.
    AfterHunk(String),
    /// A `diff --git` line without a change after it.
    NoChange(String),
    /// A rename, a copy or a mode without the `diff --git` line of its file.
    OutsideHeader(String),
}

struct Hunk {
    old: u64,
    new: u64,
}

/// Where in a patch a line is.
#[derive(Default)]
enum Place {
    /// In a description, where every line may occur.
    #[default]
    Text,
    /// After this `diff --git` line.
    HeaderStart(String),
    /// After a line of a header that `diff --git` has begun.
    Header,
    /// In or after the hunks of a file.
    Hunks,
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
        // The last header needs a change as well.
        scan.header_line(b"");
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
        if self.is_surplus(line) {
            self.ignored.get_or_insert_with(|| Ignored::AfterHunk(text_of(line)));
        }
        self.header_line(line);
    }

    /// Finds headers that git would ignore: those without a change, and changes without their header.
    fn header_line(&mut self, line: &[u8]) {
        const CHANGES: [&str; 8] = [
            "old mode ",
            "new mode ",
            "deleted file mode ",
            "new file mode ",
            "copy from ",
            "copy to ",
            "rename from ",
            "rename to ",
        ];
        const DETAILS: [&str; 3] = ["index ", "similarity index ", "dissimilarity index "];
        let starts_with = |start: &&str| line.starts_with(start.as_bytes());
        let is_change = CHANGES.iter().any(starts_with);
        let is_header = is_change || DETAILS.iter().any(starts_with);
        let (place, ignored) = match std::mem::take(&mut self.place) {
            _ if line.starts_with(b"diff --git ") => (Place::HeaderStart(text_of(line)), None),
            Place::HeaderStart(_) | Place::Header if is_header => (Place::Header, None),
            Place::HeaderStart(start) if !line.starts_with(b"--- ") => {
                (Place::Hunks, Some(Ignored::NoChange(start)))
            }
            Place::Header | Place::Hunks if line.starts_with(b"-- ") || line.starts_with(b"From ") => {
                (Place::Text, None)
            }
            Place::Hunks if is_change => (Place::Hunks, Some(Ignored::OutsideHeader(text_of(line)))),
            Place::Text if !line.starts_with(b"--- ") => (Place::Text, None),
            _ => (Place::Hunks, None),
        };
        self.place = place;
        self.ignored = self.ignored.take().or(ignored);
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

fn text_of(line: &[u8]) -> String {
    String::from_utf8_lossy(line).into_owned()
}

/// The line, if diff says by it that it has left a file out.
fn omission(line: &[u8]) -> Option<String> {
    let starts: [&[u8]; 3] = [b"Only in ", b"Binary files ", b"File "];
    let line = starts.iter().any(|start| line.starts_with(start)).then(|| text_of(line))?;
    let is_omission = match line.split_whitespace().collect::<Vec<_>>()[..] {
        ["Only", "in", dir, _] => dir.ends_with(':'),
        ["Binary", "files", _, "and", _, "differ"] => true,
        ["File", _, "is", "a", ..] => line.contains(" while file "),
        _ => false,
    };
    is_omission.then_some(line)
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
