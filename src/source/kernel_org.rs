//! Fetches release tarballs of kernel.org, or of any server with the same layout. A pinned digest, the
//! developers' signature or the server's signed list of checksums authenticates them.

use super::archive_store::{self, StoredArchive};
use super::context::FetchContext;
use super::download::ResumePolicy;
use super::http::Http;
use super::kernel_proofs::fetch_proofs;
use super::kernel_release::{Archive, Release, open_archive};
use super::newest_release::{newest_of, try_mirrors};
use super::tree::Tree;
use super::tree_store::{find_usable, store, store_unpinned};
use crate::cache::ScratchDir;
use crate::kernel::{KernelVersion, SourceDigest, VersionRequest};
use crate::plan::{Check, KERNEL_ORG, Pin, SourceIdentity, VerificationStep, pin, release_url};
use crate::report::PhaseGuard;
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::fs::{open_to_write, remove_tree};
use crate::util::read::Links;
use crate::util::text::file_name;
use camino::{Utf8Path, Utf8PathBuf};
use std::fs::File;
use std::io;

/// With this many jobs, a core is free to compress while the others decompress and write.
const JOBS_FOR_A_COPY: usize = 4;

/// Unpacks the tarball of `version`, or the newest of a series. Takes it from the stored archives, or else
/// from the first of `mirrors` that has it.
pub(super) fn fetch(
    version: VersionRequest,
    mirrors: &[String],
    ctx: &FetchContext<'_>,
    phase: &PhaseGuard<'_>,
) -> Result<Tree> {
    if (ctx.offline || matches!(version, VersionRequest::Exact(_)))
        && let Some(tree) = unpack_newest_stored(version, ctx, phase)?
    {
        return Ok(tree);
    }
    if ctx.offline {
        return Err(ctx.not_cached_error(&match version {
            VersionRequest::Exact(version) => file_name(&release_url(KERNEL_ORG, version)).to_owned(),
            VersionRequest::Series(..) => format!("linux-{version}.*.tar.xz"),
        }));
    }
    let http = Http::new(ctx)?;
    let fetched = try_mirrors(mirrors, ctx, |mirror| {
        let version = match version {
            VersionRequest::Exact(version) => version,
            VersionRequest::Series(major, minor) => newest_of(&http, mirror, (major, minor), ctx)?,
        };
        fetch_from(version, mirror, &http, ctx, phase)
    });
    match (fetched, version) {
        (Err(error), VersionRequest::Exact(exact))
            if error.kind == Kind::Fetch && !stored_releases(version, ctx)?.is_empty() =>
        {
            let url = release_url(KERNEL_ORG, exact);
            let name = file_name(&url);
            Err(Error::fetch(format!("{name} is in the cache, but cannot be verified: {error}")).hint(
                "use it unverified with --offline, or verify it against another server with --mirror URL",
            ))
        }
        (fetched, _) => fetched,
    }
}

/// Downloads `version` from `mirror`. Checks pins, signatures and policies before the download.
fn fetch_from(
    version: KernelVersion,
    mirror: &str,
    http: &Http<'_>,
    ctx: &FetchContext<'_>,
    phase: &PhaseGuard<'_>,
) -> Result<Tree> {
    let pin = pin(ctx.catalog, ctx.lock, version)?;
    if let Some(pin) = &pin {
        // The newest release of a series may be there already.
        if let Some(tree) = find_usable(&SourceDigest::Sha256(pin.sha256), ctx)? {
            return Ok(tree);
        }
    }
    let release = Release::new(version, pin, fetch_proofs(http, mirror, version, ctx)?);
    release.check_before_download(ctx)?;
    let ctx = &FetchContext { is_unverifiable: !release.can_be_authenticated(), ..*ctx };
    for (_, archive) in stored_releases(VersionRequest::Exact(version), ctx)? {
        let is_expected =
            release.expected().map_or(release.can_be_authenticated(), |digest| digest == archive.sha256);
        if is_expected && let Some(tree) = unpack_stored(&release, &archive, ctx, phase)? {
            remove_unauthenticated(&tree, version, ctx)?;
            return Ok(tree);
        }
    }
    let expected = release.expected();
    let url = release_url(mirror, version);
    let fill = |tree: &Utf8Path| {
        let scratch = ctx.cache.scratch()?;
        match download(&release, &url, tree, &scratch, http, ctx, phase)? {
            DownloadResult::Complete(identity) => Ok(identity),
            DownloadResult::CorruptResume(error) => {
                ctx.reporter.note(&format!("{error}; removing the partial download of an earlier run"));
                remove_tree(tree)?;
                match download(&release, &url, tree, &scratch, http, ctx, phase)? {
                    DownloadResult::Complete(identity) => Ok(identity),
                    DownloadResult::CorruptResume(error) => Err(error),
                }
            }
        }
    };
    let tree = match expected {
        Some(digest) => store(&SourceDigest::Sha256(digest), ctx, fill),
        None => store_unpinned(&url, ctx, fill),
    }?;
    remove_unauthenticated(&tree, version, ctx)?;
    Ok(tree)
}

