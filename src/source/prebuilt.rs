//! Fetches the compilers that kernel.org publishes as archives. A signed list of checksums beside an archive, a
//! signature or the user's own pin authenticates it. Unlike a kernel's source, an archive that nothing
//! authenticates is refused, because its programs run on this machine.
//!
//! As for kernels, `sha256sums.asc` in each directory is signed by kernel.org itself, and `NAME.tar.sign` by
//! who published the archive, over the uncompressed bytes.

use super::archive::HardLinks;
use super::context::FetchContext;
use super::download::ResumePolicy;
use super::http::Http;
use super::kernel_org::open_partial;
use super::kernel_proofs::{MAX_LIST, MAX_SIGNATURE};
use super::newest_release::try_mirrors;
use super::stream::{Stream, Unpacked, unpack};
use crate::catalog::lockfile::Locked;
use crate::report::Phase;
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result};
use crate::util::fs::remove_tree;
use crate::util::text::{file_name, format_size};
use camino::Utf8Path;

/// An archive of kernel.org.
pub struct PrebuiltArchive<'a> {
    /// Its path on the server, such as `pub/tools/llvm/files/llvm-21.1.0-x86_64.tar.xz`.
    pub path: &'a str,
    /// Empty means kernel.org.
    pub mirrors: &'a [String],
    /// Its entry in the lock file.
    pub locked: Option<&'a Locked>,
}

/// What authenticates an archive.
struct Proof {
    /// The digest in the signed list, or else in the lock file.
    expected: Option<Sha256>,
    /// The text of the signature beside the archive.
    signature: Option<String>,
}

/// Unpacks an archive into the new directory `dir`. Returns the digest of the archive.
///
/// # Errors
///
/// Exit code 3: no mirror has it, nothing authenticates it, or it has another digest or a bad signature.
pub fn fetch(archive: &PrebuiltArchive<'_>, dir: &Utf8Path, ctx: &FetchContext<'_>) -> Result<Sha256> {
    let http = Http::new(ctx)?;
    try_mirrors(archive.mirrors, ctx, |mirror| {
        remove_tree(dir)?;
        let url = format!("{}/{}", mirror.trim_end_matches('/'), archive.path);
        let proof = fetch_proof(&url, archive.locked, &http, ctx)?;
        download(&url, &proof, dir, &http, ctx)
    })
}

fn fetch_proof(url: &str, locked: Option<&Locked>, http: &Http<'_>, ctx: &FetchContext<'_>) -> Result<Proof> {
    let name = file_name(url);
    let list = http.text(&format!("{}sha256sums.asc", url.trim_end_matches(name)), MAX_LIST)?;
    let list =
        list.map(|text| ctx.keyring.clear_signed("sha256sums.asc", &text, ctx.host.now)).transpose()?;
    let listed = list.filter(|list| list.signer.is_some()).and_then(|list| listed(&list.text, name));
    let pinned = locked.filter(|locked| !locked.unverified).and_then(|locked| locked.digest.sha256());
    if let (Some(listed), Some(pinned)) = (listed, pinned)
        && listed != pinned
    {
        return Err(Error::fetch(format!(
            "checksum mismatch for {name}: expected {pinned} (from its first use), found {listed} in sha256sums.asc"
        ))
        .hint("if kernel.org has replaced the file, accept it with --update-lock"));
    }
    let signature = match listed {
        Some(_) => None,
        None => http.text(&format!("{}.sign", url.trim_end_matches(".xz")), MAX_SIGNATURE)?,
    };
    let expected = listed.or(pinned);
    if expected.is_none() && signature.is_none() {
        return Err(Error::fetch(format!(
            "nothing authenticates {url}: no signed sha256sums.asc lists it, and it has no signature"
        ))
        .hint(
            "a compiler runs on this machine, so it must be signed: choose another server with --mirror URL, or pin \
             the digest in kcompile.lock",
        ));
    }
    Ok(Proof { expected, signature })
}

/// Returns the digest of a file in a `sha256sums.asc`.
fn listed(list: &str, name: &str) -> Option<Sha256> {
    list.lines().find_map(|line| line.split_once("  ").filter(|(_, listed)| *listed == name)?.0.parse().ok())
}

fn download(
    url: &str,
    proof: &Proof,
    dir: &Utf8Path,
    http: &Http<'_>,
    ctx: &FetchContext<'_>,
) -> Result<Sha256> {
    let name = file_name(url);
    let signature = proof.signature.as_ref();
    let signature_name = format!("{}.sign", name.trim_end_matches(".xz"));
    let signature = signature
        .map(|text| ctx.keyring.detached(&signature_name, text.as_bytes(), ctx.host.now))
        .transpose()?;
    let phase = ctx.reporter.start(Phase::Source, name);
    let scratch = ctx.cache.scratch()?;
    let (path, file) = open_partial(proof.expected, url, &scratch.path, ctx)?;
    let policy = if proof.expected.is_some() { ResumePolicy::Verified } else { ResumePolicy::Never };
    let mut download = http.download(url, file, policy)?;
    let stream = Stream {
        name,
        total: download.total,
        reader: &mut download,
        expected: proof.expected,
        signature: signature.as_ref(),
        hard_links: HardLinks::Accept,
        threads: ctx.jobs,
        copy: None,
    };
    match unpack(stream, dir, &phase) {
        Ok(Unpacked { sha256, bytes, .. }) => {
            remove_tree(&path)?;
            phase.finish(&format!("{}, verified", format_size(bytes)));
            Ok(sha256)
        }
        Err(error) => {
            // A complete but wrong download is useless.
            if download.is_complete() {
                remove_tree(&path)?;
            }
            Err(if error.kind == Kind::Fetch { error.hint("try another --mirror") } else { error })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_the_digest_of_exactly_this_file() {
        let digest = "a".repeat(64);
        let list = format!(
            "{digest}  x.tar.xz.old\nbad  x.tar.xz\n{digest}  x.tar.xz\n{}  y.tar.xz\n",
            "b".repeat(64)
        );
        assert_eq!(listed(&list, "x.tar.xz").unwrap().to_string(), digest);
        assert_eq!(listed(&list, "x.tar"), None);
    }
}
