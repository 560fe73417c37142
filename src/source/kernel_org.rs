//! Release tarballs of kernel.org, or of any server with the same layout.

use super::archive::{Stream, unpack_download};
use super::{Fetching, Tree};
use crate::digest::Sha256;
use crate::error::{Context, Error, Kind, Result};
use crate::kernel::{KernelVersion, VersionRequest};
use crate::plan::tarball_name;
use crate::report::Running;
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
    let (url, name) = match version.candidate() {
        // Release candidates are not in the archive: git.kernel.org packs them on request.
        Some(_) if mirror == "https://cdn.kernel.org" => {
            let name = format!("linux-{version}.tar.gz");
            (format!("https://git.kernel.org/torvalds/t/{name}"), name)
        }
        _ => (format!("{mirror}/{}/{}", directory(version), tarball_name(version)), tarball_name(version)),
    };
    let verified = match (pin, listed) {
        (Some(_), _) => "sha256 pinned by the catalog".to_owned(),
        (None, Some(_)) => "sha256 as the server's sha256sums.asc has it".to_owned(),
        (None, None) => {
            fetching
                .report
                .finding(format!("{name} is unverified: no pinned checksum, and the server lists none"));
            "unverified".to_owned()
        }
    };
    let response = get(&client, &url)?;
    let total = response.content_length();
    let stream = Stream { name: &name, reader: response, total, expected: pin.or(listed) };
    unpack_download(stream, &verified, fetching, running).map_err(|error| {
        if error.kind == Kind::Fetch && error.hint_text().is_none() {
            error.hint(format!("it came from {url}"))
        } else {
            error
        }
    })
}

fn directory(version: KernelVersion) -> String {
    format!("pub/linux/kernel/v{}.x", version.major)
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
    let response = client.get(url).send().context(Kind::Fetch, || format!("cannot fetch {url}"));
    let response = response.map_err(|error| {
        error
            .hint("give a server that can be reached with --mirror URL, or another --source (apt, a tarball)")
    })?;
    match response.status() {
        status if status.is_success() => Ok(response),
        status => Err(Error::fetch(format!("cannot fetch {url}: HTTP status {status}"))
            .hint("is there such a version, and does the mirror have kernel.org's layout?")),
    }
}

/// The server's list of checksums for all of a major version: file name → digest.
fn checksums(client: &Client, mirror: &str, version: KernelVersion) -> Result<String> {
    let url = format!("{mirror}/{}/sha256sums.asc", directory(version));
    let mut text = String::new();
    let response = get(client, &url)?;
    response
        .take(LARGEST_LIST)
        .read_to_string(&mut text)
        .context(Kind::Fetch, || format!("cannot fetch {url}"))?;
    Ok(text)
}

/// What the server lists for `version`. A server without a list, or a list without it, is no error.
fn listed_digest(client: &Client, mirror: &str, version: KernelVersion) -> Result<Option<Sha256>> {
    match checksums(client, mirror, version) {
        Ok(list) => Ok(tarballs(&list).find(|(listed, _)| *listed == version).map(|(_, digest)| digest)),
        Err(error) if error.to_string().contains("HTTP status") => Ok(None),
        Err(error) => Err(error),
    }
}

fn newest(client: &Client, mirror: &str, series: (u32, u32)) -> Result<(KernelVersion, Sha256)> {
    let list = checksums(client, mirror, KernelVersion::new(series.0, series.1, 0))?;
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
