//! The TGS exchange: a ticket by a ticket (RFC 4120 3.3).
//!
//! Referrals are not followed: a reply for another server than asked fails its check. Each
//! request has a fresh authenticator and a fresh subkey that its reply is encrypted with.

use std::time::{Duration, SystemTime};

use krb_proto::Principal;

use super::as_exchange::SKEW;
use super::checks::Expected;
use super::{Asks, CheckError, ClockOffset, Env, ExchangeError, Reply, TicketKey};
use super::{TicketOptions, credential, read_reply};
use crate::krb5::ccache::Credential;
use crate::krb5::crypto::{self, Usage};
use crate::krb5::key::{Enctype, Key};
use crate::krb5::messages::{self, ApSeal, Body, KdcReply, KrbError};

/// KRB_AP_ERR_REPEAT
const REPEAT: i32 = 34;

/// What a TGS exchange asks for.
#[derive(Clone, Copy, Debug)]
pub struct TgsAsk<'a> {
    /// The ticket-granting ticket; its client is the new ticket's.
    pub tgt: &'a Credential,
    /// For which server.
    pub server: &'a Principal,
    /// How long the ticket should be good; the KDC gives no more than the TGT has left.
    pub life: Duration,
    /// How it should be.
    pub options: TicketOptions,
}

/// What a TGS exchange gives.
#[derive(Clone, Debug)]
pub struct TgsAnswer {
    /// The ticket.
    pub credential: Credential,
    /// Which key of the server's the ticket is encrypted with: the kvno that this KDC uses.
    pub ticket_key: TicketKey,
    /// The KDC's clock against ours, as the decrypted reply proves.
    pub offset: ClockOffset,
}

/// Gets a ticket by a ticket-granting ticket.
///
/// # Errors
/// See [`ExchangeError`]. Nothing an error says is authenticated.
pub async fn tgs_exchange<A: Asks + ?Sized>(
    kdc: &A,
    ask: &TgsAsk<'_>,
    env: &Env<'_>,
) -> Result<TgsAnswer, ExchangeError> {
    let (client, server) = (&ask.tgt.client, ask.server);
    let mut retry = Retry::default();
    loop {
        let request = Request::new(ask, env, retry.offset.unwrap_or_default());
        let request = request.map_err(ExchangeError::malformed(client, server))?;
        let reply = kdc.ask(&request.bytes).await;
        let reply = reply.map_err(ExchangeError::transport(client, server))?;
        let reply = read_reply(&reply, messages::parse_tgs_rep);
        match reply.map_err(ExchangeError::malformed(client, server))? {
            Reply::Good(reply) => return request.accept(&reply, ask, env),
            Reply::Error(error) => retry.heed(error, ask, env)?,
        }
    }
}

/// What a second request does otherwise; at most one for each cause.
#[derive(Default)]
struct Retry {
    offset: Option<ClockOffset>,
    repeated: bool,
}

impl Retry {
    fn heed(
        &mut self,
        error: KrbError,
        ask: &TgsAsk<'_>,
        env: &Env<'_>,
    ) -> Result<(), ExchangeError> {
        match error.code {
            SKEW => {
                let offset = ClockOffset::between(error.stime, env.clock.now().wall);
                if self.offset.is_some() {
                    return Err(ExchangeError::Skew { server: ask.server.clone(), offset });
                }
                self.offset = Some(offset);
                Ok(())
            }
            REPEAT if !self.repeated => {
                self.repeated = true; // the next authenticator is another one
                Ok(())
            }
            _ => Err(ExchangeError::of_kdc(&ask.tgt.client, ask.server, error)),
        }
    }
}

/// A request, and what its reply must answer.
struct Request {
    bytes: Vec<u8>,
    nonce: u32,
    subkey: Key,
    /// The KDC's time, as far as it was known.
    now: SystemTime,
    till: SystemTime,
    rtime: Option<SystemTime>,
}

impl Request {
    fn new(
        ask: &TgsAsk<'_>,
        env: &Env<'_>,
        offset: ClockOffset,
    ) -> Result<Self, messages::Malformed> {
        let now = offset.applied(env.clock.now().wall);
        let nonce = messages::random_31_bits(env.entropy);
        let subkey = Key::random(ask.tgt.session_key.enctype(), env.entropy);
        let till = now + ask.life;
        let rtime = ask.options.renewable.map(|life| now + life);
        let body = Body {
            client: &ask.tgt.client,
            server: ask.server,
            options: ask.options.bits(),
            till,
            rtime,
            nonce,
            enctypes: &Enctype::ALL,
        };
        let bytes = messages::tgs_req(
            &body,
            &ApSeal {
                ticket: &ask.tgt.ticket,
                session_key: &ask.tgt.session_key,
                subkey: &subkey,
                now,
                entropy: env.entropy,
            },
        )?;
        Ok(Self { bytes, nonce, subkey, now, till, rtime })
    }

    /// The answer, if the reply stands every check.
    fn accept(
        &self,
        reply: &KdcReply,
        ask: &TgsAsk<'_>,
        env: &Env<'_>,
    ) -> Result<TgsAnswer, ExchangeError> {
        let (client, server) = (&ask.tgt.client, ask.server);
        let expected = self.expected(ask, env);
        let plaintext = expected
            .check_outside(reply)
            .and_then(|()| self.open(reply))
            .map_err(ExchangeError::check(client, server))?;
        let part = messages::parse_enc_kdc_reply_part(&plaintext)
            .map_err(ExchangeError::malformed(client, server))?;
        let session_key =
            expected.check_inside(&part).map_err(ExchangeError::check(client, server))?;
        let started = part.starttime.unwrap_or(part.authtime);
        Ok(TgsAnswer {
            credential: credential(client, server, &part, session_key, reply.ticket.der.clone()),
            ticket_key: TicketKey { enctype: reply.ticket.enctype, kvno: reply.ticket.kvno },
            offset: ClockOffset::between(started, env.clock.now().wall),
        })
    }

    fn open(&self, reply: &KdcReply) -> Result<krb_proto::Secret, CheckError> {
        let (enctype, came) = (self.subkey.enctype(), reply.enc_part.enctype);
        if came != enctype.number() {
            return Err(CheckError::Enctype { asked: vec![enctype], came });
        }
        crypto::decrypt(&self.subkey, Usage::TGS_REP_SUBKEY, &reply.enc_part.cipher)
            .map_err(|_| CheckError::Undecryptable { enctype })
    }

    fn expected<'a>(&self, ask: &TgsAsk<'a>, env: &Env<'_>) -> Expected<'a> {
        Expected {
            client: &ask.tgt.client,
            server: ask.server,
            nonce: self.nonce,
            enctypes: &Enctype::ALL,
            options: ask.options,
            till: self.till,
            rtime: self.rtime,
            now: self.now,
            clock_skew: env.clock_skew,
            initial: false,
        }
    }
}
