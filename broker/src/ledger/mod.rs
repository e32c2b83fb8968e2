//! The working set: every lease, session, principal, account and pin the broker knows.
//!
//! It is all in memory and pure: it reads no clock, waits for nothing and writes nothing.
//! A change marks what it touched; [`book`] turns that into one round of the committer,
//! under the same lock, so that the store sees the changes in the order in which they
//! were made.
//!
//! - [`leases`], [`sessions`], [`principals`]: what may happen to each. - [`walks`]: the steps of
//!   keys. - [`revoking`]: what is taken away. - [`bans`]: nodes that may not come back.
//! - [`query`], [`nodes`]: what operators ask. - [`record`]: how it is stored.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::SystemTime,
};

use krb_proto::{Kvno, LeaseId, Namespace, NodeName, PodUid, Principal};

use crate::{
    clock::Boottime,
    entitlement::Login,
    keys::{ManagedPrincipal, Recipient},
    lease::{HolderKey, Lease, share::SharedTicket},
    session::{Session, StreamId, brake::Brake},
};

pub mod bans;
pub mod book;
pub mod feed;
pub mod leases;
pub mod nodes;
pub mod principals;
pub mod query;
pub mod record;
pub mod revoking;
pub mod sessions;
pub mod walks;

#[cfg(test)]
mod tests;

/// Everything the broker knows, and the indices that make it quick to ask.
#[derive(Debug)]
pub struct Ledger {
    cluster: Arc<str>,
    leases: BTreeMap<LeaseId, Lease>,
    sessions: HashMap<NodeName, Session>,
    principals: HashMap<Principal, ManagedPrincipal>,
    accounts: HashMap<Login, Account>,
    pins: BTreeMap<Namespace, Pin>,
    finished: HashMap<PodUid, SystemTime>,
    bans: BTreeMap<NodeName, bans::Ban>,

    by_holder: HashMap<HolderKey, LeaseId>,
    by_node: HashMap<NodeName, BTreeSet<LeaseId>>,
    by_principal: HashMap<Principal, BTreeSet<LeaseId>>,
    /// Live leases only, and no ticket that none has.
    by_ticket: HashMap<SharedTicket, BTreeSet<LeaseId>>,
    live_by_account: HashMap<Login, u32>,

    /// What holders acknowledged on their node's stream; forgotten at a restart.
    acknowledged: HashMap<LeaseId, Acknowledged>,
    /// Live leases that no agent has claimed since its last attach.
    unclaimed: HashMap<LeaseId, Boottime>,
    /// What each principal's walk waits for, for an operator.
    waits: HashMap<Principal, String>,

    /// Why keys are not replaced now: the store came up with less than was once committed.
    recovery: Option<String>,
    /// Why nothing that the wall clock ends may end by itself now.
    clock_fault: Option<String>,
    /// Pauses automatic losses where there are too many at once.
    brake: Brake,
    /// Pods that are gone, and that the brake holds.
    held_pods: sessions::HeldPods,

    touched: BTreeSet<Touched>,
    /// Leases that are no longer listed, until somebody is told.
    forgotten: Vec<Lease>,
}

/// What a holder has, by its own word on the stream that it was pushed on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Acknowledged {
    /// The stream of its node's session.
    pub stream: StreamId,
    /// The numbers in its keytab.
    pub kvnos: BTreeMap<Principal, BTreeSet<Kvno>>,
}

/// What is kept of a role account.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Account {
    /// The latest endtime of any of its tickets that left the broker.
    pub latest_endtime: Option<SystemTime>,
}

/// The namespace object that an account's namespace name was bound to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pin {
    /// Its uid.
    pub uid: String,
    /// When it was bound.
    pub pinned_at: SystemTime,
    /// The operator who moved it; `None`: it was the first use.
    pub accepted_by: Option<String>,
}

/// One stored record that a change touched.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Touched {
    /// A lease.
    Lease(LeaseId),
    /// A node's session.
    Session(NodeName),
    /// A principal, without its keys.
    Principal(Principal),
    /// One keyset of a principal.
    Keyset(Principal, Kvno),
    /// That a node was given a kvno.
    Delivered(Principal, Kvno, Recipient),
    /// A role account.
    Account(Login),
    /// A namespace's pin.
    Pin(Namespace),
    /// That a pod was seen finished.
    Finished(PodUid),
    /// A node's ban.
    Ban(NodeName),
    /// That the broker is in recovery.
    Recovery,
}

impl Ledger {
    /// A ledger of one cluster, with nothing in it.
    pub fn new(cluster: Arc<str>) -> Self {
        Self {
            cluster,
            leases: BTreeMap::new(),
            sessions: HashMap::new(),
            principals: HashMap::new(),
            accounts: HashMap::new(),
            pins: BTreeMap::new(),
            finished: HashMap::new(),
            bans: BTreeMap::new(),
            by_holder: HashMap::new(),
            by_node: HashMap::new(),
            by_principal: HashMap::new(),
            by_ticket: HashMap::new(),
            live_by_account: HashMap::new(),
            acknowledged: HashMap::new(),
            unclaimed: HashMap::new(),
            waits: HashMap::new(),
            recovery: None,
            clock_fault: None,
            brake: Brake::default(),
            held_pods: sessions::HeldPods::default(),
            touched: BTreeSet::new(),
            forgotten: Vec::new(),
        }
    }

