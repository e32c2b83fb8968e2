//! A realm in memory: it keeps the promises of a KDC and of its administration, and can be told
//! to be away, slow, or to have replicas that lag.

mod record;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use krb_proto::{Kvno, Principal, Realm};

use self::record::Record;
use super::{
    Abilities, AccountKeys, Attributes, Health, Kdc, KdcError, KeyAdmin, Observation,
    PrincipalState,
};
use crate::{
    clock::{Clock, SystemEntropy},
    krb5::{
        ccache::Credential,
        key::{Enctype, Key, Keyset},
    },
};

/// The policy that the broker's principals carry here.
pub const POLICY: &str = "krb-broker";
/// What stands for kadmind's address.
const KADMIN: &str = "kadmin:fake";
/// Primaries that the administration refuses to the broker.
const RESERVED: [&str; 5] = ["krbtgt", "kadmin", "kiprop", "K", "host"];

/// A realm in memory.
pub struct FakeRealm {
    realm: Realm,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    principals: Database,
    /// What each KDC beyond the first has: a copy of some earlier time.
    replicas: BTreeMap<String, Database>,
    kdcs_down: bool,
    kadmin_down: bool,
    delay: Duration,
    tickets: u64,
}

type Database = BTreeMap<Principal, Record>;

impl FakeRealm {
    /// A realm with one KDC, called `kdc1`, and no principals.
    pub fn new(realm: Realm, clock: Arc<dyn Clock>) -> Self {
        Self { realm, clock, state: Mutex::default() }
    }

    /// Adds a role account as an administrator would: preauthentication, no tickets to it.
    pub fn add_account(&self, client: &Principal, keyset: Keyset) {
        let record = Record {
            keyset: Some(keyset),
            managed: false,
            attributes: Attributes { max_life: Duration::from_secs(36_000), client: true },
            disabled: false,
            requires_preauth: true,
            allows_svr: false,
        };
        self.state().principals.insert(client.clone(), record);
    }

    /// Adds a service that is not the broker's: it lacks the policy.
    pub fn add_foreign(&self, service: &Principal, keyset: Keyset) {
        let record = Record {
            keyset: Some(keyset),
            managed: false,
            attributes: Attributes { max_life: Duration::from_secs(36_000), client: true },
            disabled: false,
            requires_preauth: false,
            allows_svr: true,
        };
        self.state().principals.insert(service.clone(), record);
    }

    /// Replaces the keys of a principal behind the broker's back.
    pub fn tamper(&self, principal: &Principal, keyset: Keyset) {
        if let Some(record) = self.state().principals.get_mut(principal) {
            record.keyset = Some(keyset);
        }
    }

    /// Disables a principal, or enables it again.
    pub fn set_disabled(&self, principal: &Principal, disabled: bool) {
        if let Some(record) = self.state().principals.get_mut(principal) {
            record.disabled = disabled;
        }
    }

