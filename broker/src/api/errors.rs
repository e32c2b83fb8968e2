//! The one place where a failure becomes a gRPC code.
//!
//! Each status has an `ErrorInfo` with a stable reason, and a `RetryInfo` where it pays to
//! try again. What a caller reads is one line that tells it what to do; causes go to the
//! log.

use std::{collections::HashMap, fmt::Display, time::Duration};

use krb_proto::reason::{DOMAIN, Reason};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{
    issue::{IssueError, Slow},
    kdc::KdcError,
    keys::walker::WalkError,
    ledger::sessions::NotServed,
    store::committer::CommitError,
    tickets::TicketError,
};

/// A status with its reason.
pub fn status(code: Code, reason: Reason, message: String) -> Status {
    let details =
        ErrorDetails::with_error_info(reason.as_str(), DOMAIN, HashMap::<String, String>::new());
    Status::with_error_details(code, message, details)
}

/// A status that says when to try again.
pub(super) fn try_again(code: Code, reason: Reason, message: String, after: Duration) -> Status {
    let mut details =
        ErrorDetails::with_error_info(reason.as_str(), DOMAIN, HashMap::<String, String>::new());
    details.set_retry_info(Some(after));
    Status::with_error_details(code, message, details)
}

/// A field of the request is malformed.
pub fn invalid(field: &str, problem: impl Display) -> Status {
    status(Code::InvalidArgument, Reason::InvalidArgument, format!("{field} {problem}"))
}

impl From<CommitError> for Status {
    fn from(_: CommitError) -> Self {
        let message = "the broker can't record anything now".to_owned();
        try_again(Code::Unavailable, Reason::StoreFailed, message, SOON)
    }
}

impl From<&IssueError> for Status {
    fn from(error: &IssueError) -> Self {
        let reason = error.reason();
        match code(error) {
            Code::Unavailable => {
                try_again(Code::Unavailable, reason, message(error), worth_a_try(error))
            }
            Code::ResourceExhausted => {
                try_again(Code::ResourceExhausted, reason, message(error), retry_after(error))
            }
            code => status(code, reason, message(error)),
        }
    }
}

/// When a failure that passes by itself is worth another try.
const SOON: Duration = Duration::from_secs(1);

/// When what waits for an operator or a clock is worth another try.
const LATER: Duration = Duration::from_secs(10);

fn worth_a_try(error: &IssueError) -> Duration {
    match error {
        IssueError::Node { source: NotServed::Braked | NotServed::ClockFault, .. } => LATER,
        _ => SOON,
    }
}

fn code(error: &IssueError) -> Code {
    match error {
        IssueError::Denied { denial } if denial.reason == Reason::LimitReached => {
            Code::FailedPrecondition
        }
        IssueError::Denied { .. } => Code::PermissionDenied,
        IssueError::Node { source: NotServed::Banned, .. } => Code::PermissionDenied,
        IssueError::Node { source: NotServed::Braked | NotServed::ClockFault, .. } => {
            Code::Unavailable
        }
        IssueError::Node { .. } | IssueError::Ended { .. } => Code::FailedPrecondition,
        IssueError::TooFast { .. } => Code::ResourceExhausted,
        IssueError::Keytab { .. } => Code::Internal,
        IssueError::Pods { .. } | IssueError::TooLate { .. } | IssueError::Store { .. } => {
            Code::Unavailable
        }
        IssueError::Ticket { source: TicketError::Keys { .. }, .. } => Code::FailedPrecondition,
        IssueError::Ticket { source: TicketError::Kdc { source, .. }, .. }
        | IssueError::Keys { source: WalkError::Kdc { source, .. }, .. } => of_kdc(source),
        IssueError::Keys { source: WalkError::Store { .. }, .. } => Code::Unavailable,
        IssueError::Keys {
            source:
                WalkError::Numbers { .. } | WalkError::Recovery { .. } | WalkError::NotReady { .. },
            ..
        } => Code::FailedPrecondition,
    }
}

fn of_kdc(error: &KdcError) -> Code {
    match error {
        KdcError::Unavailable { .. } => Code::Unavailable,
        KdcError::GateFull { .. } => Code::ResourceExhausted,
        KdcError::Failed { .. } => Code::Internal,
        _ => Code::FailedPrecondition,
    }
}

fn retry_after(error: &IssueError) -> Duration {
    match error {
        IssueError::TooFast { retry_after, .. } => *retry_after,
        IssueError::Keys {
            source: WalkError::Kdc { source: KdcError::GateFull { retry_after, .. }, .. },
            ..
        }
        | IssueError::Ticket {
            source: TicketError::Kdc { source: KdcError::GateFull { retry_after, .. }, .. },
            ..
        } => *retry_after,
        _ => SOON,
    }
}

/// What the pod's owner reads: the same text for the same cause, and no addresses.
fn message(error: &IssueError) -> String {
    match error {
        IssueError::Denied { denial } => denial.message.clone(),
        IssueError::Node { source, .. } => source.to_string(),
        IssueError::TooFast { .. } => {
            "this node asks for too many leases; kubelet tries again".to_owned()
        }
        IssueError::Pods { source, .. } => source.told.to_owned(),
        IssueError::TooLate { slow, .. } => too_late(*slow).to_owned(),
        IssueError::Ended { .. } => "the pod's lease ended meanwhile".to_owned(),
        IssueError::Store { .. } => "the broker can't record the pod's lease now".to_owned(),
        IssueError::Keytab { .. } => "the pod's keytab can't be written".to_owned(),
        IssueError::Ticket { client, source: TicketError::Keys { .. } } => {
            format!("the broker has no keys of the role account {client}; ask its administrator")
        }
        IssueError::Ticket { client, source: TicketError::Kdc { source, .. } } => {
            of_account(client, source)
        }
        IssueError::Keys { principal, source: WalkError::Kdc { source, .. } } => {
            of_service(principal, source)
        }
        IssueError::Keys { principal, .. } => format!("no key can be made for {principal} now"),
    }
}

fn too_late(slow: Slow) -> &'static str {
    match slow {
        Slow::Keys => "kadmin took too long to make the pod's keys",
        Slow::Tickets => "the KDC took too long to give the pod's tickets",
        Slow::Records => "the broker took too long to record the pod's lease",
    }
}

fn of_account(client: &impl Display, error: &KdcError) -> String {
    match error {
        KdcError::Unavailable { .. } => format!("no KDC answers for {client} now"),
        KdcError::GateFull { .. } => "too many requests to the KDC; kubelet tries again".to_owned(),
        KdcError::KeyRejected { .. } => {
            format!("the KDC does not accept the broker's key of {client}; ask its administrator")
        }
        KdcError::Refused { .. } => {
            format!("the KDC gives {client} no ticket: it is disabled or expired")
        }
        KdcError::Unknown { .. } => format!("the KDC does not know {client}"),
        _ => format!("the ticket of {client} can't be had"),
    }
}

fn of_service(principal: &impl Display, error: &KdcError) -> String {
    match error {
        KdcError::Unavailable { .. } => format!("kadmin does not answer for {principal} now"),
        KdcError::GateFull { .. } => "too many requests to kadmin; kubelet tries again".to_owned(),
        KdcError::Denied { .. } => {
            format!("kadmin does not let the broker manage {principal}; ask its administrator")
        }
        KdcError::NotManaged { .. } | KdcError::NotRecorded { .. } => {
            format!("{principal} exists already and is not managed by the broker")
        }
        _ => format!("the key of {principal} can't be made"),
    }
}
