//! Gets the CVE records, from a git repository or a directory, and keeps an index of them in the cache.

use crate::cve::{Index, MAX_RECORD, RecordsOrigin, SkipReason};
use crate::report::Phase;
use crate::source::{DataLimits, DataRepository, FetchContext, cached_data, fetch_data, local_data};
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result, ResultExt, cannot};
use crate::util::fs::write_atomically;
use crate::util::read::{Links, MAX_SMALL_FILE, read_file};
use crate::util::text::{format_age, pluralize};
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;
use std::str::FromStr;
use std::time::Duration;
use walkdir::WalkDir;

/// The repository of the kernel's CNA.
pub const VULNS: &str = "https://git.kernel.org/pub/scm/linux/security/vulns.git";
const BRANCH: &str = "master";
/// The published records of the repository. Reserved and rejected ones lie beside them.
const PUBLISHED: &str = "cve/published";
/// The limit of records. The CNA had 14,626 in August 2026.
const LIMITS: DataLimits = DataLimits { files: 100_000, bytes: MAX_RECORD };
/// The limit of an index. That of 14,626 records has 10 MB.
pub(super) const MAX_INDEX: u64 = 256 << 20;

/// Where to get records from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataSource {
    Git { url: String, reference: String },
    Directory(Utf8PathBuf),
}

impl Default for DataSource {
    fn default() -> DataSource {
        DataSource::Git { url: VULNS.to_owned(), reference: BRANCH.to_owned() }
    }
}

impl FromStr for DataSource {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<DataSource, String> {
        let Some(rest) = text.strip_prefix("git+") else { return Ok(DataSource::Directory(text.into())) };
        if !["https://", "http://", "ssh://", "git://"].iter().any(|scheme| rest.starts_with(scheme)) {
            return Err(format!("`{text}` is not a URL that git can fetch from"));
        }
        let (url, reference) = rest.split_once('#').unwrap_or((rest, BRANCH));
        Ok(DataSource::Git { url: url.to_owned(), reference: reference.to_owned() })
    }
}

/// The records, and how old they are.
pub struct Records {
    pub index: Index,
    /// The time since the repository was asked, unless the records are a directory.
    pub age: Option<Duration>,
}

impl Records {
    /// Describes the records in one line.
    pub fn describe(&self) -> String {
        let Index { origin, records, .. } = &self.index;
        let date = crate::util::time::rfc3339(origin.date);
        let commit =
            origin.commit.as_ref().map_or_else(String::new, |commit| format!(", commit {}", &commit[..12]));
        let age = self.age.map_or_else(String::new, |age| format!(", fetched {} ago", format_age(age)));
        let count = pluralize(records.len(), "record", "records");
        format!("{count} of {}{commit}{age}", date.split('T').next().unwrap_or_default())
    }
}

/// The last time that a repository was asked for its branch.
#[derive(Debug, Serialize, Deserialize)]
struct LastFetch {
    name: String,
    commit: String,
    /// In seconds since 1970.
    at: u64,
}

/// Reads the records. A repository is asked again if that was longer ago than `max_age`.
///
/// # Errors
///
/// Exit code 3: there are no records, or the server cannot be reached and the cache has none.
pub fn read(source: &DataSource, max_age: Duration, ctx: &FetchContext<'_>) -> Result<Records> {
    let index = match source {
        DataSource::Git { url, reference } => return from_git(url, reference, max_age, ctx),
        DataSource::Directory(dir) if is_repository(dir) => {
            let repository = local_data(dir, ctx.cache, ctx.host)?;
            from_repository(dir.as_str(), &repository, ctx)?
        }
        DataSource::Directory(dir) => from_directory(dir, ctx)?,
    };
    Ok(Records { index, age: None })
}

