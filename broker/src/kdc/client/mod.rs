//! The broker as a client of the KDCs: TGTs for role accounts, and which kvno each KDC uses.
//!
//! For a TGT the KDCs are asked in order, and those that did not answer lately are left out for
//! a while. For a kvno each is asked on its own, with a TGT of the observer's (the broker's
//! principal) from that same KDC, since a replica need not know the keys of another's.
//!
//! Every transmission passes the gate. What is kept between exchanges is what decrypted replies
//! proved: the enctype and kvno that an account's key is used with, and the KDC's clock.

mod address;
mod breaker;
mod errors;
mod observe;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use krb_proto::{Principal, Realm};

use self::{
    address::{Address, Passage},
    errors::{Failure, Verdict},
};
use super::{
    AccountKeys, Health, Kdc, KdcError, Observation,
    gate::{Class, Gate},
};
use crate::{
    clock::{Boottime, Clock, Entropy},
    krb5::{
        ccache::Credential,
        exchange::{AsAnswer, AsAsk, ClockOffset, Env, Learnt, TicketOptions, as_exchange},
        transport::Limits,
    },
};

/// How to reach a realm's KDCs.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// The realm.
    pub realm: Realm,
    /// Its KDCs, `host:port`, the primary first.
    pub kdcs: Vec<String>,
    /// Who asks for service tickets to see their kvno: the broker's principal.
    pub observer: AccountKeys,
    /// How tickets of role accounts should be.
    pub options: TicketOptions,
    /// How long a KDC may take.
    pub limits: Limits,
    /// How far a KDC's clock may be off.
    pub clock_skew: Duration,
    /// How long a request may wait at the gate.
    pub gate_wait: Duration,
}

/// A realm's KDCs. Clones share what is known of them.
#[derive(Clone)]
pub struct RealmClient {
    shared: Arc<Shared>,
    class: Class,
}

struct Shared {
    settings: ClientSettings,
    addresses: Vec<Address>,
    gate: Arc<Gate>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    learnt: Mutex<HashMap<Principal, Learnt>>,
}

impl RealmClient {
    /// A client that has asked nothing yet.
    pub fn new(
        settings: ClientSettings,
        gate: Arc<Gate>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        let addresses = settings.kdcs.iter().cloned().map(Address::new).collect();
        let learnt = Mutex::default();
        let shared = Shared { settings, addresses, gate, clock, entropy, learnt };
        Self { shared: Arc::new(shared), class: Class::PodStart }
    }

    /// The same client, whose requests count as `class` at the gate.
    pub fn for_class(&self, class: Class) -> Self {
        Self { shared: self.shared.clone(), class }
    }

    /// Each KDC's clock against ours, where a decrypted reply has told it, and when.
    pub fn clock_offsets(&self) -> Vec<(String, ClockOffset, Boottime)> {
        let of = |at: &Address| at.offset().map(|(offset, when)| (at.name.clone(), offset, when));
        self.shared.addresses.iter().filter_map(of).collect()
    }
}

#[async_trait]
impl Kdc for RealmClient {
    async fn tgt(&self, account: &AccountKeys, life: Duration) -> Result<Credential, KdcError> {
        self.shared.tgt(self.class, account, life).await
    }

    async fn observe(&self, service: &Principal) -> Vec<Observation> {
        self.observe_each(service).await
    }

    fn health(&self) -> Vec<Health> {
        self.shared.addresses.iter().map(Address::health).collect()
    }
}

impl Shared {
    /// Asks the KDCs in order, and the primary once more where a replica may lag.
    async fn tgt(
        &self,
        class: Class,
        account: &AccountKeys,
        life: Duration,
    ) -> Result<Credential, KdcError> {
        let mut failure = None;
        for (index, at) in self.addresses.iter().enumerate() {
            match self.as_exchange(class, at, account, life).await {
                Ok(answer) => return Ok(answer.credential),
                Err(Failure { verdict: Verdict::Absent, error, .. }) => {
                    failure.get_or_insert(error);
                }
                Err(Failure { verdict: Verdict::MayLag, error, .. }) if index > 0 => {
                    return self.ask_primary(class, account, life, error).await;
                }
                Err(last_word) => return Err(last_word.error),
            }
        }
        Err(failure.unwrap_or_else(|| nothing_configured(&account.client)))
    }

