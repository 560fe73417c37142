//! Checks OpenPGP signatures: which key made them, whether the key is still valid, and whether they match the
//! bytes. Pure: the caller reads the keys and signatures.
//!
//! A key is trusted if it is in the keyring, which has pinned fingerprints and the user's keys (`--keyring`).
//! There is no web of trust. Revoked and expired keys are not trusted, whatever the date of the signature:
//! the signer chooses that date, and a thief of an old key would date a signature back.

use crate::util::error::{Error, Kind, Result, ResultExt};
use pgp::composed::{
    CleartextSignedMessage, Deserializable, DetachedSignature, SignedPublicKey, SignedPublicSubKey,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType};
use pgp::types::{KeyDetails, Tag};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::Read;

/// The keys of kernel developers. `keys/README.md` has their sources.
const KERNEL_ORG_KEYS: &str = include_str!("../../keys/kernel.org.asc");
/// The keys of those who publish compilers on kernel.org. They sign no kernels.
const COMPILER_KEYS: &str = include_str!("../../keys/compilers.asc");
/// The hint for a file that has no keys.
pub const KEYRING_HINT: &str = "`gpg --armor --export FINGERPRINT` writes such a file";
/// The fingerprints that must be in that file. Other keys in it are not used.
const PINNED: [&str; 5] = [
    "ABAF11C65A2970B130ABE3C479BE3E4300411886",
    "647F28654894E3BD457199BE38DBBDC86092693E",
    "E27E5D8A3403A2EF66873BBCDEA66FF797772CDC",
    "AC2B29BD34A6AFDDB3F68F35E7BFC8EC95861109",
    "B8868C80BA62A1FFFAF5FDA9632D3A06589DA6B1",
];
const PINNED_FOR_COMPILERS: [&str; 1] = ["2437CB76E544CB6AB3D9DFD399739260CB6CB716"];
const ARMORED_KEY: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
const CLEAR_SIGNED: &str = "-----BEGIN PGP SIGNED MESSAGE-----";

#[derive(Clone, Debug)]
pub struct Keyring {
    keys: Vec<SignedPublicKey>,
}

/// The signer of a valid signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signer {
    /// The name in the key's first user id.
    pub name: String,
    /// The primary key's, as 40 upper-case hexadecimal digits (64 for a version 6 key).
    pub fingerprint: String,
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.fingerprint)
    }
}

/// A signature by a valid key of the keyring. The signed bytes are not checked yet.
#[derive(Clone, Debug)]
pub struct PendingSignature<'a> {
    name: String,
    signature: Signature,
    key: &'a SignedPublicKey,
    /// The index of the subkey that signed. `None` means the primary key.
    subkey: Option<usize>,
}

/// A text with an inline signature.
#[derive(Clone, Debug, Default)]
pub struct ClearSigned {
    /// The signed text alone.
    pub text: String,
    /// `None` if there is no signature.
    pub signer: Option<Signer>,
}

impl Keyring {
    /// Returns the built-in keys of kernel developers.
    pub fn built_in() -> Keyring {
        Keyring { keys: Vec::new() }.with_built_in(KERNEL_ORG_KEYS, &PINNED)
    }

    /// Adds the built-in keys of those who publish compilers on kernel.org.
    pub fn for_compilers(self) -> Keyring {
        self.with_built_in(COMPILER_KEYS, &PINNED_FOR_COMPILERS)
    }

    fn with_built_in(mut self, text: &str, pinned: &[&str]) -> Keyring {
        let mut built_in = Keyring { keys: Vec::new() };
        built_in.add("a built-in file", text.as_bytes()).expect("the built-in keys can be read");
        built_in.keys.retain(|key| pinned.contains(&fingerprint(key).as_str()));
        built_in.keys.into_iter().for_each(|key| self.add_key(key));
        self
    }

    fn add_key(&mut self, key: SignedPublicKey) {
        match self.keys.iter_mut().find(|known| fingerprint(known) == fingerprint(&key)) {
            Some(known) => merge(known, key),
            None => self.keys.push(key),
        }
    }

