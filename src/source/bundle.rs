//! Bundles: one file with the sources for builds on a machine without a network.
//!
//! A bundle is a plain tar:
//!
//! ```text
//! kcompile-bundle.json      its index: archives with their signatures, commits, lock entries
//! archives/<sha256>         archives as they were sent
//! commits/<commit>.pack     a git pack with one commit and its tree
//! ```
//!
//! A bundle comes from outside and is not trusted. An archive must have the digest of its name, and a pack
//! must be valid. Both are verified again (signature, pins) when they are unpacked. Until then, the lock
//! entries of a bundle are unverified. Entries of sources that are not used never reach the lock file.

use super::archive_store::{self, ChecksumList, Proofs, StoredArchive};
use super::context::{FetchContext, check_digest};
use super::git;
use super::git_fetch::MAX_PACK;
use super::git_store::repository_lock;
use crate::catalog::lockfile::{self, Locked};
use crate::host::process::{self, Interruptible};
use crate::kernel::{CommitId, SourceDigest};
use crate::plan::{SourceIdentity, SourceLocation};
use crate::util::digest::{HashingReader, Sha256};
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::fs::{TEMPORARY, persist};
use crate::util::read::{Links, open_file};
use crate::util::text::{escape_control, format_size, pluralize};
use camino::Utf8Path;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use tempfile::NamedTempFile;

const INDEX: &str = "kcompile-bundle.json";
const FORMAT: u32 = 1;
/// The hint for a file that is not a whole bundle.
const WRITE_HINT: &str = "copy the bundle again, or write a new one with `kcompile fetch --bundle FILE`";
const MAX_INDEX: u64 = 1 << 20;

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Index {
    format: u32,
    archives: Vec<StoredArchive>,
    commits: Vec<Commit>,
    /// Digests by origin.
    locked: BTreeMap<String, SourceDigest>,
}

#[derive(Clone, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Commit {
    url: String,
    commit: CommitId,
}

/// Writes a bundle of these sources, which have just been fetched, to `path`.
///
/// # Errors
///
/// Exit code 2: a source lies on this machine. Exit code 1: the file cannot be written.
pub fn write(
    path: &Utf8Path,
    sources: &[(SourceLocation, SourceIdentity)],
    ctx: &FetchContext<'_>,
) -> Result<()> {
    let index = index_of(sources, ctx)?;
    let message = || format!("cannot write {path}");
    let dir = path.parent().unwrap_or(Utf8Path::new("."));
    let file = NamedTempFile::with_prefix_in(TEMPORARY, dir).context(Kind::Build, message)?;
    let mut tar = tar::Builder::new(file);
    let text = serde_json::to_vec_pretty(&index).expect("plain values");
    append(&mut tar, INDEX, text.len() as u64, &text[..]).context(Kind::Build, message)?;
    for archive in &index.archives {
        let from = archive_store::path(ctx.cache, archive.sha256);
        let file = open_file(&from, Links::Refuse).context(Kind::Build, || format!("cannot read {from}"))?;
        let bytes = file.metadata().context(Kind::Build, message)?.len();
        append(&mut tar, &format!("archives/{}", archive.sha256), bytes, file)
            .context(Kind::Build, message)?;
    }
    let mut packed = BTreeSet::new();
    for Commit { url, commit } in
        index.commits.iter().filter(|commit| packed.insert(commit.commit.to_string()))
    {
        let mut pack = tempfile::tempfile_in(dir).context(Kind::Build, message)?;
        git::write_pack(url, &commit.to_string(), &mut pack, ctx)?;
        let bytes = pack.stream_position().context(Kind::Build, message)?;
        pack.rewind().context(Kind::Build, message)?;
        append(&mut tar, &format!("commits/{commit}.pack"), bytes, pack).context(Kind::Build, message)?;
    }
    let file = tar.into_inner().context(Kind::Build, message)?;
    let bytes = file.as_file().metadata().context(Kind::Build, message)?.len();
    persist(file, path)?;
    let sources = pluralize(index.archives.len() + index.commits.len(), "source", "sources");
    ctx.reporter.note(&format!("{path}: {sources}, {}", format_size(bytes)));
    Ok(())
}

