//! Random trees of files and random edits of them, for the tests of patches.

use crate::support::random::Random;
use camino::{Utf8Path, Utf8PathBuf};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Blob {
    pub bytes: Vec<u8>,
    pub executable: bool,
}

/// Files by path. Directories only exist if they contain files, like in git.
pub(crate) type Files = BTreeMap<String, Blob>;

/// The program that writes the patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writer {
    Git,
    /// Has no modes, no empty files and no binary files.
    Diff,
    Quilt,
}

const DIRS: [&str; 6] = ["", "lib/", "drivers/net/", "tools/lib/", "tools/lib/deep/er/", "café/"];
const NAMES: [&str; 9] =
    ["a.c", "Makefile", "rbtree.c", "two words.h", "naïve.c", "quo\"te", "t\tab.c", "-dash", "back\\slash"];
const LINES: [&[u8]; 16] = [
    b"",
    b"}",
    b"\treturn 0;",
    b"-- ",
    b"--- a/x",
    b"+++ b/x",
    b"@@ -1,2 +1,2 @@",
    b"diff --git a/x b/x",
    b"From me",
    b"\\ No newline at end of file",
    b"J\xf6rg",
    b"\x0c",
    b"trailing \t ",
    b"carriage\r",
    b"Only in a: b",
    "ünï".as_bytes(),
];

impl Random {
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(crate) fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// Returns true once in `times` calls on average.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn line(&mut self) -> Vec<u8> {
        if self.once_in(3) {
            self.one(&LINES).to_vec()
        } else {
            format!("line {}", self.below(12)).into_bytes()
        }
    }

    fn content(&mut self, writer: Writer) -> Vec<u8> {
        if writer == Writer::Git && self.once_in(12) {
            return (0..self.below(60)).map(|_| self.below(4) as u8).collect();
        }
        let crlf = self.once_in(10);
        let count = self.below(40) + usize::from(writer != Writer::Git);
        let mut text = Vec::new();
        for _ in 0..count {
            text.extend(self.line());
            text.extend(if crlf { &b"\r\n"[..] } else { b"\n" });
        }
        if self.once_in(6) {
            text.extend(b"no line feed");
        }
        text
    }

    /// Returns a path in `dir` that neither exists nor passes through a file.
    fn fresh(&mut self, dir: &str, files: &Files, writer: Writer) -> String {
        loop {
            let names = if writer == Writer::Quilt { &NAMES[..3] } else { &NAMES };
            let number = if self.once_in(2) { String::new() } else { self.below(9).to_string() };
            let path = format!("{dir}/{}{}{number}", self.one(&DIRS), self.one(names));
            let ascii = writer != Writer::Quilt || path.is_ascii();
            let is_free = |other: &String| {
                *other != path
                    && !other.starts_with(&format!("{path}/"))
                    && !path.starts_with(&format!("{other}/"))
            };
            if ascii && files.keys().all(is_free) {
                return path;
            }
        }
    }

    pub(crate) fn files(&mut self, dir: &str, writer: Writer) -> Files {
        let mut files = Files::new();
        for _ in 0..3 + self.below(8) {
            let (path, bytes) = (self.fresh(dir, &files, writer), self.content(writer));
            files.insert(path, Blob { bytes, executable: self.once_in(5) });
        }
        files
    }

    /// Adds, removes or changes some lines.
    fn change(&mut self, bytes: &mut Vec<u8>) {
        let mut lines: Vec<Vec<u8>> =
            bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        for _ in 0..1 + self.below(4) {
            let at = self.below(lines.len() + 1);
            let line = [self.line(), vec![b'\n']].concat();
            match self.below(3) {
                0 => lines.insert(at, line),
                1 if at < lines.len() => lines[at] = line,
                _ if at < lines.len() => drop(lines.remove(at)),
                _ => {}
            }
        }
        *bytes = lines.concat();
    }

    /// Edits the files, except those that `keep` names.
    pub(crate) fn edit(
        &mut self,
        dir: &str,
        before: &Files,
        keep: &BTreeSet<String>,
        writer: Writer,
    ) -> Files {
        loop {
            let mut files = before.clone();
            for _ in 0..1 + self.below(4) {
                let known: Vec<String> = files.keys().filter(|path| !keep.contains(*path)).cloned().collect();
                let new =
                    self.fresh(dir, &[files.clone(), before.clone()].into_iter().flatten().collect(), writer);
                let Some(path) = (!known.is_empty()).then(|| self.one(&known).clone()) else {
                    let blob = Blob { bytes: self.content(writer), executable: false };
                    files.insert(new, blob);
                    continue;
                };
                let mut blob = files[&path].clone();
                match self.below(10) {
                    0..4 => {
                        self.change(&mut blob.bytes);
                        files.insert(path, blob);
                    }
                    4 => {
                        let executable = writer == Writer::Git && self.once_in(3);
                        files.insert(new, Blob { bytes: self.content(writer), executable });
                    }
                    5 => drop(files.remove(&path)),
                    6 => {
                        if self.once_in(2) {
                            self.change(&mut blob.bytes);
                        }
                        files.remove(&path);
                        files.insert(
                            new,
                            Blob { executable: blob.executable && writer == Writer::Git, ..blob },
                        );
                    }
                    7 => {
                        if self.once_in(2) {
                            self.change(&mut blob.bytes);
                        }
                        files.insert(
                            new,
                            Blob { executable: blob.executable && writer == Writer::Git, ..blob },
                        );
                    }
                    8 if writer == Writer::Git => {
                        blob.executable = !blob.executable;
                        files.insert(path, blob);
                    }
                    9 if writer == Writer::Git => {
                        // A directory replaces a file.
                        files.remove(&path);
                        files.insert(format!("{path}/{}", self.one(&NAMES)), blob);
                    }
                    _ => {
                        blob.bytes.clear();
                        files.insert(path, blob);
                    }
                }
            }
            let is_fit = |(path, blob): (&String, &Blob)| match writer {
                Writer::Git => true,
                Writer::Diff => !blob.bytes.is_empty() || before.contains_key(path),
                // quilt ignores empty files.
                Writer::Quilt => !blob.bytes.is_empty(),
            };
            // diff does not show an empty file that only exists on one side.
            let shows = before.iter().all(|(path, old)| {
                writer == Writer::Git || !old.bytes.is_empty() || files.contains_key(path)
            });
            if files != *before && files.iter().all(is_fit) && shows {
                return files;
            }
        }
    }
}

