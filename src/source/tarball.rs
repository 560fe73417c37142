//! A tarball on this machine, with an optional signature file beside it.

use super::archive::HardLinks;
use super::context::FetchContext;
use super::directory::check_tree;
use super::signature_file;
use super::stream::{Stream, Unpacked, unpack};
use super::tree::Tree;
use super::tree_store::store;
use crate::kernel::SourceDigest;
use crate::plan::{Check, Signable, SourceIdentity, VerificationStep};
use crate::report::PhaseGuard;
use crate::util::digest::Sha256;
use crate::util::error::{Kind, Result, ResultExt};
use crate::util::read::{Links, open_file};
use crate::util::text::format_size;
use camino::Utf8Path;

/// Unpacks the tarball unless its tree is in the cache. `sha256` is the digest when the plan was made.
pub(super) fn fetch(
    path: &Utf8Path,
    sha256: Sha256,
    ctx: &FetchContext<'_>,
    phase: &PhaseGuard<'_>,
) -> Result<Tree> {
    let name = path.file_name().unwrap_or(path.as_str());
    let text = signature_file::read(path)?;
    let sibling = signature_file::path(path);
    let detached = |text: &String| {
        ctx.keyring.detached(sibling.file_name().unwrap_or_default(), text.as_bytes(), ctx.host.now)
    };
    let signature = text.as_ref().map(detached).transpose()?;
    let expected = signature.as_ref().map(|_| Check::authenticated(VerificationStep::Signature, ""));
    ctx.check_signature_policy(name, expected.as_slice(), Signable::Yes)?;
    store(&SourceDigest::Sha256(sha256), ctx, |tree| {
        let opened = open_file(path, Links::Follow).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (total, reader) = opened.context(Kind::Fetch, || format!("cannot read {path}"))?;
        let stream = Stream {
            name,
            reader,
            total: Some(total),
            expected: Some(sha256),
            signature: signature.as_ref(),
            hard_links: HardLinks::Refuse,
            threads: ctx.jobs,
            copy: None,
        };
        let Unpacked { bytes, date, signer, contents, .. } = unpack(stream, tree, phase)?;
        contents.record(tree.parent().expect("a tree lies in its entry"), tree)?;
        let mut checks = vec![Check::authenticated(
            VerificationStep::User,
            format!("from a local file, {}", format_size(bytes)),
        )];
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
