//! A realm in memory: it keeps the promises of a KDC and of its administration, and can be told
//! to be away, slow, or to have replicas that lag.

mod admin;
mod kdcs;
mod record;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use krb_proto::{Principal, Realm};

use self::record::Record;
use super::{Attributes, KdcError, Unsaid, gate::Class};
use crate::{
    clock::{Boottime, Clock},
    krb5::{exchange::ClockOffset, key::Keyset},
};

/// The policy that the broker's principals carry here.
pub const POLICY: &str = "krb-broker";
/// What stands for kadmind's address.
const KADMIN: &str = "kadmin:fake";
/// Primaries that the administration refuses to the broker.
const RESERVED: [&str; 5] = ["krbtgt", "kadmin", "kiprop", "K", "host"];

/// A realm in memory. Clones are the same realm.
#[derive(Clone)]
pub struct FakeRealm {
    realm: Realm,
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
    class: Class,
}

#[derive(Default)]
struct State {
    /// How many requests counted as each class.
    asked: BTreeMap<Class, u64>,
    /// How far the KDC's clock is ahead, and when a reply last told it.
    clock: (ClockOffset, Option<Boottime>),
    principals: Database,
    /// What each KDC beyond the first has: a copy of some earlier time.
    replicas: BTreeMap<String, Database>,
    kdcs_down: bool,
    gate_full: bool,
    kadmin_down: bool,
    delay: Duration,
    tickets: u64,
}

type Database = BTreeMap<Principal, Record>;

impl FakeRealm {
    /// A realm with one KDC, called `kdc1`, and no principals.
    pub fn new(realm: Realm, clock: Arc<dyn Clock>) -> Self {
        Self { realm, clock, state: Arc::default(), class: Class::PodStart }
    }

    /// Adds a role account as an administrator would: preauthentication, no tickets to it.
    pub fn add_account(&self, client: &Principal, keyset: Keyset) {
        let record = Record {
            keyset: Some(keyset),
            managed: false,
            attributes: Attributes::role_account(Duration::from_secs(36_000)),
            disabled: false,
        };
        self.state().principals.insert(client.clone(), record);
    }

    /// Adds a role account under the broker's policy, as an administrator would.
    pub fn add_managed_account(&self, client: &Principal, keyset: Keyset) {
        self.add_account(client, keyset);
        if let Some(record) = self.state().principals.get_mut(client) {
            record.managed = true;
        }
    }

    /// Adds a service that is not the broker's: it lacks the policy.
    pub fn add_foreign(&self, service: &Principal, keyset: Keyset) {
        let record = Record {
            keyset: Some(keyset),
            managed: false,
            attributes: Attributes::service(Duration::from_secs(36_000), true),
            disabled: false,
        };
        self.state().principals.insert(service.clone(), record);
    }

    /// Replaces the keys of a principal behind the broker's back.
    pub fn tamper(&self, principal: &Principal, keyset: Keyset) {
        if let Some(record) = self.state().principals.get_mut(principal) {
            record.keyset = Some(keyset);
        }
    }

    /// Disables a principal as an administrator would, or enables it again.
    pub fn administrator_disables(&self, principal: &Principal, disabled: bool) {
        if let Some(record) = self.state().principals.get_mut(principal) {
            record.disabled = disabled;
        }
    }

    /// Sets the KDC's clock so many seconds ahead of the broker's; negative for behind.
    pub fn set_clock_offset(&self, seconds: i64) {
        self.state().clock.0 = ClockOffset(seconds);
    }

    /// How many requests counted as `class`.
    pub fn asked(&self, class: Class) -> u64 {
        self.state().asked.get(&class).copied().unwrap_or(0)
    }

    /// Adds a replica with a copy of what the primary has now; it lags from then on.
    pub fn add_replica(&self, address: &str) {
        let mut state = self.state();
        let copy = state.principals.clone();
        state.replicas.insert(address.to_owned(), copy);
    }

    /// Brings every replica up to date.
    pub fn propagate(&self) {
        let mut state = self.state();
        let copy = state.principals.clone();
        for replica in state.replicas.values_mut() {
            replica.clone_from(&copy);
        }
    }

    /// Takes all KDCs away, or brings them back.
    pub fn set_kdcs_down(&self, down: bool) {
        self.state().kdcs_down = down;
    }

    /// Lets no question through to any KDC, as a full gate does.
    pub fn set_gate_full(&self, full: bool) {
        self.state().gate_full = full;
    }

    /// Takes the administration away, or brings it back.
    pub fn set_kadmin_down(&self, down: bool) {
        self.state().kadmin_down = down;
    }

    /// Makes every answer take this long on tokio's clock.
    pub fn set_delay(&self, delay: Duration) {
        self.state().delay = delay;
    }

    /// Removes a principal from the primary behind the broker's back.
    pub fn administrator_deletes(&self, principal: &Principal) {
        self.state().principals.remove(principal);
    }

    /// How many TGTs were issued.
    pub fn tickets(&self) -> u64 {
        self.state().tickets
    }

    /// The keys that the primary has for a principal.
    pub fn keyset(&self, principal: &Principal) -> Option<Keyset> {
        self.state().principals.get(principal)?.keyset.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panicked with the realm")
    }

    /// Counts a request, and waits as long as answers take now.
    async fn delay(&self) {
        let delay = {
            let mut state = self.state();
            *state.asked.entry(self.class).or_default() += 1;
            state.delay
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
    }

    async fn kadmin(&self, principal: &Principal) -> Result<(), KdcError> {
        self.delay().await;
        if self.state().kadmin_down { Err(unavailable(KADMIN, principal)) } else { Ok(()) }
    }

    fn may_change(&self, operation: &'static str, principal: &Principal) -> Result<(), KdcError> {
        let primary = principal.primary();
        let is_reserved = RESERVED.iter().any(|name| primary.eq_ignore_ascii_case(name));
        if is_reserved || *principal.realm() != self.realm {
            let detail = "it is reserved".to_owned();
            return Err(KdcError::Denied { operation, principal: principal.clone(), detail });
        }
        Ok(())
    }
}

impl FakeRealm {
    /// What each KDC, the primary first, answers out of its database.
    fn each<T>(
        &self,
        answer: impl Fn(&Database) -> Result<T, String>,
    ) -> Vec<(String, Result<T, Unsaid>)> {
        let state = self.state();
        let ask = |database: &Database| {
            if state.gate_full {
                return Err(Unsaid::NotAsked("the gate is full".to_owned()));
            }
            if state.kdcs_down {
                return Err(Unsaid::Absent("does not answer".to_owned()));
            }
            answer(database).map_err(Unsaid::Unclear)
        };
        let first = ("kdc1".to_owned(), ask(&state.principals));
        let others = state.replicas.iter();
        let others = others.map(|(address, database)| (address.clone(), ask(database)));
        std::iter::once(first).chain(others).collect()
    }

    /// A reply was decrypted: it told the clock.
    fn tells_clock(&self) {
        let now = self.clock.now().boot;
        let mut state = self.state();
        if !state.kdcs_down {
            state.clock.1 = Some(now);
        }
    }
}

fn unavailable(server: &str, principal: &Principal) -> KdcError {
    let (server, detail) = (server.to_owned(), "does not answer".to_owned());
    KdcError::Unavailable { server, principal: principal.clone(), detail }
}

#[cfg(test)]
mod tests;
