//! The KDCs of the realm in memory.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use krb_proto::{Kvno, Principal};

use super::{Database, FakeRealm, KADMIN, record::Record, unavailable};
use crate::{
    clock::SystemEntropy,
    kdc::{
        AccountKeys, Checked, ClockReading, Finding, Health, Kdc, KdcError, Observation,
        gate::Class,
    },
    krb5::{
        ccache::Credential,
        key::{Enctype, Key, Keyset},
    },
};

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
        seen.map(|(kdc, found)| Checked {
            kdc,
            finding: found.unwrap_or_else(|why| Finding::Unsaid(why.to_string())),
        })
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
