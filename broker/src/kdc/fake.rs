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
    Abilities, AccountKeys, Attributes, Checked, ClockReading, Finding, Health, Kdc, KdcError,
    KeyAdmin, Observation, PrincipalState, gate::Class,
};
use crate::{
    clock::{Boottime, Clock, SystemEntropy},
    krb5::{
        ccache::Credential,
        exchange::ClockOffset,
        key::{Enctype, Key, Keyset},
    },
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
    ) -> Vec<(String, Result<T, String>)> {
        let state = self.state();
        let ask = |database: &Database| {
            if state.kdcs_down { Err("does not answer".to_owned()) } else { answer(database) }
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

#[async_trait]
impl KeyAdmin for FakeRealm {
    fn for_class(&self, class: Class) -> Arc<dyn KeyAdmin> {
        Arc::new(Self { class, ..self.clone() })
    }

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

    async fn set_disabled(&self, principal: &Principal, disabled: bool) -> Result<(), KdcError> {
        self.may_change(if disabled { "disable" } else { "enable" }, principal)?;
        self.kadmin(principal).await?;
        let mut state = self.state();
        let record = state
            .principals
            .get_mut(principal)
            .ok_or_else(|| KdcError::Unknown { principal: principal.clone() })?;
        record.must_be_managed(principal)?;
        record.disabled = disabled;
        Ok(())
    }

    async fn delete(&self, principal: &Principal) -> Result<(), KdcError> {
        self.may_change("delete", principal)?;
        self.kadmin(principal).await?;
        let mut state = self.state();
        if let Some(record) = state.principals.get(principal) {
            record.must_be_managed(principal)?;
            state.principals.remove(principal);
        }
        Ok(())
    }
}

#[async_trait]
impl Kdc for FakeRealm {
    fn for_class(&self, class: Class) -> Arc<dyn Kdc> {
        Arc::new(Self { class, ..self.clone() })
    }

    async fn tgt(&self, account: &AccountKeys, life: Duration) -> Result<Credential, KdcError> {
        self.delay().await;
        self.tells_clock();
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
        self.tells_clock();
        let kvno = |database: &Database| {
            let keyset = database.get(service).map_or(Ok(None), Record::as_server)?;
            Ok(keyset.map(|keyset| keyset.kvno))
        };
        let seen = self.each(kvno).into_iter();
        seen.map(|(kdc, kvno)| Observation { kdc, kvno }).collect()
    }

    async fn check(&self, service: &Principal, keyset: &Keyset) -> Vec<Checked> {
        self.delay().await;
        self.tells_clock();
        let finding = |database: &Database| {
            let found = database.get(service).map_or(Ok(None), Record::as_server)?;
            Ok(match found {
                None => Finding::Unknown,
                Some(found) if found.kvno < keyset.kvno => Finding::Older(found.kvno),
                Some(found) if found.kvno == keyset.kvno && found.keys == keyset.keys => {
                    Finding::Same
                }
                Some(found) => Finding::Foreign(found.kvno),
            })
        };
        let seen = self.each(finding).into_iter();
        seen.map(|(kdc, found)| Checked { kdc, finding: found.unwrap_or_else(Finding::Unsaid) })
            .collect()
    }

    async fn observe_account(&self, account: &AccountKeys) -> Vec<Observation> {
        self.delay().await;
        self.tells_clock();
        let newest = account.keysets.iter().max_by_key(|keyset| keyset.kvno);
        let kvno = |database: &Database| {
            let newest = newest.ok_or("the account has no key to ask with")?;
            let Some(record) = database.get(&account.client) else { return Ok(None) };
            let keysets = vec![newest.clone()];
            match record.may_be_client(&AccountKeys { keysets, ..account.clone() }) {
                Ok(()) => Ok(Some(newest.kvno)),
                Err(KdcError::KeyRejected { .. }) => Ok(Some(Kvno(newest.kvno.0 - 1))),
                Err(error) => Err(error.to_string()),
            }
        };
        let seen = self.each(kvno).into_iter();
        seen.map(|(kdc, kvno)| Observation { kdc, kvno }).collect()
    }

    fn clocks(&self) -> Vec<ClockReading> {
        let (offset, at) = self.state().clock;
        at.map(|at| ClockReading { kdc: "kdc1".to_owned(), offset, at }).into_iter().collect()
    }

    async fn probe_clock(&self) {
        Self { class: Class::Housekeeping, ..self.clone() }.delay().await;
        self.tells_clock();
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
