//! Release tarballs of kernel.org, or of any server with the same layout.

use super::archive::{Stream, Unpacked, unpack};
use super::directory::check_tree;
use super::http::Http;
use super::{Fetching, Tree, keep, keep_unlisted};
use crate::digest::Sha256;
use crate::error::{Error, Kind, Result};
use crate::kernel::{KernelVersion, VersionRequest};
use crate::plan::{KERNEL_ORG, SourceIdentity, release_url};
use crate::report::Running;
use crate::words::size;
use camino::Utf8Path;

/// A list of checksums is about 100 kB.
const LARGEST_LIST: u64 = 4 << 20;

/// Downloads and unpacks the tarball of `version`; the newest of a series is found in the server's
/// list of checksums. `pin` is what the archive must be. Mirrors are tried in their order.
pub(super) fn fetch(
    version: VersionRequest,
    mirrors: &[String],
    pin: Option<Sha256>,
    fetching: &Fetching<'_>,
    running: &Running<'_>,
) -> Result<Tree> {
    let http = Http::new(fetching)?;
    let mut last = None;
    for mirror in mirrors {
        if let Some(error) = last.take() {
            fetching.report.note(&format!("{error}; trying the next mirror"));
        }
        match fetch_from(version, mirror, pin, &http, fetching, running) {
            Err(error) if error.kind == Kind::Fetch => last = Some(error),
            done => return done,
        }
    }
    Err(last.unwrap_or_else(|| Error::usage("no mirror to fetch from")))
}

fn fetch_from(
    version: VersionRequest,
    mirror: &str,
    pin: Option<Sha256>,
    http: &Http<'_>,
    fetching: &Fetching<'_>,
    running: &Running<'_>,
) -> Result<Tree> {
    let (version, listed) = match (version, pin) {
        (VersionRequest::Exact(version), Some(_)) => (version, None),
        (VersionRequest::Exact(version), None) => (version, listed_digest(http, mirror, version)?),
        (VersionRequest::Series(major, minor), _) => {
            let (version, digest) = newest(http, mirror, (major, minor))?;
            (version, Some(digest))
        }
    };
    let checked = match (pin, listed) {
        (Some(_), _) => "sha256 pinned",
        (None, Some(_)) => "sha256 as in the server's sha256sums.asc",
        (None, None) => "no pinned checksum, and the server lists none",
    };
    let expected = pin.or(listed);
    let url = release_url(mirror, version);
    let fill = |tree: &Utf8Path| {
        let name = url.rsplit('/').next().unwrap_or(&url);
        // Only what has a digest can be put together from two connections, let alone two runs.
        let partial = expected.map(|digest| fetching.cache.partial(digest)).transpose()?;
        let mut download = http.download(&url, partial)?;
        let total = download.total;
        let unpacked = unpack(Stream { name, reader: &mut download, total, expected }, tree, running);
        if let Some(digest) = expected.filter(|_| unpacked.is_ok() || download.is_complete()) {
            // Unpacked, or not what it should be: either way it is of no more use.
            fetching.cache.forget_partial(digest);
        }
        let Unpacked { sha256, bytes, date } = unpacked?;
        Ok(SourceIdentity {
            origin: Some(release_url(KERNEL_ORG, version)),
            digest: sha256.oci(),
            version: check_tree(tree, name)?,
            date,
            verified: format!("{}, {checked}", size(bytes)),
            trusted: expected.is_some(),
        })
    };
    match expected {
        Some(digest) => keep(&digest.oci(), fetching, fill),
        None => keep_unlisted(&url, fetching, fill),
    }
}

/// The server's list of checksums for all of a major version; `None` where it has none.
fn checksums(http: &Http<'_>, mirror: &str, version: KernelVersion) -> Result<Option<String>> {
    http.text(&format!("{mirror}/pub/linux/kernel/v{}.x/sha256sums.asc", version.major), LARGEST_LIST)
}

/// What the server lists for `version`. A server without a list, or a list without it, is no error.
fn listed_digest(http: &Http<'_>, mirror: &str, version: KernelVersion) -> Result<Option<Sha256>> {
    let list = checksums(http, mirror, version)?.unwrap_or_default();
    Ok(tarballs(&list).find(|(listed, _)| *listed == version).map(|(_, digest)| digest))
}

fn newest(http: &Http<'_>, mirror: &str, series: (u32, u32)) -> Result<(KernelVersion, Sha256)> {
    let list = checksums(http, mirror, KernelVersion::new(series.0, series.1, 0))?.unwrap_or_default();
    tarballs(&list)
        .filter(|(version, _)| version.series() == series)
        .max_by_key(|(version, _)| *version)
        .ok_or_else(|| {
            Error::fetch(format!("{mirror} lists no release of Linux {}.{}", series.0, series.1))
                .hint("`kcompile list` shows the known kernels")
        })
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
