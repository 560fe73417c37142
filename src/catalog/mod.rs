//! The files that people edit, `configs/` and `patches/`: those carried inside the binary, and the
//! user's own over them. Read once at the start; everything after that is pure.

pub mod kernels;
pub mod lockfile;
pub mod patches;
pub mod project;
pub mod text;
pub mod toolchain_quirks;

use text::read_text;

use crate::catalog::project::{Project, ProjectDirs};
use crate::util::digest::{Hasher, Sha256};
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::read::{Links, MAX_CONFIG, MAX_TOML, read_file};
use camino::{Utf8Path, Utf8PathBuf};
use include_dir::{Dir, include_dir};
use std::collections::BTreeMap;
use walkdir::WalkDir;

static CONFIGS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/configs");
static PATCHES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/patches");

/// The limits of the user's own files together, all of which are in memory.
const MAX_BYTES: usize = 32 << 20;
const MAX_FILES: usize = 20_000;
/// The limit of one patch of the catalog.
const MAX_PATCH: u64 = 16 << 20;

/// The folder of the fragments.
const FRAGMENTS: &str = "configs/fragments";

/// A file and where it comes from. All but the patches are UTF-8.
#[derive(Clone, Debug)]
struct Text {
    origin: String,
    bytes: Vec<u8>,
}

/// Named texts (`configs/…`, `patches/…`), each with the layers below it.
#[derive(Clone, Debug, Default)]
pub struct ConfigLibrary {
    files: BTreeMap<String, Vec<Text>>,
    /// Where the user's own of them lie, and the defaults that come with them.
    pub project: Project,
}

impl ConfigLibrary {
    /// What the binary carries.
    pub fn built_in() -> ConfigLibrary {
        let mut library = ConfigLibrary::default();
        library.add_dir("configs", &CONFIGS);
        library.add_dir("patches", &PATCHES);
        library
    }

    /// What the binary carries, under the user's own files.
    pub fn with_project(project: Project) -> Result<ConfigLibrary> {
        let mut library = ConfigLibrary::built_in();
        if let Some(ProjectDirs { configs, patches, .. }) = &project.dirs {
            let mut left = MAX_BYTES;
            library.read_dir("configs", configs, Some(patches), &mut left)?;
            library.read_dir("patches", patches, None, &mut left)?;
        }
        library.project = project;
        Ok(library)
    }

    /// Takes in the files of `dir`, if it is there, but for those in `without`. `left` is how many bytes they may have.
    fn read_dir(
        &mut self,
        top: &str,
        dir: &Utf8Path,
        without: Option<&Utf8PathBuf>,
        left: &mut usize,
    ) -> Result<()> {
        if !dir.is_dir() {
            return Ok(());
        }
        // Not sorted: a directory may have any number of files, and the library is.
        for (index, entry) in WalkDir::new(dir).into_iter().enumerate() {
            if index == MAX_FILES {
                return Err(Error::usage(format!("{dir}: more than {MAX_FILES} files")));
            }
            let entry = entry.context(Kind::Usage, || format!("cannot read {dir}"))?;
            let Some(path) = Utf8Path::from_path(entry.path()) else { continue };
            let relative = path.strip_prefix(dir).expect("walked from there").as_str();
            let hidden = relative.starts_with('.') || relative.contains("/.");
            if entry.file_type().is_file() && !hidden && !without.is_some_and(|dir| path.starts_with(dir)) {
                let name = format!("{top}/{relative}");
                let bytes = read(&name, path)?;
                *left = left.checked_sub(bytes.len()).ok_or_else(|| {
                    Error::usage(format!("{dir}: more than {} MiB in its files", MAX_BYTES >> 20))
                        .hint("large patches are read from a directory of their own: --patches DIR")
                })?;
                self.add(name, path.to_string(), bytes);
            }
        }
        Ok(())
    }

    /// A library of these `(name, text)` only.
    pub fn from_texts<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> ConfigLibrary {
        let mut library = ConfigLibrary::default();
        for (name, text) in texts {
            library.add(name.to_owned(), name.to_owned(), text.into());
        }
        library
    }

    fn add_dir(&mut self, top: &str, dir: &Dir<'_>) {
        for file in dir.files() {
            let name = format!("{top}/{}", file.path().display());
            self.add(name.clone(), name, file.contents().to_owned());
        }
        dir.dirs().for_each(|dir| self.add_dir(top, dir));
    }

    fn add(&mut self, name: String, origin: String, bytes: Vec<u8>) {
        self.files.entry(name).or_default().push(Text { origin, bytes });
    }

    /// The topmost text of `name`.
    pub fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.bytes(name)?).ok()
    }

    /// The topmost file `name`, which may be a patch.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        Some(&self.files.get(name)?.last()?.bytes)
    }

    /// Every layer of the text `name`, lowest first, as `(origin, text)`.
    pub fn layers(&self, name: &str) -> impl Iterator<Item = (&str, &str)> {
        let layers = self.files.get(name).into_iter().flatten();
        layers.filter_map(|layer| Some((layer.origin.as_str(), std::str::from_utf8(&layer.bytes).ok()?)))
    }

    /// The names in folder `dir` (`configs/firecracker`), without it, in their order.
    pub fn names_in(&self, dir: &str) -> impl Iterator<Item = &str> {
        self.names_below(dir).filter(|rest| !rest.contains('/'))
    }

    /// The same with what lies in the folders below it.
    pub fn names_below(&self, dir: &str) -> impl Iterator<Item = &str> {
        let prefix = format!("{dir}/");
        self.files.keys().filter_map(move |name| name.strip_prefix(&prefix))
    }

    /// The fragments by their names, each with its first line, which says what for.
    pub fn fragments(&self) -> impl Iterator<Item = (&str, &str)> {
        self.names_in(FRAGMENTS).filter_map(|file| {
            let text = self.text(&format!("{FRAGMENTS}/{file}"))?;
            let first = text.lines().next().unwrap_or_default();
            Some((file.strip_suffix(".config")?, first.strip_prefix('#').unwrap_or_default().trim()))
        })
    }

    /// The digest of everything in it: the catalog's revision.
    pub fn revision(&self) -> Sha256 {
        let mut hasher = Hasher::default();
        for (name, texts) in &self.files {
            for text in texts {
                hasher.update(format!("{name}\0{}\0", text.bytes.len()));
                hasher.update(&text.bytes);
            }
        }
        hasher.finish()
    }
}

/// Reads the file at `path`, which the library calls `name`.
fn read(name: &str, path: &Utf8Path) -> Result<Vec<u8>> {
    if name.ends_with(".toml") {
        return read_text(path, MAX_TOML).map(String::into_bytes);
    }
    if name.starts_with("patches/") {
        let bytes = read_file(path, Links::Refuse, MAX_PATCH);
        return bytes.context(Kind::Usage, || format!("cannot read {path}"));
    }
    read_text(path, MAX_CONFIG).map(String::into_bytes)
}
