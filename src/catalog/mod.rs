//! The files that people edit, `configs/` and `patches/`: the built-in ones, and the user's, which override
//! them. They are read once at the start.

pub mod entry_text;
pub mod kernels;
pub mod lockfile;
pub mod patches;
pub mod project;
pub mod text;
pub mod tool_versions;
pub mod toolchain_quirks;

use crate::catalog::project::{Project, ProjectDirs};
use crate::catalog::text::{read_config, read_text};
use crate::util::digest::{Hasher, Sha256};
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::read::{Links, MAX_TOML, read_file};
use camino::{Utf8Path, Utf8PathBuf};
use include_dir::{Dir, include_dir};
use std::collections::BTreeMap;
use walkdir::WalkDir;

static CONFIGS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/configs");
static PATCHES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/patches");

/// The limits of the user's files together, which are held in memory.
const MAX_BYTES: usize = 32 << 20;
const MAX_FILES: usize = 20_000;
/// The limit of one patch of the catalog.
const MAX_PATCH: u64 = 16 << 20;

const FRAGMENTS: &str = "configs/fragments";

/// The bytes of a file, which are UTF-8 except in patches, and the path that it was read from.
#[derive(Clone, Debug)]
struct Text {
    origin: String,
    bytes: Vec<u8>,
}

/// The files by name (`configs/…`, `patches/…`), each with the layers below it.
#[derive(Clone, Debug, Default)]
pub struct ConfigLibrary {
    files: BTreeMap<String, Vec<Text>>,
    /// Where the user's files lie, and the user's defaults.
    pub project: Project,
}

impl ConfigLibrary {
    pub fn built_in() -> ConfigLibrary {
        let mut library = ConfigLibrary::default();
        library.add_dir("configs", &CONFIGS);
        library.add_dir("patches", &PATCHES);
        library
    }

    /// Returns the built-in files with the user's files over them.
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

    /// Adds the files of `dir`, if it exists, except those in `without`. They may have `left` bytes.
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
        // Sorting would read all names before the limit applies.
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
                        .hint("keep large patches in another directory, and name it with --patches DIR")
                })?;
                self.add(name, path.to_string(), bytes);
            }
        }
        Ok(())
    }

    /// Returns the library after a change of the user's file at `path`, which is `name` in the library. `None`
    /// removes the file.
    pub fn with_file(mut self, name: &str, path: &Utf8Path, text: Option<&str>) -> ConfigLibrary {
        if let Some(layers) = self.files.get_mut(name) {
            layers.retain(|layer| layer.origin != path.as_str());
            if layers.is_empty() {
                self.files.remove(name);
            }
        }
        if let Some(text) = text {
            self.add(name.to_owned(), path.to_string(), text.into());
        }
        self
    }

    /// Returns a library of these names and texts only.
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

    /// Returns the topmost layer of the text `name`.
    pub fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.bytes(name)?).ok()
    }

    /// Returns the topmost layer of the file `name`, which may be a patch.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        Some(&self.files.get(name)?.last()?.bytes)
    }

    /// Returns every layer of the text `name`, lowest first, as path and text.
    pub fn layers(&self, name: &str) -> impl Iterator<Item = (&str, &str)> {
        let layers = self.files.get(name).into_iter().flatten();
        layers.filter_map(|layer| Some((layer.origin.as_str(), std::str::from_utf8(&layer.bytes).ok()?)))
    }

    /// Returns the sorted names in folder `dir` (`configs/firecracker`), without the folder.
    pub fn names_in(&self, dir: &str) -> impl Iterator<Item = &str> {
        self.names_below(dir).filter(|rest| !rest.contains('/'))
    }

    /// Returns the sorted names in folder `dir` and below, without the folder.
    pub fn names_below(&self, dir: &str) -> impl Iterator<Item = &str> {
        let prefix = format!("{dir}/");
        self.files.keys().filter_map(move |name| name.strip_prefix(&prefix))
    }

    /// Returns the names of the fragments, each with its first line, which describes it.
    pub fn fragments(&self) -> impl Iterator<Item = (&str, &str)> {
        self.names_in(FRAGMENTS).filter_map(|file| {
            let text = self.text(&format!("{FRAGMENTS}/{file}"))?;
            let first = text.lines().next().unwrap_or_default();
            Some((file.strip_suffix(".config")?, first.strip_prefix('#').unwrap_or_default().trim()))
        })
    }

    /// Returns the digest of all files, which is the catalog's revision.
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

/// Reads the file at `path`, which is `name` in the library.
fn read(name: &str, path: &Utf8Path) -> Result<Vec<u8>> {
    if name.ends_with(".toml") {
        read_text(path, MAX_TOML).map(String::into_bytes)
    } else if name.starts_with("patches/") {
        read_file(path, Links::Refuse, MAX_PATCH).context(Kind::Usage, || format!("cannot read {path}"))
    } else {
        read_config(path).map(String::into_bytes)
    }
}
