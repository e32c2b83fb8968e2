//! Fetches tickets anew at half their life, and pushes them to every pod that has one.
//!
//! A KDC that refuses an account is no proof that it is disabled: its word is not
//! authenticated. kadmin's is. When kadmin says so, the account's cached tickets are given to
//! no further pod; those that pods have they keep until they end.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use krb_proto::{LeaseId, Principal};
use tokio_util::sync::CancellationToken;

use super::{TicketError, Tickets};
use crate::{
    audit::{Actor, Event, Record},
    clock::{Boottime, Now},
    entitlement::GrantedTicket,
    kdc::{KdcError, KeyAdmin, gate::Class},
    krb5::ccache::Credential,
    lease::share::SharedTicket,
    ledger::book::Book,
    material::Pusher,
};

/// How many times longer a disabled account is left alone than one whose KDC is away.
const DISABLED: u32 = 6;

/// What the task remembers.
#[derive(Default)]
struct Known {
    /// When a ticket could not be fetched, and how long it is left alone then.
    failed: HashMap<SharedTicket, (Boottime, Duration)>,
    /// The endtime of the ticket that was pushed last.
    pushed: HashMap<SharedTicket, SystemTime>,
    /// Accounts that kadmin says are disabled.
    disabled: HashSet<Principal>,
}

/// The task that keeps tickets fresh.
pub struct Refresher {
    /// The cache it keeps fresh.
    pub tickets: Arc<Tickets>,
    /// Says whether an account is disabled.
    pub admin: Arc<dyn KeyAdmin>,
    /// Who has which ticket.
    pub book: Book,
    /// The way to the nodes.
    pub pusher: Pusher,
    /// How often it looks.
    pub every: Duration,
}

impl Refresher {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut known = Known::default();
        while stop.run_until_cancelled(tokio::time::sleep(self.every)).await.is_some() {
            if stop.run_until_cancelled(self.round(&mut known)).await.is_none() {
                return;
            }
        }
    }

    async fn round(&self, known: &mut Known) {
        self.forget_unused(known);
        for (ticket, class) in self.due(known) {
            match self.tickets.ticket(&ticket, class).await {
                Ok(credential) => {
                    known.failed.remove(&ticket);
                    known.disabled.remove(&ticket.account.client);
                    if self.push(&ticket, &credential).await {
                        known.pushed.insert(ticket, credential.endtime);
                    } else {
                        let pause = self.tickets.times.retry_after;
                        known.failed.insert(ticket, (self.book.now().boot, pause));
                    }
                }
                Err(error) => self.failed(ticket, &error, known).await,
            }
        }
    }

    /// Tickets that holders have and that are due, or were fetched for a new pod and have not been pushed to
    /// the others, and how urgent each is. Those that failed a moment ago are left alone.
    fn due(&self, known: &Known) -> Vec<(SharedTicket, Class)> {
        let now = self.book.now();
        self.book.read(|ledger| {
            let due = |ticket: &&SharedTicket| {
                let latest = ledger.account(&ticket.account.login);
                let latest = latest.and_then(|account| account.latest_endtime);
                let stale = now.wall >= self.tickets.refresh_at(ticket, latest);
                let kept = self.tickets.kept(ticket).map(|kept| kept.endtime);
                let unpushed = kept.is_some() && known.pushed.get(*ticket) != kept.as_ref();
                !known.leaves_alone(ticket, now) && (stale || unpushed) && ledger.is_held(ticket)
            };
            let due = ledger.tickets_in_use().filter(due);
            due.map(|ticket| (ticket.clone(), self.class(ticket, now))).collect()
        })
    }

    /// A ticket with less than a quarter of its life left is late.
    fn class(&self, ticket: &SharedTicket, now: Now) -> Class {
        let left = self.tickets.kept(ticket).map(|kept| kept.endtime.duration_since(now.wall));
        match left {
            Some(Ok(left)) if left >= self.tickets.times.life / 4 => Class::Rotation,
            _ => Class::LateRefresh,
        }
    }

    /// Says whether what is at hand could be pushed: not while nothing can be recorded.
    async fn push(&self, ticket: &SharedTicket, credential: &Credential) -> bool {
        // Whoever was issued after it was fetched got it then.
        let fetched_at = self.tickets.fetched_at(ticket);
        let holders: Vec<LeaseId> = self.book.read(|ledger| {
            let older = |id: &LeaseId| {
                let lease = ledger.lease(id);
                lease.is_some_and(|lease| fetched_at.is_none_or(|at| lease.acquired_at < at))
            };
            ledger.live_with_ticket(ticket).into_iter().filter(older).collect()
        });
        let line = of(Event::TicketRefreshed, &ticket.account)
            .endtime(credential.endtime)
            .detail(&format!("pushed to {} leases", holders.len()));
        self.book.audit(line).await.is_ok() && self.pusher.push(&holders).await.is_ok()
    }

    async fn failed(&self, ticket: SharedTicket, error: &TicketError, known: &mut Known) {
        let retry_after = self.tickets.times.retry_after;
        let account = &ticket.account;
        let is_refused = matches!(error, TicketError::Kdc { source: KdcError::Refused { .. }, .. });
        let disabled = is_refused && self.is_disabled(&account.client).await;
        let (event, pause) = if disabled {
            (Event::AccountDisabled, retry_after * DISABLED)
        } else {
            (Event::TicketFailed, retry_after)
        };
        let is_news = if disabled {
            self.tickets.forget(&account.client);
            known.disabled.insert(account.client.clone())
        } else {
            known.disabled.remove(&account.client);
            true
        };
        if is_news {
            let text = crate::audit::chain(error);
            if disabled {
                tracing::warn!(client = %account.client, "kadmin says that the account is disabled");
            }
            let _ = self.book.audit_later(of(event, account).detail(&text)).await;
        }
        known.failed.insert(ticket, (self.book.now().boot, pause));
    }

    /// Whether kadmin says that the account is disabled. What it does not say is not so.
    async fn is_disabled(&self, client: &Principal) -> bool {
        match self.admin.for_class(Class::Housekeeping).inspect(client).await {
            Ok(state) => state.is_some_and(|state| state.disabled),
            Err(error) => {
                let error = crate::audit::chain(&error);
                tracing::debug!(%client, error, "kadmin does not say whether it is disabled");
                false
            }
        }
    }

    /// Forgets what no lease has any more.
    fn forget_unused(&self, known: &mut Known) {
        self.book.read(|ledger| {
            self.tickets.forget_unused(|ticket| ledger.is_in_use(ticket));
            known.failed.retain(|ticket, _| ledger.is_in_use(ticket));
            known.pushed.retain(|ticket, _| ledger.is_in_use(ticket));
        });
    }
}

impl Known {
    fn leaves_alone(&self, ticket: &SharedTicket, now: Now) -> bool {
        self.failed.get(ticket).is_some_and(|(at, pause)| now.boot.since(*at) < *pause)
    }
}

fn of(event: Event, account: &GrantedTicket) -> Record {
    Record::new(event, Actor::Broker).account(&account.login).principal(&account.client)
}
