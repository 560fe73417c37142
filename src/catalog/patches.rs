//! Chooses the patches of a version and reads them. [`crate::source`] applies them.

use crate::catalog::ConfigLibrary;
use crate::catalog::text::{read_text, read_toml};
use crate::host::process::Interruptible;
use crate::kernel::KernelVersion;
use crate::util::digest::{HashingReader, Sha256};
use crate::util::error::{Error, Kind, Result, ResultExt, cannot};
use crate::util::read::{Links, MAX_TOML, open_file};
use camino::{Utf8Component, Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io::{self, Read};
use std::sync::Arc;
use walkdir::WalkDir;

/// The limit of one patch, as a file and decompressed. A patch from one series to the next has about 90 MB.
pub const MAX_PATCH: u64 = 256 << 20;
/// The limit of all patches of a directory, as files.
const MAX_PATCHES: u64 = 1 << 30;

/// The file of a quilt directory that lists its patches.
const SERIES: &str = "series";
/// The hint for `--patches`.
const PATCHES: &str = "give a directory with files that end in .patch or .diff";

/// One patch of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PatchFile {
    /// The path in the catalog, or in the user's directory.
    pub name: String,
    /// The digest of the file as it is, which may be compressed.
    pub sha256: Sha256,
    /// The number of path components to strip, if a quilt series has it (`-p0`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strip: Option<u8>,
    /// Why it is needed, for patches of the catalog.
    #[serde(skip)]
    pub reason: Option<String>,
    /// The output of `git format-patch` or `diff -u`, which may be compressed.
    #[serde(skip)]
    pub bytes: PatchBytes,
}

/// The bytes of a patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatchBytes {
    /// Of a patch of the catalog.
    InMemory(Arc<[u8]>),
    /// The path of a file, which may be too large for memory.
    At(Utf8PathBuf),
}

/// The patches of a user's directory.
#[derive(Clone, Debug, Default)]
pub struct PatchDir {
    /// In the order of their application.
    pub patches: Vec<PatchFile>,
    /// Names the files that were not read, if there are any.
    pub notice: Option<String>,
}

/// One entry of `patches/series.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SeriesEntry {
    /// `5.10/0001-objtool-….patch`.
    file: String,
    /// The first version that needs it.
    from: KernelVersion,
    /// The first version that no longer needs it.
    before: KernelVersion,
    reason: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Series {
    #[serde(default)]
    patch: Vec<SeriesEntry>,
}

/// Returns the catalog's patches for `version` in the order of `series.toml`, then the user's. Adds the names
/// of files that no version uses to `notices`.
pub fn select(
    library: &ConfigLibrary,
    version: KernelVersion,
    own: &PatchDir,
    notices: &mut Vec<String>,
) -> Result<Vec<PatchFile>> {
    let mut selected = Vec::new();
    let mut listed = BTreeSet::new();
    for (origin, text) in library.layers("patches/series.toml") {
        let series: Series = read_toml(origin, text)?;
        for entry in series.patch {
            let name = format!("patches/{}", entry.file);
            if (entry.from..entry.before).contains(&version) {
                let bytes = library
                    .bytes(&name)
                    .ok_or_else(|| Error::usage(format!("{origin}: no such file: {name}")))?;
                selected.push(PatchFile {
                    sha256: Sha256::of(bytes),
                    strip: None,
                    reason: Some(entry.reason),
                    bytes: PatchBytes::InMemory(bytes.into()),
                    name,
                });
            }
            listed.insert(entry.file);
        }
    }
    let unlisted: Vec<&str> =
        library.names_below("patches").filter(|name| is_patch(name) && !listed.contains(*name)).collect();
    if !unlisted.is_empty() {
        notices.push(format!(
            "patches/series.toml does not list these patches, which are not applied: {}",
            unlisted.join(", ")
        ));
    }
    selected.extend_from_slice(&own.patches);
    notices.extend(own.notice.clone());
    Ok(selected)
}

/// Reads the patches of a user's directory: those in its quilt `series`, or else all patches sorted by name.
///
/// # Errors
///
/// Exit code 2: there is no patch, or one that cannot be read.
pub fn read_dir(dir: &Utf8Path) -> Result<PatchDir> {
    let series = dir.join(SERIES);
    let (patches, why) = if series.is_file() {
        (read_series(dir, &series)?, "its series does not list them")
    } else {
        let names = dir.read_dir().and_then(|entries| {
            // Names that are not UTF-8 are reported as not read.
            entries
                .filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose())
                .collect()
        });
        let mut names: BTreeSet<String> = names
            .context(Kind::Usage, || format!("cannot read --patches {dir}"))
            .map_err(|error| error.hint(PATCHES))?;
        names.retain(|name| is_patch(name) && !dir.join(name).is_dir());
        let mut left = MAX_PATCHES;
        let patches: Result<_> = names.iter().map(|name| read_patch(dir, name, &mut left)).collect();
        (patches?, "patches end in .patch or .diff, and may be compressed (.gz, .xz, .bz2, .zst)")
    };
    let read = patches.iter().map(|patch| patch.name.as_str()).chain([SERIES]).collect();
    let unread = unread_files(dir, &read)?;
    let notice =
        (!unread.is_empty()).then(|| format!("--patches {dir}: not read: {} ({why})", unread.join(", ")));
    if patches.is_empty() {
        return Err(Error::usage(format!("--patches {dir}: the directory has no patches"))
            .hint(notice.unwrap_or_else(|| PATCHES.to_owned())));
    }
    Ok(PatchDir { patches, notice })
}

