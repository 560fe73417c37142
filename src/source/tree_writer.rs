//! Writes a read-only kernel tree file by file. An archive or a repository can create only files, directories
//! and links inside the tree.

use super::tree::BUILD_DIR_PREFIX;
use super::tree_manifest::{FileHash, FileHasher, MAX_BYTES, TreeManifest};
use crate::util::error::{Error, Kind, Result, ResultExt};
use camino::{Utf8Component, Utf8Path, Utf8PathBuf};
use std::collections::{HashMap, HashSet};
use std::fs::{self, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};

/// Kernel trees have about 84,000 entries and 1.3 GB.
const MAX_ENTRIES: usize = 250_000;
/// The limit of all paths together, which are held in memory. Kernel trees have 4 MB.
const MAX_NAMES: usize = 16 << 20;
const MAX_PATH: usize = 1_024;

pub(super) struct TreeWriter {
    root: Utf8PathBuf,
    dirs: HashSet<Utf8PathBuf>,
    others: HashMap<Utf8PathBuf, FileHash>,
    /// Bytes of all paths.
    names: usize,
    bytes: u64,
    buffer: Box<[u8]>,
    /// The name of the source in errors.
    name: String,
}

impl TreeWriter {
    /// Starts a tree in `root`, which must not exist yet.
    pub(super) fn create(root: &Utf8Path, name: &str) -> Result<TreeWriter> {
        fs::create_dir(root).context(Kind::Build, || format!("cannot create {root}"))?;
        Ok(TreeWriter {
            root: root.to_owned(),
            dirs: HashSet::from([Utf8PathBuf::new()]),
            others: HashMap::new(),
            names: 0,
            bytes: 0,
            buffer: vec![0; 1 << 17].into(),
            name: name.to_owned(),
        })
    }

    /// Returns the number of entries so far.
    pub(super) fn entries(&self) -> u64 {
        (self.dirs.len() + self.others.len()) as u64
    }

    /// Returns an error about the entry `path`.
    pub(super) fn refuse(&self, path: &str, why: &str) -> Error {
        Error::fetch(format!("{}: refused entry `{}`: {why}", self.name, path.escape_debug()))
            .hint("kernel sources have only files, directories and links inside their tree")
    }

    /// Creates a directory and its parents. It may exist already.
    pub(super) fn dir(&mut self, path: &str) -> Result<()> {
        let path = self.checked(path)?;
        self.make_dirs(&path)
    }