/// Returns the index of a bundle of these sources.
fn index_of(sources: &[(SourceLocation, SourceIdentity)], ctx: &FetchContext<'_>) -> Result<Index> {
    let mut index = Index { format: FORMAT, archives: vec![], commits: vec![], locked: BTreeMap::new() };
    for (location, identity) in sources {
        match (location, &identity.origin) {
            (SourceLocation::Git { url, .. }, Some(origin)) => {
                let commit = identity.digest.commit().cloned();
                let commit = commit.ok_or_else(|| Error::build(format!("{origin} is not a commit")))?;
                let commit = Commit { url: url.clone(), commit };
                if !index.commits.contains(&commit) {
                    index.commits.push(commit);
                }
            }
            (_, Some(origin)) => {
                let archive =
                    identity.digest.sha256().and_then(|sha256| archive_store::find(ctx.cache, sha256));
                let archive = archive.ok_or_else(|| {
                    Error::build(format!("the archive of {origin} has been removed by another process"))
                })?;
                let archive = StoredArchive { zstd: None, ..archive };
                if !index.archives.contains(&archive) {
                    index.archives.push(archive);
                }
            }
            (_, None) => {
                return Err(Error::usage("--bundle: a source on this machine needs no bundle")
                    .hint("copy the source to the other machine, and give its path as --source"));
            }
        }
        index.locked.extend(identity.origin.clone().map(|origin| (origin, identity.digest.clone())));
    }
    Ok(index)
}

/// Adds a member whose header is the same on every machine.
fn append(tar: &mut tar::Builder<impl Write>, name: &str, size: u64, content: impl Read) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    tar.append_data(&mut header, name, Interruptible(content))
}

/// Imports a bundle into the cache. Returns its lock entries.
///
/// # Errors
///
/// Exit code 3: not a bundle, a damaged one, or one with another digest than the lock file. Then nothing of
/// it is in the cache.
pub fn import(path: &Utf8Path, ctx: &FetchContext<'_>) -> Result<BTreeMap<String, Locked>> {
    let scratch = ctx.cache.scratch()?;
    let index = unpack(path, &scratch.path, ctx)?;
    let commits = index.commits.iter().map(|Commit { url, commit }| {
        let lock = ctx.cache.lock(&repository_lock(url), ctx.reporter)?;
        let pack = scratch.path.join(pack_name(commit));
        Ok((lock, url, git::read_pack(url, &commit.to_string(), &pack, ctx)?))
    });
    // All packs are read before the first one reaches the cache.
    let commits = commits.collect::<Result<Vec<_>>>()?;
    for (_lock, url, repository) in &commits {
        repository.store_packs(url, ctx.cache)?;
    }
    let is_new = |archive: &&StoredArchive| archive_store::find(ctx.cache, archive.sha256).is_none();
    let new: Vec<&StoredArchive> = index.archives.iter().filter(is_new).collect();
    let imported = new.iter().try_for_each(|archive| {
        // The bundle may claim any checksum of a server. A signature is checked when it is used.
        let proofs = Proofs { checksums: ChecksumList::NotAsked, ..archive.proofs.clone() };
        let archive = StoredArchive { proofs, zstd: None, ..(*archive).clone() };
        archive_store::store(ctx.cache, &scratch.path.join(archive_name(&archive)), None, &archive)
    });
    if let Err(error) = imported {
        new.iter().try_for_each(|archive| archive_store::remove(ctx.cache, archive.sha256))?;
        return Err(error);
    }
    let unverified = |digest| Locked { digest, unverified: true };
    Ok(index.locked.into_iter().map(|(origin, digest)| (origin, unverified(digest))).collect())
}

