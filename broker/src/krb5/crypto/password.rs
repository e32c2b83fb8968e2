//! Keys of passwords (RFC 3962 4, RFC 8009 4).

use krb_proto::Secret;
use pbkdf2::pbkdf2_hmac;
use sha1::Sha1;
use sha2::{Sha256, Sha384};

use super::{sha1 as rfc3962, sha2 as rfc8009};
use crate::krb5::key::{Enctype, Key};

/// Iterations of enctypes 17 and 18 where the KDC names none.
pub const DEFAULT_SHA1_ITERATIONS: u32 = 4_096;

/// Iterations of enctypes 19 and 20 where the KDC names none.
pub const DEFAULT_SHA2_ITERATIONS: u32 = 32_768;

/// The most iterations that are done, whatever the KDC names: its word is unauthenticated.
pub const MAX_ITERATIONS: u32 = 200_000;

/// Why a password gives no key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PasswordError {
    /// The KDC asks for none, or for more than a forged reply may cost.
    #[error("{iterations} iterations of string-to-key are not 1 to {MAX_ITERATIONS}")]
    Iterations {
        /// How many it asks for.
        iterations: u32,
    },
    /// The `s2kparams` are not the four bytes of an iteration count.
    #[error("string-to-key parameters of {length} bytes, not 4")]
    Params {
        /// How many bytes they are.
        length: usize,
    },
}

/// The key of a password, with the `salt` and `s2kparams` of the KDC's ETYPE-INFO2.
///
/// Takes 0.5 to 40 ms with the usual iterations, 0.3 s with the most: call it where blocking
/// is allowed, and keep the key.
///
/// # Errors
/// When the parameters are malformed or ask for more than [`MAX_ITERATIONS`].
pub fn string_to_key(
    enctype: Enctype,
    password: &Secret,
    salt: &[u8],
    s2kparams: Option<&[u8]>,
) -> Result<Key, PasswordError> {
    let iterations = iterations(enctype, s2kparams)?;
    let length = enctype.key_len();
    let password = password.expose();
    let contents = match enctype {
        Enctype::Aes128Sha1 | Enctype::Aes256Sha1 => {
            let stretched = stretch(length, |key| {
                pbkdf2_hmac::<Sha1>(password, salt, iterations, key);
            });
            rfc3962::derive(stretched.expose(), b"kerberos")
        }
        Enctype::Aes128Sha256 => {
            let stretched = stretch(length, |key| {
                pbkdf2_hmac::<Sha256>(password, &named(enctype, salt), iterations, key);
            });
            rfc8009::kdf::<Sha256>(stretched.expose(), b"kerberos", length)
        }
        Enctype::Aes256Sha384 => {
            let stretched = stretch(length, |key| {
                pbkdf2_hmac::<Sha384>(password, &named(enctype, salt), iterations, key);
            });
            rfc8009::kdf::<Sha384>(stretched.expose(), b"kerberos", length)
        }
    };
    Ok(Key::new(enctype, contents).expect("as many bytes were derived as the enctype has"))
}

fn stretch(length: usize, fill: impl FnOnce(&mut [u8])) -> Secret {
    let mut bytes = vec![0; length];
    fill(&mut bytes);
    Secret::new(bytes)
}

/// RFC 8009 puts the enctype's name in front of the salt.
fn named(enctype: Enctype, salt: &[u8]) -> Vec<u8> {
    [enctype.name().as_bytes(), &[0], salt].concat()
}

fn iterations(enctype: Enctype, s2kparams: Option<&[u8]>) -> Result<u32, PasswordError> {
    let iterations = match (s2kparams, enctype) {
        (Some(params), _) => {
            let bytes = params.try_into();
            let bytes = bytes.map_err(|_| PasswordError::Params { length: params.len() })?;
            u32::from_be_bytes(bytes)
        }
        (None, Enctype::Aes128Sha1 | Enctype::Aes256Sha1) => DEFAULT_SHA1_ITERATIONS,
        (None, Enctype::Aes128Sha256 | Enctype::Aes256Sha384) => DEFAULT_SHA2_ITERATIONS,
    };
    if (1..=MAX_ITERATIONS).contains(&iterations) {
        Ok(iterations)
    } else {
        Err(PasswordError::Iterations { iterations })
    }
}
