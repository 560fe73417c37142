//! Release tarballs of kernel.org, or of any server with the same layout, and the chain that proves
//! them: a pinned digest, the developers' signature, the server's signed list of checksums.

use super::archive_store::{self, Kept, Proofs, Sums};
use super::context::Fetching;
use super::directory::check_tree;
use super::download::LARGEST_DOWNLOAD;
use super::http::Http;
use super::releases::{Releases, newest_listed};
use super::stream::{Stream, Unpacked, unpack};
use super::tree::Tree;
use super::tree_store::{keep, keep_unlisted, usable};
use crate::catalog::kernels::ended_warning;
use crate::kernel::{Channel, KernelVersion, SourceDigest, VersionRequest};
use crate::plan::{Check, KERNEL_ORG, Link, Pin, Signable, SourceIdentity, pin, release_url};
use crate::report::Running;
use crate::util::digest::Sha256;
use crate::util::error::{Context, Error, Kind, Result};
use crate::util::fs::{open_to_write, remove_tree};
use crate::util::openpgp::{ClearSigned, Unproven};
use crate::util::read::{Links, open_file};
use crate::util::text::{ago, file_name, size};
use camino::{Utf8Path, Utf8PathBuf};
use std::fs::File;
use std::io::{self, Read};

/// A list of checksums is about 2 MB.
const LARGEST_LIST: u64 = 16 << 20;
/// With so many jobs a core is free to compress while the others decompress and write.
const JOBS_FOR_A_COPY: usize = 4;
/// A signature is about 1 kB.
const LARGEST_SIGNATURE: u64 = 64 << 10;

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
    try_each(mirrors, fetching, |mirror| {
        let version = match version {
            VersionRequest::Exact(version) => version,
            VersionRequest::Series(major, minor) => newest(&http, mirror, (major, minor), fetching)?,
        };
        fetch_from(version, mirror, &http, fetching, running)
    })
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
    let release = Release { version, pin, proofs: proofs(http, mirror, version, fetching)? };
    release.check_before(fetching)?;
    let expected = release.expected();
    let url = release_url(mirror, version);
    let fill = |tree: &Utf8Path| {
        let scratch = fetching.cache.scratch()?;
        // Only what has a digest can be put together from two connections, let alone two runs.
        let (path, file) = open_partial(expected, &scratch.path, fetching)?;
        let mut download = http.download(&url, file, expected.is_some())?;
        let total = download.total;
        // With a core to spare it costs no time; on a small machine it would.
        let copy = (fetching.jobs >= JOBS_FOR_A_COPY).then(|| scratch.path.join("copy"));
        let from = (&mut download, total, copy.as_deref());
        let unpacked = release.unpack(from, tree, fetching, running);
        match &unpacked {
            Ok((_, kept)) => archive_store::keep(fetching.cache, &path, copy.as_deref(), kept)?,
            // What is whole and not what it should be is of no more use.
            Err(_) if download.is_complete() => {
                let _ = std::fs::remove_file(&path);
            }
            Err(_) => {}
        }
        unpacked.map(|(identity, _)| identity)
    };
    match expected {
        Some(digest) => keep(&SourceDigest::Sha256(digest), fetching, fill),
        None => keep_unlisted(&url, fetching, fill),
    }
}

