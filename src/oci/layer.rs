//! Writes a reproducible layer, which is a tar of sorted entries.

use super::Blob;
use super::compress::{PieceWriter, compress};
use super::layout::Layout;
use crate::host::process;
use crate::oci::layer_entries::MAX_IMAGE;
use crate::oci::{Encoder, Entries, Entry};
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::read::{Links, open_file};
use std::io::{self, Write};
use tar::{Builder, EntryType, Header};

/// A layer that was written.
pub(super) struct Layer {
    pub blob: Blob,
    /// The digest of the plain tar.
    pub diff_id: Sha256,
}

/// Writes a layer, compressed by up to `threads` threads. Every entry belongs to root, has the date `epoch`
/// and the mode 0755 or 0644.
pub(super) fn write(
    layout: &Layout,
    entries: &Entries,
    encoder: Encoder,
    epoch: u64,
    threads: usize,
) -> Result<Layer> {
    check_size(layout, entries)?;
    let fill = |pieces: &mut PieceWriter| {
        let mut tar = Builder::new(pieces);
        // By default the builder would write vmlinux, which has holes, as a GNU sparse entry. containerd and
        // umoci refuse those.
        tar.sparse(false);
        for (path, entry) in entries {
            process::check()?;
            append(&mut tar, path, entry, epoch)?;
        }
        tar.finish().context(Kind::Build, || format!("cannot write a layer of {}", layout.path()))
    };
    let (blob, diff_id) = compress(encoder, threads, layout.add_blob()?, fill)?;
    Ok(Layer { blob: blob.finish()?, diff_id })
}

/// Refuses an image that would be too large to read it again.
fn check_size(layout: &Layout, entries: &Entries) -> Result<()> {
    let mut left = MAX_IMAGE;
    for entry in entries.values() {
        let Entry::File { from, .. } = entry else { continue };
        let size = from.symlink_metadata().context(Kind::Build, || format!("cannot read {from}"))?.len();
        left = left.checked_sub(size).ok_or_else(|| {
            let limit = MAX_IMAGE >> 30;
            Error::build(format!(
                "{}: the files of the image have more than {limit} GiB together",
                layout.path()
            ))
            .hint("debug information takes most of it; build without CONFIG_DEBUG_INFO")
        })?;
    }
    Ok(())
}

fn append<W: Write>(tar: &mut Builder<W>, path: &str, entry: &Entry, epoch: u64) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(epoch);
    header.set_mode(0o644);
    header.set_size(0);
    match entry {
        Entry::Dir => {
            header.set_entry_type(EntryType::Directory);
            header.set_mode(0o755);
            append_named(tar, &mut header, &format!("{path}/"), None, io::empty())
        }
        Entry::File { from, executable } => {
            let file =
                open_file(from, Links::Refuse).context(Kind::Build, || format!("cannot read {from}"))?;
            let size = file.metadata().context(Kind::Build, || format!("cannot read {from}"))?.len();
            header.set_entry_type(EntryType::Regular);
            header.set_size(size);
            if *executable {
                header.set_mode(0o755);
            }
            let mut reader = CountingReader { inner: io::Read::take(&file, size), missing: size };
            append_named(tar, &mut header, path, None, &mut reader).and_then(|()| match reader.missing {
                0 => Ok(()),
                _ => Err(io::Error::other(format!("{from} became shorter while it was read"))),
            })
        }
        Entry::HardLink(to) => {
            header.set_entry_type(EntryType::Link);
            append_named(tar, &mut header, path, Some(to), io::empty())
        }
        Entry::SymLink(to) => {
            header.set_entry_type(EntryType::Symlink);
            header.set_mode(0o777);
            append_named(tar, &mut header, path, Some(to), io::empty())
        }
    }
    .context(Kind::Build, || format!("cannot pack {path}"))
}

/// Appends an entry, with a PAX record before it for names that ustar cannot hold.
fn append_named<W: Write>(
    tar: &mut Builder<W>,
    header: &mut Header,
    path: &str,
    link: Option<&str>,
    data: impl io::Read,
) -> io::Result<()> {
    let mut records: Vec<(&str, &[u8])> = Vec::new();
    if header.set_path(path).is_err() {
        records.push(("path", path.as_bytes()));
        header.set_path(short_name(path))?;
    }
    // `set_link_name` would change `./a` to `a`.
    if let Some(link) = link
        && header.set_link_name_literal(link).is_err()
    {
        records.push(("linkpath", link.as_bytes()));
        header.set_link_name_literal(short_name(link))?;
    }
    if !records.is_empty() {
        tar.append_pax_extensions(records)?;
    }
    header.set_cksum();
    tar.append(header, data)
}

/// Returns the end of a path, as the name for readers without PAX.
fn short_name(path: &str) -> &str {
    let mut from = path.len().saturating_sub(90);
    while !path.is_char_boundary(from) {
        from += 1;
    }
    path[from..].trim_start_matches('/')
}

/// Counts the bytes that are missing at the end, because a short entry would shift all entries after it.
struct CountingReader<R> {
    inner: R,
    missing: u64,
}

