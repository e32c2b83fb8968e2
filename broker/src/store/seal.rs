//! Sealing: what makes a stolen disk worthless, and a record that somebody else wrote
//! detectable.
//!
//! Every key here is derived from the master key by HKDF-SHA-256, each for one purpose; the
//! master key itself seals nothing. A [`Sealer`] seals one Kerberos key at a time with
//! AES-256-GCM under a random nonce; what it belongs to is bound in as associated data, so
//! that a sealed key copied into another record does not open there.
//!
//! Format of a sealed key: version `1` (1 byte), key id (8), nonce (12), ciphertext, tag
//! (16). Random nonces of 96 bits allow 2^32 seals under one master key.
//!
//! The master key and the derived ones are wiped when dropped. `ring` keeps its expanded
//! form for the length of one call, on the stack, and does not wipe it.

mod master_key;

use std::{fmt, sync::Arc};

use krb_proto::{Kvno, Principal, Secret};
use ring::{aead, hkdf, hmac};

pub use master_key::{MasterKeyError, MasterKeyFile, Volume, new_master_key};

use crate::{clock::Entropy, krb5::key::Enctype};

const VERSION: u8 = 1;
const KEY_ID: usize = 8;
const HEADER: usize = 1 + KEY_ID + aead::NONCE_LEN;

/// What names a master key without telling anything of it: the first 8 bytes of
/// HMAC-SHA-256(master key, `krb-broker key id`), written as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct KeyId(pub [u8; KEY_ID]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The key that all other keys of the store come from: 256 random bits.
#[derive(Clone, Debug)]
pub struct MasterKey {
    secret: Secret,
    id: KeyId,
}

impl MasterKey {
    /// Bytes of a master key.
    pub const LEN: usize = 32;

    /// The master key of these bytes.
    ///
    /// # Errors
    /// When they are not 32, or all alike, as a placeholder is.
    pub fn new(secret: Secret) -> Result<Self, MasterKeyError> {
        let bytes = secret.expose();
        if bytes.len() != Self::LEN {
            return Err(MasterKeyError::Length { bytes: bytes.len() });
        }
        if bytes.iter().all(|byte| *byte == bytes[0]) {
            return Err(MasterKeyError::Placeholder);
        }
        let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, bytes), b"krb-broker key id");
        let mut id = [0; KEY_ID];
        id.copy_from_slice(&mac.as_ref()[..KEY_ID]);
        Ok(Self { secret, id: KeyId(id) })
    }

    /// A new random one, for a store that lives no longer than the process.
    pub fn random(entropy: &dyn Entropy) -> Self {
        let mut bytes = vec![0; Self::LEN];
        entropy.fill(&mut bytes);
        Self::new(Secret::new(bytes)).expect("32 random bytes are not all alike")
    }

    /// What it is called.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The 256-bit key for `purpose`, one salt each where a purpose has several.
    pub(crate) fn derive(&self, purpose: &'static str, salt: &[u8]) -> Secret {
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(self.secret.expose());
        let mut derived = vec![0; Self::LEN];
        extracted
            .expand(&[purpose.as_bytes()], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut derived))
            .expect("32 bytes are as many as HKDF-SHA-256 gives at once");
        Secret::new(derived)
    }
}

/// What a sealed key belongs to. It opens only there.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Whose key, realm included.
    pub principal: &'a Principal,
    /// Its number.
    pub kvno: Kvno,
    /// Its enctype.
    pub enctype: Enctype,
    /// The type of record it is kept in, such as `keyset`.
    pub record_type: &'a str,
}

impl Context<'_> {
    /// The associated data: every field with its length in front, numbers big-endian.
    fn associated_data(&self, key: KeyId) -> Vec<u8> {
        let name = self.principal.name();
        let kvno = self.kvno.0.to_be_bytes();
        let enctype = self.enctype.number().to_be_bytes();
        let realm = self.principal.realm().as_str().as_bytes();
        let record = self.record_type.as_bytes();
        let fields: [&[u8]; 7] =
            [&[VERSION], &key.0, realm, name.as_bytes(), &kvno, &enctype, record];
        let framed = |field: &&[u8]| [&(field.len() as u32).to_be_bytes(), *field].concat();
        fields.iter().flat_map(framed).collect()
    }
}

