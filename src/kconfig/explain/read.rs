//! Reads the Kconfig files of a tree, from the top file through every `source`, as one list of statements.
//!
//! The tree is untrusted. A `source` must stay inside it, also through symbolic links. Files,
//! bytes and depth are bounded.

use super::statement::{Statement, statements};
use crate::kernel::Arch;
use crate::util::read::{Links, read_file};
use camino::{Utf8Component, Utf8Path, Utf8PathBuf};
use std::collections::{HashMap, HashSet};

/// Real trees go four deep.
const MAX_DEPTH: usize = 32;
/// Real trees have about 1600 for one architecture.
const MAX_FILES: usize = 20_000;
/// The largest real one has 110 KiB.
const MAX_FILE: u64 = 2 << 20;
/// Of all files together; 6.12 has 5 MiB.
const MAX_TREE: u64 = 64 << 20;

/// Returns the statements of the tree at `root`, for `arch`. Missing files and paths
/// with unknown macros are skipped.
///
/// # Errors
///
/// A message if the top file is missing, a `source` leaves the tree or includes itself, or a limit is reached.
pub(super) fn read(root: &Utf8Path, arch: Arch) -> Result<Vec<Statement>, String> {
    let (spec, none) = (arch.spec(), HashSet::new());
    let mut reading = Reader::new(root, spec.srcarch, spec.kbuild, &none)?;
    if reading.file("Kconfig")? {
        Ok(reading.statements)
    } else {
        Err("there is no Kconfig at the top of the tree".into())
    }
}

/// Returns the symbols that only other architectures define, with the names of these architectures in the
/// tree. Their files source files outside `arch/` too, of which those of this architecture are in
/// `known`. Unreadable files are skipped.
pub(super) fn symbols_of_other_arches(
    root: &Utf8Path,
    arch: Arch,
    known: &HashSet<&str>,
) -> HashMap<String, Vec<String>> {
    let entries = root.join("arch").read_dir_utf8().into_iter().flatten().flatten();
    let mut others: Vec<String> = entries.map(|entry| entry.file_name().to_owned()).collect();
    others.retain(|name| name != arch.spec().srcarch);
    others.sort();
    let mut found: HashMap<String, Vec<String>> = HashMap::new();
    for other in others {
        let Ok(mut reading) = Reader::new(root, &other, &other, known) else { continue };
        // `lib/Kconfig.debug` sources the second one. Statements before an error count.
        for name in ["Kconfig", "Kconfig.debug"] {
            let _ = reading.file(&format!("arch/{other}/{name}"));
        }
        for statement in reading.statements {
            let Statement::Config(symbol, _) = statement else { continue };
            let having = found.entry(symbol).or_default();
            if having.last() != Some(&other) {
                having.push(other.clone());
            }
        }
    }
    found
}

struct Reader<'a> {
    root: Utf8PathBuf,
    /// `$(SRCARCH)`, and `$(ARCH)`.
    srcarch: String,
    arch: String,
    /// Files that are skipped.
    known: &'a HashSet<&'a str>,
    /// The chain of files that are being read.
    open: Vec<Utf8PathBuf>,
    files: usize,
    bytes: u64,
    statements: Vec<Statement>,
}

impl<'a> Reader<'a> {
    fn new(
        root: &Utf8Path,
        srcarch: &str,
        arch: &str,
        known: &'a HashSet<&'a str>,
    ) -> Result<Reader<'a>, String> {
        let root = root.canonicalize_utf8().map_err(|error| format!("{root}: {error}"))?;
        let (srcarch, arch) = (srcarch.to_owned(), arch.to_owned());
        let (open, statements) = (Vec::new(), Vec::new());
        Ok(Reader { root, srcarch, arch, known, open, files: 0, bytes: 0, statements })
    }

    /// Adds the statements of a file and of the files that it sources. Returns whether the file exists.
    fn file(&mut self, name: &str) -> Result<bool, String> {
        let shown: String = name.escape_debug().take(80).collect();
        let relative = Utf8Path::new(name);
        if relative.components().any(|part| !matches!(part, Utf8Component::Normal(_) | Utf8Component::CurDir))
        {
            return Err(format!("source {shown} leaves the tree"));
        }
        let Ok(path) = self.root.join(relative).canonicalize_utf8() else { return Ok(false) };
        if !path.starts_with(&self.root) {
            return Err(format!("source {shown} leaves the tree"));
        }
        if self.open.contains(&path) {
            return Err(format!("{shown} sources itself"));
        }
        if !path.is_file() {
            return Ok(false);
        }
        self.files += 1;
        if self.open.len() >= MAX_DEPTH || self.files > MAX_FILES {
            return Err(format!("{shown}: too many files source each other"));
        }
        let bytes = read_file(&path, Links::Refuse, MAX_FILE).map_err(|error| format!("{shown}: {error}"))?;
        self.bytes += bytes.len() as u64;
        if self.bytes > MAX_TREE {
            return Err(format!("{shown}: too large for a Kconfig file"));
        }
        self.open.push(path);
        // Conditions compare the architecture: `"$(ARCH)" = "x86"`.
        let text = self.expanded(&String::from_utf8_lossy(&bytes));
        for statement in statements(&relative.as_str().into(), &text) {
            match statement {
                Statement::Source(path) => {
                    if !path.contains('$') && !self.known.contains(path.as_str()) {
                        self.file(&path)?;
                    }
                }
                other => self.statements.push(other),
            }
        }
        self.open.pop();
        Ok(true)
    }

    /// Replaces the variables of the top Makefile that real trees use in paths.
    fn expanded(&self, path: &str) -> String {
        path.replace("$(srctree)/", "")
            .replace("$(SRCARCH)", &self.srcarch)
            .replace("$SRCARCH", &self.srcarch)
            .replace("$(HEADER_ARCH)", &self.srcarch)
            .replace("$(ARCH)", &self.arch)
    }
}