    /// Adds every key in `bytes`, armored (one block or several) or binary. Copies of one key are merged, so
    /// a revocation or a later expiry in any copy counts. `name` is for errors.
    ///
    /// # Errors
    ///
    /// Exit code 2: there is no key, or one that cannot be read.
    pub fn add(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let refused =
            || Error::usage(format!("{name}: not a file of OpenPGP public keys")).hint(KEYRING_HINT);
        let mut read = Vec::new();
        match std::str::from_utf8(bytes) {
            Ok(text) if text.contains(ARMORED_KEY) => {
                // Text before the first block is a comment.
                for block in text.split(ARMORED_KEY).skip(1) {
                    let block = format!("{ARMORED_KEY}{block}");
                    let (keys, _) = SignedPublicKey::from_string_many(&block).map_err(|_| refused())?;
                    read.extend(keys);
                }
            }
            _ => read.extend(SignedPublicKey::from_bytes_many(bytes).map_err(|_| refused())?),
        }
        if read.is_empty() {
            return Err(refused());
        }
        for key in read {
            self.add_key(key.map_err(|_| refused())?);
        }
        Ok(())
    }

    /// Returns whether the keyring has this key, and it is valid at `now`, seconds since 1970.
    pub fn is_trusted(&self, wanted: &str, now: u64) -> bool {
        self.keys.iter().any(|key| fingerprint(key) == wanted && check_key("", key, now).is_ok())
    }

    /// Reads the detached signature in `bytes` (armored or binary), and finds a key that claims to have made
    /// it and is valid at `now`, seconds since 1970. `name` is for errors.
    ///
    /// # Errors
    ///
    /// Exit code 3: not a signature, an unknown, revoked or expired key, an expired
    /// signature, or a weak hash.
    pub fn detached(&self, name: &str, bytes: &[u8], now: u64) -> Result<PendingSignature<'_>> {
        let message = || format!("{name}: not an OpenPGP signature");
        let signatures = match std::str::from_utf8(bytes) {
            Ok(text) => DetachedSignature::from_string_many(text)
                .map(|(signatures, _)| signatures.collect::<Result<Vec<_>, _>>()),
            Err(_) => DetachedSignature::from_bytes_many(bytes).map(Iterator::collect),
        };
        let signatures = signatures.context(Kind::Fetch, message)?.context(Kind::Fetch, message)?;
        let signatures = signatures.into_iter().map(|detached| detached.signature).collect();
        self.pending_signature(name, signatures, SignatureType::Binary, now)
    }

    /// Splits a clear-signed text and checks its signature. A text without a signature is not an error.
    pub fn clear_signed(&self, name: &str, text: &str, now: u64) -> Result<ClearSigned> {
        if !text.starts_with(CLEAR_SIGNED) {
            return Ok(ClearSigned { text: text.to_owned(), signer: None });
        }
        let message = CleartextSignedMessage::from_string(text);
        let (message, _) = message.context(Kind::Fetch, || format!("{name}: not a clear-signed text"))?;
        let signatures = message.signatures().to_vec();
        let pending = self.pending_signature(name, signatures, SignatureType::Text, now)?;
        let signed = message.signed_text();
        let signer = pending.verify(signed.as_bytes())?;
        Ok(ClearSigned { text: signed, signer: Some(signer) })
    }

    /// Returns the first of `signatures` that names a key of the keyring as its maker.
    fn pending_signature(
        &self,
        name: &str,
        signatures: Vec<Signature>,
        typ: SignatureType,
        now: u64,
    ) -> Result<PendingSignature<'_>> {
        let mut makers = Vec::new();
        for signature in signatures {
            for key in &self.keys {
                if let Some(subkey) = issuer_key(&signature, key) {
                    let pending = PendingSignature { name: name.to_owned(), signature, key, subkey };
                    pending.check_in_force(typ, now)?;
                    return Ok(pending);
                }
            }
            makers.extend(
                signature.issuer_fingerprint().first().map(|maker| format!("{maker:X}")).or_else(|| {
                    signature.issuer_key_id().first().map(|maker| maker.to_string().to_uppercase())
                }),
            );
        }
        let makers = if makers.is_empty() { "without a name".to_owned() } else { makers.join(", ") };
        Err(Error::fetch(format!(
            "{name}: unknown signature: made by the key {makers}, which is not in the keyring"
        ))
        .hint("if you know and trust the owner of that key, add it with --keyring FILE"))
    }
}

