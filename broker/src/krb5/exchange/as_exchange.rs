//! The AS exchange: a ticket by a long-term key (RFC 4120 3.1), always preauthenticated.
//!
//! The first exchange of an account asks for hints and takes two requests; with what it
//! [`Learnt`] the next takes one. A key that the KDC rejects is followed by one other keyset,
//! never more: KDCs count failures and lock accounts out.

use std::time::{Duration, SystemTime};

use krb_proto::{Kvno, Principal};

use super::checks::Expected;
use super::keys::{Candidate, Keys};
use super::{Asks, CheckError, ClockOffset, Env, ExchangeError, Learnt, MAX_REQUESTS, Reply};
use super::{TicketKey, TicketOptions, credential, read_reply};
use crate::krb5::ccache::Credential;
use crate::krb5::crypto::{self, Usage};
use crate::krb5::key::{Enctype, Keyset};
use crate::krb5::messages::{self, Body, KdcReply, KrbError, PaData};

/// KDC_ERR_PREAUTH_FAILED
const PREAUTH_FAILED: i32 = 24;
/// KDC_ERR_PREAUTH_REQUIRED
const PREAUTH_REQUIRED: i32 = 25;
/// KRB_AP_ERR_SKEW
pub(super) const SKEW: i32 = 37;

/// The most keysets that are tried in one exchange.
const MAX_KEYSETS: usize = 2;

/// What an AS exchange asks for.
#[derive(Clone, Copy, Debug)]
pub struct AsAsk<'a> {
    /// Whose ticket.
    pub client: &'a Principal,
    /// For which server: `krbtgt/REALM@REALM`, or a service that takes initial tickets.
    pub server: &'a Principal,
    /// The client's keys, in any order.
    pub keysets: &'a [Keyset],
    /// What an earlier exchange returned, maybe with another KDC.
    pub learnt: Option<Learnt>,
    /// How long the ticket should be good; the KDC may give less.
    pub life: Duration,
    /// How it should be.
    pub options: TicketOptions,
}

/// What an AS exchange gives.
#[derive(Clone, Debug)]
pub struct AsAnswer {
    /// The ticket.
    pub credential: Credential,
    /// For the next exchange of the same client.
    pub learnt: Learnt,
    /// Which key of the server's the ticket is encrypted with.
    pub ticket_key: TicketKey,
    /// The KDC's clock against ours, as the decrypted reply proves.
    pub offset: ClockOffset,
}

/// Gets a ticket by a long-term key.
///
/// # Errors
/// See [`ExchangeError`]. Nothing an error says is authenticated.
pub async fn as_exchange<A: Asks + ?Sized>(
    kdc: &A,
    ask: &AsAsk<'_>,
    env: &Env<'_>,
) -> Result<AsAnswer, ExchangeError> {
    let mut attempt = Attempt::new(ask, env);
    if attempt.enctypes.is_empty() {
        let (client, offered) = (ask.client.clone(), Vec::new());
        return Err(ExchangeError::NoKey { client, offered });
    }
    for _ in 0..MAX_REQUESTS {
        let request = attempt.request();
        let reply = kdc.ask(&request.bytes).await;
        let reply = reply.map_err(ExchangeError::transport(ask.client, ask.server))?;
        let reply = read_reply(&reply, messages::parse_as_rep);
        match reply.map_err(ExchangeError::malformed(ask.client, ask.server))? {
            Reply::Error(error) => attempt.heed(error, request.now)?,
            Reply::Good(reply) => match attempt.candidate {
                Some(candidate) => return attempt.accept(&reply, &request, candidate),
                None => attempt.follow(&reply)?,
            },
        }
    }
    Err(attempt.rejected())
}

/// What an exchange knows between its requests, and forgets at its end.
struct Attempt<'a> {
    ask: &'a AsAsk<'a>,
    env: &'a Env<'a>,
    keys: Keys<'a>,
    /// All that the request names: also what the session key and the ticket may be of, which
    /// the realm's own keys decide.
    named: Vec<Enctype>,
    /// What the account's own key may be of: nothing weaker than what is known to work.
    enctypes: Vec<Enctype>,
    candidate: Option<Candidate<'a>>,
    cookie: Option<PaData>,
    offset: Option<ClockOffset>,
    rejected: Vec<Kvno>,
    hinted: bool,
}

/// A request, and what its reply must answer.
struct Request {
    bytes: Vec<u8>,
    nonce: u32,
    /// The KDC's time, as far as it was known.
    now: SystemTime,
    till: SystemTime,
    rtime: Option<SystemTime>,
}

