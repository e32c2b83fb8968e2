//! How a principal is made and gets its keys at an MIT KDC.
//!
//! Create without a key, so that nothing is issued; then set the keys with their exact kvno,
//! which leaves nothing of the old ones; then set what setkey resets (a password's expiration),
//! and read all of it back. Each step may be repeated.
//!
//! kadmind fills what a modify leaves out from the ACL's restrictions, so a modify always names
//! every field that a restriction may be about, as it was read.

use std::{ffi::CString, sync::Arc};

use async_trait::async_trait;
use krb_proto::{Kvno, Principal};

use super::{
    MitAdmin, codes,
    described::{as_disabled, is_disabled, is_like, state, verify_attributes, wanted},
    ffi::{Change, Entry, KeyEntry},
    link::LinkError,
    reserved::reserved,
};
use crate::{
    clock::unix_seconds,
    kdc::{Abilities, Attributes, KdcError, KeyAdmin, PrincipalState, gate::Class},
    krb5::key::Keyset,
};

/// MIT keeps 16 bits and drops the others without a word.
const MAX_KVNO: Kvno = Kvno(u16::MAX as u32);

#[async_trait]
impl KeyAdmin for MitAdmin {
    fn for_class(&self, class: Class) -> Arc<dyn KeyAdmin> {
        Arc::new(Self { link: self.link.clone(), class })
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            exact_kvno: true,
            keeps_history: false,
            max_kvno: MAX_KVNO,
            acts_on_outstanding_tgt: false,
        }
    }

    async fn inspect(&self, principal: &Principal) -> Result<Option<PrincipalState>, KdcError> {
        let entry = self.entry(principal).await?;
        let now = unix_seconds(self.link.now().wall);
        Ok(entry.map(|entry| state(&entry, now)))
    }

    async fn create(&self, principal: &Principal, attributes: &Attributes) -> Result<(), KdcError> {
        self.may_change("add", principal)?;
        let policy = self.policy_name("add", principal)?;
        let change = Change { policy: Some(policy), ..wanted(attributes, 0) };
        let (name, made) = (principal.clone(), change.clone());
        let created = self.link.call(self.class, Arc::new(move |to| to.create(&name, &made))).await;
        match created {
            Err(LinkError::Kadm5(error)) if error.code == codes::DUP => {
                let entry = self.managed_entry(principal).await?;
                if !is_like(&entry, &change) {
                    self.describe(principal, attributes, &entry).await?;
                }
            }
            other => other.map_err(|error| self.link.explain(error, "add", principal))?,
        }
        let entry = self.managed_entry(principal).await?;
        verify_attributes(principal, &entry, attributes)
    }

    async fn activate(
        &self,
        principal: &Principal,
        keyset: &Keyset,
        attributes: &Attributes,
    ) -> Result<(), KdcError> {
        self.may_change("set the key of", principal)?;
        check_keyset(principal, keyset)?;
        let before = self.managed_entry(principal).await?;
        self.check_kvno(principal, keyset.kvno, &before)?;
        self.set_keys(principal, keyset).await?;
        self.describe(principal, attributes, &before).await?;
        let after = self.managed_entry(principal).await?;
        verify_kvno(principal, &after, keyset.kvno)?;
        verify_attributes(principal, &after, attributes)
    }

    async fn set_disabled(&self, principal: &Principal, disabled: bool) -> Result<(), KdcError> {
        let operation = if disabled { "disable" } else { "enable" };
        self.may_change(operation, principal)?;
        let before = self.managed_entry(principal).await?;
        if is_disabled(&before) == disabled {
            return Ok(());
        }
        let change = as_disabled(&before, disabled);
        let name = principal.clone();
        let set = self.link.call(self.class, Arc::new(move |to| to.modify(&name, &change))).await;
        set.map_err(|error| self.link.explain(error, operation, principal))?;
        let after = self.managed_entry(principal).await?;
        if is_disabled(&after) == disabled {
            return Ok(());
        }
        let detail = format!("kadmind has the attributes {:#x} afterwards", after.attributes);
        Err(failed(operation, principal, detail))
    }

    async fn delete(&self, principal: &Principal) -> Result<(), KdcError> {
        self.may_change("delete", principal)?;
        match self.managed_entry(principal).await {
            Ok(_) => {}
            Err(KdcError::Unknown { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
        let name = principal.clone();
        match self.link.call(self.class, Arc::new(move |to| to.delete(&name))).await {
            Err(LinkError::Kadm5(error)) if error.code == codes::UNK_PRINC => {}
            done => done.map_err(|error| self.link.explain(error, "delete", principal))?,
        }
        match self.entry(principal).await? {
            None => Ok(()),
            Some(_) => Err(failed("delete", principal, "it is still there afterwards")),
        }
    }
}

impl MitAdmin {
    /// Refuses what is never the broker's to change.
    fn may_change(&self, operation: &'static str, principal: &Principal) -> Result<(), KdcError> {
        let settings = self.link.settings();
        let (realm, admin) = (&settings.realm, &settings.admin_principal);
        match reserved(principal, realm, admin, &settings.allowed_reserved) {
            None => Ok(()),
            Some(why) => Err(KdcError::Denied {
                operation,
                principal: principal.clone(),
                detail: why.to_owned(),
            }),
        }
    }

    async fn entry(&self, principal: &Principal) -> Result<Option<Entry>, KdcError> {
        let name = principal.clone();
        match self.link.call(self.class, Arc::new(move |to| to.entry(&name))).await {
            Ok(entry) => Ok(Some(entry)),
            Err(LinkError::Kadm5(error)) if error.code == codes::UNK_PRINC => Ok(None),
            Err(error) => Err(self.link.explain(error, "inquire about", principal)),
        }
    }

    /// The principal, which must exist and carry the policy.
    async fn managed_entry(&self, principal: &Principal) -> Result<Entry, KdcError> {
        let policy = &self.link.settings().policy;
        let principal = principal.clone();
        match self.entry(&principal).await? {
            None => Err(KdcError::Unknown { principal }),
            Some(entry) if entry.policy.as_ref() == Some(policy) => Ok(entry),
            Some(_) => Err(KdcError::NotManaged { principal, policy: policy.clone() }),
        }
    }

    /// The KDC's kvno must be below `wanted`; or be it, left by an earlier try of the broker's.
    ///
    /// Which keys the KDC has can't be read without the right to extract; who changed the
    /// principal last can.
    fn check_kvno(
        &self,
        principal: &Principal,
        wanted: Kvno,
        before: &Entry,
    ) -> Result<(), KdcError> {
        let broker = self.link.settings().admin_principal.to_string();
        let ours = before.changed_by.as_deref() == Some(broker.as_str());
        let found = Kvno(before.kvno);
        if found < wanted || found == wanted && ours {
            Ok(())
        } else {
            Err(KdcError::KvnoInTheWay { principal: principal.clone(), found, wanted })
        }
    }

    async fn set_keys(&self, principal: &Principal, keyset: &Keyset) -> Result<(), KdcError> {
        let kvno = keyset.kvno.0;
        let keys: Vec<_> =
            keyset.keys.iter().map(|key| KeyEntry { kvno, key: key.clone() }).collect();
        let name = principal.clone();
        let set = self.link.call(self.class, Arc::new(move |to| to.set_keys(&name, &keys))).await;
        set.map_err(|error| self.link.explain(error, "set the key of", principal))
    }

    /// Sets the attributes. A disabled principal stays disabled: that is an administrator's word.
    async fn describe(
        &self,
        principal: &Principal,
        attributes: &Attributes,
        before: &Entry,
    ) -> Result<(), KdcError> {
        let change = wanted(attributes, before.attributes);
        let name = principal.clone();
        let set = self.link.call(self.class, Arc::new(move |to| to.modify(&name, &change))).await;
        set.map_err(|error| self.link.explain(error, "modify", principal))
    }

    fn policy_name(
        &self,
        operation: &'static str,
        principal: &Principal,
    ) -> Result<CString, KdcError> {
        CString::new(self.link.settings().policy.as_str())
            .map_err(|_| failed(operation, principal, "the policy's name has a NUL in it"))
    }
}

fn verify_kvno(principal: &Principal, entry: &Entry, set: Kvno) -> Result<(), KdcError> {
    if entry.kvno == set.0 {
        return Ok(());
    }
    let detail = format!("kadmind has kvno {} after {set} was set", entry.kvno);
    Err(failed("reading back", principal, detail))
}

/// Refuses keysets that kadmind would take and cut: it checks nothing.
fn check_keyset(principal: &Principal, keyset: &Keyset) -> Result<(), KdcError> {
    let wrong = if keyset.keys.is_empty() {
        "the keyset has no key"
    } else if keyset.kvno < Kvno::FIRST || keyset.kvno > MAX_KVNO {
        "the kvno is not 2 to 65535"
    } else {
        return Ok(());
    };
    Err(failed("set the key of", principal, wrong))
}

pub(super) fn failed(
    operation: &'static str,
    principal: &Principal,
    detail: impl Into<String>,
) -> KdcError {
    KdcError::Failed { operation, principal: principal.clone(), detail: detail.into() }
}
