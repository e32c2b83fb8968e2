//! Why an exchange gave no ticket.

use krb_proto::{Kvno, Principal};

use super::{CheckError, ClockOffset};
use crate::krb5::key::Enctype;
use crate::krb5::messages::{KrbError, Malformed, error_name};
use crate::krb5::transport::TransportError;

/// Why an exchange gave no ticket. What a KDC answered instead of one is not authenticated.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// No answer came.
    #[error("asking for a ticket of {client} for {server}")]
    Transport {
        /// For whom.
        client: Principal,
        /// For which server.
        server: Principal,
        /// What was tried.
        source: TransportError,
    },
    /// The answer is no Kerberos message, or not the right one.
    #[error("the answer to {client}, asking for {server}")]
    Malformed {
        /// For whom.
        client: Principal,
        /// For which server.
        server: Principal,
        /// What is wrong with it.
        source: Malformed,
    },
    /// The reply is not a good answer to the request.
    #[error("the reply to {client}, asking for {server}")]
    Check {
        /// For whom.
        client: Principal,
        /// For which server.
        server: Principal,
        /// Which check failed, and its two values.
        source: CheckError,
    },
    /// The KDC does not accept the client's key (24): it was changed elsewhere, maybe.
    #[error("the KDC does not accept the keys of {client} with the numbers {tried:?}")]
    KeyRejected {
        /// Whose.
        client: Principal,
        /// The kvnos that were tried, at most two.
        tried: Vec<Kvno>,
    },
    /// The client is disabled, expired, locked out or not allowed (1, 12, 18, 21, 23).
    #[error("{client} is refused: {} ({code}) {}", error_name(*code), detail.as_deref().unwrap_or(""))]
    Refused {
        /// Who.
        client: Principal,
        /// The KDC's code.
        code: i32,
        /// Its words.
        detail: Option<String>,
    },
    /// The KDC has no such client (6).
    #[error("the KDC knows no client {client}")]
    UnknownClient {
        /// Whom.
        client: Principal,
    },
    /// The KDC has no such server (7).
    #[error("the KDC knows no server {server}")]
    UnknownServer {
        /// Whom.
        server: Principal,
    },
    /// The KDC finds our time too far from its own (37), its own time tried too.
    #[error("the KDC of {server} says that its clock is {} s ahead of ours", offset.0)]
    Skew {
        /// Which KDC.
        server: Principal,
        /// What it says.
        offset: ClockOffset,
    },
    /// The KDC wants an enctype that the client has no key of.
    #[error("{client} has no key of the enctypes {offered:?} that the KDC wants")]
    NoKey {
        /// Who.
        client: Principal,
        /// What the KDC wants, by number.
        offered: Vec<i32>,
    },
    /// The KDC wants weaker enctypes than it has used for the client before.
    #[error("the KDC wants {offered:?} of {client}, below the {known} that it used before")]
    Downgrade {
        /// Who.
        client: Principal,
        /// What the KDC wants, by number.
        offered: Vec<i32>,
        /// What a decrypted reply had.
        known: Enctype,
    },
    /// Any other KRB-ERROR.
    #[error("{client} asked for {server}: {name} ({code}) {}", detail.as_deref().unwrap_or(""))]
    Kdc {
        /// For whom.
        client: Principal,
        /// For which server.
        server: Principal,
        /// The code.
        code: i32,
        /// Its name.
        name: &'static str,
        /// The KDC's words.
        detail: Option<String>,
    },
}

impl ExchangeError {
    /// What a KRB-ERROR means for a client that asks for a ticket for a server.
    pub(super) fn of_kdc(client: &Principal, server: &Principal, error: KrbError) -> Self {
        let (client, server) = (client.clone(), server.clone());
        let KrbError { code, text: detail, .. } = error;
        match code {
            6 => Self::UnknownClient { client },
            7 => Self::UnknownServer { server },
            1 | 12 | 18 | 21 | 23 => Self::Refused { client, code, detail },
            _ => Self::Kdc { client, server, code, name: error_name(code), detail },
        }
    }

    pub(super) fn malformed(
        client: &Principal,
        server: &Principal,
    ) -> impl FnOnce(Malformed) -> Self {
        let (client, server) = (client.clone(), server.clone());
        move |source| Self::Malformed { client, server, source }
    }

    pub(super) fn check(client: &Principal, server: &Principal) -> impl FnOnce(CheckError) -> Self {
        let (client, server) = (client.clone(), server.clone());
        move |source| Self::Check { client, server, source }
    }

    pub(super) fn transport(
        client: &Principal,
        server: &Principal,
    ) -> impl FnOnce(TransportError) -> Self {
        let (client, server) = (client.clone(), server.clone());
        move |source| Self::Transport { client, server, source }
    }

    /// Whether the same exchange may succeed with another KDC, or later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transport { .. } | Self::Malformed { .. } | Self::Check { .. } => true,
            Self::Kdc { code, .. } => matches!(code, 29 | 34 | 60),
            _ => false,
        }
    }
}
