//! A tarball on this machine, with the signature that may lie beside it.

use super::context::Fetching;
use super::directory::check_tree;
use super::signature_file;
use super::stream::{Stream, Unpacked, unpack};
use super::tree::Tree;
use super::tree_store::keep;
use crate::kernel::SourceDigest;
use crate::plan::{Check, Link, Signable, SourceIdentity};
use crate::report::Running;
use crate::util::digest::Sha256;
use crate::util::error::{Context, Kind, Result};
use crate::util::read::{Links, open_file};
use crate::util::text::size;
use camino::Utf8Path;

/// Unpacks it, unless its tree is in the cache. `sha256` is what the file was when the plan was made.
pub(super) fn fetch(
    path: &Utf8Path,
    sha256: Sha256,
    fetching: &Fetching<'_>,
    running: &Running<'_>,
) -> Result<Tree> {
    let name = path.file_name().unwrap_or(path.as_str());
    let wrong = || format!("cannot read {path}");
    let text = signature_file::read(path)?;
    let beside = signature_file::path(path);
    let signature_name = beside.file_name().unwrap_or_default();
    let signature = text
        .as_ref()
        .map(|text| fetching.keyring.detached(signature_name, text.as_bytes(), fetching.host.now))
        .transpose()?;
    let promised = signature.iter().map(|_| Check::proves(Link::Signature, "")).collect::<Vec<_>>();
    fetching.require_signature(name, &promised, Signable::Yes)?;
    keep(&SourceDigest::Sha256(sha256), fetching, |tree| {
        let file = open_file(path, Links::Follow).context(Kind::Fetch, wrong)?;
        let total = file.metadata().context(Kind::Fetch, wrong)?.len();
        let stream = Stream {
            name,
            reader: file,
            total: Some(total),
            expected: Some(sha256),
            signature: signature.as_ref(),
            threads: fetching.jobs,
            copy: None,
        };
        let Unpacked { bytes, date, signer, contents, .. } = unpack(stream, tree, running)?;
        contents.record(tree.parent().expect("a tree lies in its entry"), tree)?;
        let mut checks = vec![Check::proves(Link::User, format!("from a local file, {}", size(bytes)))];
        checks.extend(signer.zip(text).map(|(signer, text)| Check::signed(&signer, &text)));
        Ok(SourceIdentity {
            origin: None,
            digest: SourceDigest::Sha256(sha256),
            version: check_tree(tree, name)?,
            date,
            checks,
        })
    })
}