fn from_git(url: &str, reference: &str, max_age: Duration, ctx: &FetchContext<'_>) -> Result<Records> {
    let name = format!("{url}#{reference}");
    let state = fetch_path(&name, &ctx.cache.root);
    let last = last_fetch(&name, &ctx.cache.root);
    let age = |last: &LastFetch| Duration::from_secs(ctx.host.now.saturating_sub(last.at));
    let is_new = |last: &&LastFetch| ctx.offline || (age(last) < max_age && last.at <= ctx.host.now);
    if let Some(last) = last.as_ref().filter(is_new)
        && let Some(index) = of_commit(&name, url, &last.commit, ctx)?
    {
        return Ok(Records { index, age: Some(age(last)) });
    }
    if ctx.offline {
        return Err(Error::fetch(format!("--offline: the CVE records of {name} are not in the cache"))
            .hint("run the same command once with a network, or give a copy with --data DIR"));
    }
    let phase = ctx.reporter.start(Phase::Source, &name);
    let repository = match fetch_data(url, reference, ctx, &phase) {
        Ok(repository) => repository,
        Err(error) if error.kind == Kind::Fetch => {
            let last = last.filter(|last| last.at <= ctx.host.now);
            let Some(last) = last else { return Err(error) };
            let Some(index) = of_commit(&name, url, &last.commit, ctx)? else { return Err(error) };
            ctx.reporter.warning(format!("{error}; using the CVE records from the cache"));
            return Ok(Records { index, age: Some(age(&last)) });
        }
        Err(error) => return Err(error),
    };
    let index = from_repository(&name, &repository, ctx)?;
    phase.finish(&pluralize(index.records.len(), "record", "records"));
    let last = LastFetch { name, commit: repository.commit, at: ctx.host.now };
    write_atomically(&state, &serde_json::to_vec(&last).expect("plain strings"))?;
    Ok(Records { index, age: Some(Duration::ZERO) })
}

/// Returns the records of the kernel's CNA in the cache, whatever their age, without a network. Runs nothing.
pub fn cached(cache_dir: &Utf8Path) -> Option<Index> {
    let name = format!("{VULNS}#{BRANCH}");
    let last = last_fetch(&name, cache_dir)?;
    let bytes = read_file(index_path(&name, cache_dir), Links::Refuse, MAX_INDEX).ok()?;
    Index::from_bytes(&bytes, &last.commit)
}

fn fetch_path(name: &str, cache_dir: &Utf8Path) -> Utf8PathBuf {
    cache_dir.join(format!("cve/fetched-{}.json", Sha256::of(name).short()))
}

fn last_fetch(name: &str, cache_dir: &Utf8Path) -> Option<LastFetch> {
    let bytes = read_file(fetch_path(name, cache_dir), Links::Refuse, MAX_SMALL_FILE).ok()?;
    serde_json::from_slice(&bytes).ok().filter(|last: &LastFetch| last.name == name)
}

/// Returns the records of a commit that was fetched before, if the cache still has them.
fn of_commit(name: &str, url: &str, commit: &str, ctx: &FetchContext<'_>) -> Result<Option<Index>> {
    if let Some(index) = cached_index(name, commit, ctx) {
        return Ok(Some(index));
    }
    let repository = cached_data(url, commit, ctx.cache, ctx.host)?;
    repository.map(|repository| from_repository(name, &repository, ctx)).transpose()
}

fn from_repository(name: &str, repository: &DataRepository, ctx: &FetchContext<'_>) -> Result<Index> {
    let DataRepository { commit, date, .. } = repository;
    if let Some(index) = cached_index(name, commit, ctx) {
        return Ok(index);
    }
    let origin = RecordsOrigin { name: name.to_owned(), commit: Some(commit.clone()), date: *date };
    let mut index = Index::new(commit.clone(), origin);
    let pattern = format!("{PUBLISHED}/*/CVE-*.json");
    repository.visit_files(&pattern, LIMITS, ctx.host, |file, content| match content {
        Some(bytes) => index.add(file, bytes),
        None => index.skip(file, SkipReason::TooLarge),
    })?;
    store(index.finish(), ctx)
}

/// Returns whether `dir` is a git repository or has one.
fn is_repository(dir: &Utf8Path) -> bool {
    dir.join(".git").exists() || (dir.join("objects").is_dir() && dir.join("HEAD").is_file())
}

