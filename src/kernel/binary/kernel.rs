//! A kernel file: its format, its PVH note, its build id, and the banner and the config inside it.

use super::scan::{Finder, Ranges};
use super::{Format, ikconfig, read_u16, read_u32, read_u64};
use std::io::{self, Read};

/// Linkers put the program headers right behind the ELF header.
const HEAD: usize = 64 << 10;
/// All notes of a kernel are smaller together.
const MAX_NOTES: usize = 1 << 20;
/// XEN_ELFNOTE_PHYS32_ENTRY of `include/xen/interface/elfnote.h`, the type of Xen's note with the PVH entry.
const PHYS32_ENTRY: u32 = 18;
/// NT_GNU_BUILD_ID of `elf.h`, the type of GNU's note with the build id.
const GNU_BUILD_ID: u32 = 3;
/// The banner has the release, the builder, the compiler and the date.
const MAX_BANNER: usize = 1024;

/// Whether a kernel can be entered by PVH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pvh {
    /// Loaders find Xen's PHYS32_ENTRY among the ELF notes.
    Entry,
    /// Loaders do not find it, or the format has no notes.
    NoEntry,
}

/// The content of the headers and notes of a kernel file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub format: Format,
    pub pvh: Pvh,
    /// GNU's build id, in hexadecimal digits.
    pub build_id: Option<String>,
}

/// The metadata of a kernel file.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub identity: Identity,
    /// The first line that it prints, `Linux version 6.1.7 (user@host) (compiler) #1 SMP date`.
    pub banner: Option<String>,
    /// The `.config` inside it (CONFIG_IKCONFIG).
    pub config: Option<String>,
    /// What contradicts its own headers, for people.
    pub problems: Vec<String>,
}

/// Reads the headers and notes of a file, which may be of any format.
///
/// # Errors
///
/// Reading fails, or an ELF file's headers or notes are not where they should be.
pub fn identify(mut reader: impl Read) -> io::Result<Identity> {
    let mut headers = Headers::default();
    let mut chunk = vec![0; HEAD];
    while !headers.is_complete() {
        match reader.read(&mut chunk)? {
            0 => break,
            read => headers.feed(&chunk[..read]),
        }
    }
    match headers.finish() {
        (identity, None) => Ok(identity),
        (_, Some(problem)) => Err(io::Error::other(problem)),
    }
}

impl Kernel {
    pub fn read(reader: impl Read) -> io::Result<Kernel> {
        let is_banner: fn(&[u8]) -> bool = |text| text.first().is_some_and(u8::is_ascii_digit);
        let mut tee = TeeReader {
            inner: reader,
            headers: Headers::default(),
            banner: Finder::new(b"Linux version ", is_banner, MAX_BANNER),
        };
        let config = ikconfig::extract_config(&mut tee);
        // If the reader failed, it fails again.
        io::copy(&mut tee, &mut io::sink())?;
        let banner = tee.banner.finish();
        let (identity, problem) = tee.headers.finish();
        let mut problems: Vec<String> = problem.into_iter().collect();
        let config = config.unwrap_or_else(|why| {
            problems.push(format!("the config inside it cannot be read: {why}"));
            None
        });
        Ok(Kernel {
            identity,
            banner: banner.map(|text| format!("Linux version {}", String::from_utf8_lossy(&text))),
            config,
            problems,
        })
    }

    /// Returns `uname -r`, from the banner.
    pub fn release(&self) -> Option<&str> {
        self.banner.as_deref()?.strip_prefix("Linux version ")?.split(' ').next()
    }
}

/// Searches the bytes that are read through it.
struct TeeReader<R> {
    inner: R,
    headers: Headers,
    banner: Finder,
}

impl<R: Read> Read for TeeReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let chunk = &buffer[..read];
        self.headers.feed(chunk);
        self.banner.feed(chunk);
        Ok(read)
    }
}

/// Collects the first bytes of a file, and the notes that they point to.
#[derive(Default)]
struct Headers {
    head: Vec<u8>,
    notes: Option<Ranges>,
    /// The alignment of each segment of notes.
    alignments: Vec<usize>,
    problem: Option<String>,
}

