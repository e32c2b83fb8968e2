//! What the KDCs were seen to say. Each is asked on its own, so each has a line of its own.

use std::time::SystemTime;

use krb_proto::Kvno;

use crate::{clock::Boottime, krb5::exchange::ClockOffset};

/// Which key one KDC was seen to use.
#[derive(Clone, Debug)]
pub struct Observation {
    /// The KDC's address, as configured.
    pub kdc: String,
    /// For a service, the kvno of a ticket to it; `None` when the KDC knows no such service.
    ///
    /// For a role account, which takes no tickets, the newest kvno where the KDC accepts that
    /// key. A lower number says that it does not (24): the KDC lags, and its own number is not
    /// known, since every wrong key that is tried counts towards a lockout.
    pub kvno: Result<Option<Kvno>, Unsaid>,
}

/// Why it is not known which key a KDC uses. Each carries what happened, in a few words.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unsaid {
    /// It was asked, and nothing came back.
    #[error("{0}")]
    Absent(String),
    /// It was not asked: the gate is full, its name is not found, it is left alone for a while.
    /// That says nothing of the KDC.
    #[error("it was not asked: {0}")]
    NotAsked(String),
    /// Something came back that does not tell: a refusal, an observer's key that is not
    /// accepted, a clock that is off, a reply that fails its checks.
    #[error("{0}")]
    Unclear(String),
}

/// What one KDC's ticket for a service says of the key that the broker holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Checked {
    /// The KDC's address, as configured.
    pub kdc: String,
    /// What was found.
    pub finding: Finding,
}

/// Whether a KDC uses the key that the broker holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Finding {
    /// Its ticket opens with the held key.
    Same,
    /// Its ticket has a lower kvno: it lags.
    Older(Kvno),
    /// Its ticket has the held number and does not open with the held key, or has a higher
    /// number: the key was changed behind the broker's back.
    ///
    /// A ticket is not authenticated on its way from the KDC (whoever can change packets can
    /// put another in its place), so kadmin should be asked before much is done about it.
    Foreign(Kvno),
    /// It knows no such principal, or issues no tickets to it: MIT says the same of both.
    Unknown,
    /// It did not answer, or not with a ticket that tells.
    Unsaid(String),
}

/// A KDC's clock against the broker's, as a reply proved that only the KDC can have made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClockReading {
    /// The KDC's address, as configured.
    pub kdc: String,
    /// How far the KDC's clock is ahead.
    pub offset: ClockOffset,
    /// When it was read.
    pub at: Boottime,
}

/// How one address answered lately.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Health {
    /// `host:port`, for kadmin with the prefix `kadmin:`.
    pub address: String,
    /// Whether the last attempt was answered.
    pub reachable: bool,
    /// What the last failed attempt said.
    pub last_error: Option<String>,
    /// When it last answered.
    pub last_success: Option<SystemTime>,
}
