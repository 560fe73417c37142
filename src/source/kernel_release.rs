//! One release of kernel.org: what is known of it before its archive is there, and what its archive shows.

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

/// A release, and what is known of it before its bytes are.
#[derive(Clone)]
pub(super) struct Release {
    pub version: KernelVersion,
    pub pin: Option<Pin>,
    pub proofs: Proofs,
}

impl Release {
    /// A pin that nothing verified shows a change, and does not count where the source itself can be proven.
    pub fn new(version: KernelVersion, pin: Option<Pin>, proofs: Proofs) -> Release {
        let pin = pin.filter(|pin| pin.is_authenticated() || !proofs.can_authenticate());
        Release { version, pin, proofs }
    }

    /// Returns whether a pin, a signature or a signed list authenticates the archive, if they hold.
    pub fn can_be_authenticated(&self) -> bool {
        self.proofs.can_authenticate() || self.pin.as_ref().is_some_and(Pin::is_authenticated)
    }

    fn name(&self) -> String {
        file_name(&release_url(KERNEL_ORG, self.version)).to_owned()
    }

    fn signature_name(&self) -> String {
        format!("linux-{}.tar.sign", self.version)
    }

    /// What the archive must be.
    pub fn expected(&self) -> Option<Sha256> {
        let listed = match &self.proofs.checksums {
            ChecksumList::Listed { sha256, .. } => Some(*sha256),
            ChecksumList::Missing
            | ChecksumList::NoList
            | ChecksumList::NotAsked
            | ChecksumList::Unknown(_) => None,
        };
        self.pin.as_ref().map(|pin| pin.sha256).or(listed)
    }

    /// Does anybody sign such a thing? Release candidates are packed by git, on request.
    fn signable(&self) -> Signable {
        if self.version.candidate().is_none() { Signable::Yes } else { Signable::No }
    }

    /// Fails where it can be told without the archive that it will not do.
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
        let promised =
            self.proofs.signature.iter().map(|_| Check::authenticated(VerificationStep::Signature, ""));
        ctx.check_signature_policy(&name, &pinned.chain(promised).collect::<Vec<_>>(), self.signable())
    }

    /// Unpacks the archive (its bytes, how many there are, where a quick copy goes) into `tree`, and says
    /// what held, and what is to be kept.
    pub fn unpack(
        &self,
        (reader, total, copy): (impl Read, Option<u64>, Option<&Utf8Path>),
        tree: &Utf8Path,
        ctx: &FetchContext<'_>,
        phase: &PhaseGuard<'_>,
    ) -> Result<(SourceIdentity, StoredArchive)> {
        let name = self.name();
        let signature = self.signature(ctx)?;
        let stream = Stream {
            name: &name,
            reader,
            total,
            expected: self.expected(),
            signature: signature.as_ref(),
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

    /// Unpacks the quick copy of what is kept: it was made of what the archive's digest stands for, and
    /// the signature is checked again.
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

/// Opens an archive; returns how many bytes it has, too.
pub(super) fn open_archive(path: &Utf8Path) -> Result<(File, u64)> {
    let message = || format!("cannot read {path}");
    let file = open_file(path, Links::Refuse).context(Kind::Fetch, message)?;
    let bytes = file.metadata().context(Kind::Fetch, message)?.len();
    if bytes > MAX_DOWNLOAD {
        return Err(Error::fetch(format!("{path}: larger than {} GiB", MAX_DOWNLOAD >> 30)));
    }
    Ok((file, bytes))
}
