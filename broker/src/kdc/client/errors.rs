//! What a failed exchange means: for the address, for the next one, for whoever asked.

use std::io;

use krb_proto::Principal;

use crate::{
    audit,
    kdc::{KdcError, Unsaid, gate::Lane},
    krb5::{exchange::ExchangeError, transport::TransportError},
};

/// KDC_ERR_SVC_UNAVAILABLE: this KDC can't, another may.
const SVC_UNAVAILABLE: i32 = 29;

/// What to do after a failed exchange with one KDC.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// It did not answer: try the next one.
    Absent,
    /// It answered, and a replica that lags answers the same: ask the primary once.
    MayLag,
    /// It answered: another would say the same.
    Final,
    /// It was not asked: the gate.
    NotAsked,
}

/// What to do after `error`.
fn judge(error: &ExchangeError) -> Verdict {
    match error {
        ExchangeError::Transport { source: TransportError::NotSent { .. }, .. } => {
            Verdict::NotAsked
        }
        // what can't be read or fails its checks may come from anybody
        ExchangeError::Transport { .. }
        | ExchangeError::Malformed { .. }
        | ExchangeError::Check { .. }
        | ExchangeError::Kdc { code: SVC_UNAVAILABLE, .. } => Verdict::Absent,
        ExchangeError::KeyRejected { .. }
        | ExchangeError::UnknownClient { .. }
        | ExchangeError::UnknownServer { .. } => Verdict::MayLag,
        _ => Verdict::Final,
    }
}

/// What came back from the KDC.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Heard {
    /// It was asked, and nothing came.
    Nothing,
    /// It was not asked.
    NotAsked,
    /// Something came, be it from the KDC or not.
    Something,
}

/// What came back where an exchange ended with `error`. What fails on the broker's own host
/// says nothing of the KDC.
fn heard(error: &ExchangeError) -> Heard {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable,
        NetworkUnreachable, TimedOut, UnexpectedEof,
    };
    let ExchangeError::Transport { source, .. } = error else { return Heard::Something };
    match source {
        TransportError::TimedOut { .. } => Heard::Nothing,
        TransportError::Io { source, .. } => match source.kind() {
            BrokenPipe | ConnectionAborted | ConnectionRefused | ConnectionReset
            | HostUnreachable | NetworkUnreachable | TimedOut | UnexpectedEof => Heard::Nothing,
            _ => Heard::NotAsked,
        },
        TransportError::TooLong { .. } => Heard::Something,
        TransportError::NotSent { .. } => Heard::NotAsked,
    }
}

/// An exchange with one KDC that gave no ticket.
#[derive(Debug)]
pub(super) struct Failure {
    /// What to do now.
    pub(super) verdict: Verdict,
    /// The seam's words for it.
    pub(super) error: KdcError,
    /// Whether the KDC answered with an error code that has no words of its own here.
    pub(super) unclear: bool,
    heard: Heard,
}

impl Failure {
    /// The exchange with `kdc` for `client` ended with `error`.
    pub(super) fn of(error: ExchangeError, kdc: &str, client: &Principal) -> Self {
        let verdict = judge(&error);
        let (unclear, heard) = (matches!(error, ExchangeError::Kdc { .. }), heard(&error));
        Self { verdict, error: kdc_error(error, verdict, kdc, client), unclear, heard }
    }

    /// Whether the KDC said that it has no such principal.
    pub(super) fn is_unknown(&self, principal: &Principal) -> bool {
        matches!(&self.error, KdcError::Unknown { principal: whom } if whom == principal)
    }

    /// What an observation says after it.
    pub(super) fn unsaid(&self) -> Unsaid {
        let why = self.error.to_string();
        match self.heard {
            Heard::Nothing => Unsaid::Absent(why),
            Heard::NotAsked => Unsaid::NotAsked(why),
            Heard::Something => Unsaid::Unclear(why),
        }
    }

    /// `kdc` can't be asked at all now, because of `detail`.
    pub(super) fn absent(kdc: &str, client: &Principal, detail: String) -> Self {
        let (server, principal) = (kdc.to_owned(), client.clone());
        let error = KdcError::Unavailable { server, principal, detail };
        Self { verdict: Verdict::Absent, error, unclear: false, heard: Heard::NotAsked }
    }
}

fn kdc_error(error: ExchangeError, verdict: Verdict, kdc: &str, client: &Principal) -> KdcError {
    let principal = client.clone();
    match error {
        ExchangeError::Transport {
            source: TransportError::NotSent { retry_after, .. }, ..
        } => KdcError::GateFull { lane: Lane::Kdc.name(), principal, retry_after },
        ExchangeError::KeyRejected { .. } => KdcError::KeyRejected { principal },
        ExchangeError::UnknownClient { .. } => KdcError::Unknown { principal },
        ExchangeError::UnknownServer { server } => KdcError::Unknown { principal: server },
        ExchangeError::Refused { .. } => KdcError::Refused { principal, detail: error.to_string() },
        other if verdict == Verdict::Absent => KdcError::Unavailable {
            server: kdc.to_owned(),
            principal,
            detail: audit::chain(&other),
        },
        other => {
            KdcError::Failed { operation: "a ticket", principal, detail: audit::chain(&other) }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn name(text: &str) -> Principal {
        text.parse().unwrap()
    }

    fn failed(source: TransportError) -> Failure {
        let parties = Box::new(crate::krb5::exchange::Parties {
            client: name("krb-broker@R"),
            server: name("HTTP/web@R"),
        });
        let error = ExchangeError::Transport { parties, source };
        Failure::of(error, "kdc2", &name("HTTP/web@R"))
    }

    fn io(kind: io::ErrorKind) -> TransportError {
        let kdc = ([192, 0, 2, 1], 88).into();
        TransportError::Io { kdc, over: "TCP", source: kind.into() }
    }

    #[test]
    fn only_a_kdc_that_was_asked_and_sent_nothing_is_absent() {
        let kdc = ([192, 0, 2, 1], 88).into();
        let silent = failed(TransportError::TimedOut { kdc, over: "UDP" });
        assert!(matches!(silent.unsaid(), Unsaid::Absent(_)));
        assert!(matches!(failed(io(io::ErrorKind::ConnectionRefused)).unsaid(), Unsaid::Absent(_)));

        let full = TransportError::NotSent {
            detail: "the gate is full".to_owned(),
            retry_after: Duration::from_secs(1),
        };
        assert!(matches!(failed(full).unsaid(), Unsaid::NotAsked(_)));
        let no_descriptors = failed(io(io::ErrorKind::Other));
        assert!(matches!(no_descriptors.unsaid(), Unsaid::NotAsked(_)));
        let left_alone = Failure::absent("kdc2", &name("HTTP/web@R"), "left alone".to_owned());
        assert!(matches!(left_alone.unsaid(), Unsaid::NotAsked(_)));

        let observer = name("krb-broker@R");
        let rejected = ExchangeError::KeyRejected { client: observer.clone(), tried: Vec::new() };
        let rejected = Failure::of(rejected, "kdc2", &observer);
        assert!(matches!(rejected.unsaid(), Unsaid::Unclear(_)));
    }
}
