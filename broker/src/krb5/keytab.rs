//! Keytabs: the file that holds a pod's long-term keys (version 0x0502).
//!
//! What is written is the same for the same entries in any order: ascending kvno, then
//! principal, then strongest enctype first, since Java's reader wants that. Each entry has its
//! kvno in 8 bits and again in 32; a reader that knows only the 8 bits must not mix up two
//! keys, so kvnos that differ by 256 are refused, and zero, which no key has.

use std::cmp::Reverse;
use std::time::SystemTime;

use krb_proto::{Kvno, Principal, Secret};

use super::key::{Enctype, Key, Keyset};
use crate::clock::unix_seconds;

mod read;
pub use read::{Keytab, KeytabError, Skipped, keysets, read};

/// The first two bytes of the file.
const VERSION: [u8; 2] = [5, 2];

/// NT-PRINCIPAL, which MIT's own tools write for services too.
const NT_PRINCIPAL: u32 = 1;

/// One key of a keytab.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeytabEntry {
    /// Whose.
    pub principal: Principal,
    /// When the key was made; whole seconds.
    pub timestamp: SystemTime,
    /// The key's number.
    pub kvno: Kvno,
    /// The key.
    pub key: Key,
}

impl KeytabEntry {
    /// The entries of a principal's keyset.
    pub fn of_keyset(principal: &Principal, keyset: &Keyset) -> Vec<Self> {
        let entry = |key: &Key| Self {
            principal: principal.clone(),
            timestamp: keyset.made_at,
            kvno: keyset.kvno,
            key: key.clone(),
        };
        keyset.keys.iter().map(entry).collect()
    }
}

/// Entries that make no keytab.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UnfitEntries {
    /// Zero is no key's number.
    #[error("a key of {principal} has the number 0")]
    KvnoZero {
        /// Whose.
        principal: Principal,
    },
    /// A reader of 8-bit kvnos would take one for the other.
    #[error("{principal} has keys with the numbers {lower} and {higher}, alike in 8 bits")]
    KvnosAlike {
        /// Whose.
        principal: Principal,
        /// One of them.
        lower: Kvno,
        /// The other.
        higher: Kvno,
    },
}

/// The bytes of a keytab with these entries.
///
/// # Errors
/// When a kvno is zero, or two of one principal are alike in 8 bits.
pub fn write(entries: &[KeytabEntry]) -> Result<Secret, UnfitEntries> {
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort_by_key(|entry| (entry.kvno, &entry.principal, Reverse(strength(entry))));
    check(&sorted)?;
    let size: usize = sorted.iter().map(|entry| 4 + size(entry)).sum();
    // All of it is reserved beforehand: a vector that grows leaves copies of keys behind.
    let mut file = Vec::with_capacity(VERSION.len() + size);
    file.extend_from_slice(&VERSION);
    for entry in sorted {
        write_entry(&mut file, entry);
    }
    Ok(Secret::new(file))
}

fn strength(entry: &KeytabEntry) -> usize {
    let strongest_first = Enctype::ALL.iter();
    Enctype::ALL.len()
        - strongest_first.take_while(|enctype| **enctype != entry.key.enctype()).count()
}

fn check(sorted: &[&KeytabEntry]) -> Result<(), UnfitEntries> {
    for (at, entry) in sorted.iter().enumerate() {
        let principal = &entry.principal;
        if entry.kvno == Kvno(0) {
            return Err(UnfitEntries::KvnoZero { principal: principal.clone() });
        }
        let alike = |other: &&&KeytabEntry| {
            other.principal == *principal
                && other.kvno != entry.kvno
                && other.kvno.0 % 256 == entry.kvno.0 % 256
        };
        if let Some(other) = sorted[..at].iter().find(alike) {
            let (lower, higher) = (other.kvno, entry.kvno);
            return Err(UnfitEntries::KvnosAlike { principal: principal.clone(), lower, higher });
        }
    }
    Ok(())
}

/// Bytes of an entry behind its length.
fn size(entry: &KeytabEntry) -> usize {
    let components = entry.principal.components();
    let names: usize = components.iter().map(|component| 2 + component.len()).sum();
    2 + 2
        + entry.principal.realm().as_str().len()
        + names
        + 4
        + 4
        + 1
        + 2
        + 2
        + entry.key.contents().len()
        + 4
}

fn write_entry(file: &mut Vec<u8>, entry: &KeytabEntry) {
    let components = entry.principal.components();
    file.extend_from_slice(&bytes_of_count(size(entry)));
    file.extend_from_slice(&counted(components.len()));
    write_text(file, entry.principal.realm().as_str());
    for component in components {
        write_text(file, component);
    }
    file.extend_from_slice(&NT_PRINCIPAL.to_be_bytes());
    let seconds = u32::try_from(unix_seconds(entry.timestamp)).unwrap_or(u32::MAX);
    file.extend_from_slice(&seconds.to_be_bytes());
    file.push(entry.kvno.0.to_le_bytes()[0]);
    let enctype = u16::try_from(entry.key.enctype().number()).expect("it is 17 to 20");
    file.extend_from_slice(&enctype.to_be_bytes());
    file.extend_from_slice(&counted(entry.key.contents().len()));
    file.extend_from_slice(entry.key.contents().expose());
    file.extend_from_slice(&entry.kvno.0.to_be_bytes());
}

fn write_text(file: &mut Vec<u8>, text: &str) {
    file.extend_from_slice(&counted(text.len()));
    file.extend_from_slice(text.as_bytes());
}

/// Principals are at most 512 bytes, keys 32: every count fits.
fn counted(count: usize) -> [u8; 2] {
    u16::try_from(count).expect("a principal is short").to_be_bytes()
}

fn bytes_of_count(count: usize) -> [u8; 4] {
    u32::try_from(count).expect("an entry is short").to_be_bytes()
}

#[cfg(test)]
mod tests;
