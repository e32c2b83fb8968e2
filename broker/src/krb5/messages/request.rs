//! AS-REQ and TGS-REQ (RFC 4120 5.4.1), with the AP-REQ that a TGS-REQ carries.

use std::time::SystemTime;

use kerberos_asn1::{self as asn1, Asn1Object};
use krb_proto::Principal;

use super::{Malformed, PaData, names, preauth, reply};
use crate::clock::Entropy;
use crate::krb5::crypto::{self, Usage};
use crate::krb5::key::{Enctype, Key};

/// What a request asks for: the fields of a KDC-REQ-BODY that the broker uses.
#[derive(Clone, Debug)]
pub struct Body<'a> {
    /// Whom the ticket is for.
    pub client: &'a Principal,
    /// The server it is for; its realm is the one that is asked.
    pub server: &'a Principal,
    /// KDCOptions, bit 0 the most significant.
    pub options: u32,
    /// Until when.
    pub till: SystemTime,
    /// Until when it may be renewed.
    pub rtime: Option<SystemTime>,
    /// 31 random bits that the reply must have: some KDCs read more as a negative number.
    pub nonce: u32,
    /// What the reply and its session key may be encrypted with, best first.
    pub enctypes: &'a [Enctype],
}

impl Body<'_> {
    /// An AS-REQ names the client here; a TGS-REQ's client is in its authenticator.
    fn build(&self, with_client: bool) -> asn1::KdcReqBody {
        asn1::KdcReqBody {
            kdc_options: self.options.into(),
            cname: with_client.then(|| names::principal_name(self.client)),
            realm: self.server.realm().as_str().to_owned(),
            sname: Some(names::principal_name(self.server)),
            from: None,
            till: names::kerberos_time(self.till),
            rtime: self.rtime.map(names::kerberos_time),
            nonce: self.nonce & 0x7fff_ffff,
            etypes: self.enctypes.iter().map(|enctype| enctype.number()).collect(),
            addresses: None,
            enc_authorization_data: None,
            additional_tickets: None,
        }
    }
}

/// An AS-REQ with this preauthentication data.
pub fn as_req(body: &Body<'_>, padata: Vec<PaData>) -> Vec<u8> {
    let padata = preauth::write(padata);
    asn1::AsReq { padata, req_body: body.build(true), ..asn1::AsReq::default() }.build()
}

/// What seals a TGS-REQ: each one needs an authenticator that was never sent before.
pub struct ApSeal<'a> {
    /// The ticket-granting ticket, DER.
    pub ticket: &'a [u8],
    /// Its session key.
    pub session_key: &'a Key,
    /// A new key that the reply is to be encrypted with.
    pub subkey: &'a Key,
    /// By the KDC's clock, as far as it is known.
    pub now: SystemTime,
    /// For confounders and the sequence number.
    pub entropy: &'a dyn Entropy,
}

/// A TGS-REQ.
///
/// # Errors
/// When the ticket is none.
pub fn tgs_req(body: &Body<'_>, seal: &ApSeal<'_>) -> Result<Vec<u8>, Malformed> {
    let req_body = body.build(false);
    let sum = crypto::checksum(seal.session_key, Usage::TGS_REQ_CHECKSUM, &req_body.build());
    let authenticator = authenticator(body.client, sum, seal);
    let usage = Usage::TGS_REQ_AUTHENTICATOR;
    let cipher = crypto::encrypt(seal.session_key, usage, authenticator.expose(), seal.entropy);
    let enctype = seal.session_key.enctype().number();
    let ap_req = asn1::ApReq {
        ticket: reply::kerberos_ticket(seal.ticket)?,
        authenticator: asn1::EncryptedData::new(enctype, None, cipher),
        ..asn1::ApReq::default()
    };
    let padata = preauth::write(vec![PaData { kind: PaData::TGS_REQ, value: ap_req.build() }]);
    Ok(asn1::TgsReq { padata, req_body, ..asn1::TgsReq::default() }.build())
}

/// The authenticator (RFC 4120 5.5.1) around a checksum of the request's body. It holds the
/// subkey, so it is a secret itself until it is encrypted.
fn authenticator(
    client: &Principal,
    sum: crypto::Checksum,
    seal: &ApSeal<'_>,
) -> krb_proto::Secret {
    let mut authenticator = asn1::Authenticator {
        crealm: client.realm().as_str().to_owned(),
        cname: names::principal_name(client),
        cksum: Some(asn1::Checksum { cksumtype: sum.number, checksum: sum.bytes }),
        cusec: preauth::microseconds(seal.now),
        ctime: names::kerberos_time(seal.now),
        subkey: Some(asn1::EncryptionKey::new(
            seal.subkey.enctype().number(),
            seal.subkey.contents().expose().to_vec(),
        )),
        seq_number: Some(random_31_bits(seal.entropy)),
        ..asn1::Authenticator::default()
    };
    let built = krb_proto::Secret::new(authenticator.build());
    if let Some(subkey) = &mut authenticator.subkey {
        zeroize::Zeroize::zeroize(&mut subkey.keyvalue);
    }
    built
}

/// A number that every KDC reads alike.
pub(crate) fn random_31_bits(entropy: &dyn Entropy) -> u32 {
    let mut bytes = [0; 4];
    entropy.fill(&mut bytes);
    u32::from_be_bytes(bytes) & 0x7fff_ffff
}
