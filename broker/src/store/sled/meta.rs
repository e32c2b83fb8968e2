//! The store's own record, written in every batch: how far it has come.

use std::time::SystemTime;

use super::super::{StoreError, directory::Mark};
use crate::clock::{from_unix_millis, unix_millis};

/// Its key; the ledger's records have keys that begin with [`RECORD`].
pub(super) const KEY: &[u8] = b"m";

/// What the ledger's keys begin with in the database.
pub(super) const RECORD: u8 = b'r';

const FORMAT: u8 = 1;

/// Format `1` (1 byte), sequence (8), audit head (8), and the time of the snapshot that the
/// store started from, in ms since 1970, until the first commit after it (8; 0: none).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Meta {
    /// How far the store has come.
    pub mark: Mark,
    /// Set while nothing has been committed since a start from a snapshot.
    pub recovered_from: Option<SystemTime>,
}

impl Meta {
    /// As it is stored.
    pub fn to_bytes(self) -> Vec<u8> {
        let recovered_from = self.recovered_from.map_or(0, |at| unix_millis(at).max(1));
        let mut bytes = vec![FORMAT];
        for number in [self.mark.sequence, self.mark.audit_head, recovered_from] {
            bytes.extend(number.to_be_bytes());
        }
        bytes
    }

    /// As it was stored.
    ///
    /// # Errors
    /// When it has a format that this broker can't read.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StoreError> {
        let (version, numbers) = bytes.split_first().unwrap_or((&0, &[]));
        if *version != FORMAT || numbers.len() != 24 {
            return Err(StoreError::Format { key: "(the store's own)".into(), version: *version });
        }
        let number = |at: usize| {
            numbers[at..at + 8].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
        };
        let recovered_from = Some(number(16)).filter(|millis| *millis != 0);
        Ok(Self {
            mark: Mark { sequence: number(0), audit_head: number(8) },
            recovered_from: recovered_from.map(from_unix_millis),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written_and_another_format_is_named() {
        let mark = Mark { sequence: u64::MAX, audit_head: 2 };
        for recovered_from in [None, Some(from_unix_millis(3))] {
            let meta = Meta { mark, recovered_from };
            assert_eq!(Meta::from_bytes(&meta.to_bytes()).unwrap(), meta);
        }
        let error = Meta::from_bytes(&[9; 25]).unwrap_err();
        assert!(matches!(error, StoreError::Format { version: 9, .. }), "{error}");
        assert!(Meta::from_bytes(&[]).is_err() && Meta::from_bytes(&[1; 24]).is_err());
    }
}