/// Reads the records of a plain directory.
fn from_directory(dir: &Utf8Path, ctx: &FetchContext<'_>) -> Result<Index> {
    let published = dir.join(PUBLISHED);
    let root = if published.is_dir() { &published } else { dir };
    let mut files = Vec::new();
    let mut state = String::new();
    let mut date = 0;
    for entry in WalkDir::new(root).max_depth(3).sort_by_file_name() {
        let entry = entry.map_err(|error| Error::fetch(format!("cannot read {root}")).caused_by(error))?;
        let is_record = |name: &str| name.starts_with("CVE-") && name.ends_with(".json");
        if !entry.file_type().is_file() || !entry.file_name().to_str().is_some_and(is_record) {
            continue;
        }
        let metadata =
            entry.metadata().map_err(|error| Error::fetch(format!("cannot read {root}")).caused_by(error))?;
        let Ok(path) = Utf8PathBuf::from_path_buf(entry.into_path()) else { continue };
        if files.len() == LIMITS.files {
            return Err(Error::fetch(format!("{root} has more than {} records", LIMITS.files)));
        }
        date = date.max(u64::try_from(metadata.mtime()).unwrap_or(0));
        let (size, time) = (
            metadata.size(),
            (metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()),
        );
        state.push_str(&format!("{path:?} {size} {time:?} {}\n", metadata.ino()));
        files.push((path, size));
    }
    if files.is_empty() {
        return Err(Error::fetch(format!("{dir} has no CVE records"))
            .hint(format!("give a copy of {VULNS}, or a directory with CVE-*.json")));
    }
    let key = Sha256::of(&state).to_string();
    if let Some(index) = cached_index(dir.as_str(), &key, ctx) {
        return Ok(index);
    }
    let mut index = Index::new(key, RecordsOrigin { name: dir.to_string(), commit: None, date });
    for (path, size) in &files {
        let name = path.strip_prefix(root).unwrap_or(path).as_str();
        if *size > LIMITS.bytes {
            index.skip(name, SkipReason::TooLarge);
            continue;
        }
        let bytes = read_file(path, Links::Refuse, LIMITS.bytes);
        index.add(name, &bytes.context(Kind::Fetch, cannot("read", path))?);
    }
    store(index.finish(), ctx)
}

fn index_path(name: &str, cache_dir: &Utf8Path) -> Utf8PathBuf {
    cache_dir.join(format!("cve/index-{}.json", Sha256::of(name).short()))
}

fn cached_index(name: &str, key: &str, ctx: &FetchContext<'_>) -> Option<Index> {
    let path = index_path(name, &ctx.cache.root);
    let index = Index::from_bytes(&read_file(&path, Links::Refuse, MAX_INDEX).ok()?, key)?;
    if let Some(owner) = ctx.cache.foreign_owner(&path) {
        ctx.reporter.note(&format!("using {path}, which user {owner} put into the shared cache"));
    }
    Some(index)
}

/// Stores the index. A failure does not matter, since the index only saves time.
fn store(index: Index, ctx: &FetchContext<'_>) -> Result<Index> {
    if index.records.is_empty() {
        return Err(Error::fetch(format!("{} has no CVE records", index.origin.name))
            .hint(format!("records are expected in {PUBLISHED}/YEAR/CVE-*.json")));
    }
    let _ = write_atomically(&index_path(&index.origin.name, &ctx.cache.root), &index.to_bytes());
    for (reason, skipped) in &index.skipped {
        let files = pluralize(skipped.count, "file", "files");
        ctx.reporter.note(&format!("skipped {files} {}: {}", reason.describe(), skipped.names.join(", ")));
    }
    Ok(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_a_directory_or_a_repository() {
        let git =
            |url: &str, reference: &str| DataSource::Git { url: url.into(), reference: reference.into() };
        assert_eq!("vulns".parse(), Ok(DataSource::Directory("vulns".into())));
        assert_eq!("git+https://x/v.git".parse(), Ok(git("https://x/v.git", "master")));
        assert_eq!("git+https://x/v.git#main".parse(), Ok(git("https://x/v.git", "main")));
        assert!("git+file:///x".parse::<DataSource>().is_err());
    }
}
