//! Enctypes 19 and 20: KDF-HMAC-SHA2, mac over IV and ciphertext (RFC 8009).

use hmac::EagerHash;
use krb_proto::Secret;
use sha2::{Sha256, Sha384};

use super::cts::Aes;
use super::mac::{derive, hmac};
use super::usage::{Purpose, Usage};
use super::{same, split_mac};
use crate::krb5::key::{Enctype, Key};

/// The cipher state in front of the first block: zeros, in every Kerberos message.
const IV: [u8; 16] = [0; 16];

/// Confounder and plaintext, encrypted, and the mac of the ciphertext behind it.
pub(super) fn seal(key: &Key, usage: Usage, mut message: Vec<u8>) -> Vec<u8> {
    let encryption = usage_key(key, usage, Purpose::Encryption, key.enctype().key_len());
    Aes::new(encryption.expose()).encrypt(&mut message);
    let mac = mac(key, usage, Purpose::Integrity, &[&IV, &message]);
    message.extend_from_slice(&mac);
    message
}

/// Confounder and plaintext, where the mac is right.
pub(super) fn open(key: &Key, usage: Usage, ciphertext: &[u8]) -> Option<Secret> {
    let (encrypted, received) = split_mac(ciphertext, mac_len(key.enctype()))?;
    let expected = mac(key, usage, Purpose::Integrity, &[&IV, encrypted]);
    if !same(&expected, received) {
        return None;
    }
    let encryption = usage_key(key, usage, Purpose::Encryption, key.enctype().key_len());
    let mut message = encrypted.to_vec();
    Aes::new(encryption.expose()).decrypt(&mut message);
    Some(Secret::new(message))
}

/// The checksum of `data`.
pub(super) fn sign(key: &Key, usage: Usage, data: &[u8]) -> Vec<u8> {
    mac(key, usage, Purpose::Checksum, &[data])
}

/// Bytes of a mac, and of the keys that make one.
fn mac_len(enctype: Enctype) -> usize {
    if enctype == Enctype::Aes256Sha384 { 24 } else { 16 }
}

fn mac(key: &Key, usage: Usage, purpose: Purpose, parts: &[&[u8]]) -> Vec<u8> {
    let length = mac_len(key.enctype());
    let integrity = usage_key(key, usage, purpose, length);
    match key.enctype() {
        Enctype::Aes256Sha384 => hmac::<Sha384>(integrity.expose(), parts, length),
        _ => hmac::<Sha256>(integrity.expose(), parts, length),
    }
}

fn usage_key(key: &Key, usage: Usage, purpose: Purpose, length: usize) -> Secret {
    let label = usage.label(purpose);
    match key.enctype() {
        Enctype::Aes256Sha384 => kdf::<Sha384>(key.contents().expose(), &label, length),
        _ => kdf::<Sha256>(key.contents().expose(), &label, length),
    }
}

/// KDF-HMAC-SHA2 (RFC 8009 3): `length` bytes for `label`.
pub(super) fn kdf<D: EagerHash>(key: &[u8], label: &[u8], length: usize) -> Secret {
    let bits = u32::try_from(length * 8).expect("no key has 2^32 bits").to_be_bytes();
    derive::<D>(key, &[&[0, 0, 0, 1], label, &[0], &bits], length)
}