/// The file that is downloaded into: under a name that the next run finds, unless the archive has no
/// digest, or another user of this cache has begun it.
fn open_partial(
    expected: Option<Sha256>,
    scratch: &Utf8Path,
    fetching: &Fetching<'_>,
) -> Result<(Utf8PathBuf, File)> {
    let own = scratch.join("archive");
    let named = expected.map(|digest| fetching.cache.partial(digest));
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

/// Unpacks `version` from an archive that is kept, if there is one that is what it should be.
fn from_archive(
    version: VersionRequest,
    fetching: &Fetching<'_>,
    running: &Running<'_>,
) -> Result<Option<Tree>> {
    let candidates = archive_store::all(fetching.cache)?.into_iter().filter_map(|kept| {
        let version_of =
            || file_name(&kept.origin).strip_prefix("linux-")?.split_once(".tar.")?.0.parse().ok();
        let found: KernelVersion = version_of().filter(|_| kept.origin.starts_with("https://"))?;
        (kept.origin == release_url(KERNEL_ORG, found) && version.admits(found)).then_some((found, kept))
    });
    let Some((version, kept)) = candidates.max_by_key(|(version, _)| *version) else { return Ok(None) };
    let release =
        Release { version, pin: pin(fetching.catalog, fetching.lock, version)?, proofs: kept.proofs.clone() };
    if release.expected().is_some_and(|expected| expected != kept.sha256) {
        return Ok(None);
    }
    if let Err(error) = release.check_before(fetching) {
        // A network may have what is missing here.
        return if fetching.offline { Err(error) } else { Ok(None) };
    }
    let release = Release { pin: release.pin.or(Some(own_pin(&kept))), ..release };
    let unpacked = keep(&SourceDigest::Sha256(kept.sha256), fetching, |tree| {
        if let Some(zstd) = kept.zstd {
            match release.unpack_copy(&kept, zstd, tree, fetching, running) {
                Err(error) if error.kind == Kind::Fetch => {
                    fetching.report.note(&format!("{error}; the copy in the cache is thrown away"));
                    archive_store::forget_copy(fetching.cache, &kept)?;
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
        unpacked => unpacked.map(Some),
    }
}

fn open_archive(path: &Utf8Path) -> Result<(File, u64)> {
    let wrong = || format!("cannot read {path}");
    let file = open_file(path, Links::Refuse).context(Kind::Fetch, wrong)?;
    let bytes = file.metadata().context(Kind::Fetch, wrong)?.len();
    if bytes > LARGEST_DOWNLOAD {
        return Err(Error::fetch(format!("{path}: larger than {} GiB", LARGEST_DOWNLOAD >> 30)));
    }
    Ok((file, bytes))
}

/// What an archive of the cache must be: its name is its digest. That proves nothing of its makers.
fn own_pin(kept: &Kept) -> Pin {
    Pin { sha256: kept.sha256, check: Check::holds(Link::Transport, "kept in the cache") }
}

/// A release, and what is known of it before its bytes are.
#[derive(Clone)]
struct Release {
    version: KernelVersion,
    pin: Option<Pin>,
    proofs: Proofs,
}

impl Release {
    fn name(&self) -> String {
        file_name(&release_url(KERNEL_ORG, self.version)).to_owned()
    }

    fn signature_name(&self) -> String {
        format!("linux-{}.tar.sign", self.version)
    }

    /// What the archive must be.
    fn expected(&self) -> Option<Sha256> {
        let listed = match &self.proofs.sums {
            Sums::Listed { sha256, .. } => Some(*sha256),
            Sums::Missing | Sums::NoList => None,
        };
        self.pin.as_ref().map(|pin| pin.sha256).or(listed)
    }

    /// Does anybody sign such a thing? Release candidates are packed by git, on request.
    fn signable(&self) -> Signable {
        if self.version.candidate().is_none() { Signable::Yes } else { Signable::No }
    }

    /// Fails where it can be told without the archive that it will not do.
    fn check_before(&self, fetching: &Fetching<'_>) -> Result<()> {
        let name = self.name();
        if let (Some(pin), Sums::Listed { sha256, .. }) = (&self.pin, &self.proofs.sums)
            && pin.sha256 != *sha256
        {
            return Err(Error::fetch(format!(
                "checksum mismatch for {name}: expected {} ({}), found {sha256} in sha256sums.asc",
                pin.sha256, pin.check.detail
            ))
            .hint("the mirror may be stale or forged; try another --mirror"));
        }
        self.signature(fetching)?;
        let pinned = self.pin.iter().map(|pin| pin.check.clone());
        let promised = self.proofs.signature.iter().map(|_| Check::proves(Link::Signature, ""));
        fetching.require_signature(&name, &pinned.chain(promised).collect::<Vec<_>>(), self.signable())
    }

    /// Unpacks the archive (its bytes, how many there are, where a quick copy goes) into `tree`, and says
    /// what held, and what is to be kept.
    fn unpack(
        &self,
        (reader, total, copy): (impl Read, Option<u64>, Option<&Utf8Path>),
        tree: &Utf8Path,
        fetching: &Fetching<'_>,
        running: &Running<'_>,
    ) -> Result<(SourceIdentity, Kept)> {
        let name = self.name();
        let signature = self.signature(fetching)?;
        let stream = Stream {
            name: &name,
            reader,
            total,
            expected: self.expected(),
            signature: signature.as_ref(),
            threads: fetching.jobs,
            copy,
        };
        let unpacked = unpack(stream, tree, running)?;
        let kept = Kept {
            origin: release_url(KERNEL_ORG, self.version),
            sha256: unpacked.sha256,
            proofs: self.proofs.clone(),
            zstd: unpacked.copy,
        };
        Ok((self.identity(unpacked.sha256, &unpacked, tree)?, kept))
    }

    /// Unpacks the quick copy of what is kept: it was made of what the archive's digest stands for, and
    /// the signature is checked again.
    fn unpack_copy(
        &self,
        kept: &Kept,
        zstd: Sha256,
        tree: &Utf8Path,
        fetching: &Fetching<'_>,
        running: &Running<'_>,
    ) -> Result<SourceIdentity> {
        let (file, bytes) = open_archive(&archive_store::copy_path(fetching.cache, kept.sha256))?;
        let name = format!("the copy of {}", self.name());
        let signature = self.signature(fetching)?;
        let stream = Stream {
            name: &name,
            reader: file,
            total: Some(bytes),
            expected: Some(zstd),
            signature: signature.as_ref(),
            threads: fetching.jobs,
            copy: None,
        };
        self.identity(kept.sha256, &unpack(stream, tree, running)?, tree)
    }

    fn signature<'a>(&self, fetching: &Fetching<'a>) -> Result<Option<Unproven<'a>>> {
        let text = self.proofs.signature.as_ref();
        let now = fetching.host.now;
        text.map(|text| fetching.keyring.detached(&self.signature_name(), text.as_bytes(), now)).transpose()
    }

    /// What the archive of this digest is, now that its tree is there.
    ///
    /// Errors (exit code 3): the tree is of another version. A release's signature says who made it, not what it
    /// is called, so that an old one can be sent under a new name.
    fn identity(&self, sha256: Sha256, unpacked: &Unpacked, tree: &Utf8Path) -> Result<SourceIdentity> {
        let version = check_tree(tree, &self.name())?;
        if version != self.version {
            return Err(Error::fetch(format!("{}: holds Linux {version}", self.name()))
                .hint("the mirror may be stale or forged; try another --mirror"));
        }
        unpacked.contents.record(tree.parent().expect("a tree lies in its entry"), tree)?;
        let mut checks: Vec<Check> = self.pin.iter().map(|pin| pin.check.clone()).collect();
        checks.push(match (&unpacked.signer, self.signable()) {
            (Some(signer), _) => Check::signed(signer, self.proofs.signature.as_deref().unwrap_or_default()),
            (None, Signable::Yes) => {
                Check::absent(Link::Signature, format!("no {} beside it", self.signature_name()))
            }
            (None, Signable::No) => Check::absent(Link::Signature, "nobody signs release candidates"),
        });
        checks.extend(self.sums_check());
        checks.push(Check::holds(Link::Transport, size(unpacked.bytes)));
        Ok(SourceIdentity {
            origin: Some(release_url(KERNEL_ORG, self.version)),
            digest: SourceDigest::Sha256(sha256),
            version,
            date: unpacked.date,
            checks,
        })
    }

    fn sums_check(&self) -> Option<Check> {
        Some(match &self.proofs.sums {
            _ if self.signable() == Signable::No => return None,
            Sums::Listed { signer: Some(signer), .. } => {
                Check::proves(Link::Sums, format!("in sha256sums.asc, signed by {signer}"))
            }
            Sums::Listed { signer: None, .. } => {
                Check::holds(Link::Sums, "in sha256sums.asc, which is not signed")
            }
            Sums::Missing => Check::absent(Link::Sums, "missing from sha256sums.asc"),
            Sums::NoList => Check::absent(Link::Sums, "no sha256sums.asc"),
        })
    }
}

/// Asks the server for what it has beside the tarball.
fn proofs(http: &Http<'_>, mirror: &str, version: KernelVersion, fetching: &Fetching<'_>) -> Result<Proofs> {
    if version.candidate().is_some() {
        return Ok(Proofs::default());
    }
    let url = release_url(mirror, version);
    let signature = format!("{}.sign", url.strip_suffix(".xz").unwrap_or(&url));
    let sums = match checksums(http, mirror, version.major, fetching)? {
        None => Sums::NoList,
        Some(list) => match tarballs(&list.text).find(|(listed, _)| *listed == version) {
            None => Sums::Missing,
            Some((_, sha256)) => Sums::Listed { sha256, signer: list.signer },
        },
    };
    Ok(Proofs { signature: http.text(&signature, LARGEST_SIGNATURE)?, sums })
}

/// The server's list of checksums for all of a major version, its signature checked; `None` where it
/// has none.
fn checksums(
    http: &Http<'_>,
    mirror: &str,
    major: u32,
    fetching: &Fetching<'_>,
) -> Result<Option<ClearSigned>> {
    let text = http.text(&format!("{mirror}/pub/linux/kernel/v{major}.x/sha256sums.asc"), LARGEST_LIST)?;
    text.map(|text| fetching.keyring.clear_signed("sha256sums.asc", &text, fetching.host.now)).transpose()
}

/// The release tarballs in a `sha256sums.asc`: lines of a digest, two spaces and a file name.
fn tarballs(list: &str) -> impl Iterator<Item = (KernelVersion, Sha256)> {
    list.lines().filter_map(|line| {
        let (digest, name) = line.split_once("  ")?;
        let version = name.strip_prefix("linux-")?.strip_suffix(".tar.xz")?;
        Some((version.parse().ok()?, digest.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_checksums_is_read() {
        let digest = "9e2064f9cb942999a76737d510f08a85bcd8164e9762ce0f7dbfeac58bc2f2b3";
        let list = format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{digest}  linux-4.19.215.tar.xz\n\
             {digest}  linux-4.19.9.tar.xz\n{digest}  patch-4.19.216.xz\n{digest}  linux-4.19.300.tar.gz\nbad  linux-4.19.301.tar.xz\n"
        );
        let versions: Vec<String> = tarballs(&list).map(|(version, _)| version.to_string()).collect();
        assert_eq!(versions, ["4.19.215", "4.19.9"]);
    }
}