/// Returns whether a file of this name is a patch.
fn is_patch(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let plain = [".gz", ".xz", ".bz2", ".zst"].iter().find_map(|suffix| name.strip_suffix(suffix));
    matches!(Utf8Path::new(plain.unwrap_or(&name)).extension(), Some("patch" | "diff"))
}

/// Reads the patches in `series`, which has a name in each line, and possibly `-pN` after it.
fn read_series(dir: &Utf8Path, series: &Utf8Path) -> Result<Vec<PatchFile>> {
    let mut patches = Vec::new();
    let mut left = MAX_PATCHES;
    for (index, line) in read_text(series, MAX_TOML)?.lines().enumerate() {
        let message = |what: String| Error::usage(format!("{series}: line {}: {what}", index + 1));
        let mut fields = line.split_whitespace().take_while(|word| !word.starts_with('#'));
        let Some(name) = fields.next() else { continue };
        let mut strip = None;
        for option in fields {
            let number = option.strip_prefix("-p").and_then(|number| number.parse().ok());
            strip = Some(number.ok_or_else(|| message(format!("unsupported option `{option}`")))?);
        }
        if !Utf8Path::new(name).components().all(|part| matches!(part, Utf8Component::Normal(_))) {
            return Err(message(format!("`{name}` is not a path inside the directory")));
        }
        let patch = read_patch(dir, name, &mut left).map_err(|error| message(error.to_string()))?;
        patches.push(PatchFile { strip, ..patch });
    }
    Ok(patches)
}

/// Hashes a patch. `left` is the number of bytes that patches may still have.
fn read_patch(dir: &Utf8Path, name: &str, left: &mut u64) -> Result<PatchFile> {
    let path = dir.join(name);
    let file = open_file(&path, Links::Follow).context(Kind::Usage, cannot("read", &path))?;
    let mut file = HashingReader::new(Interruptible(file.take(MAX_PATCH + 1)));
    io::copy(&mut file, &mut io::sink()).context(Kind::Usage, cannot("read", &path))?;
    let (sha256, size) = file.finish();
    if size > MAX_PATCH {
        return Err(Error::usage(format!("{path}: larger than {} MiB", MAX_PATCH >> 20)));
    }
    *left = left.checked_sub(size).ok_or_else(|| {
        Error::usage(format!("{path}: the patches up to this one are larger than {} MiB", MAX_PATCHES >> 20))
    })?;
    Ok(PatchFile { name: name.to_owned(), sha256, strip: None, reason: None, bytes: PatchBytes::At(path) })
}

/// Returns the files in `dir` that are not in `read`. A directory without any file of `read` is one name.
/// Git's files (`.git`, `.gitignore`) are left out.
fn unread_files(dir: &Utf8Path, read: &BTreeSet<&str>) -> Result<Vec<String>> {
    let mut unread = Vec::new();
    let mut walk = WalkDir::new(dir).min_depth(1).sort_by_file_name().into_iter();
    while let Some(entry) = walk.next() {
        let entry = entry.context(Kind::Usage, || format!("cannot read --patches {dir}"))?;
        let name = entry.path().strip_prefix(dir).expect("walked from there").to_string_lossy();
        let is_dir = entry.file_type().is_dir();
        if entry.file_name().to_string_lossy().starts_with(".git") {
            if is_dir {
                walk.skip_current_dir();
            }
        } else if !is_dir {
            unread.extend((!read.contains(&*name)).then(|| name.into_owned()));
        } else if !read.iter().any(|read| Utf8Path::new(read).starts_with(&*name)) {
            unread.push(format!("{name}/"));
            walk.skip_current_dir();
        }
    }
    Ok(unread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_are_chosen_by_version() {
        let series =
            "[[patch]]\nfile = \"5.10/a.patch\"\nfrom = \"5.10\"\nbefore = \"5.10.102\"\nreason = \"r\"\n";
        let library =
            ConfigLibrary::from_texts([("patches/series.toml", series), ("patches/5.10/a.patch", "x")]);
        let select = |version: &str, notices: &mut Vec<String>| {
            select(&library, version.parse().unwrap(), &PatchDir::default(), notices).unwrap().len()
        };
        let mut notices = Vec::new();
        let counts = ["5.10.77", "5.10.102", "5.9"].map(|version| select(version, &mut notices));
        assert_eq!((counts, notices), ([1, 0, 0], vec![]));
    }

    #[test]
    fn names_of_patches() {
        for name in ["a.patch", "a.diff", "A.PATCH", "a.patch.gz", "a.Diff.XZ", "a.patch.bz2", "a.diff.zst"] {
            assert!(is_patch(name), "{name}");
        }
        for name in ["series", "a.patch~", "a.patch.orig", "a.gz", "patch", ".patch", "a.patch.gz.gz"] {
            assert!(!is_patch(name), "{name}");
        }
    }
}
