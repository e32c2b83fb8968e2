//! The administration of the realm in memory.

use std::sync::Arc;

use async_trait::async_trait;
use krb_proto::{Kvno, Principal};

use super::{FakeRealm, record::Record};
use crate::{
    kdc::{Abilities, Attributes, KdcError, KeyAdmin, PrincipalState, gate::Class},
    krb5::key::Keyset,
};

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

fn check_keyset(principal: &Principal, keyset: &Keyset) -> Result<(), KdcError> {
    let fits = (Kvno::FIRST..=Kvno(65_535)).contains(&keyset.kvno);
    if fits && !keyset.keys.is_empty() {
        return Ok(());
    }
    let detail = "the keyset has no key, or no kvno of 2 to 65535".to_owned();
    Err(KdcError::Failed { operation: "set the key of", principal: principal.clone(), detail })
}
