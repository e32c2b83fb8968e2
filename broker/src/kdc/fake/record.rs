//! One principal of the realm in memory.

use std::time::Duration;

use krb_proto::Principal;

use super::POLICY;
use crate::{
    kdc::{AccountKeys, Attributes, KdcError, PrincipalState},
    krb5::key::Keyset,
};

#[derive(Clone)]
pub(super) struct Record {
    pub(super) keyset: Option<Keyset>,
    pub(super) managed: bool,
    pub(super) attributes: Attributes,
    pub(super) disabled: bool,
}

impl Record {
    pub(super) fn keyless() -> Self {
        Self {
            keyset: None,
            managed: true,
            attributes: Attributes::service(Duration::ZERO, false),
            disabled: false,
        }
    }

    pub(super) fn must_be_managed(&self, principal: &Principal) -> Result<(), KdcError> {
        if self.managed {
            return Ok(());
        }
        Err(KdcError::NotManaged { principal: principal.clone(), policy: POLICY.to_owned() })
    }

    pub(super) fn set_keys(
        &mut self,
        principal: &Principal,
        keyset: &Keyset,
    ) -> Result<(), KdcError> {
        match &self.keyset {
            Some(there) if there.kvno > keyset.kvno => Err(in_the_way(principal, there, keyset)),
            Some(there) if there.kvno == keyset.kvno && there.keys != keyset.keys => {
                Err(in_the_way(principal, there, keyset))
            }
            _ => {
                self.keyset = Some(keyset.clone());
                Ok(())
            }
        }
    }

    pub(super) fn may_be_client(&self, account: &AccountKeys) -> Result<(), KdcError> {
        let principal = account.client.clone();
        if self.disabled {
            let detail = "the client's credentials have been revoked (18)".to_owned();
            return Err(KdcError::Refused { principal, detail });
        }
        if !self.attributes.is_client() {
            let detail = "the password has expired (23)".to_owned();
            return Err(KdcError::Refused { principal, detail });
        }
        let known = self.keyset.iter().flat_map(|keyset| &keyset.keys);
        let theirs: Vec<_> = account.keysets.iter().flat_map(|keyset| &keyset.keys).collect();
        if known.into_iter().any(|key| theirs.contains(&key)) {
            Ok(())
        } else {
            Err(KdcError::KeyRejected { principal })
        }
    }

    /// The keys that tickets to it are made with: MIT says of a disabled server that there is
    /// none, and of a role account that it takes no tickets (27).
    pub(super) fn as_server(&self) -> Result<Option<&Keyset>, String> {
        if self.disabled {
            return Ok(None);
        }
        if self.attributes.is_role_account() {
            return Err("the server takes no plain tickets (27)".to_owned());
        }
        Ok(self.keyset.as_ref())
    }

    pub(super) fn describe(&self) -> PrincipalState {
        PrincipalState {
            kvno: self.keyset.as_ref().map(|keyset| keyset.kvno),
            policy: self.managed.then(|| POLICY.to_owned()),
            max_life: self.attributes.max_life,
            max_renewable_life: Duration::ZERO,
            password_expired: !self.attributes.is_client(),
            disabled: self.disabled,
            requires_preauth: self.attributes.is_role_account(),
            allows_svr: !self.attributes.is_role_account(),
        }
    }
}

fn in_the_way(principal: &Principal, there: &Keyset, wanted: &Keyset) -> KdcError {
    let (found, wanted) = (there.kvno, wanted.kvno);
    KdcError::KvnoInTheWay { principal: principal.clone(), found, wanted }
}
