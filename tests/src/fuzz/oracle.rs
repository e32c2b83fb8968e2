//! Others' opinion of the same bytes.

use picky_krb::{
    data_types::{EtypeInfo2, PaData},
    messages::{AsRep, EncAsRepPart, EncTgsRepPart, KrbError, TgsRep},
};
use serde::de::DeserializeOwned;

use super::{corpus::Kind, mutate::header};

/// Whether `picky-krb` reads the bytes as that message. It knows no keytabs.
pub(super) fn reads(kind: Kind, bytes: &[u8]) -> bool {
    match kind {
        Kind::AsRep => is::<AsRep>(bytes),
        Kind::TgsRep => is::<TgsRep>(bytes),
        Kind::KrbError => is::<KrbError>(bytes),
        Kind::MethodData => is::<Vec<PaData>>(bytes),
        Kind::EtypeInfo2 => is::<EtypeInfo2>(bytes),
        Kind::EncPart => is::<EncAsRepPart>(bytes) || is::<EncTgsRepPart>(bytes),
        Kind::Keytab => false,
    }
}

fn is<T: DeserializeOwned>(bytes: &[u8]) -> bool {
    std::panic::catch_unwind(|| picky_asn1_der::from_bytes::<T>(bytes).is_ok()).unwrap_or(false)
}

/// Whether the bytes are one element that all of its lengths fit into exactly: a second walk,
/// on its own, of what the fence claims to have checked.
pub(super) fn is_well_formed(bytes: &[u8]) -> bool {
    element(bytes) == Some(bytes.len())
}

/// The length of the first element, if all inside it fits.
fn element(bytes: &[u8]) -> Option<usize> {
    let tag = *bytes.first()?;
    let (header, length) = header(bytes)?;
    let content = bytes.get(header..header.checked_add(length)?)?;
    if tag & 0x20 != 0 {
        let mut at = 0;
        while at < content.len() {
            at += element(&content[at..])?;
        }
    }
    Some(header + length)
}
