//! What a KDC does with messages: reads requests, builds replies. For tests.

use std::time::SystemTime;

use kerberos_asn1::{self as asn1, Asn1Object};
use krb_proto::{Kvno, Principal, Secret};

use super::names::{kerberos_time, principal_name, system_time};
use super::{EncryptedPart, Name, PaData, preauth};
use crate::krb5::key::Key;

/// A request as its KDC sees it.
pub(crate) struct SeenRequest {
    pub(crate) server: Name,
    pub(crate) options: u32,
    pub(crate) till: SystemTime,
    pub(crate) nonce: u32,
    pub(crate) enctypes: Vec<i32>,
    pub(crate) padata: Vec<PaData>,
    pub(crate) body: Vec<u8>,
}

impl SeenRequest {
    pub(crate) fn padata(&self, kind: i32) -> Option<&[u8]> {
        self.padata.iter().find(|data| data.kind == kind).map(|data| data.value.as_slice())
    }
}

pub(crate) fn read_request(bytes: &[u8]) -> SeenRequest {
    let request: asn1::KdcReq = match bytes[0] {
        0x6a => asn1::AsReq::parse(bytes).unwrap().1.into(),
        _ => asn1::TgsReq::parse(bytes).unwrap().1.into(),
    };
    let body = request.req_body;
    SeenRequest {
        body: body.build(),
        server: Name::new(body.realm, body.sname.unwrap()),
        options: body.kdc_options.flags,
        till: system_time(&body.till),
        nonce: body.nonce,
        enctypes: body.etypes,
        padata: preauth::read(request.padata.unwrap_or_default()),
    }
}

/// The ciphertext of an EncryptedData, and its enctype.
pub(crate) fn read_encrypted(bytes: &[u8]) -> (i32, Vec<u8>) {
    let (_, data) = asn1::EncryptedData::parse(bytes).unwrap();
    (data.etype, data.cipher)
}

/// The time of a decrypted PA-ENC-TIMESTAMP.
pub(crate) fn read_timestamp(plaintext: &[u8]) -> SystemTime {
    system_time(&asn1::PaEncTsEnc::parse(plaintext).unwrap().1.patimestamp)
}

/// The authenticator's ciphertext in an AP-REQ.
pub(crate) fn read_ap_req(bytes: &[u8]) -> Vec<u8> {
    asn1::ApReq::parse(bytes).unwrap().1.authenticator.cipher
}

/// An authenticator, decrypted: its time, its subkey, its checksum.
pub(crate) fn read_authenticator(plaintext: &Secret) -> (SystemTime, Key, Vec<u8>) {
    let (_, seen) = asn1::Authenticator::parse(plaintext.expose()).unwrap();
    let subkey = seen.subkey.unwrap();
    let enctype = crate::krb5::key::Enctype::from_number(subkey.keytype).unwrap();
    let subkey = Key::new(enctype, Secret::new(subkey.keyvalue)).unwrap();
    (system_time(&seen.ctime), subkey, seen.cksum.unwrap().checksum)
}

pub(crate) fn krb_error(code: i32, stime: SystemTime, data: Option<Vec<u8>>) -> Vec<u8> {
    asn1::KrbError {
        pvno: 5,
        msg_type: 30,
        stime: kerberos_time(stime),
        error_code: code,
        realm: "R".to_owned(),
        sname: asn1::PrincipalName::new(2, "krbtgt".to_owned()),
        e_data: data,
        ..asn1::KrbError::default()
    }
    .build()
}

/// METHOD-DATA that offers these enctypes, with a cookie.
pub(crate) fn hints(enctypes: &[i32], cookie: &[u8]) -> Vec<u8> {
    let entry = |enctype: &i32| asn1::EtypeInfo2Entry::new(*enctype, Some("salt".into()), None);
    let info: asn1::EtypeInfo2 = enctypes.iter().map(entry).collect();
    let hints: asn1::MethodData = vec![
        asn1::PaData::new(PaData::ETYPE_INFO2, info.build()),
        asn1::PaData::new(PaData::FX_COOKIE, cookie.to_vec()),
    ];
    hints.build()
}

/// The fields of a reply's encrypted part.
#[derive(Clone)]
pub(crate) struct Inside {
    pub(crate) session_key: Key,
    pub(crate) server: Principal,
    pub(crate) nonce: u32,
    pub(crate) flags: u32,
    pub(crate) authtime: SystemTime,
    pub(crate) starttime: Option<SystemTime>,
    pub(crate) endtime: SystemTime,
}

impl Inside {
    /// Tagged as an EncASRepPart (25) or an EncTGSRepPart (26).
    pub(crate) fn build(&self, tag: u8) -> Vec<u8> {
        let part = asn1::EncKdcRepPart {
            key: asn1::EncryptionKey::new(
                self.session_key.enctype().number(),
                self.session_key.contents().expose().to_vec(),
            ),
            nonce: self.nonce,
            flags: self.flags.into(),
            authtime: kerberos_time(self.authtime),
            starttime: self.starttime.map(kerberos_time),
            endtime: kerberos_time(self.endtime),
            srealm: self.server.realm().to_string(),
            sname: principal_name(&self.server),
            ..asn1::EncKdcRepPart::default()
        };
        match tag {
            25 => asn1::EncAsRepPart::from(part).build(),
            _ => asn1::EncTgsRepPart::from(part).build(),
        }
    }
}

/// An AS-REP (11) or TGS-REP (13) with a ticket that nobody can read.
pub(crate) fn reply(
    msg_type: i32,
    client: &Principal,
    server: &Principal,
    ticket_kvno: Kvno,
    part: EncryptedPart,
) -> Vec<u8> {
    let sealed = asn1::EncryptedData::new(18, Some(ticket_kvno.0), vec![7; 40]);
    let realm = server.realm().to_string();
    let ticket = asn1::Ticket::new(realm, principal_name(server), sealed);
    let kvno = part.kvno.map(|kvno| kvno.0);
    let part = asn1::EncryptedData::new(part.enctype, kvno, part.cipher);
    let (crealm, cname) = (client.realm().to_string(), principal_name(client));
    match msg_type {
        11 => asn1::AsRep::new(None, crealm, cname, ticket, part).build(),
        _ => {
            asn1::TgsRep { pvno: 5, msg_type, padata: None, crealm, cname, ticket, enc_part: part }
                .build()
        }
    }
}
