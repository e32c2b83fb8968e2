//! The stable reasons of errors and denials.
//!
//! They are part of the API: `ErrorInfo.reason` carries one, the audit log too, and the
//! driver's message ends with it. A reason is never renamed; its message may be.

use std::fmt;

/// The domain of every `ErrorInfo` of this project.
pub const DOMAIN: &str = "krb-broker";

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why something was refused or failed.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The reason as the API writes it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// No certificate or one that no role's CA signed, and no token that is accepted.
    Unauthenticated = "UNAUTHENTICATED",
    /// The API server can't say now whose a token is: ask again.
    TokensUnavailable = "TOKENS_UNAVAILABLE",
    /// The caller's role may not call this method.
    RoleNotAllowed = "ROLE_NOT_ALLOWED",
    /// A field of the request is malformed.
    InvalidArgument = "INVALID_ARGUMENT",
    /// Nothing of that name or id is known, or the caller may not see it.
    NotFound = "NOT_FOUND",
    /// The caller's generation has passed: wipe, and attach anew.
    Fenced = "FENCED",
    /// The node has no attached session.
    NotAttached = "NOT_ATTACHED",
    /// The node, or the key of its certificate, is banned; an operator must unban it.
    Banned = "BANNED",
    /// The node is silent and taken for dead, and the brake holds what follows.
    Braked = "BRAKED",
    /// The broker's wall clock is in doubt: nothing is issued until it is believed again.
    ClockFault = "CLOCK_FAULT",
    /// The source of pods can't be read now.
    PodsUnavailable = "PODS_UNAVAILABLE",
    /// No such pod on the calling node.
    PodUnknown = "POD_UNKNOWN",
    /// The pod has finished or is past its deletion.
    PodFinished = "POD_FINISHED",
    /// The pod is a mirror pod, is owned by a node, or has no service account.
    PodNotEligible = "POD_NOT_ELIGIBLE",
    /// The pod's spec has no such volume of this driver.
    VolumeUnknown = "VOLUME_UNKNOWN",
    /// The volume's options can't be read.
    AskMalformed = "ASK_MALFORMED",
    /// The volume asks for nothing.
    AskEmpty = "ASK_EMPTY",
    /// The pod's annotations ask for something else than its volume, which alone counts.
    AskChanged = "ASK_CHANGED",
    /// What is asked for does not exist yet: certs, krblocal, token.
    NotSupported = "NOT_SUPPORTED",
    /// A container sets no runAsUser, or 0.
    RunAsUser = "RUN_AS_USER",
    /// A group that the pod sets is neither the account's nor one that the account is a member of.
    RunAsGroup = "RUN_AS_GROUP",
    /// No role account has this namespace.
    NamespaceNotEntitled = "NAMESPACE_NOT_ENTITLED",
    /// The namespace was deleted and made anew; an operator must accept it.
    NamespaceChanged = "NAMESPACE_CHANGED",
    /// The pod's user is not the namespace's account.
    AccountMismatch = "ACCOUNT_MISMATCH",
    /// The account's node labels are not on this node.
    NodeNotAllowed = "NODE_NOT_ALLOWED",
    /// The account may not have this service.
    ServiceNotEntitled = "SERVICE_NOT_ENTITLED",
    /// The service has no line in the broker's kadmin ACL.
    ServiceNotInAcl = "SERVICE_NOT_IN_ACL",
    /// The service's name is reserved.
    ServiceReserved = "SERVICE_RESERVED",
    /// The account may not have this host name.
    HostNotEntitled = "HOST_NOT_ENTITLED",
    /// No Service selects the pod, and nothing else gives it a host name.
    NoHostName = "NO_HOST_NAME",
    /// The account may not have tickets of that account.
    TicketNotEntitled = "TICKET_NOT_ENTITLED",
    /// Another account had this principal first.
    PrincipalTaken = "PRINCIPAL_TAKEN",
    /// The principal exists at the KDC and is not the broker's.
    PrincipalNotManaged = "PRINCIPAL_NOT_MANAGED",
    /// An operator has switched the principal off.
    PrincipalDisabled = "PRINCIPAL_DISABLED",
    /// What is to be resumed is no longer kept.
    ResumeLost = "RESUME_LOST",
    /// The account's limits are reached.
    LimitReached = "LIMIT_REACHED",
    /// The broker has no keytab of the role account.
    AccountKeyMissing = "ACCOUNT_KEY_MISSING",
    /// The KDC refuses the role account's keys.
    AccountKeyRejected = "ACCOUNT_KEY_REJECTED",
    /// The role account is disabled or expired at the KDC.
    AccountDisabled = "ACCOUNT_DISABLED",
    /// No KDC answers.
    KdcUnavailable = "KDC_UNAVAILABLE",
    /// kadmin does not answer.
    KadminUnavailable = "KADMIN_UNAVAILABLE",
    /// kadmin refuses the broker's own rights.
    KadminDenied = "KADMIN_DENIED",
    /// The KDC or kadmin failed in a way that a retry does not cure.
    KdcFailed = "KDC_FAILED",
    /// The gate's cap: ask again after the time given.
    GateFull = "GATE_FULL",
    /// The node asks too often: ask again after the time given.
    RateLimited = "RATE_LIMITED",
    /// The store or the audit log can't be written.
    StoreFailed = "STORE_FAILED",
    /// The broker is shutting down.
    ShuttingDown = "SHUTTING_DOWN",
    /// The keys of the principal are in no state to be issued: recovery, or numbers used up.
    KeysNotReady = "KEYS_NOT_READY",
    /// A defect of the broker.
    Internal = "INTERNAL",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
