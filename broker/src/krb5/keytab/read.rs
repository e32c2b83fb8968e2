//! Reading a keytab that an administrator hands over.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use krb_proto::{Kvno, Principal, Secret, text};

use super::{KeytabEntry, VERSION};
use crate::krb5::key::{Enctype, Key, Keyset};

/// What a keytab holds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Keytab {
    /// Keys that can be used, in the order of the file.
    pub entries: Vec<KeytabEntry>,
    /// Entries that can't.
    pub skipped: Vec<Skipped>,
}

/// An entry that was not read, and why.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{principal}, kvno {kvno}, enctype {enctype}: {why}")]
pub struct Skipped {
    /// Whose key, cut and printable.
    pub principal: String,
    /// Its number.
    pub kvno: Kvno,
    /// Its enctype's number.
    pub enctype: u16,
    /// Why it is of no use.
    pub why: &'static str,
}

/// Why a file is no keytab.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeytabError {
    /// It does not begin with 0x0502.
    #[error("it does not begin as a keytab does, with the bytes 05 02")]
    Version,
    /// An entry ends before its last field, or after the file.
    #[error("the entry at byte {at} is cut off")]
    Cut {
        /// Where the entry begins.
        at: usize,
    },
}

/// Reads a keytab: its holes are passed over, entries of no use are named in `skipped`.
///
/// # Errors
/// When it is none, or cut off.
pub fn read(file: &[u8]) -> Result<Keytab, KeytabError> {
    let mut rest = file.strip_prefix(&VERSION).ok_or(KeytabError::Version)?;
    let mut keytab = Keytab::default();
    while !rest.is_empty() {
        let cut = KeytabError::Cut { at: file.len() - rest.len() };
        let mut fields = Fields(rest);
        let length = i32::from_be_bytes(fields.array().ok_or(cut)?);
        let body = usize::try_from(length.unsigned_abs()).ok().and_then(|l| fields.take(l));
        let body = body.ok_or(cut)?;
        rest = fields.0;
        if length == 0 {
            break; // MIT's reader takes it for the end
        }
        if length > 0 {
            match read_entry(body).ok_or(cut)? {
                Ok(entry) => keytab.entries.push(entry),
                Err(skipped) => keytab.skipped.push(skipped),
            }
        }
    }
    Ok(keytab)
}

/// The keysets that these entries hold for `principal`, ascending by kvno, strongest key first.
pub fn keysets(entries: &[KeytabEntry], principal: &Principal) -> Vec<Keyset> {
    let mut sets: BTreeMap<Kvno, Keyset> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.principal == *principal) {
        let (kvno, made_at) = (entry.kvno, entry.timestamp);
        let set = sets.entry(kvno).or_insert_with(|| Keyset { kvno, keys: Vec::new(), made_at });
        set.made_at = set.made_at.max(made_at);
        if !set.keys.iter().any(|key| key.enctype() == entry.key.enctype()) {
            set.keys.push(entry.key.clone());
        }
    }
    let rank = |key: &Key| Enctype::ALL.iter().position(|enctype| *enctype == key.enctype());
    let mut sets: Vec<Keyset> = sets.into_values().collect();
    sets.iter_mut().for_each(|set| set.keys.sort_by_key(rank));
    sets
}

/// One entry; `None` when it is cut.
fn read_entry(body: &[u8]) -> Option<Result<KeytabEntry, Skipped>> {
    let mut fields = Fields(body);
    let count = fields.u16()?;
    let realm = fields.counted()?;
    let components: Vec<&[u8]> = (0..count).map(|_| fields.counted()).collect::<Option<_>>()?;
    fields.take(4)?; // the name type, which says nothing
    let timestamp = Duration::from_secs(u64::from(u32::from_be_bytes(fields.array()?)));
    let short: [u8; 1] = fields.array()?;
    let enctype = fields.u16()?;
    let contents = fields.counted()?;
    let long = fields.array().map_or(0, u32::from_be_bytes); // old writers leave it out
    let kvno = Kvno(if long == 0 { u32::from(short[0]) } else { long });

    let name = written(&components, realm);
    let skipped = |why| Skipped { principal: text::shown(&name), kvno, enctype, why };
    let Ok(principal) = name.parse::<Principal>() else {
        return Some(Err(skipped("not a name that the broker uses")));
    };
    let Some(known) = Enctype::from_number(i32::from(enctype)) else {
        return Some(Err(skipped("an enctype that the broker does not use")));
    };
    let Ok(key) = Key::new(known, Secret::new(contents.to_vec())) else {
        return Some(Err(skipped("a key of the wrong length")));
    };
    if kvno == Kvno(0) {
        return Some(Err(skipped("a key without a number")));
    }
    Some(Ok(KeytabEntry { principal, timestamp: UNIX_EPOCH + timestamp, kvno, key }))
}

/// The name as text. What separates components elsewhere is escaped, and `Principal` refuses
/// escapes: no component passes for two.
fn written(components: &[&[u8]], realm: &[u8]) -> String {
    let escape = |part: &[u8]| {
        let part = String::from_utf8_lossy(part);
        part.replace('\\', "\\\\").replace('/', "\\/").replace('@', "\\@")
    };
    let components: Vec<String> = components.iter().map(|part| escape(part)).collect();
    format!("{}@{}", components.join("/"), escape(realm))
}

/// Fields of an entry, from the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn counted(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }
}
