//! AS-REP and TGS-REP (RFC 4120 5.4.2), and the part of a ticket that all can read.

use kerberos_asn1::{self as asn1, Asn1Object};
use krb_proto::Kvno;

use super::{Fault, Malformed, Name, PaData, der, expect_value, parse, preauth};

/// An AS-REP or a TGS-REP, its encrypted part still closed.
#[derive(Clone, Debug)]
pub struct KdcReply {
    /// Whom the ticket is for, as the KDC says outside the encryption.
    pub client: Name,
    /// The KDC's preauthentication data.
    pub padata: Vec<PaData>,
    /// The ticket.
    pub ticket: Ticket,
    /// What only the client can read.
    pub enc_part: EncryptedPart,
}

/// A ticket; what is inside is the server's to read.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// The server it is for.
    pub server: Name,
    /// The enctype of the server's key that it is encrypted with.
    pub enctype: i32,
    /// That key's number, where the KDC tells.
    pub kvno: Option<Kvno>,
    /// All of it, DER, as it came.
    pub der: Vec<u8>,
}

/// An EncryptedData (RFC 4120 5.2.9).
#[derive(Clone, Debug)]
pub struct EncryptedPart {
    /// The enctype of its key.
    pub enctype: i32,
    /// Its key's number, where the KDC tells.
    pub kvno: Option<Kvno>,
    /// The ciphertext.
    pub cipher: Vec<u8>,
}

/// Reads an AS-REP.
///
/// # Errors
/// When it is none.
pub fn parse_as_rep(bytes: &[u8]) -> Result<KdcReply, Malformed> {
    const WHAT: &str = "AS-REP";
    let reply: asn1::AsRep = parse(WHAT, bytes)?;
    expect_value(WHAT, "pvno", reply.pvno, 5)?;
    expect_value(WHAT, "msg-type", reply.msg_type, 11)?;
    Ok(KdcReply {
        client: Name::new(reply.crealm, reply.cname),
        padata: preauth::read(reply.padata.unwrap_or_default()),
        ticket: ticket(WHAT, bytes, reply.ticket)?,
        enc_part: encrypted(reply.enc_part),
    })
}

/// Reads a TGS-REP.
///
/// # Errors
/// When it is none.
pub fn parse_tgs_rep(bytes: &[u8]) -> Result<KdcReply, Malformed> {
    const WHAT: &str = "TGS-REP";
    let reply: asn1::TgsRep = parse(WHAT, bytes)?;
    expect_value(WHAT, "pvno", reply.pvno, 5)?;
    expect_value(WHAT, "msg-type", reply.msg_type, 13)?;
    Ok(KdcReply {
        client: Name::new(reply.crealm, reply.cname),
        padata: preauth::read(reply.padata.unwrap_or_default()),
        ticket: ticket(WHAT, bytes, reply.ticket)?,
        enc_part: encrypted(reply.enc_part),
    })
}

/// Where both replies have the ticket.
const TICKET_FIELD: u8 = 5;

/// The ticket as it came: requests send it back built anew, which must give the same bytes.
fn ticket(what: &'static str, reply: &[u8], ticket: asn1::Ticket) -> Result<Ticket, Malformed> {
    expect_value(what, "tkt-vno", ticket.tkt_vno, 5)?;
    let raw = der::field(reply, TICKET_FIELD).map_err(|broken| Malformed::new(what, broken))?;
    let raw = raw.filter(|raw| ticket.build() == *raw);
    let der = raw.ok_or_else(|| Malformed::new(what, Fault::Fields))?.to_vec();
    let part = encrypted(ticket.enc_part);
    Ok(Ticket {
        server: Name::new(ticket.realm, ticket.sname),
        enctype: part.enctype,
        kvno: part.kvno,
        der,
    })
}

fn encrypted(part: asn1::EncryptedData) -> EncryptedPart {
    EncryptedPart { enctype: part.etype, kvno: part.kvno.map(Kvno), cipher: part.cipher }
}

/// The part of a ticket that only its server can read, still closed.
///
/// # Errors
/// When `der` is no ticket.
pub fn parse_ticket_part(der: &[u8]) -> Result<EncryptedPart, Malformed> {
    kerberos_ticket(der).map(|ticket| encrypted(ticket.enc_part))
}

pub(super) fn kerberos_ticket(der: &[u8]) -> Result<asn1::Ticket, Malformed> {
    parse("ticket", der)
}