impl Headers {
    fn feed(&mut self, chunk: &[u8]) {
        if let Some(notes) = &mut self.notes {
            notes.feed(chunk);
            return;
        }
        let (head, rest) = chunk.split_at(chunk.len().min(HEAD - self.head.len()));
        self.head.extend_from_slice(head);
        if self.head.len() == HEAD {
            self.find_notes().feed(rest);
        }
    }

    fn is_complete(&self) -> bool {
        self.notes.as_ref().is_some_and(Ranges::is_complete)
    }

    fn find_notes(&mut self) -> &mut Ranges {
        let segments = note_segments(&self.head).unwrap_or_else(|problem| {
            self.problem = Some(problem);
            Vec::new()
        });
        self.alignments = segments.iter().map(|segment| segment.alignment).collect();
        let mut notes = Ranges::new(segments.into_iter().map(|segment| (segment.from, segment.length)));
        notes.feed(&self.head);
        self.notes.insert(notes)
    }

    /// Returns what could be read, and what is wrong with the rest.
    fn finish(mut self) -> (Identity, Option<String>) {
        if self.notes.is_none() {
            self.find_notes();
        }
        let format = Format::of(&self.head);
        let mut identity = Identity { format, pvh: Pvh::NoEntry, build_id: None };
        let Some(notes) = self.notes.filter(Ranges::is_complete) else {
            return (identity, Some(damaged("notes")));
        };
        for (segment, alignment) in notes.finish().into_iter().zip(self.alignments) {
            // The last segment decides, as in Cloud Hypervisor's loader (linux-loader).
            identity.pvh = Pvh::NoEntry;
            for note in notes_of(&segment, alignment) {
                match (note.name, note.kind) {
                    (b"Xen\0", PHYS32_ENTRY) => identity.pvh = Pvh::Entry,
                    (b"GNU\0", GNU_BUILD_ID) if note.content.len() <= 32 => {
                        let digits = note.content.iter().map(|byte| format!("{byte:02x}"));
                        identity.build_id = Some(digits.collect());
                    }
                    _ => {}
                }
            }
        }
        (identity, self.problem)
    }
}

fn damaged(what: &str) -> String {
    format!("its {what} are not where its header says")
}

struct NoteSegment {
    from: u64,
    length: usize,
    /// `p_align`. Names and contents in the segment are padded to it.
    alignment: usize,
}

/// Returns the PT_NOTE segments of a file that begins with `head`.
fn note_segments(head: &[u8]) -> Result<Vec<NoteSegment>, String> {
    let Format::Elf { .. } = Format::of(head) else { return Ok(Vec::new()) };
    let headers = || damaged("program headers");
    // Elf64_Ehdr has e_phoff at 32, e_phentsize at 54 and e_phnum at 56.
    let (Some(offset), Some(size), Some(count)) =
        (read_u64(head, 32), read_u16(head, 54), read_u16(head, 56))
    else {
        return Err(headers());
    };
    if count == 0 {
        return Ok(Vec::new());
    }
    let offset = usize::try_from(offset).map_err(|_| headers())?;
    let length = usize::from(size) * usize::from(count);
    let table = offset.checked_add(length).and_then(|end| head.get(offset..end)).ok_or_else(headers)?;
    let mut segments = Vec::new();
    let mut left = MAX_NOTES;
    // Elf64_Phdr has p_type at 0 (PT_NOTE is 4), p_offset at 8, p_filesz at 32 and p_align at 48.
    for entry in table.chunks(usize::from(size).max(1)).filter(|entry| read_u32(entry, 0) == Some(4)) {
        let (Some(from), Some(length), Some(alignment)) =
            (read_u64(entry, 8), read_u64(entry, 32), read_u64(entry, 48))
        else {
            return Err(headers());
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        left =
            left.checked_sub(length).ok_or_else(|| format!("its notes have more than {MAX_NOTES} bytes"))?;
        let alignment = usize::try_from(alignment.max(1)).map_err(|_| headers())?;
        segments.push(NoteSegment { from, length, alignment });
    }
    Ok(segments)
}

struct Note<'a> {
    name: &'a [u8],
    kind: u32,
    content: &'a [u8],
}

