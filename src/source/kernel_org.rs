//! Release tarballs of kernel.org, or of any server with the same layout, and the chain that proves
//! them: a pinned digest, the developers' signature, the server's signed list of checksums.

use super::archive_store::{self, Kept};
use super::context::Fetching;
use super::http::Http;
use super::kernel_proofs::{checksums, proofs, tarballs};
use super::kernel_release::{Release, open_archive};
use super::releases::{Releases, newest_listed};
use super::tree::Tree;
use super::tree_store::{keep, keep_unlisted, usable};
use crate::cache::Scratch;
use crate::catalog::kernels::ended_warning;
use crate::kernel::{Channel, KernelVersion, SourceDigest, VersionRequest};
use crate::plan::{Check, KERNEL_ORG, Link, Pin, SourceIdentity, pin, release_url};
use crate::report::Running;
use crate::util::digest::Sha256;
use crate::util::error::{Context, Error, Kind, Result};
use crate::util::fs::{open_to_write, remove_tree};
use crate::util::read::Links;
use crate::util::text::{ago, file_name};
use camino::{Utf8Path, Utf8PathBuf};
use std::fs::File;
use std::io;

/// With so many jobs a core is free to compress while the others decompress and write.
const JOBS_FOR_A_COPY: usize = 4;
/// Gets the tarball of `version` (for a series, the newest) and unpacks it: from the archives that are
/// kept, else from the first of `mirrors` that has it.
pub(super) fn fetch(
    version: VersionRequest,
    mirrors: &[String],
    fetching: &Fetching<'_>,
    running: &Running<'_>,
) -> Result<Tree> {
    if (fetching.offline || matches!(version, VersionRequest::Exact(_)))
        && let Some(tree) = from_archive(version, fetching, running)?
    {
        return Ok(tree);
    }
    if fetching.offline {
        return Err(fetching.not_here(&match version {
            VersionRequest::Exact(version) => file_name(&release_url(KERNEL_ORG, version)).to_owned(),
            VersionRequest::Series(..) => format!("linux-{version}.*.tar.xz"),
        }));
    }
    let http = Http::new(fetching)?;
    let fetched = try_each(mirrors, fetching, |mirror| {
        let version = match version {
            VersionRequest::Exact(version) => version,
            VersionRequest::Series(major, minor) => newest(&http, mirror, (major, minor), fetching)?,
        };
        fetch_from(version, mirror, &http, fetching, running)
    });
    match (fetched, version) {
        (Err(error), VersionRequest::Exact(exact))
            if error.kind == Kind::Fetch && !kept_releases(version, fetching)?.is_empty() =>
        {
            let name = release_url(KERNEL_ORG, exact);
            let name = file_name(&name);
            Err(Error::fetch(format!("{name} is in the cache, where nothing verifies it: {error}"))
                .hint("--offline takes it as it is; --mirror URL names another server to verify it"))
        }
        (fetched, _) => fetched,
    }
}

/// The version that `channel` stands for today.
pub(super) fn resolve(
    channel: Channel,
    mirrors: &[String],
    fetching: &Fetching<'_>,
) -> Result<KernelVersion> {
    let http = if fetching.offline { None } else { Some(Http::new(fetching)?) };
    let kernel_org = [KERNEL_ORG.to_owned()];
    let mirrors = if mirrors.is_empty() { &kernel_org } else { mirrors };
    try_each(mirrors, fetching, |mirror| {
        let mirror = mirror.trim_end_matches('/');
        let releases = Releases::load(mirror, fetching.cache, http.as_ref())?;
        let version = releases.as_ref().and_then(|releases| releases.of(channel));
        let Some((version, releases)) = version.zip(releases) else {
            let why = if fetching.offline { "is not in the cache" } else { "does not tell" };
            return Err(Error::fetch(format!(
                "releases.json of {mirror} {why}, so `{channel}` means nothing"
            ))
            .hint("name a version"));
        };
        let age = ago(releases.age);
        fetching.report.note(&format!("{channel} is Linux {version}, by releases.json of {age} ago"));
        Ok(version)
    })
}

/// Tries one mirror after the other, as long as the fault is theirs.
fn try_each<T>(
    mirrors: &[String],
    fetching: &Fetching<'_>,
    mut attempt: impl FnMut(&str) -> Result<T>,
) -> Result<T> {
    let mut last = None;
    for mirror in mirrors {
        if let Some(error) = last.take() {
            fetching.report.note(&format!("{error}; trying the next mirror"));
        }
        match attempt(mirror) {
            Err(error) if error.kind == Kind::Fetch => last = Some(error),
            done => return done,
        }
    }
    Err(last.unwrap_or_else(|| Error::usage("no mirror to fetch from")))
}

