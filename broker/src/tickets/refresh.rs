//! Fetches tickets anew at half their life, and pushes them to every pod that has one.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{TicketError, Tickets};
use crate::{
    audit::{Actor, Event, Record},
    clock::Boottime,
    entitlement::{GrantedTicket, Login},
    ledger::book::Book,
    material::Pusher,
};

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
        let mut failing = HashMap::new();
        while stop.run_until_cancelled(tokio::time::sleep(self.every)).await.is_some() {
            for account in self.due(&failing) {
                let outcome = tokio::select! {
                    outcome = self.refresh(&account) => outcome,
                    () = stop.cancelled() => return,
                };
                match outcome {
                    Ok(()) => drop(failing.remove(&account.login)),
                    Err(error) => {
                        failing.insert(account.login.clone(), self.book.now().boot);
                        self.say_failed(&account, &error).await;
                    }
                }
            }
        }
    }

    /// Accounts in use whose ticket is due; those that failed a moment ago are left alone.
    fn due(&self, failing: &HashMap<Login, Boottime>) -> Vec<GrantedTicket> {
        let now = self.book.now();
        self.book.read(|ledger| {
            let due = |login: &Login| {
                let left_alone = failing
                    .get(login)
                    .is_some_and(|at| now.boot.since(*at) < self.tickets.times.retry_after);
                let latest = ledger.account(login).and_then(|account| account.latest_endtime);
                let granted = ledger
                    .live_with_ticket(login)
                    .first()
                    .and_then(|id| ledger.lease(id))
                    .and_then(|lease| lease.tickets.iter().find(|ticket| &ticket.login == login));
                (!left_alone && now.wall >= self.tickets.refresh_at(login, latest))
                    .then(|| granted.cloned())
                    .flatten()
            };
            ledger.accounts_in_use().iter().filter_map(due).collect()
        })
    }

    async fn refresh(&self, account: &GrantedTicket) -> Result<(), TicketError> {
        let credential = self.tickets.ticket(account).await?;
        let holders = self.book.read(|ledger| ledger.live_with_ticket(&account.login));
        let line = Record::new(Event::TicketRefreshed, Actor::Broker)
            .account(&account.login)
            .principal(&account.client)
            .endtime(credential.endtime)
            .detail(&format!("{} leases have it", holders.len()));
        // An end of the store or the audit log ends the broker; nothing is pushed then.
        if self.book.audit(line).await.is_ok() {
            let _ = self.pusher.push(&holders).await;
        }
        Ok(())
    }

    async fn say_failed(&self, account: &GrantedTicket, error: &TicketError) {
        let line = Record::new(Event::TicketFailed, Actor::Broker)
            .account(&account.login)
            .principal(&account.client)
            .detail(&crate::audit::chain(error));
        let _ = self.book.audit(line).await;
    }
}
