//! What the four enctypes do: encrypt, decrypt, sign, and make keys of passwords.
//!
//! - [`Usage`]: what a key is used for; each use has keys of its own, derived.
//! - `cts`: AES in CBC mode with ciphertext stealing, shared by all four.
//! - `sha1`: key derivation and order of operations of 17 and 18 (RFC 3961, RFC 3962).
//! - `sha2`: those of 19 and 20 (RFC 8009).
//! - [`string_to_key`]: passwords; the only slow thing here.
//!
//! Integrity is checked before any plaintext is returned, in constant time. Derived keys and
//! plaintexts are [`Secret`]s. No other enctype is ever tried.

mod cts;
mod mac;
mod password;
mod sha1;
mod sha2;
mod usage;

use krb_proto::Secret;
use subtle::ConstantTimeEq;

pub use password::{DEFAULT_SHA1_ITERATIONS, DEFAULT_SHA2_ITERATIONS, MAX_ITERATIONS};
pub use password::{PasswordError, string_to_key};
pub use usage::Usage;

use super::key::{Enctype, Key};
use crate::clock::Entropy;

/// Bytes of the random block in front of every plaintext.
const CONFOUNDER: usize = 16;

/// The ciphertext was not made with this key for this usage, or is cut.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("does not decrypt with the {enctype} key given")]
pub struct Undecryptable {
    /// The enctype of the key that was tried.
    pub enctype: Enctype,
}

/// A keyed checksum (RFC 4120 5.2.9).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Checksum {
    /// Its kind, as IANA numbers them.
    pub number: i32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Encrypts `plaintext` for one usage; the result is the `cipher` of an EncryptedData.
pub fn encrypt(key: &Key, usage: Usage, plaintext: &[u8], entropy: &dyn Entropy) -> Vec<u8> {
    let mut confounder = [0; CONFOUNDER];
    entropy.fill(&mut confounder);
    encrypt_with(key, usage, plaintext, confounder)
}

fn encrypt_with(
    key: &Key,
    usage: Usage,
    plaintext: &[u8],
    confounder: [u8; CONFOUNDER],
) -> Vec<u8> {
    let mut message = Vec::with_capacity(CONFOUNDER + plaintext.len() + 24);
    message.extend_from_slice(&confounder);
    message.extend_from_slice(plaintext);
    match key.enctype() {
        Enctype::Aes128Sha1 | Enctype::Aes256Sha1 => sha1::seal(key, usage, message),
        Enctype::Aes128Sha256 | Enctype::Aes256Sha384 => sha2::seal(key, usage, message),
    }
}

/// Decrypts what was encrypted for one usage.
///
/// # Errors
/// When it was not, with this key, or when a bit of it has changed.
pub fn decrypt(key: &Key, usage: Usage, ciphertext: &[u8]) -> Result<Secret, Undecryptable> {
    let opened = match key.enctype() {
        Enctype::Aes128Sha1 | Enctype::Aes256Sha1 => sha1::open(key, usage, ciphertext),
        Enctype::Aes128Sha256 | Enctype::Aes256Sha384 => sha2::open(key, usage, ciphertext),
    };
    let message = opened.ok_or(Undecryptable { enctype: key.enctype() })?;
    Ok(Secret::new(message.expose()[CONFOUNDER..].to_vec()))
}

/// The checksum of `data` that RFC 4120 requires with the key's enctype.
pub fn checksum(key: &Key, usage: Usage, data: &[u8]) -> Checksum {
    let (number, bytes) = match key.enctype() {
        Enctype::Aes128Sha1 => (15, sha1::sign(key, usage, data)),
        Enctype::Aes256Sha1 => (16, sha1::sign(key, usage, data)),
        Enctype::Aes128Sha256 => (19, sha2::sign(key, usage, data)),
        Enctype::Aes256Sha384 => (20, sha2::sign(key, usage, data)),
    };
    Checksum { number, bytes }
}

/// Cuts the mac off the end of `ciphertext`; `None` when not even a confounder is left.
fn split_mac(ciphertext: &[u8], mac: usize) -> Option<(&[u8], &[u8])> {
    let at = ciphertext.len().checked_sub(mac).filter(|&rest| rest >= CONFOUNDER)?;
    Some(ciphertext.split_at(at))
}

/// Whether two macs are the same, in a time that does not tell where they differ.
fn same(left: &[u8], right: &[u8]) -> bool {
    bool::from(left.ct_eq(right))
}

#[cfg(test)]
mod tests;
