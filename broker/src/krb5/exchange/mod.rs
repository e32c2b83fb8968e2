//! The AS and TGS exchanges (RFC 4120 3.1, 3.3), with every check of their replies.
//!
//! - [`as_exchange`]: a ticket by a long-term key. - [`tgs_exchange`]: a ticket by a ticket.
//! - [`Asks`]: the seam to one KDC.
//!
//! Each makes a bounded number of requests: [`MAX_REQUESTS`] at most. What a KRB-ERROR says is
//! used for the next request of the same exchange and then forgotten; only what a decrypted
//! reply proved is returned. No reply is believed unless all of `checks` hold.

mod as_exchange;
mod checks;
mod error;
mod keys;
mod tgs_exchange;

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use krb_proto::Kvno;

pub use as_exchange::{AsAnswer, AsAsk, as_exchange};
pub use checks::{CheckError, flags};
pub use error::{ExchangeError, Parties};
pub use keys::Learnt;
pub use tgs_exchange::{TgsAnswer, TgsAsk, tgs_exchange};

use super::ccache::Credential;
use super::key::Key;
use super::messages::{EncKdcReplyPart, KrbError, Malformed};
use super::transport::TransportError;
use crate::clock::{Clock, Entropy};

/// The most requests that one exchange makes: hints, the request, another keyset, the KDC's
/// own time, and hints once more.
pub const MAX_REQUESTS: usize = 5;

/// Asks one KDC. Whoever implements it passes the gate for every request.
#[async_trait]
pub trait Asks: Send + Sync {
    /// Sends one request and returns the KDC's reply to it, unread.
    ///
    /// # Errors
    /// When there is none.
    async fn ask(&self, request: &[u8]) -> Result<Vec<u8>, TransportError>;
}

/// The time and the randomness of an exchange.
#[derive(Clone, Copy)]
pub struct Env<'a> {
    /// Times in requests, and what those in replies are held against.
    pub clock: &'a dyn Clock,
    /// Nonces, subkeys, confounders.
    pub entropy: &'a dyn Entropy,
    /// How far a KDC's clock may be off, 300 s by custom.
    pub clock_skew: Duration,
}

/// How a ticket should be. The default asks for nothing special.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TicketOptions {
    /// It may be sent on to other machines.
    pub forwardable: bool,
    /// It may be used from other addresses.
    pub proxiable: bool,
    /// It may be renewed for this long. It then outlives everything that is done to its
    /// client.
    pub renewable: Option<Duration>,
}

impl TicketOptions {
    /// The KDCOptions, which have the bits of the flags they ask for.
    fn bits(self) -> u32 {
        let bit = |asked: bool, flag: u32| if asked { flag } else { 0 };
        bit(self.forwardable, flags::FORWARDABLE)
            | bit(self.proxiable, flags::PROXIABLE)
            | bit(self.renewable.is_some(), flags::RENEWABLE)
    }
}

/// How far the KDC's clock is ahead of ours, in seconds; negative when it is behind.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct ClockOffset(pub i64);

impl ClockOffset {
    /// The offset of a clock that shows `theirs` when ours shows `ours`.
    fn between(theirs: SystemTime, ours: SystemTime) -> Self {
        let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
        match theirs.duration_since(ours) {
            Ok(ahead) => Self(seconds(ahead)),
            Err(behind) => Self(-seconds(behind.duration())),
        }
    }

    /// What that clock shows when ours shows `ours`.
    fn applied(self, ours: SystemTime) -> SystemTime {
        let span = Duration::from_secs(self.0.unsigned_abs());
        let theirs = if self.0 < 0 { ours.checked_sub(span) } else { ours.checked_add(span) };
        theirs.unwrap_or(ours)
    }
}

/// What a KDC answered.
enum Reply<T> {
    /// The reply, or what parses as one.
    Good(T),
    /// A KRB-ERROR.
    Error(KrbError),
}

/// A KRB-ERROR begins with `[APPLICATION 30]`.
const KRB_ERROR_TAG: u8 = 0x7e;

fn read_reply<T>(
    bytes: &[u8],
    parse: impl FnOnce(&[u8]) -> Result<T, Malformed>,
) -> Result<Reply<T>, Malformed> {
    if bytes.first() == Some(&KRB_ERROR_TAG) {
        return super::messages::parse_krb_error(bytes).map(Reply::Error);
    }
    parse(bytes).map(Reply::Good)
}

/// The credential of a checked reply.
fn credential(
    client: &krb_proto::Principal,
    server: &krb_proto::Principal,
    part: &EncKdcReplyPart,
    session_key: Key,
    ticket: Vec<u8>,
) -> Credential {
    Credential {
        client: client.clone(),
        server: server.clone(),
        session_key,
        authtime: part.authtime,
        starttime: part.starttime.unwrap_or(part.authtime),
        endtime: part.endtime,
        renew_till: part.renew_till,
        flags: part.flags,
        ticket,
    }
}

/// Which key of the server's a ticket is encrypted with: readable without that key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TicketKey {
    /// Its enctype's number.
    pub enctype: i32,
    /// Its number, where the KDC tells.
    pub kvno: Option<Kvno>,
}

#[cfg(test)]
mod tests;
