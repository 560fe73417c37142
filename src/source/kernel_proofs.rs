//! Fetches the signature of a release, and the server's list of checksums.

use super::archive_store::{ChecksumList, Proofs, Unknown};
use super::context::FetchContext;
use super::http::Http;
use crate::kernel::KernelVersion;
use crate::plan::release_url;
use crate::util::digest::Sha256;
use crate::util::error::Result;
use crate::util::openpgp::ClearSigned;

/// A list of checksums is about 2 MB.
pub(super) const MAX_LIST: u64 = 16 << 20;
/// A signature is about 1 kB.
pub(super) const MAX_SIGNATURE: u64 = 64 << 10;

/// Fetches the signature and the checksum of a release.
pub(super) fn fetch_proofs(
    http: &Http<'_>,
    mirror: &str,
    version: KernelVersion,
    ctx: &FetchContext<'_>,
) -> Result<Proofs> {
    if version.candidate().is_some() {
        return Ok(Proofs::default());
    }
    let url = release_url(mirror, version);
    let signature = format!("{}.sign", url.strip_suffix(".xz").unwrap_or(&url));
    let checksums = match fetch_checksums(http, mirror, version.major, ctx)? {
        None => ChecksumList::NoList,
        Some(list) => match parse_checksums(&list.text).find(|(listed, _)| *listed == version) {
            None => ChecksumList::Missing,
            Some((_, sha256)) => ChecksumList::Listed { sha256, signer: list.signer },
        },
    };
    let signature = http.text(&signature, MAX_SIGNATURE)?;
    Ok(Proofs { signature, checksums, unknown: Unknown::default() })
}

/// Fetches the server's list of checksums for a major version, if it has one, and checks its signature.
pub(super) fn fetch_checksums(
    http: &Http<'_>,
    mirror: &str,
    major: u32,
    ctx: &FetchContext<'_>,
) -> Result<Option<ClearSigned>> {
    let text = http.text(&format!("{mirror}/pub/linux/kernel/v{major}.x/sha256sums.asc"), MAX_LIST)?;
    text.map(|text| ctx.keyring.clear_signed("sha256sums.asc", &text, ctx.host.now)).transpose()
}

/// Returns the release tarballs in a `sha256sums.asc`, whose lines are a digest, two spaces and a file name.
pub(super) fn parse_checksums(list: &str) -> impl Iterator<Item = (KernelVersion, Sha256)> {
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
    fn checksums_are_parsed() {
        let digest = "9e2064f9cb942999a76737d510f08a85bcd8164e9762ce0f7dbfeac58bc2f2b3";
        let list = format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{digest}  linux-4.19.215.tar.xz\n\
             {digest}  linux-4.19.9.tar.xz\n{digest}  patch-4.19.216.xz\n{digest}  linux-4.19.300.tar.gz\nbad  linux-4.19.301.tar.xz\n"
        );
        let versions: Vec<String> = parse_checksums(&list).map(|(version, _)| version.to_string()).collect();
        assert_eq!(versions, ["4.19.215", "4.19.9"]);
    }
}