/// The newest release of a series: by `releases.json`, by the list of checksums, by the directory.
fn newest(
    http: &Http<'_>,
    mirror: &str,
    series: (u32, u32),
    fetching: &Fetching<'_>,
) -> Result<KernelVersion> {
    if let Some(releases) = Releases::load(mirror, fetching.cache, Some(http))? {
        if releases.has_ended(series) {
            fetching.report.finding(ended_warning(series, None));
        }
        if let Some(version) = releases.newest(series) {
            return Ok(version);
        }
    }
    let list = checksums(http, mirror, series.0, fetching)?.unwrap_or_default().text;
    let listed = tarballs(&list).map(|(version, _)| version).filter(|version| version.series() == series);
    match listed.max() {
        Some(version) => Ok(version),
        None => newest_listed(http, mirror, series)?.ok_or_else(|| {
            Error::fetch(format!("{mirror} lists no release of Linux {}.{}", series.0, series.1))
                .hint("`kcompile list` shows the known kernels")
        }),
    }
}

/// Downloads `version` from `mirror`. Everything that can be wrong beside the tarball shows before it
/// is asked for.
fn fetch_from(
    version: KernelVersion,
    mirror: &str,
    http: &Http<'_>,
    fetching: &Fetching<'_>,
    running: &Running<'_>,
) -> Result<Tree> {
    let pin = pin(fetching.catalog, fetching.lock, version)?;
    if let Some(pin) = &pin {
        // Of a series only the number had to be asked for.
        if let Some(tree) = usable(&SourceDigest::Sha256(pin.sha256), fetching)? {
            return Ok(tree);
        }
    }
    let release = Release::new(version, pin, proofs(http, mirror, version, fetching)?);
    release.check_before(fetching)?;
    let fetching = &Fetching { nothing_proves_it: !release.can_be_proven(), ..*fetching };
    for (_, kept) in kept_releases(VersionRequest::Exact(version), fetching)? {
        let is_meant = release.expected().map_or(release.can_be_proven(), |digest| digest == kept.sha256);
        if is_meant && let Some(tree) = unpack_kept(&release, &kept, fetching, running)? {
            remove_unproven(&tree, version, fetching)?;
            return Ok(tree);
        }
    }
    let expected = release.expected();
    let url = release_url(mirror, version);
    let fill = |tree: &Utf8Path| {
        let scratch = fetching.cache.scratch()?;
        match download(&release, &url, tree, &scratch, http, fetching, running)? {
            Downloaded::Whole(identity) => Ok(identity),
            Downloaded::Spoilt(error) => {
                fetching.report.note(&format!("{error}; what an earlier run had received is thrown away"));
                remove_tree(tree)?;
                match download(&release, &url, tree, &scratch, http, fetching, running)? {
                    Downloaded::Whole(identity) => Ok(identity),
                    Downloaded::Spoilt(error) => Err(error),
                }
            }
        }
    };
    let tree = match expected {
        Some(digest) => keep(&SourceDigest::Sha256(digest), fetching, fill),
        None => keep_unlisted(&url, fetching, fill),
    }?;
    remove_unproven(&tree, version, fetching)?;
    Ok(tree)
}

/// How a download ended.
enum Downloaded {
    Whole(SourceIdentity),
    /// It went on with what an earlier run had received, and the whole is not what it should be.
    Spoilt(Error),
}

/// Downloads `release` from `url`, unpacks it into `tree` and keeps the archive.
fn download(
    release: &Release,
    url: &str,
    tree: &Utf8Path,
    scratch: &Scratch,
    http: &Http<'_>,
    fetching: &Fetching<'_>,
    running: &Running<'_>,
) -> Result<Downloaded> {
    let expected = release.expected();
    // Only what has a digest can be put together from two connections, let alone two runs.
    let (path, file) = open_partial(expected, url, &scratch.path, fetching)?;
    let mut download = http.download(url, file, expected.is_some())?;
    let total = download.total;
    // With a core to spare it costs no time; on a small machine it would.
    let copy = (fetching.jobs >= JOBS_FOR_A_COPY).then(|| scratch.path.join("copy"));
    let from = (&mut download, total, copy.as_deref());
    let unpacked = release.unpack(from, tree, fetching, running);
    match unpacked {
        Ok((identity, kept)) => {
            archive_store::keep(fetching.cache, &path, copy.as_deref(), &kept)?;
            Ok(Downloaded::Whole(identity))
        }
        // What is whole and not what it should be is of no more use.
        Err(error) if download.is_complete() => {
            remove_tree(&path)?;
            copy.iter().try_for_each(|copy| remove_tree(copy))?;
            if download.is_resumed && error.kind == Kind::Fetch {
                return Ok(Downloaded::Spoilt(error));
            }
            Err(error)
        }
        Err(error) => Err(error),
    }
}

/// Removes the archives of `version` that nothing authenticates, once `tree` is authenticated.
fn remove_unproven(tree: &Tree, version: KernelVersion, fetching: &Fetching<'_>) -> Result<()> {
    if !tree.identity.is_vouched_for() {
        return Ok(());
    }
    for (_, kept) in kept_releases(VersionRequest::Exact(version), fetching)? {
        if Some(kept.sha256) != tree.identity.digest.sha256() && !kept.proofs.can_prove() {
            fetching
                .report
                .note(&format!("an unverified archive of {} is removed from the cache", kept.origin));
            archive_store::forget(fetching.cache, kept.sha256)?;
        }
    }
    Ok(())
}