/// Adds the signatures of another copy of the key to `known`. Each one is checked before its use.
fn merge(known: &mut SignedPublicKey, copy: SignedPublicKey) {
    known.details.revocation_signatures.extend(copy.details.revocation_signatures);
    known.details.direct_signatures.extend(copy.details.direct_signatures);
    for user in copy.details.users {
        match known.details.users.iter_mut().find(|known| known.id.id() == user.id.id()) {
            Some(known) => known.signatures.extend(user.signatures),
            None => known.details.users.push(user),
        }
    }
    for subkey in copy.public_subkeys {
        let is_it = |known: &&mut SignedPublicSubKey| known.key.fingerprint() == subkey.key.fingerprint();
        match known.public_subkeys.iter_mut().find(is_it) {
            Some(known) => known.signatures.extend(subkey.signatures),
            None => known.public_subkeys.push(subkey),
        }
    }
}

/// Returns which part of `key` the signature names as its maker: `Some(None)` is the primary key,
/// `Some(Some(index))` a subkey, and `None` another key.
fn issuer_key(signature: &Signature, key: &SignedPublicKey) -> Option<Option<usize>> {
    let made_by = |details: &dyn KeyDetails| {
        let fingerprints = signature.issuer_fingerprint();
        if fingerprints.is_empty() {
            signature.issuer_key_id().contains(&&details.legacy_key_id())
        } else {
            fingerprints.contains(&&details.fingerprint())
        }
    };
    if made_by(&key.primary_key) {
        return Some(None);
    }
    key.public_subkeys.iter().position(|subkey| made_by(&subkey.key)).map(Some)
}

impl PendingSignature<'_> {
    /// Verifies the signature over everything that `content` has.
    ///
    /// # Errors
    ///
    /// Exit code 3: the signature is for other bytes, or reading failed.
    pub fn verify(&self, content: impl Read) -> Result<Signer> {
        let mut content = ErrorRecorder { inner: content, failed: None };
        let verified = match self.subkey {
            None => self.signature.verify(&self.key.primary_key, &mut content),
            Some(index) => self.signature.verify(&self.key.public_subkeys[index].key, &mut content),
        };
        if let Some(error) = content.failed {
            return Err(error)
                .context(Kind::Fetch, || format!("{}: cannot read the signed bytes", self.name));
        }
        let signer = self.signer();
        if verified.is_err() {
            return Err(Error::fetch(format!(
                "{}: bad signature: {signer} did not sign these bytes",
                self.name
            ))
            .hint("the file is damaged or forged; try another --mirror"));
        }
        Ok(signer)
    }

    /// Returns the owner of the key that the signature names.
    pub fn signer(&self) -> Signer {
        signer(self.key)
    }

    /// Fails unless the signature is of this type, and the signature and its key are valid at `now`.
    fn check_in_force(&self, typ: SignatureType, now: u64) -> Result<()> {
        let (name, signer) = (&self.name, self.signer());
        let refuse = |why: String| Err(Error::fetch(format!("{name}: {why}")));
        if self.signature.typ() != Some(typ) {
            return refuse(format!("bad signature: {signer} made it for another purpose"));
        }
        if let Some(HashAlgorithm::Md5 | HashAlgorithm::Sha1 | HashAlgorithm::Ripemd160) | None =
            self.signature.hash_alg()
        {
            return refuse(format!("bad signature: {signer} made it with a broken hash function"));
        }
        check_key(name, self.key, now)?;
        if let Some(index) = self.subkey {
            check_subkey(name, self.key, &self.key.public_subkeys[index], now)?;
        }
        let (made, lasts) = (self.signature.created(), self.signature.signature_expiration_time());
        if let (Some(made), Some(lasts)) = (made, lasts) {
            let end = u64::from(made.as_secs()) + u64::from(lasts.as_secs());
            if lasts.as_secs() != 0 && end <= now {
                return refuse(format!(
                    "expired signature: the signature of {signer} expired on {}",
                    day(end)
                ));
            }
        }
        Ok(())
    }
}