#[cfg(test)]
mod tests {
    use super::super::statement::Location;
    use super::*;
    use std::fs;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Utf8PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
        for (name, text) in files {
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::write(root.join(name), text).unwrap();
        }
        (dir, root)
    }

    #[test]
    fn sources_are_followed_with_their_variables() {
        let (_dir, root) = tree(&[
            (
                "Kconfig",
                "source \"arch/$(SRCARCH)/Kconfig\"\nsource $(unknown)Kconfig\nsource \"not/there\"\nconfig LAST\n",
            ),
            ("arch/x86/Kconfig", "config FIRST\n"),
        ]);
        let config = |name: &str, file: &str, line| {
            Statement::Config(name.into(), Location { file: file.into(), line })
        };
        let expected = [config("FIRST", "arch/x86/Kconfig", 1), config("LAST", "Kconfig", 4)];
        assert_eq!(read(&root, Arch::Amd64).unwrap(), expected);
        assert_eq!(read(&root, Arch::Arm64).unwrap(), expected[1..]);
    }

    #[test]
    fn what_other_architectures_have_is_told_from_their_own_files() {
        let (_dir, root) = tree(&[
            ("Kconfig", "source \"arch/$(SRCARCH)/Kconfig\"\nsource \"init/Kconfig\"\n"),
            ("arch/Kconfig", "config ALL\n"),
            ("arch/x86/Kconfig", "config X86\nsource \"kernel/livepatch/Kconfig\"\n"),
            ("kernel/livepatch/Kconfig", "config HAVE_LIVEPATCH\n"),
            ("arch/arm/Kconfig", "config OLD\nconfig BOTH\nsource \"arch/../../outside\"\nconfig LOST\n"),
            ("arch/arm/Kconfig.debug", "config DEBUG\n"),
            ("arch/arm64/Kconfig", "source \"arch/$(SRCARCH)/Kconfig.more\"\nsource \"init/Kconfig\"\n"),
            ("arch/arm64/Kconfig.more", "config BOTH\nmenuconfig ERRATUM\nconfig ERRATUM\n"),
            ("init/Kconfig", "config EVERYBODYS\n"),
        ]);
        let known = HashSet::from(["init/Kconfig"]);
        let mut found: Vec<_> = symbols_of_other_arches(&root, Arch::Amd64, &known).into_iter().collect();
        found.sort();
        let expected = [("BOTH", "arm arm64"), ("DEBUG", "arm"), ("ERRATUM", "arm64"), ("OLD", "arm")];
        let found: Vec<_> = found.iter().map(|(symbol, having)| (&**symbol, having.join(" "))).collect();
        assert_eq!(found, expected.map(|(symbol, having)| (symbol, having.to_owned())));
        let of_arm64 = symbols_of_other_arches(&root, Arch::Arm64, &known);
        assert!(of_arm64.contains_key("X86"));
        // A file that only another architecture sources.
        assert!(of_arm64.contains_key("HAVE_LIVEPATCH") && !of_arm64.contains_key("EVERYBODYS"));
        assert!(symbols_of_other_arches(Utf8Path::new("/nowhere/at/all"), Arch::Arm64, &known).is_empty());
    }

    #[test]
    fn a_source_stays_in_the_tree_and_ends() {
        for (text, says) in [
            ("source \"../other/Kconfig\"", "leaves the tree"),
            ("source \"/etc/hostname\"", "leaves the tree"),
            ("source \"link/hostname\"", "leaves the tree"),
            ("source \"Kconfig\"", "sources itself"),
            ("source \"a\"", "sources itself"),
            ("source \"large\"", "larger than 2 MiB"),
            ("source \"wide0\"", "too many files"),
        ] {
            let (_dir, root) = tree(&[("Kconfig", text), ("a", "source \"b\""), ("b", "source \"a\"")]);
            std::os::unix::fs::symlink("/etc", root.join("link")).unwrap();
            fs::write(root.join("large"), vec![b'\n'; MAX_FILE as usize + 1]).unwrap();
            for step in 0..20 {
                let next = format!("source \"wide{}\"\n", step + 1).repeat(2);
                fs::write(root.join(format!("wide{step}")), next).unwrap();
            }
            fs::write(root.join("wide20"), "").unwrap();
            let error = read(&root, Arch::Amd64).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        let (_dir, root) = tree(&[]);
        assert!(read(&root, Arch::Amd64).unwrap_err().contains("no Kconfig"));
    }
}
