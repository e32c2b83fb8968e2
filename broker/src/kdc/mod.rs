//! The way to a realm: its KDCs and its administration, behind the gate.
//!
//! - [`gate`]: the one function that every request passes.
//! - [`KeyAdmin`]: what the key walk asks of a realm's administration; [`mit`] is the adapter.
//! - [`Kdc`]: tickets for role accounts, and the key that each KDC uses; [`client`] asks them.
//!
//! A request counts at the gate as what it is for. `for_class` gives the same realm, seen
//! with the eyes of one [`gate::Class`]: a revocation calls `admin.for_class(Revocation)`.
//!
//! Nothing of kadm5 or of ASN.1 shows through.

mod attributes;
pub mod client;
#[cfg(any(test, feature = "testing"))]
pub mod contract;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod gate;
pub mod mit;
mod seen;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use krb_proto::{Kvno, Principal};

use self::gate::Class;
pub use self::{
    attributes::{Attributes, PrincipalRole, PrincipalState},
    seen::{Checked, ClockReading, Finding, Health, Observation, Unsaid},
};
use crate::krb5::{ccache::Credential, key::Keyset};

/// What a kind of KDC can do with keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Abilities {
    /// A keyset gets exactly the kvno that is asked for.
    pub exact_kvno: bool,
    /// Old keys stay at the KDC after a new one is set.
    pub keeps_history: bool,
    /// The largest kvno it keeps.
    pub max_kvno: Kvno,
    /// Disabling a client stops the tickets it already has.
    pub acts_on_outstanding_tgt: bool,
}

/// What the key walk asks of a realm's administration.
///
/// Every call may be repeated: a create of what is there already and like it is no error. What
/// was changed is read back before a call succeeds. Reserved names are refused (`Denied`), and
/// so is what does not carry the broker's policy (`NotManaged`).
#[async_trait]
pub trait KeyAdmin: Send + Sync {
    /// The same administration, whose requests count as `class` at the gate.
    fn for_class(&self, class: Class) -> Arc<dyn KeyAdmin>;

    /// What this kind of KDC can do.
    fn abilities(&self) -> Abilities;

    /// How the principal is now; `None` when there is none.
    async fn inspect(&self, principal: &Principal) -> Result<Option<PrincipalState>, KdcError>;

    /// Makes the principal, without a key, under the broker's policy.
    ///
    /// # Errors
    /// `NotManaged` when it exists and does not carry the policy.
    async fn create(&self, principal: &Principal, attributes: &Attributes) -> Result<(), KdcError>;

    /// Makes `keyset` the principal's only keys, with its exact kvno and `attributes`, and
    /// reads both back.
    ///
    /// Setting the same kvno again is no error: a keyset never changes, so it is a repetition.
    /// A disabled principal stays disabled.
    ///
    /// # Errors
    /// `KvnoInTheWay` when the KDC has a higher kvno; `NotManaged` when the principal lacks the policy;
    /// `Unknown` when there is none.
    async fn activate(
        &self,
        principal: &Principal,
        keyset: &Keyset,
        attributes: &Attributes,
    ) -> Result<(), KdcError>;

    /// Sees that the KDC issues no tickets for the principal, or does again; all else stays.
    /// Tickets that are outside stay good: see [`Abilities::acts_on_outstanding_tgt`].
    ///
    /// # Errors
    /// `Unknown` when there is none; `NotManaged` when it lacks the policy.
    async fn set_disabled(&self, principal: &Principal, disabled: bool) -> Result<(), KdcError>;

    /// Removes the principal. One that is not there is no error.
    ///
    /// Whoever makes it again must not use a number that it had: the KDC forgets them.
    ///
    /// # Errors
    /// `NotManaged` when it lacks the policy.
    async fn delete(&self, principal: &Principal) -> Result<(), KdcError>;
}

/// The key of a role account, and what was learnt about it.
#[derive(Clone, Debug)]
pub struct AccountKeys {
    /// The account's principal.
    pub client: Principal,
    /// Its keysets, in any order.
    pub keysets: Vec<Keyset>,
}