/// The result of a download.
enum DownloadResult {
    Complete(SourceIdentity),
    /// It continued an earlier run's partial download, and the whole file is wrong.
    CorruptResume(Error),
}

/// Downloads `release` from `url`, unpacks it into `tree` and stores the archive.
fn download(
    release: &Release,
    url: &str,
    tree: &Utf8Path,
    scratch: &ScratchDir,
    http: &Http<'_>,
    ctx: &FetchContext<'_>,
    phase: &PhaseGuard<'_>,
) -> Result<DownloadResult> {
    let expected = release.expected();
    let (path, file) = open_partial(expected, url, &scratch.path, ctx)?;
    let policy = if expected.is_some() { ResumePolicy::Verified } else { ResumePolicy::Never };
    let mut download = http.download(url, file, policy)?;
    let total = download.total;
    let copy = (ctx.jobs >= JOBS_FOR_A_COPY).then(|| scratch.path.join("copy"));
    let archive = Archive { reader: &mut download, total, copy: copy.as_deref() };
    match release.unpack(archive, tree, ctx, phase) {
        Ok((identity, archive)) => {
            archive_store::store(ctx.cache, &path, copy.as_deref(), &archive)?;
            Ok(DownloadResult::Complete(identity))
        }
        // A complete but wrong download is useless.
        Err(error) if download.is_complete() => {
            remove_tree(&path)?;
            copy.iter().try_for_each(|copy| remove_tree(copy))?;
            if download.is_resumed && error.kind == Kind::Fetch {
                return Ok(DownloadResult::CorruptResume(error));
            }
            Err(error)
        }
        Err(error) => Err(error),
    }
}

/// Removes the archives of `version` that nothing authenticates, once `tree` is authenticated.
fn remove_unauthenticated(tree: &Tree, version: KernelVersion, ctx: &FetchContext<'_>) -> Result<()> {
    if !tree.identity.is_authenticated() {
        return Ok(());
    }
    for (_, archive) in stored_releases(VersionRequest::Exact(version), ctx)? {
        if Some(archive.sha256) != tree.identity.digest.sha256() && !archive.proofs.can_authenticate() {
            ctx.reporter
                .note(&format!("removing an unverified archive of {} from the cache", archive.origin));
            archive_store::remove(ctx.cache, archive.sha256)?;
        }
    }
    Ok(())
}