impl<'a> Attempt<'a> {
    fn new(ask: &'a AsAsk<'a>, env: &'a Env<'a>) -> Self {
        let keys = Keys::new(ask.keysets);
        Self {
            named: keys.enctypes(None),
            enctypes: keys.enctypes(ask.learnt),
            candidate: ask.learnt.and_then(|learnt| keys.known(learnt)),
            ask,
            env,
            keys,
            cookie: None,
            offset: None,
            rejected: Vec::new(),
            hinted: false,
        }
    }

    /// The next request: with a timestamp when a key is chosen, else to get hints.
    fn request(&self) -> Request {
        let now = self.offset.unwrap_or_default().applied(self.env.clock.now().wall);
        let nonce = messages::random_31_bits(self.env.entropy);
        let till = now + self.ask.life;
        let rtime = self.ask.options.renewable.map(|life| now + life);
        let body = Body {
            client: self.ask.client,
            server: self.ask.server,
            options: self.ask.options.bits(),
            till,
            rtime,
            nonce,
            enctypes: &self.named,
        };
        let timestamp = self.candidate.map(|candidate| self.timestamp(candidate, now));
        let padata = self.cookie.clone().into_iter().chain(timestamp).collect();
        Request { bytes: messages::as_req(&body, padata), nonce, now, till, rtime }
    }

    fn timestamp(&self, candidate: Candidate<'_>, now: SystemTime) -> PaData {
        let plaintext = messages::encrypted_timestamp(now);
        let usage = Usage::PA_ENC_TIMESTAMP;
        let cipher = crypto::encrypt(candidate.key, usage, &plaintext, self.env.entropy);
        let enctype = candidate.key.enctype().number();
        PaData { kind: PaData::ENC_TIMESTAMP, value: messages::encrypted_data(enctype, cipher) }
    }

    /// Makes of an error what the next request needs, or gives up.
    fn heed(&mut self, error: KrbError, now: SystemTime) -> Result<(), ExchangeError> {
        match error.code {
            PREAUTH_REQUIRED if !self.hinted => self.take_hints(&error),
            PREAUTH_FAILED if self.candidate.is_some() => self.other_keyset(&error),
            SKEW => {
                let offset = ClockOffset::between(error.stime, self.env.clock.now().wall);
                if self.offset.is_some() {
                    let server = self.ask.server.clone();
                    let offset = ClockOffset::between(error.stime, now);
                    return Err(ExchangeError::Skew { server, offset });
                }
                self.offset = Some(offset);
                Ok(())
            }
            _ => Err(ExchangeError::of_kdc(self.ask.client, self.ask.server, error)),
        }
    }

    /// Chooses the key that the KDC asks for.
    fn take_hints(&mut self, error: &KrbError) -> Result<(), ExchangeError> {
        self.hinted = true;
        let hints = messages::parse_method_data(&error.data).unwrap_or_default();
        self.keep_cookie(&hints);
        let info = hints.iter().find(|hint| hint.kind == PaData::ETYPE_INFO2);
        let info = info.and_then(|info| messages::parse_etype_info2(&info.value).ok());
        let offered: Vec<i32> = match info {
            Some(entries) => entries.iter().map(|entry| entry.enctype).collect(),
            None => self.enctypes.iter().map(|enctype| enctype.number()).collect(),
        };
        self.choose(offered)
    }

    fn keep_cookie(&mut self, hints: &[PaData]) {
        if let Some(cookie) = hints.iter().find(|hint| hint.kind == PaData::FX_COOKIE) {
            self.cookie = Some(cookie.clone());
        }
    }

    /// The newest key of the best enctype among those that the KDC offers.
    fn choose(&mut self, offered: Vec<i32>) -> Result<(), ExchangeError> {
        let usable = self.enctypes.iter().filter(|enctype| offered.contains(&enctype.number()));
        let key = |enctype: &Enctype| self.keys.newest(*enctype, &self.rejected);
        match usable.into_iter().find_map(key) {
            Some(candidate) => {
                self.candidate = Some(candidate);
                Ok(())
            }
            None => Err(self.no_key(offered)),
        }
    }

    fn no_key(&self, offered: Vec<i32>) -> ExchangeError {
        let client = self.ask.client.clone();
        let ours = self.keys.enctypes(None);
        let weaker = ours.iter().any(|enctype| offered.contains(&enctype.number()));
        match self.ask.learnt {
            Some(Learnt { enctype: known, .. }) if weaker && self.rejected.is_empty() => {
                ExchangeError::Downgrade { client, offered, known }
            }
            _ if !self.rejected.is_empty() => self.rejected(),
            _ => ExchangeError::NoKey { client, offered },
        }
    }

