//! What is checked at the KDC before the broker serves: its policy, and that its rights are not
//! too wide. Neither check changes anything.

use std::{ffi::CString, fmt, sync::Arc, time::Duration};

use krb_proto::{Kvno, Principal};

use super::{
    MitAdmin, codes,
    ffi::{Change, KeyEntry},
    link::LinkError,
};
use crate::{
    clock::{Entropy, SystemEntropy},
    kdc::KdcError,
    krb5::key::{Enctype, Key},
};

/// The shortest `minlife` that keeps holders of a keytab from changing its key themselves.
const LEAST_MIN_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);

/// What a check at start found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum StartupCheck {
    /// Nothing is in the way.
    Passed,
    /// The policy does not exist.
    PolicyMissing {
        /// Its name.
        policy: String,
    },
    /// kadmind does not let the broker read the policy: the broker's own principal does not
    /// carry it.
    PolicyUnreadable {
        /// Its name.
        policy: String,
    },
    /// The policy lets a key be changed too soon.
    MinLifeTooShort {
        /// Its name.
        policy: String,
        /// Its `minlife`.
        found: Duration,
        /// The least there has to be.
        least: Duration,
    },
    /// The ACL gives the broker a right that would let it take the realm over.
    TooWide {
        /// On what.
        principal: Principal,
        /// To do what.
        right: &'static str,
    },
}

impl fmt::Display for StartupCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HOW: &str = "`krb-broker acl` prints what to do";
        match self {
            Self::Passed => f.write_str("as it must be"),
            Self::PolicyMissing { policy } => {
                write!(f, "the policy {policy} does not exist at the KDC; {HOW}")
            }
            Self::PolicyUnreadable { policy } => write!(
                f,
                "the broker can't read the policy {policy}: its own principal must carry it; {HOW}"
            ),
            Self::MinLifeTooShort { policy, found, least } => write!(
                f,
                "the policy {policy} has a minlife of {} days, not {}: whoever holds a keytab \
                 could change its key; {HOW}",
                found.as_secs() / 86_400,
                least.as_secs() / 86_400
            ),
            Self::TooWide { principal, right } => write!(
                f,
                "the broker may {right} {principal}: its rights at kadmin are too wide; {HOW}, or \
                 set realm.allow_wide_rights"
            ),
        }
    }
}

impl MitAdmin {
    /// Whether the policy exists and has a `minlife` of ten years at least.
    ///
    /// # Errors
    /// When kadmind can't be asked.
    pub async fn check_policy(&self) -> Result<StartupCheck, KdcError> {
        let settings = self.link.settings();
        let (policy, admin) = (settings.policy.clone(), &settings.admin_principal);
        let name = CString::new(policy.as_str()).map_err(|_| KdcError::Failed {
            operation: "read the policy",
            principal: admin.clone(),
            detail: "its name has a NUL in it".to_owned(),
        })?;
        let read = self.link.call(self.class, Arc::new(move |to| to.policy_min_life(&name))).await;
        match read {
            Ok(found) => Ok(judge_min_life(policy, found)),
            Err(LinkError::Kadm5(error)) if error.code == codes::UNK_POLICY => {
                Ok(StartupCheck::PolicyMissing { policy })
            }
            Err(LinkError::Kadm5(error)) if error.code == codes::AUTH_GET => {
                Ok(StartupCheck::PolicyUnreadable { policy })
            }
            Err(error) => Err(self.link.explain(error, "read the policy", admin)),
        }
    }

    /// Whether kadmind refuses the broker what it must not be able to do: set the keys of an
    /// administrator, change `krbtgt/*`.
    ///
    /// Asked so that nothing happens whatever the answer: keys of two kvnos in one request are
    /// invalid, and the principal to be changed does not exist.
    ///
    /// # Errors
    /// When kadmind can't be asked, or answers what tells neither.
    pub async fn check_rights(&self) -> Result<StartupCheck, KdcError> {
        let settings = self.link.settings();
        let admin = settings.admin_principal.clone();
        let set_keys = self.may_set_keys(&admin).await?;
        let absent = Principal::new(&["krbtgt", "krb-broker-probe"], &settings.realm)
            .expect("both are letters and dashes");
        let modify = self.may_modify(&absent).await?;
        Ok(match (set_keys, modify) {
            (true, _) => StartupCheck::TooWide { principal: admin, right: "set the key of" },
            (_, true) => StartupCheck::TooWide { principal: absent, right: "modify" },
            (false, false) => StartupCheck::Passed,
        })
    }

    /// Whether kadmind would let the broker set keys of `principal`, asked with an invalid set.
    async fn may_set_keys(&self, principal: &Principal) -> Result<bool, KdcError> {
        let entropy: &dyn Entropy = &SystemEntropy; // random, should kadmind ever take them
        let key = |enctype| Key::random(enctype, entropy);
        let keys = vec![
            KeyEntry { kvno: Kvno::FIRST.0, key: key(Enctype::Aes256Sha1) },
            KeyEntry { kvno: Kvno::FIRST.next().0, key: key(Enctype::Aes128Sha1) },
        ];
        let name = principal.clone();
        let asked = self.link.call(self.class, Arc::new(move |to| to.set_keys(&name, &keys))).await;
        self.is_granted(asked, codes::AUTH_SETKEY, codes::BAD_KVNO, "set the key of", principal)
    }

    /// Whether kadmind would let the broker change the absent `principal`.
    async fn may_modify(&self, principal: &Principal) -> Result<bool, KdcError> {
        let change = Change {
            policy: None,
            max_life: 0,
            max_renewable_life: 0,
            pw_expiration: 0,
            attributes: 0,
        };
        let name = principal.clone();
        let asked = self.link.call(self.class, Arc::new(move |to| to.modify(&name, &change))).await;
        self.is_granted(asked, codes::AUTH_MODIFY, codes::UNK_PRINC, "modify", principal)
    }

    /// Whether the answer means that the right is there: `narrow` says no, `wide` and success yes.
    fn is_granted(
        &self,
        asked: Result<(), LinkError>,
        narrow: i64,
        wide: i64,
        operation: &'static str,
        principal: &Principal,
    ) -> Result<bool, KdcError> {
        match asked {
            Ok(()) => Ok(true),
            Err(LinkError::Kadm5(error)) if error.code == narrow => Ok(false),
            Err(LinkError::Kadm5(error)) if error.code == wide => Ok(true),
            Err(error) => Err(self.link.explain(error, operation, principal)),
        }
    }
}

fn judge_min_life(policy: String, seconds: i64) -> StartupCheck {
    let found = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    if found >= LEAST_MIN_LIFE {
        StartupCheck::Passed
    } else {
        StartupCheck::MinLifeTooShort { policy, found, least: LEAST_MIN_LIFE }
    }
}
