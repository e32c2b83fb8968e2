//! Kerberos messages: the only module that knows `kerberos_asn1`, and the fence around it.
//!
//! That package panics on some malformed inputs, and a KRB-ERROR can be forged by anybody who
//! can send a datagram. So each parser checks the structure of its input first ([`der`]), then
//! parses, then refuses what is left over; `catch_unwind` is the last line and should never
//! see a panic. What comes out are plain structs of our own, with names as they were sent.
//!
//! Nothing here decides whether a reply is good: that is [`super::exchange`].

pub mod der;
mod enc_part;
mod error;
mod names;
mod preauth;
mod reply;
mod request;

use std::panic::{AssertUnwindSafe, catch_unwind};

use kerberos_asn1::Asn1Object;

pub use enc_part::{EncKdcReplyPart, SessionKey};
pub use error::{KrbError, error_name};
pub use names::Name;
pub use preauth::{EtypeInfo2Entry, MAX_HINTS, PaData, encrypted_data, encrypted_timestamp};
pub use preauth::{parse_etype_info2, parse_method_data};
pub use reply::{EncryptedPart, KdcReply, Ticket, parse_as_rep, parse_tgs_rep, parse_ticket_part};
pub(crate) use request::random_31_bits;
pub use request::{ApSeal, Body, as_req, tgs_req};

pub use enc_part::parse as parse_enc_kdc_reply_part;
pub use error::parse as parse_krb_error;

/// A message that is none.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("malformed {what}: {why}")]
pub struct Malformed {
    /// Which message or structure it should have been.
    pub what: &'static str,
    /// What is wrong with it.
    pub why: Fault,
}

/// What is wrong with a message.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Fault {
    /// It is not DER as Kerberos uses it.
    #[error(transparent)]
    Structure(#[from] der::Broken),
    /// It is DER, and not this message.
    #[error("its fields are not those of the message")]
    Fields,
    /// A field has a value that the message never has.
    #[error("{field} is {value}")]
    Value {
        /// Which field.
        field: &'static str,
        /// What it is.
        value: i64,
    },
    /// The parser panicked: a gap in the structure check.
    #[error("the parser gave up")]
    Panicked,
}

impl Malformed {
    fn new(what: &'static str, why: impl Into<Fault>) -> Self {
        Self { what, why: why.into() }
    }
}

/// Parses `bytes`, all of them, as a `T`, behind the fence.
fn parse<T: Asn1Object>(what: &'static str, bytes: &[u8]) -> Result<T, Malformed> {
    der::check(bytes).map_err(|broken| Malformed::new(what, broken))?;
    fenced(what, || match T::parse(bytes) {
        Ok(([], message)) => Ok(message),
        _ => Err(Malformed::new(what, Fault::Fields)),
    })
}

/// Runs a parser of `kerberos_asn1`; a panic becomes an error.
fn fenced<T>(
    what: &'static str,
    parser: impl FnOnce() -> Result<T, Malformed>,
) -> Result<T, Malformed> {
    // The parsers change nothing but their own result, which a panic throws away.
    catch_unwind(AssertUnwindSafe(parser))
        .unwrap_or_else(|_| Err(Malformed::new(what, Fault::Panicked)))
}

/// Refuses a field that has one value only.
fn expect_value(
    what: &'static str,
    field: &'static str,
    value: i32,
    expected: i32,
) -> Result<(), Malformed> {
    if value == expected {
        return Ok(());
    }
    Err(Malformed::new(what, Fault::Value { field, value: i64::from(value) }))
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
