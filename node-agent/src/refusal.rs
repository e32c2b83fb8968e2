//! What a refusal of the broker means: ask again or not, and what the pod's owner reads.
//!
//! The text ends in an event of the pod, so it is one line, short, and the same for the
//! same cause: kubelet merges events that say the same. Pure.

use std::time::Duration;

use krb_proto::reason::Reason;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// What is said while nothing can be had from the broker.
pub const BROKER_AWAY: &str = "the credential broker can't be reached from this node; kubelet tries again (BROKER_UNAVAILABLE)";

/// The longest text, in characters.
const MAX_TEXT: usize = 500;

/// A refusal, understood.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// For the pod's owner.
    pub text: String,
    /// Whether, and after which wait of the broker's own, to ask again.
    pub again: Again,
}

/// Whether to ask again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Again {
    /// The same question gets the same answer.
    Never,
    /// After the agent's own back-off.
    Soon,
    /// After at least this.
    After(Duration),
}

impl Refusal {
    /// A refusal that asking again does not change.
    pub fn lasting(message: &str, reason: &str) -> Self {
        Self { text: line(message, reason), again: Again::Never }
    }

    /// The broker can't be reached.
    pub fn away() -> Self {
        Self { text: BROKER_AWAY.to_owned(), again: Again::Soon }
    }

    /// What this status means.
    pub fn of(status: &Status) -> Self {
        let details = status.get_error_details();
        let Some(info) = details.error_info() else { return Self::without_reason(status) };
        let asked = details.retry_info().and_then(|retry| retry.retry_delay);
        let session = [Reason::NotAttached, Reason::Fenced].map(Reason::as_str);
        let again = match status.code() {
            Code::Unavailable | Code::ResourceExhausted => asked.map_or(Again::Soon, Again::After),
            _ if session.contains(&info.reason.as_str()) => Again::Soon,
            _ => Again::Never,
        };
        Self { text: line(status.message(), &info.reason), again }
    }

    /// A status that the broker's own code did not make: the connection's, or a proxy's.
    fn without_reason(status: &Status) -> Self {
        match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
                Self::away()
            }
            Code::ResourceExhausted => Self { text: BROKER_AWAY.to_owned(), again: Again::Soon },
            code => Self::lasting(
                &format!("the credential broker failed: {}", code.description()),
                Reason::Internal.as_str(),
            ),
        }
    }
}

/// One line: `<message> (<REASON>)`.
pub fn line(message: &str, reason: &str) -> String {
    let clean = |text: &str, most: usize| -> String {
        text.chars().map(|c| if is_hostile(c) { ' ' } else { c }).take(most).collect()
    };
    let reason = clean(reason, 64);
    let room = MAX_TEXT - 3 - reason.chars().count();
    format!("{} ({reason})", clean(message, room))
}

/// Characters that could break the line or what surrounds it: control characters, and those
/// that end a line or turn the direction of writing.
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    fn refused(code: Code, message: &str, reason: &str, wait: Option<Duration>) -> Refusal {
        let mut details = ErrorDetails::with_error_info(reason, "krb-broker", []);
        if wait.is_some() {
            details.set_retry_info(wait);
        }
        Refusal::of(&Status::with_error_details(code, message, details))
    }

    #[test]
    fn a_denial_is_passed_on_with_its_reason_and_not_asked_again() {
        let refusal = refused(
            Code::PermissionDenied,
            "tsfoo may not have the service nfs",
            "SERVICE_NOT_ENTITLED",
            None,
        );
        assert_eq!(refusal.text, "tsfoo may not have the service nfs (SERVICE_NOT_ENTITLED)");
        assert_eq!(refusal.again, Again::Never);
    }

    #[test]
    fn what_passes_by_itself_is_asked_again_and_the_brokers_wait_is_kept() {
        let wait = Duration::from_millis(1500);
        for (code, reason, wait, again) in [
            (Code::ResourceExhausted, "GATE_FULL", Some(wait), Again::After(wait)),
            (Code::Unavailable, "KDC_UNAVAILABLE", None, Again::Soon),
            (Code::FailedPrecondition, "NOT_ATTACHED", None, Again::Soon),
            (Code::FailedPrecondition, "FENCED", None, Again::Soon),
            (Code::FailedPrecondition, "NO_HOST_NAME", None, Again::Never),
            (Code::Internal, "INTERNAL", None, Again::Never),
        ] {
            assert_eq!(refused(code, "x", reason, wait).again, again, "{reason}");
        }
    }

    #[test]
    fn a_broken_connection_has_one_text_whatever_the_transport_says() {
        for status in [Status::unavailable("tcp connect error 10.0.0.1:7"), Status::unknown("h2")] {
            assert_eq!(Refusal::of(&status).text, BROKER_AWAY);
            assert_eq!(Refusal::of(&status).again, Again::Soon);
        }
        assert_eq!(Refusal::of(&Status::unimplemented("x")).again, Again::Never);
    }

    #[test]
    fn no_message_breaks_the_line_or_grows_long() {
        let text = line(&format!("a\nb\u{2028}\u{202e}\r{}", "é".repeat(10_000)), "R\n");
        assert_eq!(text.chars().count(), MAX_TEXT);
        assert!(text.starts_with("a b   é") && text.ends_with(" (R )"), "{text}");
    }
}
