//! One release of kernel.org: the checks before its download, and the verification of its archive.

use super::archive::HardLinks;
use super::archive_store::{self, ChecksumList, Proofs, StoredArchive, Unknown};
use super::context::FetchContext;
use super::directory::check_tree;
use super::download::MAX_DOWNLOAD;
use super::stream::{Stream, Unpacked, unpack};
use crate::kernel::{KernelVersion, SourceDigest};
use crate::plan::{Check, KERNEL_ORG, Pin, Signable, SourceIdentity, VerificationStep, release_url};
use crate::report::PhaseGuard;
use crate::util::digest::Sha256;
use crate::util::error::{Error, Kind, Result, ResultExt};
use crate::util::openpgp::PendingSignature;
use crate::util::read::{Links, open_file};
use crate::util::text::{file_name, format_size};
use camino::Utf8Path;
use std::fs::File;
use std::io::Read;

/// A release, and what is known before its archive is there.
#[derive(Clone)]
pub(super) struct Release {
    pub version: KernelVersion,
    pub pin: Option<Pin>,
    pub proofs: Proofs,
}

/// The bytes of an archive.
pub(super) struct Archive<'a, R> {
    pub reader: R,
    /// The number of bytes, if it is known.
    pub total: Option<u64>,
    /// Where to write the fast copy.
    pub copy: Option<&'a Utf8Path>,
}

impl Release {
    /// Drops an unverified pin if the source can be authenticated without it.
    pub fn new(version: KernelVersion, pin: Option<Pin>, proofs: Proofs) -> Release {
        let pin = pin.filter(|pin| pin.is_authenticated() || !proofs.can_authenticate());
        Release { version, pin, proofs }
    }

    /// Returns whether there is a pin, a signature or a signed list that can authenticate the archive.
    pub fn can_be_authenticated(&self) -> bool {
        self.proofs.can_authenticate() || self.pin.as_ref().is_some_and(Pin::is_authenticated)
    }

    fn name(&self) -> String {
        file_name(&release_url(KERNEL_ORG, self.version)).to_owned()
    }

    fn signature_name(&self) -> String {
        format!("linux-{}.tar.sign", self.version)
    }

    /// Returns the digest that the archive must have, if it is known.
    pub fn expected(&self) -> Option<Sha256> {
        match (&self.pin, &self.proofs.checksums) {
            (Some(Pin { sha256, .. }), _) | (None, ChecksumList::Listed { sha256, .. }) => Some(*sha256),
            _ => None,
        }
    }

    /// Returns whether such releases are signed. git.kernel.org packs release candidates on request.
    fn signable(&self) -> Signable {
        if self.version.candidate().is_none() { Signable::Yes } else { Signable::No }
    }

    /// Fails if the archive cannot be valid, or cannot satisfy this run's policy.
    pub fn check_before_download(&self, ctx: &FetchContext<'_>) -> Result<()> {
        let name = self.name();
        if let (Some(pin), ChecksumList::Listed { sha256, .. }) = (&self.pin, &self.proofs.checksums)
            && pin.sha256 != *sha256
        {
            return Err(Error::fetch(format!(
                "checksum mismatch for {name}: expected {} ({}), found {sha256} in sha256sums.asc",
                pin.sha256, pin.check.detail
            ))
            .hint("the mirror may be stale or forged; try another --mirror"));
        }
        self.signature(ctx)?;
        let pinned = self.pin.iter().map(|pin| pin.check.clone());
        let expected =
            self.proofs.signature.iter().map(|_| Check::authenticated(VerificationStep::Signature, ""));
        ctx.check_signature_policy(&name, &pinned.chain(expected).collect::<Vec<_>>(), self.signable())
    }

    /// Unpacks the archive into `tree`. Returns the identity of the source and the record of the archive.
    pub fn unpack(
        &self,
        archive: Archive<'_, impl Read>,
        tree: &Utf8Path,
        ctx: &FetchContext<'_>,
        phase: &PhaseGuard<'_>,
    ) -> Result<(SourceIdentity, StoredArchive)> {
        let name = self.name();
        let signature = self.signature(ctx)?;
        let Archive { reader, total, copy } = archive;
        let stream = Stream {
            name: &name,
            reader,
            total,
            expected: self.expected(),
            signature: signature.as_ref(),
            hard_links: HardLinks::Refuse,
            threads: ctx.jobs,
            copy,
        };
        let unpacked = unpack(stream, tree, phase)?;
        let archive = StoredArchive {
            origin: release_url(KERNEL_ORG, self.version),
            sha256: unpacked.sha256,
            proofs: self.proofs.clone(),
            zstd: unpacked.copy,
            unknown: Unknown::default(),
        };
        Ok((self.identity(unpacked.sha256, &unpacked, tree)?, archive))
    }

