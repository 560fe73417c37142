//! Release tarballs of kernel.org, or of any server with the same layout.

use super::archive::{Stream, Unpacked, unpack};
use super::directory::check_tree;
use super::{Fetching, Tree, keep, keep_unlisted};
use crate::digest::Sha256;
use crate::error::{Context, Error, Kind, Result};
use crate::kernel::{KernelVersion, VersionRequest};
use crate::plan::{KERNEL_ORG, SourceIdentity, release_url};
use crate::report::Running;
use crate::words::size;
use camino::Utf8Path;
use reqwest::StatusCode;
use reqwest::blocking::{Client, Response};
use std::io::Read;
use std::time::Duration;

/// A list of checksums is about 100 kB.
const LARGEST_LIST: u64 = 4 << 20;
/// No byte for this long is a dead connection.
const STALL: Duration = Duration::from_secs(60);

/// Downloads and unpacks the tarball of `version`; the newest of a series is found in the server's
/// list of checksums. `pin` is what the archive must be.
pub(super) fn fetch(
    version: VersionRequest,
    mirror: &str,
    pin: Option<Sha256>,
    fetching: &Fetching<'_>,
    running: &Running<'_>,
) -> Result<Tree> {
    let client = client()?;
    let (version, listed) = match (version, pin) {
        (VersionRequest::Exact(version), Some(_)) => (version, None),
        (VersionRequest::Exact(version), None) => (version, listed_digest(&client, mirror, version)?),
        (VersionRequest::Series(major, minor), _) => {
            let (version, digest) = newest(&client, mirror, (major, minor))?;
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
        let response = get(&client, &url)?;
        let total = response.content_length();
        let stream = Stream { name, reader: response, total, expected };
        let Unpacked { sha256, bytes, date } = unpack(stream, tree, running)?;
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

fn client() -> Result<Client> {
    let builder = Client::builder()
        .user_agent(concat!("kcompile/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(30))
        // The blocking client counts this for each read, not for the whole transfer.
        .timeout(STALL)
        .redirect(reqwest::redirect::Policy::custom(|attempt| {
            let downgraded = attempt.url().scheme() != "https"
                && attempt.previous().iter().any(|url| url.scheme() == "https");
            match (downgraded, attempt.previous().len() > 5) {
                (true, _) => attempt.error("a redirect from https to http"),
                (_, true) => attempt.error("too many redirects"),
                _ => attempt.follow(),
            }
        }));
    builder.build().context(Kind::Host, || "cannot set up HTTPS".into())
}

fn get(client: &Client, url: &str) -> Result<Response> {
    expect_success(send(client, url)?, url)
}

fn send(client: &Client, url: &str) -> Result<Response> {
    let response = client.get(url).send().context(Kind::Fetch, || format!("cannot fetch {url}"));
    response.map_err(|error| {
        error
            .hint("name a server that can be reached with --mirror URL, or another --source (apt, a tarball)")
    })
}

fn expect_success(response: Response, url: &str) -> Result<Response> {
    match response.status() {
        status if status.is_success() => Ok(response),
        status => Err(Error::fetch(format!("cannot fetch {url}: HTTP status {status}"))
            .hint("is there such a version, and does the mirror have kernel.org's layout?")),
    }
}

/// The server's list of checksums for all of a major version; `None` where it has none.
fn checksums(client: &Client, mirror: &str, version: KernelVersion) -> Result<Option<String>> {
    let url = format!("{mirror}/pub/linux/kernel/v{}.x/sha256sums.asc", version.major);
    let response = send(client, &url)?;
    if response.status() == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    let mut text = String::new();
    let list = expect_success(response, &url)?.take(LARGEST_LIST).read_to_string(&mut text);
    list.context(Kind::Fetch, || format!("cannot fetch {url}"))?;
    Ok(Some(text))
}

/// What the server lists for `version`. A server without a list, or a list without it, is no error.
fn listed_digest(client: &Client, mirror: &str, version: KernelVersion) -> Result<Option<Sha256>> {
    let list = checksums(client, mirror, version)?.unwrap_or_default();
    Ok(tarballs(&list).find(|(listed, _)| *listed == version).map(|(_, digest)| digest))
}

fn newest(client: &Client, mirror: &str, series: (u32, u32)) -> Result<(KernelVersion, Sha256)> {
    let list = checksums(client, mirror, KernelVersion::new(series.0, series.1, 0))?.unwrap_or_default();
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