/// Opens the file for a partial download. The next run finds it by its name, unless the archive has no
/// digest, or another user of this cache has started the download.
pub(super) fn open_partial(
    expected: Option<Sha256>,
    url: &str,
    scratch: &Utf8Path,
    ctx: &FetchContext<'_>,
) -> Result<(Utf8PathBuf, File)> {
    let own = scratch.join("archive");
    let named = expected.map(|digest| ctx.cache.partial(digest, url));
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

/// Returns the stored archives of `version`, the newest first, and among equals the trusted ones first.
fn stored_releases(
    version: VersionRequest,
    ctx: &FetchContext<'_>,
) -> Result<Vec<(KernelVersion, StoredArchive)>> {
    let found = archive_store::all(ctx.cache)?.into_iter().filter_map(|archive| {
        let version_of =
            || file_name(&archive.origin).strip_prefix("linux-")?.split_once(".tar.")?.0.parse().ok();
        let found: KernelVersion = version_of().filter(|_| archive.origin.starts_with("https://"))?;
        (archive.origin == release_url(KERNEL_ORG, found) && version.admits(found))
            .then_some((found, archive))
    });
    let mut found: Vec<_> = found.collect();
    let rank = |version: KernelVersion, archive: &StoredArchive| {
        let pin = pin(ctx.catalog, ctx.lock, version).ok().flatten();
        let pin = pin.filter(|pin| pin.sha256 == archive.sha256);
        let is_pinned = pin.as_ref().is_some_and(Pin::is_authenticated);
        (version, is_pinned, archive.proofs.can_authenticate(), pin.is_some())
    };
    found.sort_by_key(|(version, archive)| std::cmp::Reverse(rank(*version, archive)));
    Ok(found)
}

/// Unpacks `version` from a stored archive, if there is a valid one. With a network, an archive that nothing
/// authenticates is not used before the server has been asked.
fn unpack_newest_stored(
    version: VersionRequest,
    ctx: &FetchContext<'_>,
    phase: &PhaseGuard<'_>,
) -> Result<Option<Tree>> {
    let Some((version, archive)) = stored_releases(version, ctx)?.into_iter().next() else { return Ok(None) };
    let release = Release::new(version, pin(ctx.catalog, ctx.lock, version)?, archive.proofs.clone());
    if release.expected().is_some_and(|expected| expected != archive.sha256)
        || !(ctx.offline || release.can_be_authenticated())
    {
        return Ok(None);
    }
    match release.check_before_download(ctx) {
        Ok(()) => unpack_stored(&release, &archive, ctx, phase),
        // The server may have what is missing here.
        Err(error) if ctx.offline => Err(error),
        Err(_) => Ok(None),
    }
}

/// Unpacks `release` from a stored archive. `None` means that the archive was wrong and has been removed.
fn unpack_stored(
    release: &Release,
    archive: &StoredArchive,
    ctx: &FetchContext<'_>,
    phase: &PhaseGuard<'_>,
) -> Result<Option<Tree>> {
    ctx.note_foreign_owner(&archive_store::path(ctx.cache, archive.sha256));
    let pin = release.pin.clone().or(Some(stored_digest_pin(archive)));
    let release = Release { pin, version: release.version, proofs: release.proofs.clone() };
    let unpacked = store(&SourceDigest::Sha256(archive.sha256), ctx, |tree| {
        if let Some(zstd) = archive.zstd {
            match release.unpack_copy(archive, zstd, tree, ctx, phase) {
                Err(error) if error.kind == Kind::Fetch => {
                    ctx.reporter.note(&format!("{error}; removing the copy from the cache"));
                    archive_store::remove_copy(ctx.cache, archive)?;
                    remove_tree(tree)?;
                }
                unpacked => return unpacked,
            }
        }
        let (reader, bytes) = open_archive(&archive_store::path(ctx.cache, archive.sha256))?;
        Ok(release.unpack(Archive { reader, total: Some(bytes), copy: None }, tree, ctx, phase)?.0)
    });
    match unpacked {
        Err(error) if error.kind == Kind::Fetch => {
            ctx.reporter.note(&format!("{error}; removing the archive from the cache"));
            archive_store::remove(ctx.cache, archive.sha256)?;
            Ok(None)
        }
        Err(error) => Err(error),
        Ok(tree) => {
            if release.proofs.can_authenticate() && release.proofs != archive.proofs {
                archive_store::record_proofs(ctx.cache, archive.sha256, &release.proofs)?;
            }
            Ok(Some(tree))
        }
    }
}

/// Returns the pin of a stored archive, whose name is its digest. It does not authenticate the archive.
fn stored_digest_pin(archive: &StoredArchive) -> Pin {
    Pin { sha256: archive.sha256, check: Check::consistent(VerificationStep::Transport, "kept in the cache") }
}
