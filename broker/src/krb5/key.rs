//! Keys and what they are called.

use std::{fmt, str::FromStr, time::SystemTime};

use krb_proto::{Kvno, Secret};

use crate::clock::Entropy;

/// The encryption types that the broker makes keys of and accepts (RFC 3962, RFC 8009).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Enctype {
    /// 17, `aes128-cts-hmac-sha1-96`
    Aes128Sha1,
    /// 18, `aes256-cts-hmac-sha1-96`
    Aes256Sha1,
    /// 19, `aes128-cts-hmac-sha256-128`
    Aes128Sha256,
    /// 20, `aes256-cts-hmac-sha384-192`
    Aes256Sha384,
}

impl Enctype {
    /// Strongest first: the order in which requests and keytabs name them.
    pub const ALL: [Self; 4] =
        [Self::Aes256Sha384, Self::Aes256Sha1, Self::Aes128Sha256, Self::Aes128Sha1];

    /// The number that IANA gave it.
    pub fn number(self) -> i32 {
        match self {
            Self::Aes128Sha1 => 17,
            Self::Aes256Sha1 => 18,
            Self::Aes128Sha256 => 19,
            Self::Aes256Sha384 => 20,
        }
    }

    /// The enctype of that number, where it is one of ours.
    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|enctype| enctype.number() == number)
    }

    /// Bytes of a key.
    pub fn key_len(self) -> usize {
        match self {
            Self::Aes128Sha1 | Self::Aes128Sha256 => 16,
            Self::Aes256Sha1 | Self::Aes256Sha384 => 32,
        }
    }

    /// The name that krb5.conf and kadmin use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aes128Sha1 => "aes128-cts-hmac-sha1-96",
            Self::Aes256Sha1 => "aes256-cts-hmac-sha1-96",
            Self::Aes128Sha256 => "aes128-cts-hmac-sha256-128",
            Self::Aes256Sha384 => "aes256-cts-hmac-sha384-192",
        }
    }
}

impl fmt::Display for Enctype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Enctype {
    type Err = UnknownEnctype;

    fn from_str(name: &str) -> Result<Self, UnknownEnctype> {
        Self::ALL.into_iter().find(|enctype| enctype.name() == name).ok_or(UnknownEnctype)
    }
}

/// The name is none of the enctypes that the broker uses.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "is not one of aes256-cts-hmac-sha384-192, aes256-cts-hmac-sha1-96, \
     aes128-cts-hmac-sha256-128, aes128-cts-hmac-sha1-96"
)]
pub struct UnknownEnctype;

/// One key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Key {
    enctype: Enctype,
    contents: Secret,
}

impl Key {
    /// The key of these bytes.
    ///
    /// # Errors
    /// When they are not as many as the enctype has.
    pub fn new(enctype: Enctype, contents: Secret) -> Result<Self, WrongKeyLength> {
        if contents.len() == enctype.key_len() {
            Ok(Self { enctype, contents })
        } else {
            Err(WrongKeyLength { enctype, length: contents.len() })
        }
    }

    /// A new random key.
    pub fn random(enctype: Enctype, entropy: &dyn Entropy) -> Self {
        let mut bytes = vec![0; enctype.key_len()];
        entropy.fill(&mut bytes);
        Self { enctype, contents: Secret::new(bytes) }
    }

    /// What kind of key it is.
    pub fn enctype(&self) -> Enctype {
        self.enctype
    }

    /// The key itself.
    pub fn contents(&self) -> &Secret {
        &self.contents
    }
}

/// A key of the wrong length.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a key of {enctype} has not {length} bytes")]
pub struct WrongKeyLength {
    /// The enctype it was said to be of.
    pub enctype: Enctype,
    /// The bytes there were.
    pub length: usize,
}

/// All keys of one kvno, strongest enctype first. Once stored it never changes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Keyset {
    /// Their number.
    pub kvno: Kvno,
    /// One key for each enctype.
    pub keys: Vec<Key>,
    /// When they were made: the timestamp of the keytab's entries.
    pub made_at: SystemTime,
}

impl Keyset {
    /// New random keys of these enctypes.
    pub fn random(
        kvno: Kvno,
        enctypes: &[Enctype],
        entropy: &dyn Entropy,
        made_at: SystemTime,
    ) -> Self {
        let keys = enctypes.iter().map(|enctype| Key::random(*enctype, entropy)).collect();
        Self { kvno, keys, made_at }
    }
}