/// Returns the paths that an edit changed.
pub(crate) fn changed(before: &Files, after: &Files) -> BTreeSet<String> {
    before.keys().chain(after.keys()).filter(|path| before.get(*path) != after.get(*path)).cloned().collect()
}

pub(crate) fn write(dir: &Utf8Path, files: &Files) {
    fs::create_dir_all(dir).unwrap();
    for (name, blob) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &blob.bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(if blob.executable { 0o755 } else { 0o644 }))
            .unwrap();
    }
}

/// Returns the files below `dir`. Checks that nobody may write there and that no directory is
/// empty.
pub(crate) fn read(dir: &Utf8Path) -> Files {
    let mut files = Files::new();
    for entry in walkdir::WalkDir::new(dir).min_depth(1) {
        let entry = entry.unwrap();
        let path = Utf8PathBuf::from_path_buf(entry.path().to_owned()).unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        if entry.file_type().is_dir() {
            assert!(fs::read_dir(&path).unwrap().next().is_some(), "{path} is empty");
            assert_eq!(mode, 0o555, "{path}");
        } else if entry.depth() > 1 {
            assert!([0o444, 0o555].contains(&mode) && entry.file_type().is_file(), "{path}: {mode:o}");
            let blob = Blob { bytes: fs::read(&path).unwrap(), executable: mode == 0o555 };
            files.insert(path.strip_prefix(dir).unwrap().to_string(), blob);
        }
    }
    files
}

/// Returns the files of a writable tree.
pub(crate) fn modes_of(dir: &Utf8Path) -> Files {
    let entries = walkdir::WalkDir::new(dir).into_iter().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().is_file() && entry.depth() > 1);
    files
        .map(|entry| {
            let path = Utf8PathBuf::from_path_buf(entry.path().to_owned()).unwrap();
            let executable = entry.metadata().unwrap().permissions().mode() & 0o100 != 0;
            (
                path.strip_prefix(dir).unwrap().to_string(),
                Blob { bytes: fs::read(&path).unwrap(), executable },
            )
        })
        .collect()
}

/// Runs `jobs` on two threads.
pub(crate) fn by_two<T: Send>(jobs: Vec<T>, work: impl Fn(T) + Sync) {
    let jobs = Mutex::new(jobs);
    std::thread::scope(|scope| {
        let threads = [(); 2].map(|()| {
            scope.spawn(|| {
                while let Some(job) = { jobs.lock().unwrap().pop() } {
                    work(job);
                }
            })
        });
        for thread in threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}
