//! A refusal at admission, in the words of the person who applies the pod.
//!
//! One line: each missing rule after the field it concerns and before its stable reason. It
//! tells of the entitlements of the request's own namespace and of nothing else.

use krb_proto::reason::Reason;

use crate::entitlement::{Denial, ask::OPTIONS, rules::Rules};

/// The longest message, in characters; what is cut is said to be cut.
const MAX_MESSAGE: usize = 2_000;

/// Why something is refused: one denial at least.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    denials: Vec<Denial>,
    prefix: String,
}

impl Refusal {
    /// The refusal for these denials.
    pub fn new(denials: Vec<Denial>, rules: &Rules) -> Self {
        Self { denials, prefix: rules.annotation("") }
    }

    /// What the person reads: `ts/services: ... (REASON); ...`.
    pub fn message(&self) -> String {
        let lines: Vec<String> = self.denials.iter().map(|denial| self.line(denial)).collect();
        let message = lines.join("; ");
        match message.char_indices().nth(MAX_MESSAGE) {
            Some((end, _)) => format!("{} ... and more", &message[..end]),
            None => message,
        }
    }

    /// The stable reasons, in the order of the message.
    pub fn reasons(&self) -> Vec<Reason> {
        self.denials.iter().map(|denial| denial.reason).collect()
    }

    fn line(&self, denial: &Denial) -> String {
        let (prefix, message, reason) = (&self.prefix, &denial.message, denial.reason);
        let names_option = OPTIONS.iter().any(|option| {
            message.strip_prefix(option).is_some_and(|rest| rest.starts_with([':', ' ']))
        });
        match place(reason) {
            _ if names_option => format!("{prefix}{message} ({reason})"),
            Place::Annotation(option) => format!("{prefix}{option}: {message} ({reason})"),
            Place::Field(field) => format!("{field}: {message} ({reason})"),
            Place::None => format!("{message} ({reason})"),
        }
    }
}

/// What of a pod a reason concerns.
enum Place {
    Annotation(&'static str),
    Field(&'static str),
    None,
}

fn place(reason: Reason) -> Place {
    match reason {
        Reason::ServiceNotEntitled | Reason::ServiceNotInAcl | Reason::ServiceReserved => {
            Place::Annotation("services")
        }
        Reason::TicketNotEntitled => Place::Annotation("prestashtkt"),
        Reason::HostNotEntitled => Place::Field("host names"),
        Reason::RunAsUser | Reason::AccountMismatch => Place::Field("runAsUser"),
        Reason::RunAsGroup => Place::Field("securityContext"),
        Reason::NamespaceNotEntitled => Place::Field("namespace"),
        Reason::VolumeUnknown => Place::Field("volumes"),
        _ => Place::None,
    }
}
