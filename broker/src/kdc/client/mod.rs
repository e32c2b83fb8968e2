//! The broker as a client of the KDCs: TGTs for role accounts, and which key each KDC uses.
//!
//! For a TGT the KDCs are asked in order, and those that did not answer lately are left out for
//! a while. For a key each is asked on its own, with a TGT of the observer's (the broker's
//! principal) from that same KDC, since a replica need not know the keys of another's.
//!
//! Every transmission passes the gate. What is kept between exchanges is what decrypted replies
//! proved: the enctype and kvno that an account's key is used with, and the KDC's clock.

mod address;
mod breaker;
mod check;
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
    observe::TGT_LIFE,
};
use super::{
    AccountKeys, Checked, ClockReading, Health, Kdc, KdcError, Observation,
    gate::{Class, Gate},
};
use crate::{
    clock::{Clock, Entropy},
    krb5::{
        ccache::Credential,
        exchange::{AsAnswer, AsAsk, ClockOffset, Env, Learnt, TicketOptions, as_exchange},
        key::Keyset,
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
}

#[async_trait]
impl Kdc for RealmClient {
    fn for_class(&self, class: Class) -> Arc<dyn Kdc> {
        Arc::new(Self { shared: self.shared.clone(), class })
    }

    async fn tgt(&self, account: &AccountKeys, life: Duration) -> Result<Credential, KdcError> {
        self.shared.tgt(self.class, account, life).await
    }

    async fn observe(&self, service: &Principal) -> Vec<Observation> {
        self.observe_service(service).await
    }

    async fn check(&self, service: &Principal, keyset: &Keyset) -> Vec<Checked> {
        self.check_service(service, keyset).await
    }

    async fn observe_account(&self, account: &AccountKeys) -> Vec<Observation> {
        self.observe_newest(account).await
    }

    fn clocks(&self) -> Vec<ClockReading> {
        self.shared.addresses.iter().filter_map(Address::clock).collect()
    }

    async fn probe_clock(&self) {
        self.shared.probe_clock().await;
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
        let result = self.ask_as(class, at, account, life).await;
        self.learn(&account.client, &result);
        result
    }

    /// The same, with nothing learnt from it: of some of the account's keys, or a wrong one.
    async fn ask_as(
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
        result
    }

    /// Asks the KDCs in order for a TGT of the observer's, until one has answered.
    async fn probe_clock(&self) {
        let observer = &self.settings.observer;
        for at in &self.addresses {
            let asked = self.as_exchange(Class::Housekeeping, at, observer, TGT_LIFE).await;
            match asked {
                Ok(_) => return,
                Err(failure) => {
                    tracing::debug!(kdc = at.name, error = %failure.error, "its clock is not known");
                }
            }
        }
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