    /// Asks the primary; where it is still away, the replica's word stands.
    async fn ask_primary(
        &self,
        class: Class,
        account: &AccountKeys,
        life: Duration,
        replicas_word: KdcError,
    ) -> Result<Credential, KdcError> {
        let Some(primary) = self.addresses.first() else { return Err(replicas_word) };
        match self.as_exchange(class, primary, account, life).await {
            Ok(answer) => Ok(answer.credential),
            Err(Failure { verdict: Verdict::Absent, .. }) => Err(replicas_word),
            Err(last_word) => Err(last_word.error),
        }
    }

    /// One AS exchange with one KDC, unless it is left alone for now.
    async fn as_exchange(
        &self,
        class: Class,
        at: &Address,
        account: &AccountKeys,
        life: Duration,
    ) -> Result<AsAnswer, Failure> {
        let server = Principal::krbtgt(&self.settings.realm);
        let client = &account.client;
        let ask = AsAsk {
            client,
            server: &server,
            keysets: &account.keysets,
            learnt: self.learnt(client),
            life,
            options: self.settings.options,
        };
        let passage = self.passage(class, at, client).await?;
        let result = as_exchange(&passage, &ask, &self.env()).await;
        let result = result.map_err(|error| Failure::of(error, &at.name, client));
        self.note(at, result.as_ref().map(|answer| answer.offset));
        self.learn(client, &result);
        result
    }

    /// The way to a KDC that may be asked now.
    async fn passage(
        &self,
        class: Class,
        at: &Address,
        client: &Principal,
    ) -> Result<Passage<'_>, Failure> {
        if !at.may_try(self.clock.now().boot) {
            let detail = format!("left alone for a while after: {}", at.last_error());
            return Err(Failure::absent(&at.name, client, detail));
        }
        let found = tokio::net::lookup_host(&at.name).await.map(|mut found| found.next());
        let (gate, limits) = (&*self.gate, &self.settings.limits);
        let detail = match found {
            Ok(Some(kdc)) => {
                return Ok(Passage { gate, class, wait: self.settings.gate_wait, kdc, limits });
            }
            Ok(None) => "its name has no address".to_owned(),
            Err(error) => format!("looking up its name: {error}"),
        };
        let failure = Failure::absent(&at.name, client, detail);
        self.note(at, Err(&failure));
        Err(failure)
    }

    fn env(&self) -> Env<'_> {
        let clock_skew = self.settings.clock_skew;
        Env { clock: &*self.clock, entropy: &*self.entropy, clock_skew }
    }

    /// Remembers how an address answered.
    fn note(&self, at: &Address, result: Result<ClockOffset, &Failure>) {
        let now = self.clock.now();
        match result {
            Ok(offset) => {
                at.answered(now);
                at.tells(offset, now.boot);
            }
            Err(failure) => match failure.verdict {
                Verdict::Absent => at.failed(now, &failure.error.to_string()),
                Verdict::MayLag | Verdict::Final => at.answered(now),
                Verdict::NotAsked => {}
            },
        }
    }

    fn learnt(&self, client: &Principal) -> Option<Learnt> {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner).get(client).copied()
    }

    /// Keeps what a decrypted reply proved; forgets it when the key is no longer taken.
    fn learn(&self, client: &Principal, result: &Result<AsAnswer, Failure>) {
        let mut learnt = self.learnt.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(answer) => drop(learnt.insert(client.clone(), answer.learnt)),
            Err(Failure { error: KdcError::KeyRejected { .. }, .. }) => {
                learnt.remove(client);
            }
            Err(_) => {}
        }
    }
}

fn nothing_configured(client: &Principal) -> KdcError {
    KdcError::Unavailable {
        server: "kdc".to_owned(),
        principal: client.clone(),
        detail: "no KDC is configured".to_owned(),
    }
}
