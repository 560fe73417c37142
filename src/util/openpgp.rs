//! OpenPGP signatures: who made them, whether that key may still be believed, and whether they fit the
//! bytes. Pure: keys and signatures are bytes that others have read.
//!
//! A key is believed when it is in the keyring, which is a decision of ours (pinned fingerprints) or of
//! the user's (`--keyring`); webs of trust play no part. A revoked key is never believed, nor one that
//! has expired by now: a signature's date is its maker's word only, and whoever found an old key would
//! date it back.

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

/// The developers' keys; `keys/README.md` says where each was seen.
const KERNEL_ORG_KEYS: &str = include_str!("../../keys/kernel.org.asc");
/// What must be in that file, and all that is used of it.
const PINNED: [&str; 5] = [
    "ABAF11C65A2970B130ABE3C479BE3E4300411886",
    "647F28654894E3BD457199BE38DBBDC86092693E",
    "E27E5D8A3403A2EF66873BBCDEA66FF797772CDC",
    "AC2B29BD34A6AFDDB3F68F35E7BFC8EC95861109",
    "B8868C80BA62A1FFFAF5FDA9632D3A06589DA6B1",
];
const ARMORED_KEY: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
const CLEAR_SIGNED: &str = "-----BEGIN PGP SIGNED MESSAGE-----";

/// The keys whose signatures are believed.
#[derive(Clone, Debug)]
pub struct Keyring {
    keys: Vec<SignedPublicKey>,
}

/// Who made a signature that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signer {
    /// The name in the key's first user id.
    pub name: String,
    /// Of the primary key, 40 upper-case hexadecimal digits (64 for a version 6 key).
    pub fingerprint: String,
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.fingerprint)
    }
}

/// A signature by a key of the keyring that is in force; the bytes have yet to be held against it.
#[derive(Clone, Debug)]
pub struct PendingSignature<'a> {
    name: String,
    signature: Signature,
    key: &'a SignedPublicKey,
    /// Index of the subkey that signed; `None`: the primary key did.
    subkey: Option<usize>,
}

/// A text with a signature around it.
#[derive(Clone, Debug, Default)]
pub struct ClearSigned {
    /// What is signed, and nothing that stands beside it.
    pub text: String,
    /// `None`: there is no signature at all.
    pub signer: Option<Signer>,
}

impl Keyring {
    /// The developers' keys that the binary carries.
    pub fn built_in() -> Keyring {
        let mut keyring = Keyring { keys: Vec::new() };
        keyring.add("keys/kernel.org.asc", KERNEL_ORG_KEYS.as_bytes()).expect("our own keys can be read");
        keyring.keys.retain(|key| PINNED.contains(&fingerprint(key).as_str()));
        keyring
    }

    /// Adds every key in `bytes`, armored (one block or several) or binary. What another copy of a key says, a
    /// revocation or a later end, counts beside what the first one says. `name` is for errors.
    ///
    /// Errors (exit code 2): there is no key in it, or one that cannot be read.
    pub fn add(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let message = || format!("{name}: not a file of OpenPGP public keys");
        let mut read = Vec::new();
        match std::str::from_utf8(bytes) {
            Ok(text) if text.contains(ARMORED_KEY) => {
                // What stands before the first block is prose.
                for block in text.split(ARMORED_KEY).skip(1) {
                    let block = format!("{ARMORED_KEY}{block}");
                    let (keys, _) =
                        SignedPublicKey::from_string_many(&block).context(Kind::Usage, message)?;
                    read.extend(keys);
                }
            }
            _ => read.extend(SignedPublicKey::from_bytes_many(bytes).context(Kind::Usage, message)?),
        }
        if read.is_empty() {
            return Err(Error::usage(message()).hint("`gpg --armor --export FINGERPRINT` writes one"));
        }
        for key in read {
            let key = key.context(Kind::Usage, message)?;
            match self.keys.iter_mut().find(|known| fingerprint(known) == fingerprint(&key)) {
                Some(known) => merge(known, key),
                None => self.keys.push(key),
            }
        }
        Ok(())
    }

    /// Is the key of this fingerprint one whose signatures are believed at `now`, seconds since 1970?
    pub fn is_trusted(&self, of: &str, now: u64) -> bool {
        self.keys.iter().any(|key| fingerprint(key) == of && check_key("", key, now).is_ok())
    }

    /// Finds out who says to have made the detached signature in `bytes` (armored or binary), and
    /// whether that key is in force at `now`, seconds since 1970. `name` is for errors.
    ///
    /// Errors (exit code 3): not a signature, or one by an unknown, revoked or expired key, or one
    /// that has itself expired or was made with a broken hash function.
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

    /// Takes a clear-signed text apart and checks its signature; a text without one is no error.
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

    /// The first of `signatures` that a known key says to have made.
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
        let makers = match &makers[..] {
            [] => "that it does not name".to_owned(),
            makers => makers.join(", "),
        };
        Err(Error::fetch(format!("{name}: unknown signature: made by the key {makers}, which is not known"))
            .hint("if you know whose key that is and believe it, give it with --keyring FILE"))
    }
}

/// Takes into `known` what another copy of the same key says. Each of its signatures is checked when it is used.
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

/// Which key of `key` made the signature, by its own words: `None` none of them, `Some(None)` the
/// primary key, `Some(Some(index))` a subkey.
fn issuer_key(signature: &Signature, key: &SignedPublicKey) -> Option<Option<usize>> {
    let made_by = |details: &dyn KeyDetails| {
        let fingerprints = signature.issuer_fingerprint();
        match fingerprints.is_empty() {
            false => fingerprints.contains(&&details.fingerprint()),
            true => signature.issuer_key_id().contains(&&details.legacy_key_id()),
        }
    };
    if made_by(&key.primary_key) {
        return Some(None);
    }
    key.public_subkeys.iter().position(|subkey| made_by(&subkey.key)).map(Some)
}

