//! Preauthentication data: what the KDC hints at, and PA-ENC-TIMESTAMP (RFC 4120 5.2.7).

use std::time::{SystemTime, UNIX_EPOCH};

use kerberos_asn1::{self as asn1, Asn1Object};

use super::{Malformed, names, parse};

/// The most entries of a METHOD-DATA or ETYPE-INFO2 that are looked at.
pub const MAX_HINTS: usize = 32;

/// One piece of preauthentication data.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PaData {
    /// Its type, as IANA numbers them.
    pub kind: i32,
    /// What it says.
    pub value: Vec<u8>,
}

impl PaData {
    /// An AP-REQ: what makes a TGS-REQ one.
    pub const TGS_REQ: i32 = 1;
    /// A timestamp that is encrypted with the client's key.
    pub const ENC_TIMESTAMP: i32 = 2;
    /// What keys the KDC has for the client.
    pub const ETYPE_INFO2: i32 = 19;
    /// State of the KDC's, to be sent back (RFC 6113 5.2).
    pub const FX_COOKIE: i32 = 133;
}

/// One key that the KDC says it has for the client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EtypeInfo2Entry {
    /// Its enctype, known to us or not.
    pub enctype: i32,
    /// The salt of its password.
    pub salt: Option<String>,
    /// For [`crate::krb5::crypto::string_to_key`].
    pub s2kparams: Option<Vec<u8>>,
}

/// Reads METHOD-DATA, the first [`MAX_HINTS`] of it.
///
/// # Errors
/// When it is none.
pub fn parse_method_data(bytes: &[u8]) -> Result<Vec<PaData>, Malformed> {
    let list: asn1::MethodData = parse("METHOD-DATA", bytes)?;
    Ok(read(list))
}

/// Reads ETYPE-INFO2, the first [`MAX_HINTS`] of it.
///
/// # Errors
/// When it is none.
pub fn parse_etype_info2(bytes: &[u8]) -> Result<Vec<EtypeInfo2Entry>, Malformed> {
    let list: asn1::EtypeInfo2 = parse("ETYPE-INFO2", bytes)?;
    let entry = |entry: asn1::EtypeInfo2Entry| EtypeInfo2Entry {
        enctype: entry.etype,
        salt: entry.salt,
        s2kparams: entry.s2kparams,
    };
    Ok(list.into_iter().take(MAX_HINTS).map(entry).collect())
}

/// A PA-ENC-TS-ENC of this time, to be encrypted.
pub fn encrypted_timestamp(at: SystemTime) -> Vec<u8> {
    let timestamp = names::kerberos_time(at);
    asn1::PaEncTsEnc::new(timestamp, Some(microseconds(at))).build()
}

/// An EncryptedData, as PA-ENC-TIMESTAMP carries it.
pub fn encrypted_data(enctype: i32, cipher: Vec<u8>) -> Vec<u8> {
    asn1::EncryptedData::new(enctype, None, cipher).build()
}

/// The part of a time that a KerberosTime lacks.
pub(super) fn microseconds(at: SystemTime) -> i32 {
    let micros = at.duration_since(UNIX_EPOCH).unwrap_or_default().subsec_micros();
    i32::try_from(micros).expect("they are under a million")
}

pub(super) fn read(list: Vec<asn1::PaData>) -> Vec<PaData> {
    let own = |data: asn1::PaData| PaData { kind: data.padata_type, value: data.padata_value };
    list.into_iter().take(MAX_HINTS).map(own).collect()
}

pub(super) fn write(list: Vec<PaData>) -> Option<Vec<asn1::PaData>> {
    if list.is_empty() {
        return None;
    }
    Some(list.into_iter().map(|data| asn1::PaData::new(data.kind, data.value)).collect())
}