    /// After a rejected key: one other keyset, the newest first.
    fn other_keyset(&mut self, error: &KrbError) -> Result<(), ExchangeError> {
        let Some(candidate) = self.candidate else { return Err(self.rejected()) };
        self.rejected.push(candidate.kvno);
        let hints = messages::parse_method_data(&error.data).unwrap_or_default();
        self.keep_cookie(&hints);
        let enctypes = [candidate.key.enctype()].into_iter().chain(self.enctypes.iter().copied());
        let other = enctypes
            .filter_map(|enctype| self.keys.newest(enctype, &self.rejected))
            .next()
            .filter(|_| self.rejected.len() < MAX_KEYSETS);
        match other {
            Some(other) => {
                self.candidate = Some(other);
                Ok(())
            }
            None => Err(self.rejected()),
        }
    }

    fn rejected(&self) -> ExchangeError {
        let (client, tried) = (self.ask.client.clone(), self.rejected.clone());
        ExchangeError::KeyRejected { client, tried }
    }

    /// A reply without preauthentication: not accepted, since its ticket lacks pre-authent.
    /// It tells which key the KDC uses.
    fn follow(&mut self, reply: &KdcReply) -> Result<(), ExchangeError> {
        self.hinted = true;
        let kvno = reply.enc_part.kvno;
        let enctype = Enctype::from_number(reply.enc_part.enctype);
        let exact = enctype.zip(kvno).and_then(|(enctype, kvno)| self.keys.exact(enctype, kvno));
        match exact.filter(|exact| self.enctypes.contains(&exact.key.enctype())) {
            Some(exact) => {
                self.candidate = Some(exact);
                Ok(())
            }
            None => self.choose(vec![reply.enc_part.enctype]),
        }
    }

    /// The answer, if the reply stands every check.
    fn accept(
        &self,
        reply: &KdcReply,
        request: &Request,
        candidate: Candidate<'_>,
    ) -> Result<AsAnswer, ExchangeError> {
        self.checked(reply, request, candidate)
            .map_err(ExchangeError::malformed(self.ask.client, self.ask.server))?
            .map_err(ExchangeError::check(self.ask.client, self.ask.server))
    }

    fn checked(
        &self,
        reply: &KdcReply,
        request: &Request,
        candidate: Candidate<'_>,
    ) -> Result<Result<AsAnswer, CheckError>, messages::Malformed> {
        let expected = self.expected(request);
        let used =
            match expected.check_outside(reply).and_then(|()| self.reply_key(reply, candidate)) {
                Ok(used) => used,
                Err(failed) => return Ok(Err(failed)),
            };
        let enctype = used.key.enctype();
        let Ok(plaintext) = crypto::decrypt(used.key, Usage::AS_REP, &reply.enc_part.cipher) else {
            return Ok(Err(CheckError::Undecryptable { enctype }));
        };
        let part = messages::parse_enc_kdc_reply_part(&plaintext)?;
        Ok(expected.check_inside(&part).map(|session_key| AsAnswer {
            offset: ClockOffset::between(part.authtime, self.env.clock.now().wall),
            credential: credential(
                self.ask.client,
                self.ask.server,
                &part,
                session_key,
                reply.ticket.der.clone(),
            ),
            learnt: Learnt { enctype, kvno: used.kvno },
            ticket_key: TicketKey { enctype: reply.ticket.enctype, kvno: reply.ticket.kvno },
        }))
    }

    /// The key that the reply says it is encrypted with: of the number it names, or of the
    /// keyset that the request used.
    fn reply_key(
        &self,
        reply: &KdcReply,
        candidate: Candidate<'_>,
    ) -> Result<Candidate<'a>, CheckError> {
        let came = reply.enc_part.enctype;
        let asked = self.enctypes.iter().copied().find(|enctype| enctype.number() == came);
        let key = asked.and_then(|enctype| {
            let named = reply.enc_part.kvno.and_then(|kvno| self.keys.exact(enctype, kvno));
            named.or_else(|| self.keys.exact(enctype, candidate.kvno))
        });
        key.ok_or_else(|| CheckError::Enctype { asked: self.enctypes.clone(), came })
    }

    fn expected<'b>(&'b self, request: &Request) -> Expected<'b> {
        Expected {
            client: self.ask.client,
            server: self.ask.server,
            nonce: request.nonce,
            enctypes: &self.named,
            options: self.ask.options,
            till: request.till,
            rtime: request.rtime,
            now: request.now,
            clock_skew: self.env.clock_skew,
            initial: true,
        }
    }
}