impl<R: io::Read> io::Read for CountingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.missing -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use camino::{Utf8Path, Utf8PathBuf};
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    fn pack(entries: &Entries, encoder: Encoder) -> (tempfile::TempDir, Utf8PathBuf, Layer) {
        let dir = tempfile::tempdir().unwrap();
        let output = Utf8Path::from_path(dir.path()).unwrap();
        let layout = Layout::open(output, "x").unwrap();
        let layer = write(&layout, entries, encoder, 1_700_000_000, 2).unwrap();
        let blob = layout.blob_path(layer.blob.digest);
        // The layout itself is thrown away with its temporary place: keep the blob.
        let copy = output.join("blob");
        std::fs::copy(blob, &copy).unwrap();
        (dir, copy, layer)
    }

    #[test]
    fn files_that_are_too_much_together_are_refused_before_they_are_packed() {
        let dir = tempfile::tempdir().unwrap();
        let output = Utf8Path::from_path(dir.path()).unwrap();
        let mut entries = Entries::new();
        for index in 0..40 {
            let from = output.join(index.to_string());
            File::create(&from).unwrap().set_len(500 << 20).unwrap();
            entries.insert(format!("{index}.ko"), Entry::File { from, executable: false });
        }
        let layout = Layout::open(output, "x").unwrap();
        let refused = write(&layout, &entries, Encoder::None, 0, 1).err().unwrap();
        assert!(refused.to_string().ends_with("have more than 4 GiB together"), "{refused}");
    }

    #[test]
    fn a_holey_file_is_an_ordinary_entry() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        file.as_file().write_all_at(b"end", (1 << 20) - 3).unwrap();
        let from = Utf8PathBuf::from_path_buf(file.path().to_owned()).unwrap();
        let entries = Entries::from([
            ("bin".into(), Entry::Dir),
            ("bin/k".into(), Entry::File { from, executable: false }),
        ]);
        let (_dir, blob, layer) = pack(&entries, Encoder::None);
        assert_eq!(layer.blob.digest, layer.diff_id);
        let mut archive = tar::Archive::new(File::open(blob).unwrap());
        let seen: Vec<(String, EntryType, u64)> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                (entry.path().unwrap().display().to_string(), entry.header().entry_type(), entry.size())
            })
            .collect();
        assert_eq!(
            seen,
            [("bin/".to_owned(), EntryType::Directory, 0), ("bin/k".to_owned(), EntryType::Regular, 1 << 20)]
        );
    }

    #[test]
    fn long_names_survive_and_bytes_repeat() {
        let long = format!("{}/{}.ko", "d".repeat(120), "f".repeat(150));
        let entries = Entries::from([(long.clone(), Entry::SymLink("x".repeat(140)))]);
        for encoder in [Encoder::Gzip { level: 2 }, Encoder::Zstd, Encoder::None] {
            let (_one, blob, first) = pack(&entries, encoder);
            let (_two, _, second) = pack(&entries, encoder);
            assert_eq!((first.blob.digest, first.diff_id), (second.blob.digest, second.diff_id));
            if encoder == Encoder::None {
                let mut archive = tar::Archive::new(File::open(blob).unwrap());
                let entry = archive.entries().unwrap().next().unwrap().unwrap();
                assert_eq!(entry.path().unwrap().to_str(), Some(long.as_str()));
                assert_eq!(entry.link_name().unwrap().unwrap().to_str().unwrap().len(), 140);
            }
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]

        /// Whatever may be staged comes out of the tar as it went in.
        #[test]
        fn entries_come_back_from_the_tar(
            spec in proptest::collection::btree_map(
                "[a-z]{1,130}(/[a-zA-Z0-9.+_é-]{0,119}[a-z]){0,2}",
                (proptest::bool::ANY, proptest::option::of("[a-z/.]{1,160}"), proptest::collection::vec(0u8.., 0..1500)),
                0..8,
            )
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut entries = Entries::new();
            let mut expected = Vec::new();
            for (index, (name, (executable, link, bytes))) in spec.into_iter().enumerate() {
                let mode = if executable { 0o755 } else { 0o644 };
                if let Some(target) = link {
                    expected.push((name.clone(), target.clone().into_bytes(), None));
                    entries.insert(name, Entry::SymLink(target));
                } else {
                    let from = Utf8Path::from_path(dir.path()).unwrap().join(index.to_string());
                    std::fs::write(&from, &bytes).unwrap();
                    expected.push((name.clone(), bytes, Some(mode)));
                    entries.insert(name, Entry::File { from, executable });
                }
            }
            let (_dir, blob, _) = pack(&entries, Encoder::None);
            let mut archive = tar::Archive::new(File::open(blob).unwrap());
            let found: Vec<_> = archive.entries().unwrap().map(|entry| {
                let mut entry = entry.unwrap();
                let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
                match entry.link_name_bytes().map(std::borrow::Cow::into_owned) {
                    Some(target) => (name, target, None),
                    None => {
                        let mut bytes = Vec::new();
                        io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
                        (name, bytes, Some(entry.header().mode().unwrap()))
                    }
                }
            }).collect();
            proptest::prop_assert_eq!(found, expected);
        }
    }
}
