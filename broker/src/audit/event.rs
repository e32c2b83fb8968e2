//! What can happen, who makes it happen, and how it ends: the stable words of the log.

use std::{fmt, time::SystemTime};

use krb_proto::NodeName;
use serde::{Serialize, Serializer};

macro_rules! words {
    ($(#[$outer:meta])* $type:ident { $($(#[$doc:meta])* $name:ident = $text:literal,)* }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum $type {
            $($(#[$doc])* $name,)*
        }

        impl $type {
            /// Every one there is.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word as the log writes it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}

words! {
    /// What happened. A word is never renamed and never given another meaning.
    Event {
        /// A holder got a lease.
        LeaseGranted = "lease.granted",
        /// A pod was refused one.
        LeaseDenied = "lease.denied",
        /// A live lease's holder asked again and was answered.
        LeaseReissued = "lease.reissued",
        /// The holder, or the broker for a pod that is gone, gave it back.
        LeaseReleased = "lease.released",
        /// A lease's keys are being replaced.
        LeaseRevoking = "lease.revoking",
        /// They have been replaced.
        LeaseRevoked = "lease.revoked",
        /// An operator took leases away.
        RevocationAsked = "revocation.asked",
        /// A lease reached its entitlement's hard end.
        LeaseExpired = "lease.expired",
        /// A role account's ticket was fetched anew.
        TicketRefreshed = "ticket.refreshed",
        /// It could not be.
        TicketFailed = "ticket.failed",
        /// A holder is given a ticket.
        TicketDelivered = "ticket.delivered",
        /// kadmin says that a role account is disabled.
        AccountDisabled = "account.disabled",
        /// A role account whose keytab was handed over is not as it should be at the KDC.
        AccountUnsafe = "account.unsafe",
        /// It is as it should be again.
        AccountMended = "account.mended",
        /// A keyset was made and stored.
        KeyMade = "key.made",
        /// A principal was created at the KDC.
        KeyCreated = "key.created",
        /// A keyset is being handed to the holders.
        KeyDistributing = "key.distributing",
        /// It is being set at the KDC.
        KeyActivating = "key.activating",
        /// A KDC was seen to use it.
        KeyObserved = "key.observed",
        /// It is the principal's key.
        KeyCurrent = "key.current",
        /// The one before it is kept for tickets still out.
        KeyRetiring = "key.retiring",
        /// That one is being taken out of the keytabs.
        KeyDropping = "key.dropping",
        /// That one left every keytab.
        KeyPruned = "key.pruned",
        /// A holder is given the keys of a principal.
        KeyDelivered = "key.delivered",
        /// A number was given up and is never used again.
        KeyBurnt = "key.burnt",
        /// Holders of it have let a deadline pass.
        KeyOverdue = "key.overdue",
        /// A KDC has a key that the broker did not set.
        KeyDrift = "key.drift",
        /// An operator asked for a new key.
        KeyAsked = "key.asked",
        /// A principal is about to be switched off at the KDC.
        PrincipalLeaving = "principal.leaving",
        /// It is switched off there.
        PrincipalOff = "principal.off",
        /// It is used again.
        PrincipalReturning = "principal.returning",
        /// Nobody has held it for long.
        PrincipalIdle = "principal.idle",
        /// An operator switched it off, or on again.
        PrincipalSwitched = "principal.switched",
        /// An operator gave it to the broker.
        PrincipalAdopted = "principal.adopted",
        /// A step of the walk failed.
        KeyFailed = "key.failed",
        /// A node's agent attached.
        SessionAttached = "session.attached",
        /// It has not been heard of for a while.
        SessionSilent = "session.silent",
        /// It is taken for dead.
        SessionLost = "session.lost",
        /// It went away holding nothing.
        SessionLeft = "session.left",
        /// It said that it goes.
        SessionGoodbye = "session.goodbye",
        /// Too many agents came under one name.
        SessionRefused = "session.refused",
        /// An old generation was told to wipe.
        SessionFenced = "session.fenced",
        /// Something about a session that an operator should look at.
        SessionAlert = "session.alert",
        /// An operator gave a node up.
        NodeEvicted = "node.evicted",
        /// An operator banned a node, by name and key.
        NodeBanned = "node.banned",
        /// An operator ended a ban.
        NodeUnbanned = "node.unbanned",
        /// So many nodes or pods vanish at once that automatic revocation pauses.
        BrakeOn = "brake.on",
        /// It goes on.
        BrakeOff = "brake.off",
        /// An operator let some of what it held pass.
        BrakeReleased = "brake.released",
        /// The wall clock is in doubt: nothing that it ends ends by itself.
        ClockFault = "clock.fault",
        /// It is believed again.
        ClockCleared = "clock.cleared",
        /// The cluster does not keep its nodes apart.
        ClusterUnguarded = "cluster.unguarded",
        /// A namespace's uid was remembered at its first use.
        NamespacePinned = "namespace.pinned",
        /// An operator accepted a namespace that was made anew.
        NamespaceAccepted = "namespace.accepted",
        /// Entitlements were read and are in force.
        EntitlementsLoaded = "entitlements.loaded",
        /// Entitlements were read and are not.
        EntitlementsRefused = "entitlements.refused",
        /// A caller's role may not call what it called.
        CallDenied = "call.denied",
        /// The broker started.
        BrokerStarted = "broker.started",
        /// It stopped in good order.
        BrokerStopped = "broker.stopped",
        /// The store came up with less than was once committed.
        RecoveryStarted = "recovery.started",
        /// An operator ended the recovery.
        RecoveryDone = "recovery.done",
        /// The log's last line was torn by a crash; it was closed and left in place.
        RecoveryAuditTorn = "recovery.audit_torn",
        /// The log ends before what the store says was written.
        RecoveryAuditShort = "recovery.audit_short",
        /// The log's chain is broken, or is another than the store knows.
        RecoveryAuditForged = "recovery.audit_forged",
        /// A file of the log begins.
        AuditOpened = "audit.opened",
        /// Old files of the log are removed, by the retention that is configured.
        AuditRemoved = "audit.removed",
        /// The log could not be written for a while.
        AuditGap = "audit.gap",
    }
}

words! {
    /// How it ended.
    Outcome {
        /// Something was given.
        Granted = "granted",
        /// It was refused by a rule.
        Denied = "denied",
        /// It was done.
        Done = "done",
        /// It went wrong.
        Failed = "failed",
    }
}

impl Event {
    /// How such an event ends unless its writer says otherwise.
    pub fn usual_outcome(self) -> Outcome {
        match self {
            Self::LeaseGranted | Self::LeaseReissued => Outcome::Granted,
            Self::LeaseDenied
            | Self::CallDenied
            | Self::EntitlementsRefused
            | Self::SessionRefused => Outcome::Denied,
            Self::TicketFailed
            | Self::AccountDisabled
            | Self::KeyFailed
            | Self::KeyOverdue
            | Self::KeyDrift
            | Self::RecoveryAuditShort
            | Self::RecoveryAuditForged
            | Self::AuditGap => Outcome::Failed,
            _ => Outcome::Done,
        }
    }
}

/// Who made it happen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Actor {
    /// The broker by itself: `broker`.
    Broker,
    /// A node's agent: `node:NAME`.
    Node(NodeName),
    /// An operator, by the name of the certificate: `operator:SUBJECT`.
    Operator(String),
    /// A viewer, likewise: `viewer:SUBJECT`.
    Viewer(String),
    /// A caller that proved no role, by what it showed: `unknown:...`.
    Unknown(String),
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker => f.write_str("broker"),
            Self::Node(node) => write!(f, "node:{node}"),
            Self::Operator(subject) => write!(f, "operator:{subject}"),
            Self::Viewer(subject) => write!(f, "viewer:{subject}"),
            Self::Unknown(shown) => write!(f, "unknown:{shown}"),
        }
    }
}

/// Until when what was handed out can be misused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exposure {
    /// The end is not known yet: a keytab that holders still have.
    Open,
    /// Not after this.
    Until(SystemTime),
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn words_are_lower_case_with_dots_and_no_two_are_alike() {
        let words: BTreeSet<_> = Event::ALL.iter().map(|event| event.as_str()).collect();
        assert_eq!(words.len(), Event::ALL.len());
        let fits = |b: u8| b.is_ascii_lowercase() || matches!(b, b'.' | b'_');
        assert!(words.iter().all(|word| word.contains('.') && word.bytes().all(fits)));
    }
}
