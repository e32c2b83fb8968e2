//! Lease ids.

use std::{fmt, str::FromStr};

/// What names a lease: 128 random bits, written as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LeaseId([u8; 16]);

impl LeaseId {
    /// The id of these bits, which the caller has drawn at random.
    pub fn from_random(bits: [u8; 16]) -> Self {
        Self(bits)
    }

    /// The bits themselves, in the order in which leases are listed.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for LeaseId {
    type Err = InvalidLeaseId;

    fn from_str(text: &str) -> Result<Self, InvalidLeaseId> {
        let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != 32 || !text.bytes().all(lower) {
            return Err(InvalidLeaseId);
        }
        u128::from_str_radix(text, 16)
            .map(|bits| Self(bits.to_be_bytes()))
            .map_err(|_| InvalidLeaseId)
    }
}

/// The text is no lease id.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("is not a lease id: 32 hexadecimal digits in lower case")]
pub struct InvalidLeaseId;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_and_written_alike() {
        let id = LeaseId::from_random([0xab; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "ab", &"AB".repeat(16), &"+a".repeat(16), &"ab".repeat(17)] {
            assert_eq!(bad.parse::<LeaseId>(), Err(InvalidLeaseId), "{bad}");
        }
    }
}
