//! What all kinds of source share while they are fetched: the options, and what this run believes.

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

/// What fetching needs to know beside the plan.
#[derive(Clone, Copy)]
pub struct FetchContext<'a> {
    /// Where trees are kept.
    pub cache: &'a Cache,
    /// Environment and working directory for apt.
    pub host: &'a Host,
    /// Whom to tell.
    pub reporter: &'a Reporter,
    /// No network: take it from the cache or fail.
    pub offline: bool,
    /// A connection without progress for this long is given up.
    pub stall: Duration,
    /// How many threads may work at once.
    pub jobs: usize,
    /// Pins.
    pub catalog: &'a Catalog,
    /// What sources were at their first use.
    pub lock: &'a LockFile,
    /// Whose signatures are believed.
    pub keyring: &'a Keyring,
    /// `--require-signature`.
    pub require_signature: bool,
    /// The archive is wanted, too, not only its tree: for a bundle.
    pub keep_archive: bool,
    /// The server of this source has been asked what proves it, and has nothing.
    pub is_unverifiable: bool,
    /// What is being fetched. [`open_or_fetch`](super::open_or_fetch) and [`find_cached`](super::find_cached) take it from their plan.
    pub location: Option<&'a SourceLocation>,
}

impl FetchContext<'_> {
    /// The error where there is no network to get `name` by.
    pub(super) fn not_cached_error(&self, name: &str) -> Error {
        Error::fetch(format!("--offline: {name} is not in the cache {}", self.cache.root)).hint(
            "run `kcompile fetch` with the same options while there is a network, or bring it with --from-bundle",
        )
    }

    /// Says whose file or tree in a shared cache this run believes.
    pub(super) fn note_foreign_owner(&self, path: &Utf8Path) {
        if let Some(owner) = self.cache.foreign_owner(path) {
            self.reporter
                .note(&format!("{path} was put into the shared cache by user {owner}, who is believed"));
        }
    }

    /// Fails under `--require-signature` where `checks` do not satisfy it.
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
                .hint("its signature lies beside it on kernel.org; is this mirror complete?"),
            Signable::No => Error::fetch(format!(
                "--require-signature: nobody signs {name}, and neither the catalog nor {} pins it",
                lockfile::NAME
            ))
            .hint("a first use without --require-signature pins it, if you have looked at what it is"),
        })
    }

    /// Will this tree of the cache do? It is as good as one that is fetched now: by the keys of this run, by the
    /// signature that lies beside a tarball now, and with what a bundle is made of.
    pub(super) fn accepts(&self, identity: &SourceIdentity) -> bool {
        let trusted = identity.checks.iter().filter(|check| self.is_trusted(check));
        (!self.require_signature || is_signed(trusted, signable(identity)))
            && !self.can_be_authenticated(identity)
            && self.matches_adjacent_signature(identity)
            && (!self.keep_archive || self.has_archive(identity))
    }

    /// Returns whether nothing authenticates a cached tree that a server, or apt, may authenticate now.
    fn can_be_authenticated(&self, identity: &SourceIdentity) -> bool {
        !(self.offline || self.is_unverifiable || identity.is_authenticated())
            && signable(identity) == Signable::Yes
            && matches!(self.location, Some(SourceLocation::KernelOrg { .. } | SourceLocation::Apt { .. }))
    }

    /// Does a check that was made earlier count now? A signature does for as long as its key does.
    fn is_trusted(&self, check: &Check) -> bool {
        let signature = check.signature.as_ref();
        check.step != VerificationStep::Signature
            || signature
                .is_some_and(|signature| self.keyring.is_trusted(&signature.fingerprint, self.host.now))
    }

    /// Of a tarball with a signature beside it: is that the one that was checked?
    fn matches_adjacent_signature(&self, identity: &SourceIdentity) -> bool {
        let Some(SourceLocation::Tarball { path, .. }) = self.location else { return true };
        let is_made_by = |text: &str| {
            let sha256 = Sha256::of(text);
            let is_it =
                |check: &&Check| check.signature.as_ref().is_some_and(|signature| signature.sha256 == sha256);
            identity.checks.iter().filter(is_it).any(|check| self.is_trusted(check))
        };
        // What cannot be read is said when it is fetched.
        signature_file::read(path).is_ok_and(|text| text.is_none_or(|text| is_made_by(&text)))
    }

    /// Is there what a bundle of this source is made of?
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

/// Is there a signature or, for what nobody signs, a pin?
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

/// Compares digests, in the words that every source uses.
pub(super) fn check_digest(name: &str, expected: Sha256, found: Sha256) -> Result<()> {
    match expected == found {
        true => Ok(()),
        false => {
            Err(Error::fetch(format!("checksum mismatch for {name}: expected {expected}, found {found}")))
        }
    }
}