    /// Unpacks the fast copy of a stored archive, and checks the signature again.
    pub fn unpack_copy(
        &self,
        archive: &StoredArchive,
        zstd: Sha256,
        tree: &Utf8Path,
        ctx: &FetchContext<'_>,
        phase: &PhaseGuard<'_>,
    ) -> Result<SourceIdentity> {
        let (file, bytes) = open_archive(&archive_store::copy_path(ctx.cache, archive.sha256))?;
        let name = format!("the copy of {}", self.name());
        let signature = self.signature(ctx)?;
        let stream = Stream {
            name: &name,
            reader: file,
            total: Some(bytes),
            expected: Some(zstd),
            signature: signature.as_ref(),
            hard_links: HardLinks::Refuse,
            threads: ctx.jobs,
            copy: None,
        };
        self.identity(archive.sha256, &unpack(stream, tree, phase)?, tree)
    }

    fn signature<'a>(&self, ctx: &FetchContext<'a>) -> Result<Option<PendingSignature<'a>>> {
        let text = self.proofs.signature.as_ref();
        let now = ctx.host.now;
        text.map(|text| ctx.keyring.detached(&self.signature_name(), text.as_bytes(), now)).transpose()
    }

    /// Returns the identity of the unpacked archive.
    ///
    /// # Errors
    ///
    /// Exit code 3: the tree has another version. A signature does not cover the name of a release, so a
    /// server can send an old release under a new name.
    fn identity(&self, sha256: Sha256, unpacked: &Unpacked, tree: &Utf8Path) -> Result<SourceIdentity> {
        let version = check_tree(tree, &self.name())?;
        if version != self.version {
            return Err(Error::fetch(format!("{}: the archive has Linux {version}", self.name()))
                .hint("the mirror may be stale or forged; try another --mirror"));
        }
        unpacked.contents.record(tree.parent().expect("a tree lies in its entry"), tree)?;
        let mut checks: Vec<Check> = self.pin.iter().map(|pin| pin.check.clone()).collect();
        checks.push(match (&unpacked.signer, self.signable()) {
            (Some(signer), _) => Check::signed(signer, self.proofs.signature.as_deref().unwrap_or_default()),
            (None, Signable::Yes) => {
                Check::missing(VerificationStep::Signature, format!("no {} beside it", self.signature_name()))
            }
            (None, Signable::No) => {
                Check::missing(VerificationStep::Signature, "nobody signs release candidates")
            }
        });
        checks.extend(self.checksum_check());
        checks.push(Check::consistent(VerificationStep::Transport, format_size(unpacked.bytes)));
        Ok(SourceIdentity {
            origin: Some(release_url(KERNEL_ORG, self.version)),
            digest: SourceDigest::Sha256(sha256),
            version,
            date: unpacked.date,
            checks,
        })
    }

    fn checksum_check(&self) -> Option<Check> {
        Some(match &self.proofs.checksums {
            _ if self.signable() == Signable::No => return None,
            ChecksumList::Listed { signer: Some(signer), .. } => Check::authenticated(
                VerificationStep::ChecksumList,
                format!("in sha256sums.asc, signed by {signer}"),
            ),
            ChecksumList::Listed { signer: None, .. } => {
                Check::consistent(VerificationStep::ChecksumList, "in sha256sums.asc, which is not signed")
            }
            ChecksumList::Missing => {
                Check::missing(VerificationStep::ChecksumList, "missing from sha256sums.asc")
            }
            ChecksumList::NoList => Check::missing(VerificationStep::ChecksumList, "no sha256sums.asc"),
            ChecksumList::NotAsked | ChecksumList::Unknown(_) => return None,
        })
    }
}

/// Opens an archive. Also returns its size.
pub(super) fn open_archive(path: &Utf8Path) -> Result<(File, u64)> {
    let opened = open_file(path, Links::Refuse).and_then(|file| Ok((file.metadata()?.len(), file)));
    let (bytes, file) = opened.context(Kind::Fetch, || format!("cannot read {path}"))?;
    if bytes > MAX_DOWNLOAD {
        return Err(Error::fetch(format!("{path}: larger than {} GiB", MAX_DOWNLOAD >> 30)));
    }
    Ok((file, bytes))
}
