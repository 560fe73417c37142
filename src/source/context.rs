//! What all kinds of source share during a fetch: options, and which checks this run accepts.

use super::{archive_store, git_store, signature_file};
use crate::cache::Cache;
use crate::catalog::kernels::Catalog;
use crate::catalog::lockfile::{self, LockFile};
use crate::host::Host;
use crate::plan::{Check, Signable, SourceIdentity, SourceLocation, StepStatus, VerificationStep};
use crate::report::Reporter;
use crate::util::digest::Sha256;
use crate::util::error::{Error, Result};
use crate::util::openpgp::Keyring;
use camino::Utf8Path;
use std::time::Duration;

/// What a fetch needs besides the plan.
#[derive(Clone, Copy)]
pub struct FetchContext<'a> {
    pub cache: &'a Cache,
    pub host: &'a Host,
    pub reporter: &'a Reporter,
    pub offline: bool,
    /// `--stall-timeout`.
    pub stall: Duration,
    /// The number of threads that may run at once.
    pub jobs: usize,
    /// For its pins.
    pub catalog: &'a Catalog,
    /// The digests of sources at their first use.
    pub lock: &'a LockFile,
    pub keyring: &'a Keyring,
    pub require_signature: bool,
    /// A bundle needs the archive, not only its tree.
    pub keep_archive: bool,
    /// The server has neither a signature nor a signed checksum of this source.
    pub is_unverifiable: bool,
    /// [`open_or_fetch`](super::open_or_fetch) and [`find_cached`](super::find_cached) set it.
    pub location: Option<&'a SourceLocation>,
}

impl FetchContext<'_> {
    /// Returns the error for a source that `--offline` cannot fetch.
    pub(super) fn not_cached_error(&self, name: &str) -> Error {
        Error::fetch(format!("--offline: {name} is not in the cache {}", self.cache.root)).hint(
            "run `kcompile fetch` with the same options while there is a network, or import it with --from-bundle",
        )
    }

    /// Reports that this run uses another user's file or tree in a shared cache.
    pub(super) fn note_foreign_owner(&self, path: &Utf8Path) {
        if let Some(owner) = self.cache.foreign_owner(path) {
            self.reporter.note(&format!("using {path}, which user {owner} put into the shared cache"));
        }
    }

    /// Fails under `--require-signature` unless `checks` satisfy it.
    pub(super) fn check_signature_policy(
        &self,
        name: &str,
        checks: &[Check],
        signable: Signable,
    ) -> Result<()> {
        if !self.require_signature || is_signed(checks, signable) {
            return Ok(());
        }
        Err(match signable {
            Signable::Yes => Error::fetch(format!("--require-signature: {name} has no signature"))
                .hint("kernel.org has a signature beside each release; this mirror may be incomplete"),
            Signable::No => Error::fetch(format!(
                "--require-signature: nobody signs {name}, and neither the catalog nor {} pins it",
                lockfile::NAME
            ))
            .hint("check the source, then pin it by running once without --require-signature"),
        })
    }

    /// Returns whether a cached tree satisfies this run's options. It must be as good as a new one: by the
    /// keys of this run, by the signature beside a tarball now, and with the archive for a bundle.
    pub(super) fn accepts(&self, identity: &SourceIdentity) -> bool {
        let trusted = identity.checks.iter().filter(|check| self.is_trusted(check));
        (!self.require_signature || is_signed(trusted, signable(identity)))
            && !self.can_be_authenticated(identity)
            && self.matches_adjacent_signature(identity)
            && (!self.keep_archive || self.has_archive(identity))
    }

    /// Returns whether a cached tree is not authenticated, and a server or apt may authenticate it now.
    fn can_be_authenticated(&self, identity: &SourceIdentity) -> bool {
        !(self.offline || self.is_unverifiable || identity.is_authenticated())
            && signable(identity) == Signable::Yes
            && matches!(self.location, Some(SourceLocation::KernelOrg { .. } | SourceLocation::Apt { .. }))
    }

    /// Returns whether an earlier check still counts. A signature counts while its key is trusted.
    fn is_trusted(&self, check: &Check) -> bool {
        let signature = check.signature.as_ref();
        check.step != VerificationStep::Signature
            || signature
                .is_some_and(|signature| self.keyring.is_trusted(&signature.fingerprint, self.host.now))
    }

    /// Returns whether the signature beside a tarball, if there is one, is the one that was checked.
    fn matches_adjacent_signature(&self, identity: &SourceIdentity) -> bool {
        let Some(SourceLocation::Tarball { path, .. }) = self.location else { return true };
        let was_checked = |text: &str| {
            let sha256 = Sha256::of(text);
            let is_same =
                |check: &&Check| check.signature.as_ref().is_some_and(|signature| signature.sha256 == sha256);
            identity.checks.iter().filter(is_same).any(|check| self.is_trusted(check))
        };
        // The fetch reports an unreadable file.
        signature_file::read(path).is_ok_and(|text| text.is_none_or(|text| was_checked(&text)))
    }

    /// Returns whether the cache has the archive or commit for a bundle.
    fn has_archive(&self, identity: &SourceIdentity) -> bool {
        match (self.location, identity.digest.commit()) {
            (Some(location @ SourceLocation::Git { url, .. }), Some(commit)) if location.is_remote() => {
                git_store::has_commit(url, &commit.to_string(), self.cache, self.host).unwrap_or(false)
            }
            _ => identity
                .digest
                .sha256()
                .is_none_or(|digest| archive_store::find(self.cache, digest).is_some()),
        }
    }
}

/// Returns whether the checks have a signature, or a pin for a source that nobody signs.
fn is_signed<'a>(checks: impl IntoIterator<Item = &'a Check>, signable: Signable) -> bool {
    checks.into_iter().filter(|check| check.status == StepStatus::Authenticated).any(|check| match signable {
        Signable::Yes => matches!(check.step, VerificationStep::Signature | VerificationStep::Apt),
        Signable::No => matches!(check.step, VerificationStep::Catalog | VerificationStep::LockFile),
    })
}

fn signable(identity: &SourceIdentity) -> Signable {
    if identity.version.candidate().is_some() || identity.digest.commit().is_some() {
        Signable::No
    } else {
        Signable::Yes
    }
}

/// Fails if the digests differ.
pub(super) fn check_digest(name: &str, expected: Sha256, found: Sha256) -> Result<()> {
    if expected != found {
        return Err(Error::fetch(format!(
            "checksum mismatch for {name}: expected {expected}, found {found}"
        )));
    }
    Ok(())
}
