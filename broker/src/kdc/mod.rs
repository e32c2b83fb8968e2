//! The way to a realm: its KDCs and its administration, behind the gate.
//!
//! - [`gate`]: the one function that every request passes.
//! - [`KeyAdmin`]: what the key walk asks of a realm's administration; [`mit`] is the adapter.
//! - [`Kdc`]: tickets for role accounts, and the kvno that each KDC uses; [`client`] asks them.
//!
//! Nothing of kadm5 or of ASN.1 shows through.

pub mod client;
#[cfg(any(test, feature = "testing"))]
pub mod contract;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod gate;
pub mod mit;

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use krb_proto::{Kvno, Principal};

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

/// How a principal whose keys leave the broker is to be at the KDC.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attributes {
    /// The longest life of its tickets.
    pub max_life: Duration,
    /// Whether it may get tickets as a client. If not, its password is expired.
    pub client: bool,
}

/// How a principal is at the KDC.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PrincipalState {
    /// The number of its newest key; `None` while it has no key.
    pub kvno: Option<Kvno>,
    /// The name of its policy.
    pub policy: Option<String>,
    /// The longest life of its tickets.
    pub max_life: Duration,
    /// The longest life of its renewable tickets.
    pub max_renewable_life: Duration,
    /// Whether its password has expired at the time it was asked: it is no client then.
    pub password_expired: bool,
    /// Whether the KDC issues no tickets for it.
    pub disabled: bool,
    /// Whether the KDC asks it, as a server, for preauthenticated tickets.
    pub requires_preauth: bool,
    /// Whether the KDC issues tickets to it as a server.
    pub allows_svr: bool,
}

/// What the key walk asks of a realm's administration.
///
/// Every call may be repeated: a create of what is there already and like it is no error.
#[async_trait]
pub trait KeyAdmin: Send + Sync {
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
    ///
    /// # Errors
    /// `KvnoInTheWay` when the KDC has a higher kvno; `NotManaged` when the principal lacks the policy.
    async fn activate(
        &self,
        principal: &Principal,
        keyset: &Keyset,
        attributes: &Attributes,
    ) -> Result<(), KdcError>;
}

/// The key of a role account, and what was learnt about it.
#[derive(Clone, Debug)]
pub struct AccountKeys {
    /// The account's principal.
    pub client: Principal,
    /// Its keysets, as its keytab file has them.
    pub keysets: Vec<Keyset>,
}

/// What one KDC answered when it was asked for a ticket for a service.
#[derive(Clone, Debug)]
pub struct Observation {
    /// The KDC's address, as configured.
    pub kdc: String,
    /// The kvno of the ticket; `None` when it knows no such service.
    pub kvno: Result<Option<Kvno>, String>,
}

/// What the broker asks of the KDCs themselves.
#[async_trait]
pub trait Kdc: Send + Sync {
    /// A ticket-granting ticket for a role account, by an AS exchange.
    async fn tgt(&self, account: &AccountKeys, life: Duration) -> Result<Credential, KdcError>;

    /// The kvno that each configured KDC uses for `service`, each asked on its own.
    async fn observe(&self, service: &Principal) -> Vec<Observation>;

    /// How each address answered lately.
    fn health(&self) -> Vec<Health>;
}

/// How one address answered lately.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Health {
    /// `host:port`, for kadmin with the prefix `kadmin:`.
    pub address: String,
    /// Whether the last attempt was answered.
    pub reachable: bool,
    /// What the last failed attempt said.
    pub last_error: Option<String>,
    /// When it last answered.
    pub last_success: Option<SystemTime>,
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
