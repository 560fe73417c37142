//! What all kinds of source share while they are fetched: the options, and what this run believes.

use super::{archive_store, git_store, signature_file};
use crate::cache::Cache;
use crate::catalog::kernels::Catalog;
use crate::catalog::lockfile::{self, LockFile};
use crate::host::Host;
use crate::plan::{Check, Link, Locator, Outcome, Signable, SourceIdentity};
use crate::report::Report;
use crate::util::digest::Sha256;
use crate::util::error::{Error, Result};
use crate::util::openpgp::Keyring;
use camino::Utf8Path;
use std::time::Duration;

/// What fetching needs to know beside the plan.
#[derive(Clone, Copy)]
pub struct Fetching<'a> {
    /// Where trees are kept.
    pub cache: &'a Cache,
    /// Environment and working directory for apt.
    pub host: &'a Host,
    /// Whom to tell.
    pub report: &'a Report,
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
    pub signature_required: bool,
    /// The archive is wanted, too, not only its tree: for a bundle.
    pub archive_wanted: bool,
    /// The server of this source has been asked what proves it, and has nothing.
    pub nothing_proves_it: bool,
    /// What is being fetched. [`obtain`](super::obtain) and [`at_hand`](super::at_hand) take it from their plan.
    pub locator: Option<&'a Locator>,
}

impl Fetching<'_> {
    /// The error where there is no network to get `name` by.
    pub(super) fn not_here(&self, name: &str) -> Error {
        Error::fetch(format!("--offline: {name} is not in the cache {}", self.cache.root)).hint(
            "run `kcompile fetch` with the same options while there is a network, or bring it with --from-bundle",
        )
    }

    /// Says whose file or tree in a shared cache this run believes.
    pub(super) fn name_owner(&self, path: &Utf8Path) {
        if let Some(owner) = self.cache.foreign_owner(path) {
            self.report
                .note(&format!("{path} was put into the shared cache by user {owner}, who is believed"));
        }
    }

    /// Fails under `--require-signature` where `checks` do not satisfy it.
    pub(super) fn require_signature(&self, name: &str, checks: &[Check], signable: Signable) -> Result<()> {
        if !self.signature_required || is_signed(checks, signable) {
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
        let believed = identity.checks.iter().filter(|check| self.believes(check));
        (!self.signature_required || is_signed(believed, signable(identity)))
            && !self.may_be_proven(identity)
            && self.is_by_the_signature_beside(identity)
            && (!self.archive_wanted || self.has_archive(identity))
    }

    /// Returns whether nothing authenticates a cached tree that a server, or apt, may authenticate now.
    fn may_be_proven(&self, identity: &SourceIdentity) -> bool {
        !(self.offline || self.nothing_proves_it || identity.is_vouched_for())
            && signable(identity) == Signable::Yes
            && matches!(self.locator, Some(Locator::KernelOrg { .. } | Locator::Apt { .. }))
    }

    /// Does a check that was made earlier count now? A signature does for as long as its key does.
    fn believes(&self, check: &Check) -> bool {
        let made = check.signature.as_ref();
        check.link != Link::Signature
            || made.is_some_and(|made| self.keyring.believes(&made.fingerprint, self.host.now))
    }

    /// Of a tarball with a signature beside it: is that the one that was checked?
    fn is_by_the_signature_beside(&self, identity: &SourceIdentity) -> bool {
        let Some(Locator::Tarball { path, .. }) = self.locator else { return true };
        let is_made_by = |text: &str| {
            let sha256 = Sha256::of(text);
            let is_it = |check: &&Check| check.signature.as_ref().is_some_and(|made| made.sha256 == sha256);
            identity.checks.iter().filter(is_it).any(|check| self.believes(check))
        };
        // What cannot be read is said when it is fetched.
        signature_file::read(path).is_ok_and(|text| text.is_none_or(|text| is_made_by(&text)))
    }

    /// Is there what a bundle of this source is made of?
    fn has_archive(&self, identity: &SourceIdentity) -> bool {
        match (self.locator, identity.digest.commit()) {
            (Some(locator @ Locator::Git { url, .. }), Some(commit)) if locator.is_remote() => {
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
    checks.into_iter().filter(|check| check.outcome == Outcome::Proves).any(|check| match signable {
        Signable::Yes => matches!(check.link, Link::Signature | Link::Apt),
        Signable::No => matches!(check.link, Link::Catalog | Link::LockFile),
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
pub(super) fn verify(name: &str, expected: Sha256, found: Sha256) -> Result<()> {
    match expected == found {
        true => Ok(()),
        false => {
            Err(Error::fetch(format!("checksum mismatch for {name}: expected {expected}, found {found}")))
        }
    }
}