    /// The broker's name of the cluster.
    pub fn cluster(&self) -> &Arc<str> {
        &self.cluster
    }

    /// Whether anything was touched since [`Self::take_touched`].
    pub fn has_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// What was touched since this was last asked.
    pub fn take_touched(&mut self) -> BTreeSet<Touched> {
        std::mem::take(&mut self.touched)
    }

    /// The leases that were touched since [`Self::take_touched`], and whether each is forgotten.
    pub(crate) fn changed_leases(&mut self) -> Vec<(Lease, bool)> {
        let lease = |touched: &Touched| match touched {
            Touched::Lease(id) => self.leases.get(id).cloned(),
            _ => None,
        };
        let mut changed: Vec<(Lease, bool)> =
            self.touched.iter().filter_map(lease).map(|lease| (lease, false)).collect();
        changed.extend(self.forgotten.drain(..).map(|lease| (lease, true)));
        changed
    }

    /// Why the broker is in recovery; `None` when it is not.
    pub fn recovery(&self) -> Option<&str> {
        self.recovery.as_deref()
    }

    /// Enters recovery, or leaves it by an operator's word.
    pub fn set_recovery(&mut self, why: Option<String>) {
        self.recovery = why;
        self.touched.insert(Touched::Recovery);
    }

    /// The tickets that live leases have.
    pub fn tickets_in_use(&self) -> impl Iterator<Item = &SharedTicket> {
        self.by_ticket.keys()
    }

    /// Whether any live lease has the ticket.
    pub fn is_in_use(&self, ticket: &SharedTicket) -> bool {
        self.by_ticket.contains_key(ticket)
    }

    /// Whether any holder has the ticket: a lease that is Pending has none yet.
    pub fn is_held(&self, ticket: &SharedTicket) -> bool {
        self.by_ticket.get(ticket).into_iter().flatten().any(|id| self.is_active(id))
    }

    /// The live leases that have the ticket.
    pub fn live_with_ticket(&self, ticket: &SharedTicket) -> Vec<LeaseId> {
        self.by_ticket.get(ticket).into_iter().flatten().copied().collect()
    }

    /// What is kept of an account.
    pub fn account(&self, login: &Login) -> Option<&Account> {
        self.accounts.get(login)
    }

    /// A ticket of the account is about to leave the broker.
    pub fn ticket_leaves(&mut self, login: &Login, endtime: SystemTime) {
        let account = self.accounts.entry(login.clone()).or_default();
        if account.latest_endtime.is_none_or(|latest| latest < endtime) {
            account.latest_endtime = Some(endtime);
            self.touched.insert(Touched::Account(login.clone()));
        }
    }

    /// The pins of all namespaces.
    pub fn pins(&self) -> &BTreeMap<Namespace, Pin> {
        &self.pins
    }

    /// Whether the namespace is bound to this object, or to none yet.
    ///
    /// # Errors
    /// When it was made anew since: an operator must accept that.
    pub fn check_pin(&self, namespace: &Namespace, uid: &str) -> Result<(), Pin> {
        match self.pins.get(namespace) {
            Some(pin) if pin.uid != uid => Err(pin.clone()),
            _ => Ok(()),
        }
    }

    /// Binds the namespace to this object, if it is bound to none. Says whether it did.
    pub fn pin(&mut self, namespace: &Namespace, uid: &str, now: SystemTime) -> bool {
        if self.pins.contains_key(namespace) {
            return false;
        }
        self.set_pin(namespace, Pin { uid: uid.to_owned(), pinned_at: now, accepted_by: None });
        true
    }

    /// Moves the pin by an operator's word.
    pub fn accept_namespace(
        &mut self,
        namespace: &Namespace,
        uid: &str,
        by: &str,
        now: SystemTime,
    ) {
        let accepted_by = Some(by.to_owned());
        self.set_pin(namespace, Pin { uid: uid.to_owned(), pinned_at: now, accepted_by });
    }

    fn set_pin(&mut self, namespace: &Namespace, pin: Pin) {
        self.pins.insert(namespace.clone(), pin);
        self.touched.insert(Touched::Pin(namespace.clone()));
    }

    /// The pod was seen finished: it stays so, whatever its status says later.
    pub fn pod_finished(&mut self, uid: &PodUid, now: SystemTime) {
        if !self.finished.contains_key(uid) {
            self.finished.insert(uid.clone(), now);
            self.touched.insert(Touched::Finished(uid.clone()));
        }
    }

    /// Whether the pod was ever seen finished.
    pub fn is_finished(&self, uid: &PodUid) -> bool {
        self.finished.contains_key(uid)
    }

    /// Forgets finished pods that have been so since before `before`.
    pub fn forget_finished(&mut self, before: SystemTime) {
        let touched = &mut self.touched;
        self.finished.retain(|uid, at| {
            let keep = *at >= before;
            if !keep {
                touched.insert(Touched::Finished(uid.clone()));
            }
            keep
        });
    }
}
