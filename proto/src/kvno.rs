//! Key version numbers.

use std::fmt;

/// A key version number (RFC 4120 5.2.9, `kvno`).
///
/// Zero is no key's number. MIT keeps 16 bits, some keytab readers 8.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Kvno(pub u32);

impl Kvno {
    /// The number of the first key that the broker makes for a principal.
    pub const FIRST: Self = Self(2);

    /// The number after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Kvno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