    /// Removes a principal.
    pub fn delete(&self, principal: &Principal) {
        self.state().principals.remove(principal);
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

    /// Takes the administration away, or brings it back.
    pub fn set_kadmin_down(&self, down: bool) {
        self.state().kadmin_down = down;
    }

    /// Makes every answer take this long on tokio's clock.
    pub fn set_delay(&self, delay: Duration) {
        self.state().delay = delay;
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

    /// Waits as long as answers take now.
    async fn delay(&self) {
        let delay = self.state().delay;
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

#[async_trait]
impl KeyAdmin for FakeRealm {
    fn abilities(&self) -> Abilities {
        Abilities {
            exact_kvno: true,
            keeps_history: false,
            max_kvno: Kvno(65_535),
            acts_on_outstanding_tgt: false,
        }
    }

    async fn inspect(&self, principal: &Principal) -> Result<Option<PrincipalState>, KdcError> {
        self.kadmin(principal).await?;
        Ok(self.state().principals.get(principal).map(Record::describe))
    }

    async fn create(&self, principal: &Principal, attributes: &Attributes) -> Result<(), KdcError> {
        self.may_change("add", principal)?;
        self.kadmin(principal).await?;
        let mut state = self.state();
        let record = state.principals.entry(principal.clone()).or_insert_with(Record::keyless);
        record.must_be_managed(principal)?;
        record.attributes = attributes.clone();
        Ok(())
    }

    async fn activate(
        &self,
        principal: &Principal,
        keyset: &Keyset,
        attributes: &Attributes,
    ) -> Result<(), KdcError> {
        self.may_change("set the key of", principal)?;
        check_keyset(principal, keyset)?;
        self.kadmin(principal).await?;
        let mut state = self.state();
        let record = state
            .principals
            .get_mut(principal)
            .ok_or_else(|| KdcError::Unknown { principal: principal.clone() })?;
        record.must_be_managed(principal)?;
        record.set_keys(principal, keyset)?;
        record.attributes = attributes.clone();
        Ok(())
    }
}

#[async_trait]
impl Kdc for FakeRealm {
    async fn tgt(&self, account: &AccountKeys, life: Duration) -> Result<Credential, KdcError> {
        self.delay().await;
        let client = &account.client;
        let mut state = self.state();
        if state.kdcs_down {
            return Err(unavailable("kdc1", client));
        }
        let record = state
            .principals
            .get(client)
            .ok_or_else(|| KdcError::Unknown { principal: client.clone() })?;
        record.may_be_client(account)?;
        let life = life.min(record.attributes.max_life);
        state.tickets += 1;
        let (now, number) = (self.clock.now().wall, state.tickets);
        Ok(Credential {
            client: client.clone(),
            server: Principal::krbtgt(&self.realm),
            session_key: Key::random(Enctype::Aes256Sha1, &SystemEntropy),
            authtime: now,
            starttime: now,
            endtime: now + life,
            renew_till: None,
            flags: 0x0060_0000, // initial, pre-authent
            ticket: format!("ticket {number} of {client}").into_bytes(),
        })
    }

    async fn observe(&self, service: &Principal) -> Vec<Observation> {
        self.delay().await;
        let state = self.state();
        let kvno = |database: &Database| {
            if state.kdcs_down {
                return Err("does not answer".to_owned());
            }
            Ok(database.get(service).and_then(|record| Some(record.keyset.as_ref()?.kvno)))
        };
        let first = Observation { kdc: "kdc1".to_owned(), kvno: kvno(&state.principals) };
        let others = state
            .replicas
            .iter()
            .map(|(address, database)| Observation { kdc: address.clone(), kvno: kvno(database) });
        std::iter::once(first).chain(others).collect()
    }

    fn health(&self) -> Vec<Health> {
        let state = self.state();
        let health = |address: &str, down: bool| Health {
            address: address.to_owned(),
            reachable: !down,
            last_error: down.then(|| "does not answer".to_owned()),
            last_success: None,
        };
        let replicas = state.replicas.keys().map(|address| health(address, state.kdcs_down));
        let ends = [health("kdc1", state.kdcs_down), health(KADMIN, state.kadmin_down)];
        ends.into_iter().chain(replicas).collect()
    }
}

fn check_keyset(principal: &Principal, keyset: &Keyset) -> Result<(), KdcError> {
    let fits = (Kvno::FIRST..=Kvno(65_535)).contains(&keyset.kvno);
    if fits && !keyset.keys.is_empty() {
        return Ok(());
    }
    let detail = "the keyset has no key, or no kvno of 2 to 65535".to_owned();
    Err(KdcError::Failed { operation: "set the key of", principal: principal.clone(), detail })
}

fn unavailable(server: &str, principal: &Principal) -> KdcError {
    let (server, detail) = (server.to_owned(), "does not answer".to_owned());
    KdcError::Unavailable { server, principal: principal.clone(), detail }
}

#[cfg(test)]
mod tests;
