//! Tickets of role accounts: one cached TGT for each, shared by its pods as far as its
//! entitlement says ([`SharedTicket`]).
//!
//! A ticket is fetched by an AS exchange, never renewed: that is one round trip, and a
//! disabled account is noticed. The same question asked at once is asked once. It is
//! fetched anew at half its life, a little earlier by chance so that accounts do not come in
//! step; a copy that is handed out has at least half its life.
//!
//! No ticket is taken from a pod that has it: a disabled account's tickets end by themselves.
//!
//! - `account`: whose keys they are fetched with. - [`refresh`]: fetches them anew. - [`watch`]:
//!   how accounts are at the KDC whose keys are not the broker's.
//!
//! What is not here: which pod may have which ticket (the grant says), and recording that
//! a ticket leaves (whoever hands it out does, before it does).

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use krb_proto::{NodeName, Principal};

use crate::{
    clock::{Clock, Entropy},
    entitlement::GrantedTicket,
    kdc::{Kdc, KdcError, gate::Class},
    krb5::ccache::Credential,
    lease::{
        Lease,
        share::{Share, SharedTicket},
    },
};

mod account;
pub mod refresh;
pub mod watch;

pub use account::{AccountKeyError, AccountKeySource, AccountKeyring, AccountKeytabs, read_keys};

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
    keys: Arc<dyn AccountKeySource>,
    times: TicketTimes,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    slots: Mutex<Slots>,
}

type Slots = HashMap<SharedTicket, Arc<Slot>>;

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
    /// The account's keys can't be used.
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
        keys: Arc<dyn AccountKeySource>,
        times: TicketTimes,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        Self { kdc, keys, times, clock, entropy, slots: Mutex::default() }
    }

    /// A ticket with at least half its life, from the cache or the KDC. What is asked there
    /// counts as `class`.
    ///
    /// # Errors
    /// When the account's keys can't be used, or the KDC gives no ticket.
    pub async fn ticket(
        &self,
        ticket: &SharedTicket,
        class: Class,
    ) -> Result<Arc<Credential>, TicketError> {
        let slot = self.slot(ticket);
        if let Some(kept) = slot.fresh(self.now()) {
            return Ok(kept);
        }
        let _asking = slot.asking.lock().await;
        if let Some(kept) = slot.fresh(self.now()) {
            return Ok(kept); // somebody asked meanwhile
        }
        match self.fetch(&ticket.account, class, &slot).await {
            Ok(credential) => Ok(credential),
            Err(error) => slot.half_left(self.now()).ok_or(error),
        }
    }

    /// The tickets of all these accounts for a pod of `node`, if each is in the cache with at
    /// least half its life. One that no other pod has never is.
    pub fn at_hand(
        &self,
        accounts: &[GrantedTicket],
        node: &NodeName,
    ) -> Option<Vec<(GrantedTicket, Arc<Credential>)>> {
        let now = self.now();
        let fresh = |account: &GrantedTicket| {
            let ticket = SharedTicket::before_lease(account, node)?;
            Some((account.clone(), self.known_slot(&ticket)?.fresh(now)?))
        };
        accounts.iter().map(fresh).collect()
    }

    /// The ticket that is kept, however old, as long as it has not ended.
    pub fn kept(&self, ticket: &SharedTicket) -> Option<Arc<Credential>> {
        let now = self.now();
        self.known_slot(ticket)?.kept().map(|kept| kept.credential).filter(|c| c.endtime > now)
    }

    /// When the ticket that is kept was asked for, by the broker's clock.
    pub fn fetched_at(&self, ticket: &SharedTicket) -> Option<SystemTime> {
        self.known_slot(ticket)?.kept().map(|kept| kept.fetched_at)
    }

    /// Forgets the tickets that the lease has: its node is not to be trusted with them, and
    /// the next pod gets other ones.
    pub fn forget_for(&self, lease: &Lease) {
        lease.shared_tickets().for_each(|ticket| drop(self.slots().remove(&ticket)));
    }

    /// Forgets all tickets of the account, whoever shares them.
    pub fn forget(&self, client: &Principal) {
        self.slots().retain(|ticket, _| ticket.account.client != *client);
    }

    /// Forgets what nobody has use for: of tickets that are not `in_use`, those that have
    /// ended or that no other lease can ever have.
    pub fn forget_unused(&self, in_use: impl Fn(&SharedTicket) -> bool) {
        let now = self.now();
        self.slots().retain(|ticket, slot| {
            let ended = || slot.kept().is_none_or(|kept| kept.credential.endtime <= now);
            in_use(ticket) || !(matches!(ticket.share, Share::Lease(_)) || ended())
        });
    }

    /// When the ticket is due to be fetched anew. `latest_endtime` is the end of the last one of
    /// the account's that left, for a ticket that is not kept: after a start of the broker.
    pub fn refresh_at(
        &self,
        ticket: &SharedTicket,
        latest_endtime: Option<SystemTime>,
    ) -> SystemTime {
        let kept = self.known_slot(ticket).and_then(|slot| slot.kept());
        let by_end = || {
            let before_the_end = match ticket.share {
                Share::All => self.times.life / 2,
                Share::Node(_) | Share::Lease(_) => self.some_of_many(ticket),
            };
            latest_endtime?.checked_sub(before_the_end)
        };
        kept.map(|kept| kept.refresh_at).or_else(by_end).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// How long before the end of the account's latest ticket one of its many is due whose own
    /// end is not known: it may have been fetched half a life earlier than that. Spread over a
    /// quarter of a life, so that not all come at once.
    fn some_of_many(&self, ticket: &SharedTicket) -> Duration {
        let mut hasher = DefaultHasher::new();
        ticket.hash(&mut hasher);
        let part = u32::try_from(hasher.finish() % 1_000).unwrap_or(0);
        self.times.life - self.times.life / 4 * part / 1_000
    }

    async fn fetch(
        &self,
        account: &GrantedTicket,
        class: Class,
        slot: &Slot,
    ) -> Result<Arc<Credential>, TicketError> {
        let client = &account.client;
        let fetched_at = self.now();
        let keys = self.keys.keys(account).await;
        let keys = keys.map_err(|source| TicketError::Keys { client: client.clone(), source })?;
        let credential = self.kdc.for_class(class).tgt(&keys, self.times.life).await;
        let credential =
            credential.map_err(|source| TicketError::Kdc { client: client.clone(), source })?;
        let credential = Arc::new(credential);
        let life = credential.endtime.duration_since(credential.starttime).unwrap_or_default();
        let refresh_at = credential.starttime + life.mul_f64(0.5 - self.jitter() * 0.1);
        *slot.lock() = Some(Kept { credential: credential.clone(), fetched_at, refresh_at });
        Ok(credential)
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self, ticket: &SharedTicket) -> Arc<Slot> {
        self.slots().entry(ticket.clone()).or_default().clone()
    }

    fn known_slot(&self, ticket: &SharedTicket) -> Option<Arc<Slot>> {
        self.slots().get(ticket).cloned()
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
    fn lock(&self) -> MutexGuard<'_, Option<Kept>> {
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