impl fmt::Display for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { principal, kvno, enctype, record_type } = self;
        write!(f, "the {record_type} of {principal}, kvno {kvno}, {enctype}")
    }
}

/// Seals and opens single keys.
#[derive(Clone)]
pub struct Sealer {
    key: Secret,
    id: KeyId,
    entropy: Arc<dyn Entropy>,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer({})", self.id)
    }
}

impl Sealer {
    /// A sealer under this master key; `entropy` draws the nonces.
    pub fn new(master: &MasterKey, entropy: Arc<dyn Entropy>) -> Self {
        Self { key: master.derive("krb-broker seal 1", b""), id: master.id(), entropy }
    }

    /// The key, sealed for this place alone.
    pub fn seal(&self, context: &Context<'_>, secret: &Secret) -> Vec<u8> {
        let mut nonce = [0; aead::NONCE_LEN];
        self.entropy.fill(&mut nonce);
        let mut sealed = Vec::with_capacity(HEADER + secret.len() + 16);
        sealed.push(VERSION);
        sealed.extend(self.id.0);
        sealed.extend(nonce);
        sealed.extend(secret.expose()); // overwritten in place by what follows
        let aad = aead::Aad::from(context.associated_data(self.id));
        let tag = cipher(&self.key)
            .seal_in_place_separate_tag(
                aead::Nonce::assume_unique_for_key(nonce),
                aad,
                &mut sealed[HEADER..],
            )
            .expect("a key is far shorter than AES-GCM allows");
        sealed.extend(tag.as_ref());
        sealed
    }

    /// The key that was sealed here.
    ///
    /// # Errors
    /// When it was sealed under another master key, for another place, or was changed.
    pub fn open(&self, context: &Context<'_>, sealed: &[u8]) -> Result<Secret, SealError> {
        let malformed = || SealError::Malformed { what: context.to_string() };
        let (header, body) = sealed.split_at_checked(HEADER).ok_or_else(malformed)?;
        if header[0] != VERSION || body.len() < 16 {
            return Err(malformed());
        }
        let mut found = KeyId([0; KEY_ID]);
        found.0.copy_from_slice(&header[1..=KEY_ID]);
        if found != self.id {
            let what = context.to_string();
            return Err(SealError::OtherMasterKey { what, found, ours: self.id });
        }
        let nonce = aead::Nonce::try_assume_unique_for_key(&header[1 + KEY_ID..])
            .map_err(|_| malformed())?;
        let aad = aead::Aad::from(context.associated_data(self.id));
        let mut body = zeroize::Zeroizing::new(body.to_vec());
        let plain = cipher(&self.key)
            .open_in_place(nonce, aad, &mut body)
            .map_err(|_| SealError::Broken { what: context.to_string() })?;
        Ok(Secret::new(plain.to_vec()))
    }
}

/// AES-256-GCM under a derived key.
pub(crate) fn cipher(key: &Secret) -> aead::LessSafeKey {
    let unbound = aead::UnboundKey::new(&aead::AES_256_GCM, key.expose());
    aead::LessSafeKey::new(unbound.expect("a derived key has the 32 bytes that AES-256 wants"))
}