    /// Writes a file of `size` bytes. Its mode becomes 0555 or 0444, by the owner's execute bit in `mode`.
    pub(super) fn file(&mut self, path: &str, mode: u32, size: u64, mut content: impl Read) -> Result<()> {
        let path = self.new_entry(path)?;
        self.bytes += size;
        if self.bytes > MAX_BYTES {
            return Err(Error::fetch(format!(
                "{}: more than {} GiB when unpacked",
                self.name,
                MAX_BYTES >> 30
            )));
        }
        let full = self.root.join(&path);
        let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&full);
        let mut file = created.context(Kind::Build, || format!("{}: cannot write {full}", self.name))?;
        let mut written = 0;
        let mut hasher = FileHasher::default();
        loop {
            let read = content.read(&mut self.buffer);
            let read = read.context(Kind::Fetch, || format!("{}: corrupt archive, in {path}", self.name))?;
            if read == 0 {
                break;
            }
            written += read as u64;
            hasher.update(&self.buffer[..read]);
            file.write_all(&self.buffer[..read])
                .context(Kind::Build, || format!("{}: cannot write {full}", self.name))?;
        }
        if written != size {
            return Err(self.refuse(path.as_str(), &format!("{size} bytes announced, {written} found")));
        }
        file.set_permissions(Permissions::from_mode(if mode & 0o100 == 0 { 0o444 } else { 0o555 }))
            .context(Kind::Build, || format!("{}: cannot write {full}", self.name))?;
        self.others.insert(path, hasher.file(mode));
        Ok(())
    }

    /// Creates a symbolic link, which must be relative and stay inside the tree.
    pub(super) fn link(&mut self, path: &str, target: &str) -> Result<()> {
        let path = self.new_entry(path)?;
        let mut depth = path.components().count() as i64 - 1;
        for part in Utf8Path::new(target).components() {
            match part {
                Utf8Component::Normal(_) => depth += 1,
                Utf8Component::ParentDir => depth -= 1,
                Utf8Component::CurDir => {}
                _ => return Err(self.refuse(path.as_str(), "an absolute link")),
            }
            if depth < 0 {
                return Err(
                    self.refuse(path.as_str(), &format!("a link that leaves the tree, to `{target}`"))
                );
            }
        }
        if target.is_empty() || target.contains('\0') {
            return Err(self.refuse(path.as_str(), "a link with an empty target or a NUL byte"));
        }
        let full = self.root.join(&path);
        symlink(target, &full).context(Kind::Build, || format!("{}: cannot write {full}", self.name))?;
        self.others.insert(path, FileHash::link(target));
        Ok(())
    }

    /// Gives an earlier file another name.
    pub(super) fn hard_link(&mut self, path: &str, earlier: &str) -> Result<()> {
        let new = self.new_entry(path)?;
        let earlier = self.checked(earlier)?;
        let hash = self.others.get(&earlier).copied().filter(|hash| hash.is_file());
        let Some(hash) = hash else {
            return Err(
                self.refuse(path, &format!("a hard link to `{earlier}`, which is not an earlier file"))
            );
        };
        let full = self.root.join(&new);
        fs::hard_link(self.root.join(&earlier), &full)
            .context(Kind::Build, || format!("{}: cannot write {full}", self.name))?;
        self.others.insert(new, hash);
        Ok(())
    }

    /// Finishes the tree. Its directories become read-only, except the top with the build directories.
    pub(super) fn finish(self) -> Result<TreeManifest> {
        for dir in &self.dirs {
            let full = self.root.join(dir);
            let mode = if dir.as_str().is_empty() { 0o755 } else { 0o555 };
            fs::set_permissions(&full, Permissions::from_mode(mode))
                .context(Kind::Build, || format!("cannot write {full}"))?;
        }
        Ok(TreeManifest::new(self.others.into_iter().collect()))
    }

    /// Returns `path` without `.` components. Refuses it if it leaves the tree.
    fn checked(&self, path: &str) -> Result<Utf8PathBuf> {
        if path.len() > MAX_PATH || path.contains('\0') {
            return Err(self.refuse(path, "the name is too long or has a NUL byte"));
        }
        let mut clean = Utf8PathBuf::new();
        for part in Utf8Path::new(path).components() {
            match part {
                Utf8Component::Normal(part) => clean.push(part),
                Utf8Component::CurDir => {}
                _ => return Err(self.refuse(path, "not a path inside the tree")),
            }
        }
        if clean.as_str().starts_with(BUILD_DIR_PREFIX) {
            return Err(self.refuse(path, "the name is reserved for build directories of kcompile"));
        }
        if self.dirs.len() + self.others.len() > MAX_ENTRIES {
            return Err(Error::fetch(format!("{}: more than {MAX_ENTRIES} entries", self.name)));
        }
        if self.names > MAX_NAMES {
            return Err(Error::fetch(format!("{}: more than {} MiB of names", self.name, MAX_NAMES >> 20)));
        }
        Ok(clean)
    }

    fn new_entry(&mut self, path: &str) -> Result<Utf8PathBuf> {
        let clean = self.checked(path)?;
        if clean.as_str().is_empty() {
            return Err(self.refuse(path, "not a path inside the tree"));
        }
        if self.others.contains_key(&clean) || self.dirs.contains(&clean) {
            return Err(self.refuse(path, "a second entry of this name"));
        }
        self.make_dirs(clean.parent().unwrap_or(Utf8Path::new("")))?;
        self.names += clean.as_str().len();
        Ok(clean)
    }

    fn make_dirs(&mut self, path: &Utf8Path) -> Result<()> {
        if self.dirs.contains(path) {
            return Ok(());
        }
        if self.others.contains_key(path) {
            return Err(self.refuse(path.as_str(), "a path through a file or a link"));
        }
        if let Some(parent) = path.parent() {
            self.make_dirs(parent)?;
        }
        let full = self.root.join(path);
        fs::create_dir(&full).context(Kind::Build, || format!("{}: cannot create {full}", self.name))?;
        self.names += path.as_str().len();
        self.dirs.insert(path.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_together() {
        let (_dir, mut writer) = writer();
        writer.names = MAX_NAMES;
        writer.dir("a").unwrap();
        let refused = writer.dir("b").unwrap_err().to_string();
        assert!(refused.ends_with("more than 16 MiB of names"), "{refused}");
    }

    fn writer() -> (tempfile::TempDir, TreeWriter) {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(dir.path()).unwrap().join("linux");
        let writer = TreeWriter::create(&root, "x.tar").unwrap();
        (dir, writer)
    }

    #[test]
    fn entries_outside_the_tree_are_refused() {
        let (dir, mut writer) = writer();
        for path in ["../x", "/x", "a/../../x", "", "."] {
            let error = writer.file(path, 0o644, 0, &b""[..]).unwrap_err().to_string();
            assert!(error.contains("refused entry"), "{path}: {error}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn links_stay_inside_and_are_never_followed() {
        let (_dir, mut writer) = writer();
        writer.link("a/b/link", "../../c").unwrap();
        for (path, target) in [("x", "/etc"), ("a/x", "../../etc"), ("y", "..")] {
            assert!(writer.link(path, target).is_err(), "{path} -> {target}");
        }
        assert!(
            writer.file("a/b/link/x", 0o644, 0, &b""[..]).unwrap_err().to_string().contains("a path through")
        );
    }

    #[test]
    fn hard_links_name_earlier_files_only() {
        let (dir, mut writer) = writer();
        writer.file("bin/gcc", 0o755, 2, &b"hi"[..]).unwrap();
        writer.link("bin/cc", "gcc").unwrap();
        writer.hard_link("bin/gcc-14", "bin/gcc").unwrap();
        assert_eq!(fs::read(dir.path().join("linux/bin/gcc-14")).unwrap(), b"hi");
        for earlier in ["bin/cc", "bin/none", "bin", "", "../x", "/etc/passwd", "bin/../../x"] {
            let refused = writer.hard_link("bin/new", earlier).unwrap_err().to_string();
            assert!(refused.contains("refused entry"), "{earlier}: {refused}");
        }
        assert!(writer.hard_link("bin/gcc", "bin/gcc-14").is_err(), "a second entry");
        assert!(!dir.path().join("linux/bin/new").exists());
    }

    #[test]
    fn no_file_is_written_twice() {
        let (_dir, mut writer) = writer();
        writer.file("a", 0o755, 2, &b"hi"[..]).unwrap();
        assert!(writer.file("./a", 0o644, 0, &b""[..]).is_err());
        assert!(writer.dir("a").is_err());
        assert!(
            writer
                .file("short", 0o644, 5, &b"hi"[..])
                .unwrap_err()
                .to_string()
                .contains("5 bytes announced, 2 found")
        );
    }

    #[test]
    fn modes_are_the_same_for_everyone() {
        let (dir, mut writer) = writer();
        writer.file("d/run", 0o755, 0, &b""[..]).unwrap();
        writer.file("d/read", 0o644, 0, &b""[..]).unwrap();
        writer.finish().unwrap();
        let mode = |path: &str| {
            fs::metadata(dir.path().join("linux").join(path)).unwrap().permissions().mode() & 0o7777
        };
        assert_eq!([mode(""), mode("d"), mode("d/run"), mode("d/read")], [0o755, 0o555, 0o555, 0o444]);
        fs::set_permissions(dir.path().join("linux/d"), Permissions::from_mode(0o755)).unwrap();
    }
}