/// What the broker asks of the KDCs themselves.
#[async_trait]
pub trait Kdc: Send + Sync {
    /// The same KDCs, asked by requests that count as `class` at the gate.
    fn for_class(&self, class: Class) -> Arc<dyn Kdc>;

    /// A ticket-granting ticket for a role account, by an AS exchange.
    async fn tgt(&self, account: &AccountKeys, life: Duration) -> Result<Credential, KdcError>;

    /// The kvno that each configured KDC uses for `service`, each asked on its own.
    async fn observe(&self, service: &Principal) -> Vec<Observation>;

    /// Whether each configured KDC, asked on its own, uses `keyset` for `service`: it is asked
    /// for a ticket, and the ticket is opened with the held key.
    async fn check(&self, service: &Principal, keyset: &Keyset) -> Vec<Checked>;

    /// Whether each configured KDC, asked on its own, accepts the newest key of a role account.
    /// No other key is tried.
    async fn observe_account(&self, account: &AccountKeys) -> Vec<Observation>;

    /// Each KDC's clock, where a decrypted reply has told it, and when.
    fn clocks(&self) -> Vec<ClockReading>;

    /// Reads the clock of the first KDC that answers, by one exchange that it must decrypt. It
    /// counts as housekeeping. What comes of it is in [`Kdc::clocks`].
    async fn probe_clock(&self);

    /// How each address answered lately.
    fn health(&self) -> Vec<Health>;
}

/// Why a KDC or its administration did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum KdcError {
    /// No KDC answered, or kadmind is away. It may be back soon.
    #[error("{server} does not answer for {principal}: {detail}")]
    Unavailable {
        /// What was tried: addresses, `kadmin`.
        server: String,
        /// For whom.
        principal: Principal,
        /// What the last attempt said.
        detail: String,
    },
    /// The gate's cap.
    #[error("the gate to the {lane} lane is full for {principal}")]
    GateFull {
        /// `kdc` or `kadmin`.
        lane: &'static str,
        /// For whom.
        principal: Principal,
        /// When to try again.
        retry_after: Duration,
    },
    /// kadmin refuses the broker this operation on this principal.
    #[error("kadmin refuses to {operation} {principal}: {detail}")]
    Denied {
        /// `add`, `modify`, `set the key of`, `inquire about`.
        operation: &'static str,
        /// On whom.
        principal: Principal,
        /// What kadmin said.
        detail: String,
    },
    /// The principal exists and is not the broker's.
    #[error("{principal} exists and does not carry the policy {policy}")]
    NotManaged {
        /// Whom.
        principal: Principal,
        /// The policy that the broker's principals carry.
        policy: String,
    },
    /// The principal has keys at the KDC that the broker's store knows nothing of.
    #[error("{principal} has keys at the KDC that the broker has no record of")]
    NotRecorded {
        /// Whom.
        principal: Principal,
    },
    /// The KDC has no such principal.
    #[error("{principal} is unknown at the KDC")]
    Unknown {
        /// Whom.
        principal: Principal,
    },
    /// The KDC's kvno is not below the one that was to be set.
    #[error("{principal} has kvno {found} at the KDC, so {wanted} can't be set")]
    KvnoInTheWay {
        /// Whose.
        principal: Principal,
        /// The KDC's kvno.
        found: Kvno,
        /// The broker's.
        wanted: Kvno,
    },
    /// The KDC does not accept the account's key (24): it was changed elsewhere.
    #[error("the KDC does not accept the key of {principal}")]
    KeyRejected {
        /// Whose.
        principal: Principal,
    },
    /// The account is disabled, expired or locked out (12, 18, 23, 1).
    #[error("{principal} gets no ticket: {detail}")]
    Refused {
        /// Who.
        principal: Principal,
        /// The KDC's word.
        detail: String,
    },
    /// Anything else: a reply that fails its checks, a library that can't be used.
    #[error("{operation} for {principal}: {detail}")]
    Failed {
        /// What was tried.
        operation: &'static str,
        /// For whom.
        principal: Principal,
        /// What went wrong.
        detail: String,
    },
}

impl KdcError {
    /// Whether the same request may succeed later with nobody's help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::GateFull { .. })
    }
}