impl PendingSignature<'_> {
    /// Holds the signature against all that `content` has.
    ///
    /// Errors (exit code 3): it was not made for these bytes; reading failed.
    pub fn verify(&self, content: impl Read) -> Result<Signer> {
        let mut content = ErrorRecorder { inner: content, failed: None };
        let verified = match self.subkey {
            None => self.signature.verify(&self.key.primary_key, &mut content),
            Some(index) => self.signature.verify(&self.key.public_subkeys[index].key, &mut content),
        };
        if let Some(error) = content.failed {
            return Err(error).context(Kind::Fetch, || format!("{}: cannot be checked", self.name));
        }
        let signer = self.signer();
        match verified {
            Ok(()) => Ok(signer),
            Err(_) => {
                Err(Error::fetch(format!("{}: bad signature: {signer} did not sign these bytes", self.name))
                    .hint("the file is damaged or forged; try another --mirror"))
            }
        }
    }

    /// Who it says made it.
    pub fn signer(&self) -> Signer {
        signer(self.key)
    }

    fn check_in_force(&self, typ: SignatureType, now: u64) -> Result<()> {
        let (name, signer) = (&self.name, self.signer());
        let refuse = |why: String| Err(Error::fetch(format!("{name}: {why}")));
        if self.signature.typ() != Some(typ) {
            return refuse(format!("bad signature: {signer} made it for another purpose"));
        }
        match self.signature.hash_alg() {
            Some(HashAlgorithm::Md5 | HashAlgorithm::Sha1 | HashAlgorithm::Ripemd160) | None => {
                return refuse(format!("bad signature: {signer} made it with a broken hash function"));
            }
            Some(_) => {}
        }
        let key = self.key;
        let primary = &key.primary_key;
        check_key(name, key, now)?;
        if let Some(index) = self.subkey {
            let subkey = &key.public_subkeys[index];
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
            check_age(name, &signer, now, subkey.key.created_at().as_secs(), newest)?;
        }
        let (made, lasts) = (self.signature.created(), self.signature.signature_expiration_time());
        match (made, lasts) {
            (Some(made), Some(lasts)) if lasts.as_secs() != 0 => {
                let end = u64::from(made.as_secs()) + u64::from(lasts.as_secs());
                match end <= now {
                    true => refuse(format!("expired signature: that of {signer} expired on {}", day(end))),
                    false => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

fn signer(key: &SignedPublicKey) -> Signer {
    let id = key.details.users.first().map(|user| String::from_utf8_lossy(user.id.id()).into_owned());
    let id = id.unwrap_or_default();
    let end = id.find([' ', '<', '(']).map_or(id.len(), |_| id.find(['<', '(']).unwrap_or(id.len()));
    // A user id is a stranger's text, and goes to the terminal.
    let name: String = id[..end].trim().chars().filter(|character| !character.is_control()).collect();
    let name = if name.is_empty() { "a key without a name".to_owned() } else { name };
    Signer { name, fingerprint: fingerprint(key) }
}

/// Fails where the primary key has been revoked, or has expired by `now`.
fn check_key(name: &str, key: &SignedPublicKey, now: u64) -> Result<()> {
    let (primary, signer) = (&key.primary_key, signer(key));
    if key.details.revocation_signatures.iter().any(|revocation| revocation.verify_key(primary).is_ok()) {
        let why = format!("{name}: revoked signature: the key of {signer} has been revoked");
        return Err(Error::fetch(why));
    }
    let own = key.details.users.iter().flat_map(|user| {
        // One that takes a user id back says nothing of how long the key lasts.
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

/// Fails where the key's newest own signature says that it ends before `now`.
fn check_age(name: &str, signer: &Signer, now: u64, created: u32, newest: Option<&Signature>) -> Result<()> {
    let lasts = newest.and_then(Signature::key_expiration_time).map_or(0, pgp::types::Duration::as_secs);
    let end = u64::from(created) + u64::from(lasts);
    match lasts != 0 && end <= now {
        true => Err(Error::fetch(format!(
            "{name}: expired signature: the key of {signer} expired on {}",
            day(end)
        ))
        .hint("a key that was prolonged can be given anew with --keyring FILE")),
        false => Ok(()),
    }
}

fn day(seconds: u64) -> String {
    crate::util::time::rfc3339(seconds)[..10].to_owned()
}

fn fingerprint(key: &SignedPublicKey) -> String {
    format!("{:X}", key.primary_key.fingerprint())
}

/// Keeps the error of a reader that the library would put into other words.
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
mod tests {
    use super::*;

    #[test]
    fn the_pinned_keys_are_all_there_and_in_force() {
        let keyring = Keyring::built_in();
        let mut found: Vec<String> = keyring.keys.iter().map(fingerprint).collect();
        found.sort();
        let mut pinned = PINNED.map(str::to_owned);
        pinned.sort();
        assert_eq!(found, pinned);
    }

    #[test]
    fn what_is_no_key_or_signature_is_refused() {
        let mut keyring = Keyring::built_in();
        for bytes in [&b""[..], b"hello", &[0x99, 0xff, 0xff, 1, 2, 3], ARMORED_KEY.as_bytes()] {
            assert!(keyring.add("x", bytes).is_err(), "{bytes:?}");
            assert!(keyring.detached("x", bytes, 0).is_err(), "{bytes:?}");
        }
        assert_eq!(keyring.clear_signed("x", "plain", 0).unwrap().signer, None);
        assert!(keyring.clear_signed("x", CLEAR_SIGNED, 0).is_err());
    }
}