/// Fails if the subkey may not sign, has been revoked, or has expired by `now`.
fn check_subkey(name: &str, key: &SignedPublicKey, subkey: &SignedPublicSubKey, now: u64) -> Result<()> {
    let (primary, signer) = (&key.primary_key, signer(key));
    let refuse = |why: String| Err(Error::fetch(format!("{name}: {why}")));
    let is_bound = |binding: &&Signature| {
        binding.typ() == Some(SignatureType::SubkeyBinding)
            && binding.verify_subkey_binding(primary, &subkey.key).is_ok()
    };
    let newest = subkey
        .signatures
        .iter()
        .filter(is_bound)
        .max_by_key(|binding| binding.created().map(pgp::types::Timestamp::as_secs));
    let may_sign = newest.is_some_and(|binding| {
        binding.key_flags().sign()
            && binding
                .embedded_signature()
                .is_some_and(|back| back.verify_primary_key_binding(&subkey.key, primary).is_ok())
    });
    if !may_sign {
        return refuse(format!("bad signature: made by a subkey of {signer} that may not sign"));
    }
    let is_revoked = subkey.signatures.iter().any(|revocation| {
        revocation.typ() == Some(SignatureType::SubkeyRevocation)
            && revocation.verify_subkey_binding(primary, &subkey.key).is_ok()
    });
    if is_revoked {
        return refuse(format!("revoked signature: the subkey of {signer} has been revoked"));
    }
    check_age(name, &signer, now, subkey.key.created_at().as_secs(), newest)
}

fn signer(key: &SignedPublicKey) -> Signer {
    let id = key.details.users.first().map(|user| String::from_utf8_lossy(user.id.id()).into_owned());
    let id = id.unwrap_or_default();
    let end = id.find([' ', '<', '(']).map_or(id.len(), |_| id.find(['<', '(']).unwrap_or(id.len()));
    // The user id comes from outside, and the name is printed.
    let name: String = id[..end].trim().chars().filter(|character| !character.is_control()).collect();
    let name = if name.is_empty() { "a key without a name".to_owned() } else { name };
    Signer { name, fingerprint: fingerprint(key) }
}

/// Fails if the primary key has been revoked, or has expired by `now`.
fn check_key(name: &str, key: &SignedPublicKey, now: u64) -> Result<()> {
    let (primary, signer) = (&key.primary_key, signer(key));
    if key.details.revocation_signatures.iter().any(|revocation| revocation.verify_key(primary).is_ok()) {
        return Err(Error::fetch(format!("{name}: revoked signature: the key of {signer} has been revoked")));
    }
    let own = key.details.users.iter().flat_map(|user| {
        // A revocation of a user id does not set the key's expiry.
        let is_own = |own: &&Signature| {
            own.typ() != Some(SignatureType::CertRevocation)
                && own.verify_certification(primary, Tag::UserId, &user.id).is_ok()
        };
        user.signatures.iter().filter(is_own)
    });
    let direct = key.details.direct_signatures.iter().filter(|own| own.verify_key(primary).is_ok());
    let newest = own.chain(direct).max_by_key(|own| own.created().map(pgp::types::Timestamp::as_secs));
    check_age(name, &signer, now, primary.created_at().as_secs(), newest)
}

/// Fails if the key has expired by `now`, according to its newest self-signature.
fn check_age(name: &str, signer: &Signer, now: u64, created: u32, newest: Option<&Signature>) -> Result<()> {
    let lasts = newest.and_then(Signature::key_expiration_time).map_or(0, pgp::types::Duration::as_secs);
    let end = u64::from(created) + u64::from(lasts);
    if lasts != 0 && end <= now {
        return Err(Error::fetch(format!(
            "{name}: expired signature: the key of {signer} expired on {}",
            day(end)
        ))
        .hint("if the key was extended, give its new copy with --keyring FILE"));
    }
    Ok(())
}

fn day(seconds: u64) -> String {
    crate::util::time::rfc3339(seconds)[..10].to_owned()
}

fn fingerprint(key: &SignedPublicKey) -> String {
    format!("{:X}", key.primary_key.fingerprint())
}

/// Keeps the error of a reader, which the library would replace by its own.
struct ErrorRecorder<R> {
    inner: R,
    failed: Option<std::io::Error>,
}

impl<R: Read> Read for ErrorRecorder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.inner.read(buffer).map_err(|error| {
            let kind = error.kind();
            self.failed = Some(error);
            kind.into()
        })
    }
}

#[cfg(test)]
mod tests;