/// Unpacks the members of the bundle into `dir`, with `-` for `/` in their names, and returns the index.
fn unpack(path: &Utf8Path, dir: &Utf8Path, ctx: &FetchContext<'_>) -> Result<Index> {
    let file = open_file(path, Links::Follow)
        .context(Kind::Fetch, || format!("--from-bundle: cannot read {path}"))
        .map_err(|error| error.hint(WRITE_HINT))?;
    let damaged = || match process::check() {
        Err(interrupted) => interrupted,
        Ok(()) => Error::fetch(format!("{path}: not a bundle, or damaged")).hint(WRITE_HINT),
    };
    let mut archive = tar::Archive::new(Interruptible(file));
    // The tar crate's errors quote the file, which may be anything.
    // A bundle has no records before entries. The tar crate would read them without a limit.
    let members = archive.entries().map_err(|_| damaged())?.raw(true);
    let mut index: Option<Index> = None;
    let mut missing = Vec::new();
    for member in members {
        let mut member = member.map_err(|_| damaged())?;
        let name = String::from_utf8_lossy(&member.path_bytes()).into_owned();
        let size = member.size();
        let refuse =
            |why: &str| Error::fetch(format!("{path}: refused member `{}`: {why}", name.escape_debug()));
        if !member.header().entry_type().is_file() {
            return Err(refuse("not a file"));
        }
        let Some(index) = &mut index else {
            if name != INDEX || size > MAX_INDEX {
                return Err(refuse("a bundle must begin with its index"));
            }
            let read: Index =
                serde_json::from_reader(&mut member).map_err(|error| damaged().caused_by(error))?;
            if let Some(why) = read.find_error() {
                return Err(refuse(&why));
            }
            read.check_lock(path, ctx)?;
            missing = read.archives.iter().map(archive_name).collect();
            missing.extend(read.commits.iter().map(|commit| pack_name(&commit.commit)));
            // Two URLs may have the same commit.
            missing.sort();
            missing.dedup();
            index = Some(read);
            continue;
        };
        let Some(place) = missing.iter().position(|wanted| name.replacen('/', "-", 1) == *wanted) else {
            return Err(refuse("the index does not list it, or the bundle has it twice"));
        };
        if size > MAX_PACK {
            return Err(refuse("larger than 2 GiB"));
        }
        let member_name = missing.swap_remove(place);
        let found = write_member(&mut member, &dir.join(&member_name))?;
        if let Some(archive) = index.archives.iter().find(|archive| archive_name(archive) == member_name) {
            check_digest(&format!("{} in {path}", archive.origin), archive.sha256, found)?;
        }
    }
    let Some(index) = index else {
        return Err(Error::fetch(format!("{path}: empty, not a bundle")).hint(WRITE_HINT));
    };
    match missing.first() {
        Some(missing) => {
            Err(Error::fetch(format!("{path}: incomplete bundle, without {}", missing.replacen('-', "/", 1)))
                .hint(WRITE_HINT))
        }
        None => Ok(index),
    }
}

impl Index {
    /// Returns what is wrong with it.
    fn find_error(&self) -> Option<String> {
        if self.format != FORMAT {
            return Some(format!("format {} is not supported, only {FORMAT}", self.format));
        }
        let archives: BTreeSet<String> = self.archives.iter().map(archive_name).collect();
        if archives.len() < self.archives.len() {
            return Some("it names an archive twice".to_owned());
        }
        let is_held = |digest: &SourceDigest| match digest {
            SourceDigest::Sha256(sha256) => self.archives.iter().any(|archive| archive.sha256 == *sha256),
            SourceDigest::Commit(id) => self.commits.iter().any(|commit| commit.commit == *id),
            SourceDigest::Content(_) => false,
        };
        if self.locked.values().any(|digest| matches!(digest, SourceDigest::Content(_))) {
            return Some("it locks a directory".to_owned());
        }
        let other = self.locked.iter().find(|(_, digest)| !is_held(digest));
        other.map(|(origin, _)| {
            format!("it has a lock entry for {}, but not that source", escape_control(origin))
        })
    }

    /// Fails if the lock file has another digest for one of its sources.
    fn check_lock(&self, path: &Utf8Path, ctx: &FetchContext<'_>) -> Result<()> {
        for (origin, found) in &self.locked {
            if let Some(locked) = ctx.lock.of(origin).filter(|locked| locked.digest != *found) {
                let (origin, name, locked) = (escape_control(origin), lockfile::NAME, &locked.digest);
                return Err(Error::fetch(format!(
                    "{path}: {name} has {locked} for {origin}, but the bundle has {found}"
                ))
                .hint("if this change is expected, rerun with --update-lock"));
            }
        }
        Ok(())
    }
}

fn archive_name(archive: &StoredArchive) -> String {
    format!("archives-{}", archive.sha256)
}

fn pack_name(commit: &CommitId) -> String {
    format!("commits-{commit}.pack")
}

/// Writes a member into a file and returns its digest.
fn write_member(content: impl Read, to: &Utf8Path) -> Result<Sha256> {
    let mut hashing = HashingReader::new(content);
    let written = File::create_new(to).and_then(|mut file| io::copy(&mut hashing, &mut file));
    written.context(Kind::Build, || format!("cannot write {to}"))?;
    Ok(hashing.finish().0)
}
