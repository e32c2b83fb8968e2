//! Tickets of role accounts: one cached TGT for each, shared by all its pods.
//!
//! A ticket is fetched by an AS exchange, never renewed: that is one round trip, and a
//! disabled account is noticed. The same question asked at once is asked once. It is
//! fetched anew at half its life, a little earlier by chance so that accounts do not come in
//! step; a copy that is handed out has at least half its life.
//!
//! What is not here: which pod may have which ticket (the grant says), and recording that
//! a ticket leaves (whoever hands it out does, before it does).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use krb_proto::Principal;

use crate::{
    clock::{Clock, Entropy},
    entitlement::{GrantedTicket, Login},
    kdc::{Kdc, KdcError},
    krb5::ccache::Credential,
};

mod account;
pub mod refresh;

pub use account::{AccountKeyError, AccountKeytabs, read_keys};

/// How tickets are fetched.
#[derive(Clone, Copy, Debug)]
pub struct TicketTimes {
    /// The life that is asked for.
    pub life: Duration,
    /// How long a failed account is left alone before it is asked for again unasked.
    pub retry_after: Duration,
}

/// The cached tickets.
pub struct Tickets {
    kdc: Arc<dyn Kdc>,
    keytabs: AccountKeytabs,
    times: TicketTimes,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    slots: Mutex<HashMap<Login, Arc<Slot>>>,
}

#[derive(Default)]
struct Slot {
    /// Held while the KDC is asked, so that the same question is asked once.
    asking: tokio::sync::Mutex<()>,
    kept: Mutex<Option<Kept>>,
}

#[derive(Clone)]
struct Kept {
    credential: Arc<Credential>,
    fetched_at: SystemTime,
    refresh_at: SystemTime,
}

/// Why there is no ticket.
#[derive(Debug, thiserror::Error)]
pub enum TicketError {
    /// The account's keytab can't be used.
    #[error("the keys of {client}")]
    Keys {
        /// Whose.
        client: Principal,
        /// Why.
        source: AccountKeyError,
    },
    /// The KDC gave none.
    #[error("a ticket for {client}")]
    Kdc {
        /// For whom.
        client: Principal,
        /// Why.
        source: KdcError,
    },
}

impl Tickets {
    /// A cache with nothing in it.
    pub fn new(
        kdc: Arc<dyn Kdc>,
        keytabs: AccountKeytabs,
        times: TicketTimes,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        Self { kdc, keytabs, times, clock, entropy, slots: Mutex::default() }
    }

    /// A ticket with at least half its life, from the cache or the KDC.
    ///
    /// # Errors
    /// When the account's keytab can't be used, or the KDC gives no ticket.
    pub async fn ticket(&self, account: &GrantedTicket) -> Result<Arc<Credential>, TicketError> {
        let slot = self.slot(&account.login);
        if let Some(kept) = slot.fresh(self.now()) {
            return Ok(kept);
        }
        let _asking = slot.asking.lock().await;
        if let Some(kept) = slot.fresh(self.now()) {
            return Ok(kept); // somebody asked meanwhile
        }
        match self.fetch(account, &slot).await {
            Ok(credential) => Ok(credential),
            Err(error) => slot.half_left(self.now()).ok_or(error),
        }
    }

    /// The tickets of all these accounts, if each is in the cache with at least half its life.
    pub fn at_hand(
        &self,
        accounts: &[GrantedTicket],
    ) -> Option<Vec<(GrantedTicket, Arc<Credential>)>> {
        let now = self.now();
        let fresh = |account: &GrantedTicket| {
            Some((account.clone(), self.slot(&account.login).fresh(now)?))
        };
        accounts.iter().map(fresh).collect()
    }

    /// The ticket that is kept, however old, as long as it has not ended.
    pub fn kept(&self, login: &Login) -> Option<Arc<Credential>> {
        let now = self.now();
        self.slot(login).kept().map(|kept| kept.credential).filter(|c| c.endtime > now)
    }

    /// When the ticket that is kept was asked for, by the broker's clock.
    pub fn fetched_at(&self, login: &Login) -> Option<SystemTime> {
        self.slot(login).kept().map(|kept| kept.fetched_at)
    }

    /// Forgets the account's ticket: the next pod gets another one.
    pub fn forget(&self, login: &Login) {
        *self.slot(login).lock() = None;
    }

    /// When the account's ticket is due to be fetched anew. `latest_endtime` is the end of
    /// the last one that left, for an account of which none is kept.
    pub fn refresh_at(&self, login: &Login, latest_endtime: Option<SystemTime>) -> SystemTime {
        let kept = self.slot(login).kept().map(|kept| kept.refresh_at);
        let by_end = || latest_endtime.and_then(|end| end.checked_sub(self.times.life / 2));
        kept.or_else(by_end).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    async fn fetch(
        &self,
        account: &GrantedTicket,
        slot: &Slot,
    ) -> Result<Arc<Credential>, TicketError> {
        let client = &account.client;
        let fetched_at = self.now();
        let keys = self
            .keytabs
            .keys(account)
            .await
            .map_err(|source| TicketError::Keys { client: client.clone(), source })?;
        let credential = self
            .kdc
            .tgt(&keys, self.times.life)
            .await
            .map_err(|source| TicketError::Kdc { client: client.clone(), source })?;
        let credential = Arc::new(credential);
        let life = credential.endtime.duration_since(credential.starttime).unwrap_or_default();
        let refresh_at = credential.starttime + life.mul_f64(0.5 - self.jitter() * 0.1);
        *slot.lock() = Some(Kept { credential: credential.clone(), fetched_at, refresh_at });
        Ok(credential)
    }

    fn slot(&self, login: &Login) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.entry(login.clone()).or_default().clone()
    }

    /// 0 to 1, by chance.
    fn jitter(&self) -> f64 {
        let mut byte = [0; 2];
        self.entropy.fill(&mut byte);
        f64::from(u16::from_le_bytes(byte)) / f64::from(u16::MAX)
    }

    fn now(&self) -> SystemTime {
        self.clock.now().wall
    }
}

impl Slot {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> Option<Kept> {
        self.lock().clone()
    }

    fn fresh(&self, now: SystemTime) -> Option<Arc<Credential>> {
        self.kept().filter(|kept| now < kept.refresh_at).map(|kept| kept.credential)
    }

    fn half_left(&self, now: SystemTime) -> Option<Arc<Credential>> {
        let credential = self.kept()?.credential;
        let life = credential.endtime.duration_since(credential.starttime).ok()?;
        let left = credential.endtime.duration_since(now).ok()?;
        (left >= life / 2).then_some(credential)
    }
}

#[cfg(test)]
mod tests;