/// Why something sealed does not open.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SealError {
    /// It was sealed under another master key.
    #[error("{what} is sealed under the master key {found}, this broker has {ours}")]
    OtherMasterKey {
        /// What was to be opened.
        what: String,
        /// The id of the key it was sealed under.
        found: KeyId,
        /// The id of the key in hand.
        ours: KeyId,
    },
    /// It was changed, or belongs elsewhere.
    #[error("{what} does not open: it was changed, or was sealed for another place")]
    Broken {
        /// What was to be opened.
        what: String,
    },
    /// It is no sealed key of a format that is known.
    #[error("{what} has no seal of a known format")]
    Malformed {
        /// What was to be opened.
        what: String,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::SeededEntropy;

    fn sealer(seed: u64) -> Sealer {
        let entropy = Arc::new(SeededEntropy::new(seed));
        Sealer::new(&MasterKey::random(&*entropy), entropy)
    }

    fn web() -> Principal {
        "HTTP/web.tsfoo@EXAMPLE.COM".parse().unwrap()
    }

    fn at(principal: &Principal) -> Context<'_> {
        let enctype = Enctype::Aes256Sha1;
        Context { principal, kvno: Kvno(2), enctype, record_type: "keyset" }
    }

    #[test]
    fn a_sealed_key_opens_where_it_was_sealed_and_nowhere_else() {
        let (sealer, web) = (sealer(1), web());
        let key = Secret::new(vec![7; 32]);
        let sealed = sealer.seal(&at(&web), &key);
        assert_eq!(sealer.open(&at(&web), &sealed).unwrap(), key);

        let other_realm: Principal = "HTTP/web.tsfoo@EXAMPLE.ORG".parse().unwrap();
        let other_name: Principal = "HTTP/webx.tsfoo@EXAMPLE.COM".parse().unwrap();
        for elsewhere in [
            at(&other_realm),
            at(&other_name),
            Context { kvno: Kvno(3), ..at(&web) },
            Context { enctype: Enctype::Aes256Sha384, ..at(&web) },
            Context { record_type: "account", ..at(&web) },
        ] {
            let error = sealer.open(&elsewhere, &sealed).unwrap_err();
            assert!(matches!(error, SealError::Broken { .. }), "{elsewhere}: {error}");
        }
    }

    #[test]
    fn another_master_key_is_named_by_ids_that_tell_nothing() {
        let (ours, theirs, web) = (sealer(1), sealer(2), web());
        let sealed = theirs.seal(&at(&web), &Secret::new(vec![7; 32]));
        let error = ours.open(&at(&web), &sealed).unwrap_err();
        let SealError::OtherMasterKey { found, ours: our_id, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!((*found, *our_id), (theirs.id, ours.id));
        assert!(error.to_string().contains(&theirs.id.to_string()));
        let printed = format!("{ours:?} {:?}", MasterKey::random(&SeededEntropy::new(1)));
        assert!(printed.contains("Secret(32 bytes)"), "{printed}");
    }

    #[test]
    fn the_format_is_fixed() {
        let sealed = sealer(1).seal(&at(&web()), &Secret::new(vec![7; 16]));
        let hex: String = sealed.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, GOLDEN);
        assert_eq!(sealer(1).open(&at(&web()), &sealed).unwrap().expose(), [7; 16]);
    }

    /// Made apart from this code, by a script with openssl's AES.
    const GOLDEN: &str = concat!(
        "01249eb98b2edeb9b16d1c170cf5c1183c860763b2",
        "533c66236c818b48959d8e8c7973e22d",
        "41fd512bc818bfd715df74479e203e33"
    );

    #[test]
    fn associated_data_of_two_places_is_never_alike() {
        let realm = "R".parse().unwrap();
        let (one, two) =
            (Principal::new(&["ab"], &realm).unwrap(), Principal::new(&["a"], &realm).unwrap());
        let id = KeyId([0; 8]);
        let enctype = Enctype::Aes128Sha1;
        let left = Context { principal: &one, kvno: Kvno(1), enctype, record_type: "c" };
        let right = Context { principal: &two, kvno: Kvno(1), enctype, record_type: "bc" };
        assert_ne!(left.associated_data(id), right.associated_data(id));
    }

    #[test]
    fn each_purpose_and_salt_has_its_own_key() {
        let master = MasterKey::random(&SeededEntropy::new(1));
        let keys = [master.derive("a", b""), master.derive("b", b""), master.derive("a", b"x")];
        assert!(keys[0] != keys[1] && keys[0] != keys[2] && keys[1] != keys[2]);
    }

    proptest! {
        #[test]
        fn no_flipped_bit_opens_and_no_bytes_panic(
            contents in proptest::collection::vec(any::<u8>(), 0..40),
            at_byte in any::<prop::sample::Index>(),
            bit in 0..8_u8,
        ) {
            let (sealer, web) = (sealer(1), web());
            let _ = sealer.open(&at(&web), &contents);
            let mut sealed = sealer.seal(&at(&web), &Secret::new(contents));
            let index = at_byte.index(sealed.len());
            sealed[index] ^= 1 << bit;
            prop_assert!(sealer.open(&at(&web), &sealed).is_err());
        }
    }
}