/// Returns the notes of a segment, up to one whose sizes make no sense. QEMU and linux-loader pad
/// to the alignment of the segment, and so does this. They do not find the notes behind a property
/// note, which needs an alignment of eight.
fn notes_of(mut rest: &[u8], alignment: usize) -> impl Iterator<Item = Note<'_>> {
    std::iter::from_fn(move || {
        // Elf64_Nhdr has the sizes of name and content, and the type.
        let (name, content, kind) =
            (read_u32(rest, 0)? as usize, read_u32(rest, 4)? as usize, read_u32(rest, 8)?);
        let body = rest.get(12..)?;
        let content_at = name.checked_next_multiple_of(alignment)?;
        let note = Note {
            name: body.get(..name)?,
            kind,
            content: body.get(content_at..content_at.checked_add(content)?)?,
        };
        let end = content_at.checked_add(content.checked_next_multiple_of(alignment)?)?;
        rest = body.get(end..).unwrap_or_default();
        Some(note)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file for x86-64 of this size, whose one PT_NOTE segment lies at its end.
    fn elf(size: usize) -> Vec<u8> {
        let note = |name: &[u8; 4], kind: u32, content: &[u8]| {
            [&4u32.to_le_bytes(), &(content.len() as u32).to_le_bytes(), &kind.to_le_bytes(), name, content]
                .concat()
        };
        let notes = [note(b"GNU\0", 3, &[0xab; 20]), note(b"Xen\0", 18, &[0; 8])].concat();
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(size - notes.len(), 0);
        file[18] = 62;
        file[32] = 64; // e_phoff
        file[54] = 56; // e_phentsize
        file[56] = 1; // e_phnum
        file[64] = 4; // PT_NOTE
        file[72..80].copy_from_slice(&((size - notes.len()) as u64).to_le_bytes()); // p_offset
        file[96] = notes.len() as u8; // p_filesz
        file[112] = 4; // p_align
        file.extend(notes);
        file
    }

    #[test]
    fn everything_is_found_in_one_pass() {
        for size in [1 << 10, HEAD, HEAD + 40, 1 << 20] {
            let mut file = elf(size);
            let banner = b"Linux version %s\0Linux version 6.1.7-x (me@here) (gcc) #1 SMP\n";
            file[300..300 + banner.len()].copy_from_slice(banner);
            let kernel = Kernel::read(&file[..]).unwrap();
            assert_eq!(kernel.identity.format, Format::Elf { machine: 62 });
            assert_eq!((kernel.identity.pvh, kernel.release()), (Pvh::Entry, Some("6.1.7-x")), "{size}");
            assert_eq!(kernel.identity.build_id, Some("ab".repeat(20)));
            assert_eq!(identify(&file[..]).unwrap(), kernel.identity);
            assert!(kernel.problems.is_empty(), "{:?}", kernel.problems);
            let cut = Kernel::read(&file[..size - 1]).unwrap();
            assert_eq!(cut.problems, ["its notes are not where its header says"]);
            assert!(identify(&file[..size - 1]).is_err());
        }
        let config = Kernel::read(&b"IKCFG_ST\x1f\x8b and no gzip"[..]).unwrap();
        assert!(config.problems[0].starts_with("the config inside it cannot be read: "));
        let raw = Kernel::read(&b"nothing"[..]).unwrap();
        assert_eq!((raw.identity.format, raw.banner, raw.config), (Format::Raw, None, None));
    }

    #[test]
    fn a_note_that_loaders_do_not_find_is_ignored() {
        let mut file = elf(1 << 10);
        assert_eq!(identify(&file[..]).unwrap().pvh, Pvh::Entry);
        // The first note's 20 bytes would be padded to 24.
        file[112] = 8;
        assert_eq!(identify(&file[..]).unwrap().pvh, Pvh::NoEntry);
        // A second segment, which has none.
        file[112] = 4;
        file[56] = 2;
        file.copy_within(64..120, 120);
        file[120 + 32] = 36;
        assert_eq!(identify(&file[..]).unwrap().pvh, Pvh::NoEntry);
    }

    #[test]
    fn only_as_much_is_read_as_the_notes_take() {
        let mut file = elf(HEAD);
        file.resize(4 << 20, 0);
        let mut reader = &file[..];
        assert_eq!(identify(&mut reader).unwrap().pvh, Pvh::Entry);
        assert_eq!(reader.len(), file.len() - HEAD);
    }
}
