//! What every stored value is wrapped in: version `1` (1 byte), key id (8), HMAC-SHA-256
//! (32), then the value.
//!
//! The MAC covers the version, the key id, the record's key with its length, and the value,
//! under a key derived from the master key for this alone. A value that somebody else
//! wrote, or that was moved under another key, is an error that names the record. It does
//! not notice that a whole record is missing, or that an older value of ours was put back;
//! the sequence number in the store's own record tells of a store that went back as a whole.

use krb_proto::Secret;
use ring::hmac;

use super::{
    StoreError,
    seal::{KeyId, MasterKey},
    shown_key,
};

const VERSION: u8 = 1;
const KEY_ID: usize = 8;
const MAC: usize = 32;

/// Bytes in front of the value.
pub(super) const OVERHEAD: usize = 1 + KEY_ID + MAC;

/// Wraps and unwraps values.
pub(super) struct Envelopes {
    key: Secret,
    id: KeyId,
}

/// Why a value is not ours.
pub(super) enum Unwrapped {
    /// Written under another master key.
    OtherKey(KeyId),
    /// A format that is not known.
    Version(u8),
    /// The MAC is wrong, or there is not even room for one.
    Tampered,
}

impl Envelopes {
    /// For the records of a store under this master key.
    pub fn new(master: &MasterKey) -> Self {
        Self { key: master.derive("krb-broker record 1", b""), id: master.id() }
    }

    /// The value as it is stored under `key`.
    pub fn wrap(&self, key: &[u8], value: &[u8]) -> Vec<u8> {
        let mut wrapped = Vec::with_capacity(OVERHEAD + value.len());
        wrapped.push(VERSION);
        wrapped.extend(self.id.0);
        wrapped.extend(self.mac(key, value).sign().as_ref());
        wrapped.extend(value);
        wrapped
    }

    /// The value that was stored under `key`.
    pub fn unwrap<'a>(&self, key: &[u8], wrapped: &'a [u8]) -> Result<&'a [u8], Unwrapped> {
        let (header, value) = wrapped.split_at_checked(OVERHEAD).ok_or(Unwrapped::Tampered)?;
        if header[0] != VERSION {
            return Err(Unwrapped::Version(header[0]));
        }
        let mut found = KeyId([0; KEY_ID]);
        found.0.copy_from_slice(&header[1..=KEY_ID]);
        if found != self.id {
            return Err(Unwrapped::OtherKey(found));
        }
        let input = self.mac(key, value);
        hmac::verify(&input.key, &input.bytes, &header[1 + KEY_ID..])
            .map_err(|_| Unwrapped::Tampered)?;
        Ok(value)
    }

    fn mac(&self, key: &[u8], value: &[u8]) -> MacInput {
        let mut bytes = Vec::with_capacity(1 + KEY_ID + 4 + key.len() + value.len());
        bytes.push(VERSION);
        bytes.extend(self.id.0);
        bytes.extend((key.len() as u32).to_be_bytes());
        bytes.extend(key);
        bytes.extend(value);
        MacInput { key: hmac::Key::new(hmac::HMAC_SHA256, self.key.expose()), bytes }
    }
}

struct MacInput {
    key: hmac::Key,
    bytes: Vec<u8>,
}

impl MacInput {
    fn sign(&self) -> hmac::Tag {
        hmac::sign(&self.key, &self.bytes)
    }
}

impl Unwrapped {
    /// The error of the record `key` in the store at `path`.
    pub fn of(self, key: &[u8], path: &std::path::Path, ours: KeyId) -> StoreError {
        let key = shown_key(key);
        match self {
            Self::OtherKey(found) => {
                StoreError::WrongMasterKey { path: path.to_owned(), found, ours }
            }
            Self::Version(version) => StoreError::Format { key, version },
            Self::Tampered => StoreError::Tampered { key },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededEntropy;

    fn envelopes(seed: u64) -> Envelopes {
        Envelopes::new(&MasterKey::random(&SeededEntropy::new(seed)))
    }

    #[test]
    fn a_value_is_ours_under_its_own_key_only() {
        let envelopes = envelopes(1);
        let wrapped = envelopes.wrap(b"lease/1", b"held");
        assert!(matches!(envelopes.unwrap(b"lease/1", &wrapped), Ok(b"held")));
        assert!(matches!(envelopes.unwrap(b"lease/2", &wrapped), Err(Unwrapped::Tampered)));
        // the border between key and value is part of what is signed
        let moved = [&wrapped[..OVERHEAD], b"/1held"].concat();
        assert!(matches!(envelopes.unwrap(b"lease", &moved), Err(Unwrapped::Tampered)));
    }

    #[test]
    fn no_flipped_bit_goes_unnoticed() {
        let envelopes = envelopes(1);
        let wrapped = envelopes.wrap(b"k", b"value");
        for bit in 0..wrapped.len() * 8 {
            let mut flipped = wrapped.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(envelopes.unwrap(b"k", &flipped).is_err(), "bit {bit}");
        }
        for length in 0..wrapped.len() {
            assert!(envelopes.unwrap(b"k", &wrapped[..length]).is_err());
        }
    }

    #[test]
    fn another_master_key_is_told_from_tampering() {
        let (ours, theirs) = (envelopes(1), envelopes(2));
        let wrapped = theirs.wrap(b"k", b"value");
        assert!(
            matches!(ours.unwrap(b"k", &wrapped), Err(Unwrapped::OtherKey(id)) if id == theirs.id)
        );
    }
}
