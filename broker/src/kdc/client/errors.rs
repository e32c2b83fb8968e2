//! What a failed exchange means: for the address, for the next one, for whoever asked.

use krb_proto::Principal;

use crate::{
    audit,
    kdc::{KdcError, gate::Lane},
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

/// An exchange with one KDC that gave no ticket.
#[derive(Debug)]
pub(super) struct Failure {
    /// What to do now.
    pub(super) verdict: Verdict,
    /// The seam's words for it.
    pub(super) error: KdcError,
    /// Whether the KDC answered with an error code that has no words of its own here.
    pub(super) unclear: bool,
}

impl Failure {
    /// The exchange with `kdc` for `client` ended with `error`.
    pub(super) fn of(error: ExchangeError, kdc: &str, client: &Principal) -> Self {
        let verdict = judge(&error);
        let unclear = matches!(error, ExchangeError::Kdc { .. });
        Self { verdict, error: kdc_error(error, verdict, kdc, client), unclear }
    }

    /// Whether the KDC said that it has no such principal.
    pub(super) fn is_unknown(&self, principal: &Principal) -> bool {
        matches!(&self.error, KdcError::Unknown { principal: whom } if whom == principal)
    }

    /// `kdc` can't be asked at all now, because of `detail`.
    pub(super) fn absent(kdc: &str, client: &Principal, detail: String) -> Self {
        let (server, principal) = (kdc.to_owned(), client.clone());
        let error = KdcError::Unavailable { server, principal, detail };
        Self { verdict: Verdict::Absent, error, unclear: false }
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
