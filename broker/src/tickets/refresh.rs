//! Fetches tickets anew at half their life, and pushes them to every pod that has one.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use krb_proto::LeaseId;
use tokio_util::sync::CancellationToken;

use super::{TicketError, Tickets};
use crate::{
    audit::{Actor, Event, Record},
    clock::Boottime,
    entitlement::{GrantedTicket, Login},
    krb5::ccache::Credential,
    ledger::book::Book,
    material::Pusher,
};

/// What the task remembers.
#[derive(Default)]
struct Known {
    /// When an account's ticket could not be fetched.
    failed: HashMap<Login, Boottime>,
    /// The endtime of the ticket that was pushed last.
    pushed: HashMap<Login, SystemTime>,
}

/// The task that keeps tickets fresh.
pub struct Refresher {
    /// The cache it keeps fresh.
    pub tickets: Arc<Tickets>,
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
            for account in self.due(&known) {
                let outcome = tokio::select! {
                    outcome = self.tickets.ticket(&account) => outcome,
                    () = stop.cancelled() => return,
                };
                match outcome {
                    Ok(credential) => {
                        known.failed.remove(&account.login);
                        if self.push(&account, &credential).await {
                            known.pushed.insert(account.login.clone(), credential.endtime);
                        } else {
                            known.failed.insert(account.login.clone(), self.book.now().boot);
                        }
                    }
                    Err(error) => {
                        known.failed.insert(account.login.clone(), self.book.now().boot);
                        self.say_failed(&account, &error).await;
                    }
                }
            }
        }
    }

    /// Accounts in use whose ticket is due, or was fetched for a new pod and has not been
    /// pushed to the others. Those that failed a moment ago are left alone.
    fn due(&self, known: &Known) -> Vec<GrantedTicket> {
        let now = self.book.now();
        self.book.read(|ledger| {
            let due = |login: &Login| {
                let failed = known.failed.get(login);
                let left_alone =
                    failed.is_some_and(|at| now.boot.since(*at) < self.tickets.times.retry_after);
                let latest = ledger.account(login).and_then(|account| account.latest_endtime);
                let stale = now.wall >= self.tickets.refresh_at(login, latest);
                let kept = self.tickets.kept(login).map(|kept| kept.endtime);
                let unpushed = kept.is_some() && known.pushed.get(login) != kept.as_ref();
                if left_alone || !(stale || unpushed) {
                    return None;
                }
                let lease = ledger.lease(ledger.live_with_ticket(login).first()?)?;
                lease.tickets.iter().find(|ticket| &ticket.login == login).cloned()
            };
            ledger.accounts_in_use().iter().filter_map(due).collect()
        })
    }

    /// Says whether what is at hand could be pushed: not while nothing can be recorded.
    async fn push(&self, account: &GrantedTicket, credential: &Credential) -> bool {
        // Whoever was issued after it was fetched got it then.
        let fetched_at = self.tickets.fetched_at(&account.login);
        let holders: Vec<LeaseId> = self.book.read(|ledger| {
            let older = |id: &LeaseId| {
                let lease = ledger.lease(id);
                lease.is_some_and(|lease| fetched_at.is_none_or(|at| lease.acquired_at < at))
            };
            ledger.live_with_ticket(&account.login).into_iter().filter(older).collect()
        });
        let line = Record::new(Event::TicketRefreshed, Actor::Broker)
            .account(&account.login)
            .principal(&account.client)
            .endtime(credential.endtime)
            .detail(&format!("pushed to {} leases", holders.len()));
        self.book.audit(line).await.is_ok() && self.pusher.push(&holders).await.is_ok()
    }

    async fn say_failed(&self, account: &GrantedTicket, error: &TicketError) {
        let line = Record::new(Event::TicketFailed, Actor::Broker)
            .account(&account.login)
            .principal(&account.client)
            .detail(&crate::audit::chain(error));
        let _ = self.book.audit_later(line).await;
    }
}
