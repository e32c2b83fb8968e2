//! Why an exchange gave no ticket.

use std::fmt;

use krb_proto::{Kvno, Principal};

use super::{CheckError, ClockOffset};
use crate::krb5::key::Enctype;
use crate::krb5::messages::{KrbError, Malformed, error_name};
use crate::krb5::transport::TransportError;

/// Why an exchange gave no ticket. What a KDC answered instead of one is not authenticated.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// No answer came.
    #[error("asking for {parties}")]
    Transport {
        /// For whom, for which server.
        parties: Box<Parties>,
        /// What was tried.
        source: TransportError,
    },
    /// The answer is no Kerberos message, or not the right one.
    #[error("the answer to a request for {parties}")]
    Malformed {
        /// For whom, for which server.
        parties: Box<Parties>,
        /// What is wrong with it.
        source: Malformed,
    },
    /// The reply is not a good answer to the request.
    #[error("the reply to a request for {parties}")]
    Check {
        /// For whom, for which server.
        parties: Box<Parties>,
        /// Which check failed, and its two values.
        source: CheckError,
    },
    /// The KDC does not accept the client's key (24): it was changed elsewhere, maybe.
    #[error("the KDC does not accept the keys of {client} with the kvnos {}", listed(tried))]
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
    /// The client has no key of the enctypes that the KDC wants, or no key at all.
    #[error("{client} has no key of the enctypes {offered:?} that the KDC wants")]
    NoKey {
        /// Who.
        client: Principal,
        /// What the KDC wants, by number; empty when it was not asked.
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
    #[error("asking for {parties}: {name} ({code}) {}", detail.as_deref().unwrap_or(""))]
    Kdc {
        /// For whom, for which server.
        parties: Box<Parties>,
        /// The code.
        code: i32,
        /// Its name.
        name: &'static str,
        /// The KDC's words.
        detail: Option<String>,
    },
}

fn listed(kvnos: &[Kvno]) -> String {
    kvnos.iter().map(Kvno::to_string).collect::<Vec<_>>().join(", ")
}

/// For whom a ticket was asked, and for which server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Parties {
    /// Whose ticket.
    pub client: Principal,
    /// The server it is for.
    pub server: Principal,
}

impl Parties {
    fn new(client: &Principal, server: &Principal) -> Box<Self> {
        Box::new(Self { client: client.clone(), server: server.clone() })
    }
}

impl fmt::Display for Parties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a ticket of {} for {}", self.client, self.server)
    }
}

impl ExchangeError {
    /// What a KRB-ERROR means for a client that asks for a ticket for a server.
    pub(super) fn of_kdc(client: &Principal, server: &Principal, error: KrbError) -> Self {
        let parties = Parties::new(client, server);
        let KrbError { code, text: detail, .. } = error;
        match code {
            6 => Self::UnknownClient { client: parties.client },
            7 => Self::UnknownServer { server: parties.server },
            1 | 12 | 18 | 21 | 23 => Self::Refused { client: parties.client, code, detail },
            _ => Self::Kdc { parties, code, name: error_name(code), detail },
        }
    }

    pub(super) fn malformed(
        client: &Principal,
        server: &Principal,
    ) -> impl FnOnce(Malformed) -> Self {
        let parties = Parties::new(client, server);
        move |source| Self::Malformed { parties, source }
    }

    pub(super) fn check(client: &Principal, server: &Principal) -> impl FnOnce(CheckError) -> Self {
        let parties = Parties::new(client, server);
        move |source| Self::Check { parties, source }
    }

    pub(super) fn transport(
        client: &Principal,
        server: &Principal,
    ) -> impl FnOnce(TransportError) -> Self {
        let parties = Parties::new(client, server);
        move |source| Self::Transport { parties, source }
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
