//! The store's own record, written in every batch: how far it has come.

use std::time::SystemTime;

use super::super::{Mark, StoreError};
use crate::clock::{from_unix_millis, unix_millis};

/// Its key; the ledger's records have keys that begin with [`RECORD`].
pub(super) const KEY: &[u8] = b"m";

/// What the ledger's keys begin with in the database.
pub(super) const RECORD: u8 = b'r';

const FORMAT: u8 = 2;

/// Format `2` (1 byte), the mark (32), and the time of the snapshot that the store started
/// from, in ms since 1970, until the first commit after it (8; 0: none).
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
        [&[FORMAT][..], &self.mark.to_bytes(), &recovered_from.to_be_bytes()].concat()
    }

    /// As it was stored.
    ///
    /// # Errors
    /// When it has a format that this broker can't read.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StoreError> {
        let (version, rest) = bytes.split_first().unwrap_or((&0, &[]));
        let unknown = StoreError::Format { key: "(the store's own)".into(), version: *version };
        match (rest.first_chunk(), rest.last_chunk()) {
            (Some(mark), Some(millis)) if *version == FORMAT && rest.len() == Mark::LEN + 8 => {
                let millis = u64::from_be_bytes(*millis);
                let recovered_from = (millis != 0).then(|| from_unix_millis(millis));
                Ok(Self { mark: Mark::from_bytes(mark), recovered_from })
            }
            _ => Err(unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Head, Mac};

    #[test]
    fn it_is_read_as_it_was_written_and_another_format_is_named() {
        let audit_head = Head { seq: 2, mac: Mac([7; 16]) };
        let mark = Mark { sequence: u64::MAX, audit_head };
        for recovered_from in [None, Some(from_unix_millis(3))] {
            let meta = Meta { mark, recovered_from };
            assert_eq!(Meta::from_bytes(&meta.to_bytes()).unwrap(), meta);
        }
        let error = Meta::from_bytes(&[9; 41]).unwrap_err();
        assert!(matches!(error, StoreError::Format { version: 9, .. }), "{error}");
        assert!(Meta::from_bytes(&[]).is_err() && Meta::from_bytes(&[2; 40]).is_err());
    }
}
