//! Exports the newest entries of ccache to an image.

use super::entry;
use crate::host::process;
use crate::image::pack;
use crate::kernel::Arch;
use crate::oci::{self, Entries, Entry, ImageSpec, WrittenImage};
use crate::report::{Phase, Reporter};
use crate::util::error::{Error, Kind, Result, ResultExt, cannot};
use crate::util::read::{Links, read_file};
use crate::util::text::{format_size, pluralize};
use camino::{Utf8Path, Utf8PathBuf};
use std::time::SystemTime;
use walkdir::WalkDir;

/// The largest entry that is exported. No object of a kernel is larger.
pub(super) const MAX_ENTRY: u64 = 64 << 20;
/// Limits of an export, which are below those of a reader of layouts.
const MAX_BYTES: u64 = 3 << 30;
const MAX_ENTRIES: usize = 150_000;

#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// The most bytes.
    pub bytes: u64,
    /// The earliest last use. ccache updates the modification time of an entry at each use.
    pub since: Option<SystemTime>,
}

/// An entry that may be exported.
struct Candidate {
    path: String,
    from: Utf8PathBuf,
    bytes: u64,
    used: SystemTime,
}

/// Writes the newest entries of the cache `dir` to an image of a layout in `output`. The same entries give
/// the same digest, independent of time, place and the number of `threads`.
///
/// # Errors
///
/// There is no entry, or no layout can be in `output` (exit code 2).
pub fn export(
    dir: &Utf8Path,
    limit: Limit,
    output: &Utf8Path,
    spec: ImageSpec<'_>,
    arch: Arch,
    threads: usize,
    reporter: &Reporter,
) -> Result<WrittenImage> {
    oci::check_output(output, [spec.layout])?;
    let phase = reporter.start(Phase::Pack, &format!("the cache of ccache, {dir}"));
    let selected = select_entries(candidates(dir)?, limit)?;
    if selected.is_empty() {
        return Err(Error::usage(format!("{dir} has no entries of ccache 4.7 or later to export"))
            .hint("build with --launcher ccache first"));
    }
    let _packing = pack::lock_output(output, reporter)?;
    // The date is 1970, so that the digest does not depend on it.
    let image = oci::prepare(output, spec, arch.name(), &entries(&selected), 0, threads)?.publish()?;
    let bytes = selected.iter().map(|entry| entry.bytes).sum();
    phase.finish(&format!("{}, {}", pluralize(selected.len(), "entry", "entries"), format_size(bytes)));
    Ok(image)
}

fn candidates(dir: &Utf8Path) -> Result<Vec<Candidate>> {
    let mut candidates = Vec::new();
    if !dir.is_dir() {
        return Ok(candidates);
    }
    for found in WalkDir::new(dir).max_depth(5) {
        process::check()?;
        // ccache may remove entries in the meantime.
        let Ok(found) = found else { continue };
        let Some(from) = Utf8Path::from_path(found.path()).filter(|_| found.file_type().is_file()) else {
            continue;
        };
        let path = from.strip_prefix(dir).map(Utf8Path::as_str).unwrap_or_default();
        let Ok(metadata) = found.metadata() else { continue };
        if entry::is_entry(path) && metadata.len() <= MAX_ENTRY {
            candidates.push(Candidate {
                path: path.to_owned(),
                from: from.to_owned(),
                bytes: metadata.len(),
                used: metadata.modified().context(Kind::Build, cannot("read", dir))?,
            });
        }
    }
    Ok(candidates)
}

/// Selects the newest undamaged entries within the limit.
fn select_entries(mut candidates: Vec<Candidate>, limit: Limit) -> Result<Vec<Candidate>> {
    candidates.sort_by(|a, b| b.used.cmp(&a.used).then_with(|| a.path.cmp(&b.path)));
    let mut left = limit.bytes.min(MAX_BYTES);
    let mut selected = Vec::new();
    for candidate in candidates {
        process::check()?;
        let too_old = limit.since.is_some_and(|since| candidate.used < since);
        if too_old || candidate.bytes > left || selected.len() == MAX_ENTRIES {
            break;
        }
        let whole = read_file(&candidate.from, Links::Refuse, MAX_ENTRY)
            .is_ok_and(|bytes| entry::check(&candidate.path, &bytes).is_ok());
        if whole {
            left -= candidate.bytes;
            selected.push(candidate);
        }
    }
    Ok(selected)
}

/// Returns the entries of the layer, with their directories.
fn entries(selected: &[Candidate]) -> Entries {
    let mut entries = Entries::new();
    for Candidate { path, from, .. } in selected {
        for (slash, _) in path.match_indices('/') {
            entries.insert(path[..slash].to_owned(), Entry::Dir);
        }
        entries.insert(path.clone(), Entry::File { from: from.clone(), executable: false });
    }
    entries
}
