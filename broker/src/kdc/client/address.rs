//! One KDC's address: how it answers, and the way to ask it.

use std::{
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use super::breaker::Breaker;
use crate::{
    clock::{Boottime, Now},
    kdc::{
        ClockReading, Health,
        gate::{Class, Gate, Lane},
    },
    krb5::{
        ccache::Credential,
        exchange::{Asks, ClockOffset},
        transport::{self, Limits, TransportError},
    },
};

/// A KDC as configured, and what is known of it.
#[derive(Debug)]
pub(super) struct Address {
    /// `host:port`.
    pub(super) name: String,
    state: Mutex<State>,
    /// The observer's TGT from this same KDC. Whoever refreshes it holds the lock meanwhile.
    pub(super) observer: tokio::sync::Mutex<Option<CachedTgt>>,
}

#[derive(Debug, Default)]
struct State {
    breaker: Breaker,
    last_error: Option<String>,
    last_success: Option<std::time::SystemTime>,
    reachable: bool,
    /// Its clock against ours, and when that was read.
    clock: Option<(ClockOffset, Boottime)>,
}

/// A TGT that is used for a part of its life.
#[derive(Debug)]
pub(super) struct CachedTgt {
    pub(super) credential: Credential,
    pub(super) until: Boottime,
}

impl Address {
    pub(super) fn new(name: String) -> Self {
        Self { name, state: Mutex::default(), observer: tokio::sync::Mutex::default() }
    }

    pub(super) fn may_try(&self, now: Boottime) -> bool {
        self.state().breaker.may_try(now)
    }

    /// It answered, be it with a refusal.
    pub(super) fn answered(&self, now: Now) {
        let mut state = self.state();
        state.breaker.succeeded();
        state.reachable = true;
        state.last_success = Some(now.wall);
    }

    /// It did not answer, or not in Kerberos.
    pub(super) fn failed(&self, now: Now, error: &str) {
        let mut state = self.state();
        state.breaker.failed(now.boot);
        state.reachable = false;
        state.last_error = Some(error.to_owned());
    }

    /// A decrypted reply told its clock.
    pub(super) fn tells(&self, offset: ClockOffset, now: Boottime) {
        self.state().clock = Some((offset, now));
    }

    /// Its clock against ours, where a decrypted reply has told it.
    pub(super) fn clock(&self) -> Option<ClockReading> {
        let (offset, at) = self.state().clock?;
        Some(ClockReading { kdc: self.name.clone(), offset, at })
    }

    pub(super) fn last_error(&self) -> String {
        self.state().last_error.clone().unwrap_or_default()
    }

    pub(super) fn health(&self) -> Health {
        let state = self.state();
        Health {
            address: self.name.clone(),
            reachable: state.reachable,
            last_error: state.last_error.clone(),
            last_success: state.last_success,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks one KDC, each transmission through the gate.
pub(super) struct Passage<'a> {
    pub(super) gate: &'a Gate,
    pub(super) class: Class,
    /// How long each transmission may wait at the gate.
    pub(super) wait: Duration,
    pub(super) kdc: SocketAddr,
    pub(super) limits: &'a Limits,
}

#[async_trait]
impl Asks for Passage<'_> {
    async fn ask(&self, request: &[u8]) -> Result<Vec<u8>, TransportError> {
        let waits = self.limits.udp_waits.as_slice();
        let Some((last, others)) = waits.split_last() else {
            return self.transmit(request, Vec::new()).await;
        };
        for wait in others {
            match self.transmit(request, vec![*wait]).await {
                Err(TransportError::TimedOut { over: "UDP", .. }) => {}
                result => return result,
            }
        }
        self.transmit(request, vec![*last]).await
    }
}

impl Passage<'_> {
    /// One transmission: one datagram, with TCP after it where that is too small.
    async fn transmit(
        &self,
        request: &[u8],
        udp_waits: Vec<Duration>,
    ) -> Result<Vec<u8>, TransportError> {
        let limits = Limits { udp_waits, ..self.limits.clone() };
        let work = transport::ask(self.kdc, request, &limits);
        match self.gate.pass(Lane::Kdc, self.class, self.wait, work).await {
            Ok(answer) => answer,
            Err(full) => Err(TransportError::NotSent {
                detail: full.to_string(),
                retry_after: full.retry_after,
            }),
        }
    }
}
