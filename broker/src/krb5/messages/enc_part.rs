//! EncASRepPart and EncTGSRepPart (RFC 4120 5.4.2): what the client alone can read.

use std::time::SystemTime;

use kerberos_asn1 as asn1;
use krb_proto::Secret;

use super::{Malformed, Name, names, parse as parse_der};

const WHAT: &str = "EncKDCRepPart";

/// The first byte of an EncASRepPart, `[APPLICATION 25]`.
const APPLICATION_25: u8 = 0x79;

/// The encrypted part of a reply, decrypted.
#[derive(Clone, Debug)]
pub struct EncKdcReplyPart {
    /// The ticket's session key.
    pub session_key: SessionKey,
    /// The request's nonce.
    pub nonce: u32,
    /// TicketFlags, bit 0 the most significant.
    pub flags: u32,
    /// When the client proved who it is.
    pub authtime: SystemTime,
    /// From when the ticket is good; `None`: from `authtime`.
    pub starttime: Option<SystemTime>,
    /// Until when.
    pub endtime: SystemTime,
    /// Until when it can be renewed.
    pub renew_till: Option<SystemTime>,
    /// The server that the ticket is for.
    pub server: Name,
    /// Whether the ticket is good from some addresses only.
    pub has_addresses: bool,
}

/// A session key whose enctype may be none of ours.
#[derive(Clone, Debug)]
pub struct SessionKey {
    /// Its enctype's number.
    pub enctype: i32,
    /// The key.
    pub contents: Secret,
}

/// Reads either part: MIT's KDC tags both with 26.
///
/// # Errors
/// When it is neither.
pub fn parse(plaintext: &Secret) -> Result<EncKdcReplyPart, Malformed> {
    let bytes = plaintext.expose();
    let part: asn1::EncKdcRepPart = if bytes.first() == Some(&APPLICATION_25) {
        parse_der::<asn1::EncAsRepPart>(WHAT, bytes)?.into()
    } else {
        parse_der::<asn1::EncTgsRepPart>(WHAT, bytes)?.into()
    };
    Ok(EncKdcReplyPart {
        session_key: SessionKey {
            enctype: part.key.keytype,
            contents: Secret::new(part.key.keyvalue),
        },
        nonce: part.nonce,
        flags: part.flags.flags,
        authtime: names::system_time(&part.authtime),
        starttime: part.starttime.as_ref().map(names::system_time),
        endtime: names::system_time(&part.endtime),
        renew_till: part.renew_till.as_ref().map(names::system_time),
        server: Name::new(part.srealm, part.sname),
        has_addresses: part.caddr.is_some_and(|addresses| !addresses.is_empty()),
    })
}
