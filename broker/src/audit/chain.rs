//! The keyed chain over the lines: what makes a line that was changed, lost or put in
//! another place show.
//!
//! A line ends in `,"mac":"<32 hexadecimal digits>"}`. The MAC is the first 128 bits of
//! HMAC-SHA-256, under a key derived from the master key for this alone, of the 16 bytes of
//! the MAC of the line before and of the line's own text up to `,"mac"`. Before the first
//! line of all stand 16 zero bytes. Who has no key can make no line, and can neither take
//! one out of the middle nor bring two into another order; who takes lines from the end is
//! found out by a [`Head`] that is kept elsewhere.
//!
//! This module knows nothing of files: [`super::file`] writes chains, [`super::verify`]
//! walks them.

use std::{fmt, str::FromStr};

use krb_proto::Secret;
use ring::hmac;
use serde::Deserialize;

use crate::store::seal::{KeyId, MasterKey};

/// What stands before the MAC, and after it.
const FIELD: &[u8] = b",\"mac\":\"";
const CLOSE: &[u8] = b"\"}";

/// The MAC of a line: what the next one's goes on from.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Mac(pub [u8; 16]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Mac {
    fn read(digits: &[u8]) -> Option<Self> {
        let mut mac = Self::default();
        if digits.len() != 2 * mac.0.len() {
            return None;
        }
        for (byte, pair) in mac.0.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |digit: u8| match digit {
                b'0'..=b'9' => Some(digit - b'0'),
                b'a'..=b'f' => Some(digit - b'a' + 10),
                _ => None, // one spelling for one MAC
            };
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(mac)
    }
}

/// A place in the chain: a line by its number and its MAC, written `SEQ:MAC`. A MAC of
/// zeros says that only the number is known; `0:` and zeros are the place before all lines.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Head {
    /// The line's number.
    pub seq: u64,
    /// Its MAC.
    pub mac: Mac,
}

impl Head {
    /// The later of the two.
    #[must_use]
    pub fn later(self, other: Self) -> Self {
        if other.seq > self.seq { other } else { self }
    }

    /// Whether the line that was found here is the one that is meant.
    pub fn is_met_by(self, found: Self) -> bool {
        self.seq == found.seq && (self.mac == found.mac || self.mac == Mac::default())
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.mac)
    }
}

/// The text is no place in the chain.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("is not SEQ:MAC, a number and 32 hexadecimal digits")]
pub struct InvalidHead;

impl FromStr for Head {
    type Err = InvalidHead;

    fn from_str(text: &str) -> Result<Self, InvalidHead> {
        let (seq, mac) = text.split_once(':').ok_or(InvalidHead)?;
        let seq = seq.parse().map_err(|_| InvalidHead)?;
        Ok(Self { seq, mac: Mac::read(mac.as_bytes()).ok_or(InvalidHead)? })
    }
}

/// The key of the chain.
#[derive(Clone)]
pub struct ChainKey {
    key: Secret,
    id: KeyId,
}

impl ChainKey {
    /// That of the logs under this master key.
    pub fn new(master: &MasterKey) -> Self {
        Self { key: master.derive("krb-broker audit chain 1", b""), id: master.id() }
    }

    /// The id of the master key that it comes from.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The MAC of a line's text that follows the line with the MAC `previous`.
    pub(super) fn sign(&self, previous: Mac, text: &[u8]) -> Mac {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.key.expose());
        let mut input = hmac::Context::with_key(&key);
        input.update(&previous.0);
        input.update(text);
        let mut mac = Mac::default();
        mac.0.copy_from_slice(&input.sign().as_ref()[..16]);
        mac
    }

    /// The line of a JSON object, with its MAC and a newline.
    pub(super) fn seal(&self, previous: Mac, object: &str) -> (String, Mac) {
        let text = object.strip_suffix('}').unwrap_or(object);
        let mac = self.sign(previous, text.as_bytes());
        (format!("{text},\"mac\":\"{mac}\"}}\n"), mac)
    }
}

impl fmt::Debug for ChainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChainKey({})", self.id)
    }
}

/// A line as it was found: what it says of itself, whether or not that is true.
pub(super) struct Found<'a> {
    /// Its number and its MAC.
    pub head: Head,
    /// What the MAC is over.
    pub text: &'a [u8],
    /// Its event.
    pub event: String,
    /// The end of the file before, in the first line of a file.
    pub previous: Option<Head>,
    /// The master key's id, likewise.
    pub key: Option<String>,
}

#[derive(Deserialize)]
struct Fields {
    v: u8,
    seq: u64,
    event: String,
    previous: Option<String>,
    key: Option<String>,
}

impl<'a> Found<'a> {
    /// Reads a line without its newline; `None` for what is no line of ours.
    pub fn read(line: &'a [u8]) -> Option<Self> {
        let rest = line.strip_suffix(CLOSE)?;
        let (rest, digits) = rest.split_at_checked(rest.len().checked_sub(32)?)?;
        let text = rest.strip_suffix(FIELD)?;
        let fields: Fields = serde_json::from_slice(line).ok().filter(|f: &Fields| f.v == 1)?;
        let head = Head { seq: fields.seq, mac: Mac::read(digits)? };
        let previous = match fields.previous {
            Some(text) => Some(text.parse().ok()?),
            None => None,
        };
        Some(Self { head, text, event: fields.event, previous, key: fields.key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SeededEntropy;

    fn key(seed: u64) -> ChainKey {
        ChainKey::new(&MasterKey::random(&SeededEntropy::new(seed)))
    }

    #[test]
    fn a_line_s_mac_is_of_its_text_its_place_and_its_key() {
        let object = r#"{"v":1,"seq":1,"event":"key.made"}"#;
        let (line, mac) = key(1).seal(Mac::default(), object);
        let found = Found::read(line.trim_end().as_bytes()).unwrap();
        assert_eq!((found.head, found.event.as_str()), (Head { seq: 1, mac }, "key.made"));
        assert_eq!(key(1).sign(Mac::default(), found.text), mac);
        assert_ne!(key(2).sign(Mac::default(), found.text), mac);
        assert_ne!(key(1).sign(Mac([1; 16]), found.text), mac);
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(parsed["mac"], mac.to_string());
    }

    #[test]
    fn a_head_is_read_as_it_is_written_and_nothing_else_is() {
        let head = Head { seq: 7, mac: Mac([0xab; 16]) };
        assert_eq!(head.to_string().parse(), Ok(head));
        for bad in ["", "7", "7:", "7:ab", ":", "-1:abababababababababababababababab"] {
            assert_eq!(bad.parse::<Head>(), Err(InvalidHead), "{bad}");
        }
        let upper = head.to_string().to_uppercase();
        assert!(upper.parse::<Head>().is_err(), "one spelling for one MAC");
    }

    #[test]
    fn what_is_no_line_of_ours_is_not_read() {
        let (line, _) = key(1).seal(Mac::default(), r#"{"v":1,"seq":1,"event":"a"}"#);
        let line = line.trim_end();
        for cut in 0..line.len() {
            assert!(Found::read(&line.as_bytes()[..cut]).is_none(), "{cut}");
        }
        let (other, _) = key(1).seal(Mac::default(), r#"{"v":2,"seq":1,"event":"a"}"#);
        assert!(Found::read(other.trim_end().as_bytes()).is_none());
        assert!(Found::read(b"").is_none() && Found::read(b"\"}").is_none());
    }
}
