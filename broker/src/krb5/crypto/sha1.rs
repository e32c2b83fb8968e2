//! Enctypes 17 and 18: n-fold and DK (RFC 3961 5.1), mac over the plaintext (RFC 3962).

use krb_proto::Secret;
use sha1::Sha1;

use super::cts::Aes;
use super::mac::hmac;
use super::usage::{Purpose, Usage};
use super::{same, split_mac};
use crate::krb5::key::Key;

/// HMAC-SHA1-96.
const MAC: usize = 12;

/// Confounder and plaintext, encrypted, and the mac of both behind them.
pub(super) fn seal(key: &Key, usage: Usage, mut message: Vec<u8>) -> Vec<u8> {
    let mac = mac(key, usage, Purpose::Integrity, &message);
    let encryption = derive(key.contents().expose(), &usage.label(Purpose::Encryption));
    Aes::new(encryption.expose()).encrypt(&mut message);
    message.extend_from_slice(&mac);
    message
}

/// Confounder and plaintext, where the mac is right.
pub(super) fn open(key: &Key, usage: Usage, ciphertext: &[u8]) -> Option<Secret> {
    let (encrypted, received) = split_mac(ciphertext, MAC)?;
    let encryption = derive(key.contents().expose(), &usage.label(Purpose::Encryption));
    let mut message = encrypted.to_vec();
    Aes::new(encryption.expose()).decrypt(&mut message);
    let message = Secret::new(message);
    let expected = mac(key, usage, Purpose::Integrity, message.expose());
    same(&expected, received).then_some(message)
}

/// The checksum of `data`.
pub(super) fn sign(key: &Key, usage: Usage, data: &[u8]) -> Vec<u8> {
    mac(key, usage, Purpose::Checksum, data)
}

fn mac(key: &Key, usage: Usage, purpose: Purpose, data: &[u8]) -> Vec<u8> {
    let integrity = derive(key.contents().expose(), &usage.label(purpose));
    hmac::<Sha1>(integrity.expose(), &[data], MAC)
}

/// DK: as many bytes as `key` has, from the folded constant encrypted over and over.
pub(super) fn derive(key: &[u8], constant: &[u8]) -> Secret {
    let aes = Aes::new(key);
    let mut derived = Vec::with_capacity(key.len());
    let mut block: [u8; 16] = n_fold(constant);
    while derived.len() < key.len() {
        block = aes.encrypt_block(block);
        derived.extend_from_slice(&block); // a key is one or two whole blocks
    }
    Secret::new(derived)
}

/// Stretches or folds `input`, which is not empty, to `N` bytes: copies of it, each rotated
/// 13 bits further right, are added up with end-around carry.
pub(super) fn n_fold<const N: usize>(input: &[u8]) -> [u8; N] {
    let length = input.len();
    let total = length / gcd(length, N) * N; // the least common multiple
    let mut folded = [0u8; N];
    let mut carry = 0u32;
    for at in (0..total).rev() {
        carry += u32::from(folded[at % N]) + u32::from(rotated(input, at));
        folded[at % N] = low(carry);
        carry >>= 8;
    }
    for at in (0..N).rev().cycle().take(2 * N) {
        carry += u32::from(folded[at]);
        folded[at] = low(carry);
        carry >>= 8;
    }
    folded
}

/// Byte `at` of the copies of `input`, copy n rotated right by 13 n bits.
fn rotated(input: &[u8], at: usize) -> u8 {
    let bits = input.len() * 8;
    let rotation = 13 * (at / input.len()) % bits;
    let first = (at % input.len() * 8 + bits - rotation) % bits;
    let (byte, shift) = (first / 8, first % 8);
    let pair = u16::from_be_bytes([input[byte], input[(byte + 1) % input.len()]]);
    low(u32::from(pair >> (8 - shift)))
}

fn low(number: u32) -> u8 {
    number.to_le_bytes()[0]
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// RFC 3961 appendix A.1.
    #[test]
    fn texts_fold_as_rfc_3961_says() {
        assert_eq!(hex(&n_fold::<8>(b"012345")), "be072631276b1955");
        assert_eq!(hex(&n_fold::<7>(b"password")), "78a07b6caf85fa");
        let massive = b"MASSACHVSETTS INSTITVTE OF TECHNOLOGY";
        assert_eq!(hex(&n_fold::<8>(b"Rough Consensus, and Running Code")), "bb6ed30870b7f0e0");
        assert_eq!(hex(&n_fold::<21>(b"password")), "59e4a8ca7c0385c3c37b3f6d2000247cb6e6bd5b3e");
        assert_eq!(hex(&n_fold::<24>(massive)), "db3b0d8f0b061e603282b308a50841229ad798fab9540c1b");
        assert_eq!(hex(&n_fold::<21>(b"Q")), "518a54a215a8452a518a54a215a8452a518a54a215");
        assert_eq!(hex(&n_fold::<21>(b"ba")), "fb25d531ae8974499f52fd92ea9857c4ba24cf297e");
        assert_eq!(hex(&n_fold::<16>(b"kerberos")), "6b65726265726f737b9b5b2b93132b93");
    }
}
