//! The document that lists the files that a build compiled. It is JSON, compressed with gzip, and is attached
//! to the images of the build.

use super::record::is_path;
use crate::kernel::{Arch, Flavor, KernelVersion};
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result, ResultExt};
use flate2::read::GzDecoder;
use flate2::{Compression, GzBuilder};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};

/// The version of the form of the document.
const SCHEMA: u32 = 1;
/// The limit of the uncompressed document. That of Linux 6.1 has 4 MB.
const MAX_BYTES: u64 = 64 << 20;

/// The files that a build compiled, and all paths of its source tree. Field names are part of the contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompiledFiles {
    pub schema: u32,
    /// The version of the source.
    pub version: KernelVersion,
    /// `uname -r`.
    pub release: String,
    pub flavor: Flavor,
    pub arch: Arch,
    /// The digest of the plan.
    pub plan: Sha256,
    pub source: KernelSource,
    /// `vmlinux`, and the modules by their paths in the build directory.
    pub components: Vec<String>,
    /// Sets of components, as indexes in `components`.
    pub component_sets: Vec<Vec<u32>>,
    /// Sorted by path.
    pub files: Vec<CompiledFile>,
    /// The names of the files of the source tree, by their directories. The top directory is empty.
    pub tree: BTreeMap<String, Vec<String>>,
}

/// Where the source is from, as far as it matters for CVEs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelSource {
    /// `kernel.org`, `git`, `apt`, `tarball` or `directory`.
    pub kind: String,
    /// The number of patches that were applied.
    pub patches: usize,
}

/// A source or header that the compiler read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompiledFile {
    /// The path in the source tree.
    pub path: String,
    pub sha256: Sha256,
    /// SHA-1, which SPDX requires.
    #[serde(skip)]
    pub sha1: [u8; 20],
    /// An index in `component_sets`.
    pub components: u32,
    /// The option without which Kbuild does not compile the file, if there is exactly one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub option: Option<String>,
}

impl CompiledFiles {
    pub const SCHEMA: u32 = SCHEMA;

    /// Returns the compressed document. Equal documents have equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).expect("only string keys");
        let mut encoder = GzBuilder::new().operating_system(255).write(Vec::new(), Compression::new(6));
        encoder.write_all(&json).and_then(|()| encoder.finish()).expect("writing to memory")
    }

    /// Parses and checks a compressed document, which is untrusted.
    ///
    /// # Errors
    ///
    /// Exit code 3: it is not such a document.
    pub fn from_bytes(name: &str, bytes: &[u8]) -> Result<CompiledFiles> {
        let message = || format!("{name} is not a list of compiled files");
        let mut json = Vec::new();
        let read = GzDecoder::new(bytes).take(MAX_BYTES + 1).read_to_end(&mut json);
        read.context(Kind::Fetch, message)?;
        if json.len() as u64 > MAX_BYTES {
            return Err(Error::fetch(format!("{}: larger than 64 MiB", message())));
        }
        let files: CompiledFiles = serde_json::from_slice(&json).context(Kind::Fetch, message)?;
        files.check().map_err(|why| Error::fetch(format!("{}: {why}", message())))?;
        Ok(files)
    }

    fn check(&self) -> std::result::Result<(), String> {
        if self.schema != SCHEMA {
            return Err(format!("its schema is {}, and this kcompile reads {SCHEMA}", self.schema));
        }
        let is_index = |index: &u32, len: usize| (*index as usize) < len;
        let are_valid = self.component_sets.iter().flatten().all(|one| is_index(one, self.components.len()))
            && self.files.iter().all(|file| is_index(&file.components, self.component_sets.len()));
        if !are_valid {
            return Err("an index is out of range".to_owned());
        }
        match self.files.iter().find(|file| !is_path(&file.path)) {
            Some(file) => Err(format!("`{}` is not a path in a tree", file.path.escape_debug())),
            None => Ok(()),
        }
    }

    /// Returns the files by their paths.
    pub fn by_path(&self) -> HashMap<&str, &CompiledFile> {
        self.files.iter().map(|file| (file.path.as_str(), file)).collect()
    }

    /// Returns the names of the components that a file is in.
    pub fn components_of(&self, file: &CompiledFile) -> Vec<&str> {
        let set = &self.component_sets[file.components as usize];
        set.iter().map(|index| self.components[*index as usize].as_str()).collect()
    }

    /// Returns whether the source tree has this file.
    pub fn tree_has(&self, path: &str) -> bool {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        self.tree.get(dir).is_some_and(|names| names.iter().any(|one| one == name))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn example() -> CompiledFiles {
        let file = |path: &str, components| CompiledFile {
            path: path.to_owned(),
            sha256: Sha256::of(path),
            sha1: [0; 20],
            components,
            option: None,
        };
        CompiledFiles {
            schema: SCHEMA,
            version: KernelVersion::new(6, 1, 7),
            release: "6.1.7".into(),
            flavor: Flavor::Firecracker,
            arch: Arch::Amd64,
            plan: Sha256::of("plan"),
            source: KernelSource { kind: "kernel.org".into(), patches: 0 },
            components: vec!["vmlinux".into(), "net/a.ko".into()],
            component_sets: vec![vec![0], vec![0, 1]],
            files: vec![file("include/a.h", 1), file("init/main.c", 0)],
            tree: BTreeMap::from([
                (String::new(), vec!["Makefile".into()]),
                ("init".into(), vec!["main.c".into()]),
            ]),
        }
    }

    #[test]
    fn a_document_is_read_as_it_was_written() {
        let document = example();
        let bytes = document.to_bytes();
        assert_eq!(bytes, document.to_bytes());
        let read = CompiledFiles::from_bytes("x", &bytes).unwrap();
        assert_eq!(read, document);
        assert_eq!(read.components_of(read.by_path()["include/a.h"]), ["vmlinux", "net/a.ko"]);
        assert!(read.tree_has("Makefile") && read.tree_has("init/main.c"));
        assert!(!read.tree_has("main.c") && !read.tree_has("init"));
    }

    #[test]
    fn invalid_documents_are_refused() {
        let refused = |change: fn(&mut CompiledFiles)| {
            let mut document = example();
            change(&mut document);
            CompiledFiles::from_bytes("x", &document.to_bytes()).unwrap_err().to_string()
        };
        assert!(refused(|one| one.schema = 2).contains("schema is 2"));
        assert!(refused(|one| one.component_sets[1][1] = 2).contains("out of range"));
        assert!(refused(|one| one.files[0].components = 2).contains("out of range"));
        assert!(refused(|one| one.files[0].path = "../x".into()).contains("not a path"));
        let bytes = example().to_bytes();
        assert!(CompiledFiles::from_bytes("x", &bytes[..bytes.len() - 9]).is_err());
        assert!(CompiledFiles::from_bytes("x", b"{}").is_err());
        let mut bomb = GzBuilder::new().write(Vec::new(), Compression::new(9));
        bomb.write_all(&vec![b' '; (MAX_BYTES + 2) as usize]).unwrap();
        let error = CompiledFiles::from_bytes("x", &bomb.finish().unwrap()).unwrap_err();
        assert!(error.to_string().contains("larger than 64 MiB"), "{error}");
    }
}