/// Opens the file that is downloaded into: under a name that the next run finds, unless the archive has no
/// digest, or another user of this cache has begun it.
fn open_partial(
    expected: Option<Sha256>,
    url: &str,
    scratch: &Utf8Path,
    fetching: &Fetching<'_>,
) -> Result<(Utf8PathBuf, File)> {
    let own = scratch.join("archive");
    let named = expected.map(|digest| fetching.cache.partial(digest, url));
    let opened = named.map(|path| (open_to_write(&path, Links::RefuseAnywhere), path));
    let (opened, path) = match opened {
        Some((Err(error), _)) if error.kind() == io::ErrorKind::PermissionDenied => {
            (open_to_write(&own, Links::RefuseAnywhere), own)
        }
        Some(opened) => opened,
        None => (open_to_write(&own, Links::RefuseAnywhere), own),
    };
    let file = opened.context(Kind::Build, || format!("cannot write the partial download {path}"))?;
    Ok((path, file))
}

/// Returns the archives of `version` that are kept: the newest first, and of one version those that can be proven.
fn kept_releases(version: VersionRequest, fetching: &Fetching<'_>) -> Result<Vec<(KernelVersion, Kept)>> {
    let found = archive_store::all(fetching.cache)?.into_iter().filter_map(|kept| {
        let version_of =
            || file_name(&kept.origin).strip_prefix("linux-")?.split_once(".tar.")?.0.parse().ok();
        let found: KernelVersion = version_of().filter(|_| kept.origin.starts_with("https://"))?;
        (kept.origin == release_url(KERNEL_ORG, found) && version.admits(found)).then_some((found, kept))
    });
    let mut found: Vec<_> = found.collect();
    let rank = |version: KernelVersion, kept: &Kept| {
        let pin = pin(fetching.catalog, fetching.lock, version).ok().flatten();
        let pin = pin.filter(|pin| pin.sha256 == kept.sha256);
        let is_pinned = pin.as_ref().is_some_and(Pin::is_proof);
        (version, is_pinned, kept.proofs.can_prove(), pin.is_some())
    };
    found.sort_by_key(|(version, kept)| std::cmp::Reverse(rank(*version, kept)));
    Ok(found)
}

/// Unpacks `version` from an archive that is kept, if there is one that is what it should be. Where there is a
/// network, one that nothing authenticates is left to what the server says of it.
fn from_archive(
    version: VersionRequest,
    fetching: &Fetching<'_>,
    running: &Running<'_>,
) -> Result<Option<Tree>> {
    let Some((version, kept)) = kept_releases(version, fetching)?.into_iter().next() else { return Ok(None) };
    let release = Release::new(version, pin(fetching.catalog, fetching.lock, version)?, kept.proofs.clone());
    if release.expected().is_some_and(|expected| expected != kept.sha256)
        || !(fetching.offline || release.can_be_proven())
    {
        return Ok(None);
    }
    match release.check_before(fetching) {
        Ok(()) => unpack_kept(&release, &kept, fetching, running),
        // A network may have what is missing here.
        Err(error) if fetching.offline => Err(error),
        Err(_) => Ok(None),
    }
}

/// Unpacks `release` from the archive `kept`; `None` where that is not what it should be, and is removed.
fn unpack_kept(
    release: &Release,
    kept: &Kept,
    fetching: &Fetching<'_>,
    running: &Running<'_>,
) -> Result<Option<Tree>> {
    fetching.name_owner(&archive_store::path(fetching.cache, kept.sha256));
    let pin = release.pin.clone().or(Some(own_pin(kept)));
    let release = Release { pin, version: release.version, proofs: release.proofs.clone() };
    let unpacked = keep(&SourceDigest::Sha256(kept.sha256), fetching, |tree| {
        if let Some(zstd) = kept.zstd {
            match release.unpack_copy(kept, zstd, tree, fetching, running) {
                Err(error) if error.kind == Kind::Fetch => {
                    fetching.report.note(&format!("{error}; the copy in the cache is thrown away"));
                    archive_store::forget_copy(fetching.cache, kept)?;
                    remove_tree(tree)?;
                }
                unpacked => return unpacked,
            }
        }
        let (file, bytes) = open_archive(&archive_store::path(fetching.cache, kept.sha256))?;
        Ok(release.unpack((file, Some(bytes), None), tree, fetching, running)?.0)
    });
    match unpacked {
        Err(error) if error.kind == Kind::Fetch => {
            fetching.report.note(&format!("{error}; the archive in the cache is thrown away"));
            archive_store::forget(fetching.cache, kept.sha256)?;
            Ok(None)
        }
        Err(error) => Err(error),
        Ok(tree) => {
            if release.proofs.can_prove() && release.proofs != kept.proofs {
                archive_store::record_proofs(fetching.cache, kept.sha256, &release.proofs)?;
            }
            Ok(Some(tree))
        }
    }
}

/// What an archive of the cache must be: its name is its digest. That proves nothing of its makers.
fn own_pin(kept: &Kept) -> Pin {
    Pin { sha256: kept.sha256, check: Check::holds(Link::Transport, "kept in the cache") }
}
