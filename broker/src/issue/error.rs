//! Why nothing was issued, and the stable reason of each cause.

use std::{fmt, time::Duration};

use krb_proto::{NodeName, PodRef, PodUid, Principal, reason::Reason};

use crate::{
    entitlement::Denial,
    kdc::KdcError,
    keys::walker::WalkError,
    krb5::keytab::UnfitEntries,
    lease::Ended,
    ledger::sessions::NotServed,
    pods::PodsUnavailable,
    store::committer::CommitError,
    tickets::{AccountKeyError, TicketError},
};

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The node is not served now.
    #[error("node {node} is not served")]
    Node {
        /// Which.
        node: NodeName,
        /// Why.
        source: NotServed,
    },
    /// The node asks for more than any kubelet does.
    #[error("node {node} asks for too many leases")]
    TooFast {
        /// Which.
        node: NodeName,
        /// When there is room for one more.
        retry_after: Duration,
    },
    /// The source of pods can't be read.
    #[error("looking up pod {pod}")]
    Pods {
        /// Which.
        pod: PodUid,
        /// Why.
        source: PodsUnavailable,
    },
    /// A rule is missing.
    #[error("{denial}")]
    Denied {
        /// Which.
        denial: Denial,
    },
    /// The keys can't be had now.
    #[error("the keys of {principal}")]
    Keys {
        /// Whose.
        principal: Principal,
        /// Why.
        source: WalkError,
    },
    /// A ticket can't be had now.
    #[error("the ticket of {client}")]
    Ticket {
        /// Whose.
        client: Principal,
        /// Why.
        source: TicketError,
    },
    /// It took longer than a mount may.
    #[error("{slow} took longer than leases.issue_within")]
    TooLate {
        /// What it waited for.
        slow: Slow,
    },
    /// The keys can't stand in one keytab.
    #[error("the keytab")]
    Keytab {
        /// Why.
        source: UnfitEntries,
    },
    /// The lease ended while its keys were made.
    #[error("the lease ended meanwhile")]
    Ended {
        /// How.
        source: Ended,
    },
    /// The store or the audit log can't be written.
    #[error("recording the lease")]
    Store {
        /// Why.
        source: CommitError,
    },
}

/// That nothing was issued.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct NotIssued {
    /// Why.
    #[source]
    pub error: IssueError,
    /// The pod, where it is bound to the node that asked: its owner may be told.
    pub pod: Option<PodRef>,
}

/// What an issue was waiting for when its time was over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Slow {
    /// kadmin, for keys.
    Keys,
    /// A KDC, for tickets.
    Tickets,
    /// The broker's own records.
    Records,
}

impl fmt::Display for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keys => "making keys at kadmin",
            Self::Tickets => "getting tickets from the KDC",
            Self::Records => "recording the lease",
        })
    }
}

impl From<CommitError> for IssueError {
    fn from(source: CommitError) -> Self {
        Self::Store { source }
    }
}

impl From<Denial> for IssueError {
    fn from(denial: Denial) -> Self {
        Self::Denied { denial }
    }
}

impl IssueError {
    /// The stable reason, for the caller and the audit log.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Node { source, .. } => of_node(*source),
            Self::Ended { .. } => Reason::NotAttached,
            Self::TooFast { .. } => Reason::RateLimited,
            Self::Pods { .. } => Reason::PodsUnavailable,
            Self::Denied { denial } => denial.reason,
            Self::Keys { source: WalkError::Kdc { source, .. }, .. } => of_kdc(source),
            Self::Keys {
                source:
                    WalkError::Numbers { .. } | WalkError::Recovery { .. } | WalkError::NotReady { .. },
                ..
            } => Reason::KeysNotReady,
            Self::Keys { source: WalkError::Store { .. }, .. } | Self::Store { .. } => {
                Reason::StoreFailed
            }
            Self::Ticket {
                source: TicketError::Keys { source: AccountKeyError::NotMade { .. }, .. },
                ..
            } => Reason::KeysNotReady,
            Self::Ticket { source: TicketError::Keys { .. }, .. } => Reason::AccountKeyMissing,
            Self::Ticket { source: TicketError::Kdc { source, .. }, .. } => of_kdc(source),
            Self::Keytab { .. } => Reason::Internal,
            Self::TooLate { slow: Slow::Keys, .. } => Reason::KadminUnavailable,
            Self::TooLate { slow: Slow::Tickets, .. } => Reason::KdcUnavailable,
            Self::TooLate { slow: Slow::Records, .. } => Reason::StoreFailed,
        }
    }
}

fn of_node(why: NotServed) -> Reason {
    match why {
        NotServed::Fenced => Reason::Fenced,
        NotServed::NotAttached | NotServed::Replaced => Reason::NotAttached,
        NotServed::Banned => Reason::Banned,
        NotServed::Braked => Reason::Braked,
        NotServed::ClockFault => Reason::ClockFault,
    }
}

fn of_kdc(error: &KdcError) -> Reason {
    match error {
        KdcError::Unavailable { server, .. } if server.starts_with("kadmin") => {
            Reason::KadminUnavailable
        }
        KdcError::Unavailable { .. } => Reason::KdcUnavailable,
        KdcError::GateFull { .. } => Reason::GateFull,
        KdcError::Denied { .. } => Reason::KadminDenied,
        KdcError::NotManaged { .. } | KdcError::NotRecorded { .. } => Reason::PrincipalNotManaged,
        KdcError::KeyRejected { .. } => Reason::AccountKeyRejected,
        KdcError::Refused { .. } => Reason::AccountDisabled,
        KdcError::Unknown { .. } | KdcError::KvnoInTheWay { .. } | KdcError::Failed { .. } => {
            Reason::KdcFailed
        }
    }
}
