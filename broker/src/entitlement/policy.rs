//! The entitlements in force: read from their directory, and read again while the broker
//! runs. A directory with errors changes nothing; what was in force stays.

use std::{
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use krb_proto::{NodeName, VolumeName};
use tokio_util::sync::CancellationToken;

use super::{
    Denial, Grant, GrantedTicket, account::RoleAccount, decide::decide, load::Entitlements,
    problems::Problems, rules::Rules, tickets,
};
use crate::{
    audit::{Actor, Event, Record},
    clock::Clock,
    ledger::book::Book,
    pods::Pod,
};

/// The entitlements and the rules that decisions go by.
pub struct Policy {
    directory: PathBuf,
    rules: Rules,
    clock: Arc<dyn Clock>,
    state: RwLock<State>,
}

struct State {
    entitlements: Arc<Entitlements>,
    loaded_at: SystemTime,
    problem: Option<Problems>,
}

/// How the entitlements are, for an operator.
#[derive(Clone, Debug)]
pub struct PolicyStatus {
    /// How many accounts there are.
    pub accounts: usize,
    /// When what is in force was read.
    pub loaded_at: SystemTime,
    /// Why the last reading is not in force.
    pub problem: Option<String>,
}

impl Policy {
    /// Reads the directory.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn load(directory: PathBuf, rules: Rules, clock: Arc<dyn Clock>) -> Result<Self, Problems> {
        let entitlements = Arc::new(Entitlements::load(&directory)?);
        let loaded_at = clock.now().wall;
        let state = RwLock::new(State { entitlements, loaded_at, problem: None });
        Ok(Self { directory, rules, clock, state })
    }

    /// Decides by what is in force now.
    ///
    /// # Errors
    /// The first rule that is missing.
    pub fn decide(&self, pod: &Pod, node: &NodeName, volume: &VolumeName) -> Result<Grant, Denial> {
        let entitlements = self.read().entitlements.clone();
        decide(&entitlements, &self.rules, pod, node, volume)
    }

    /// Whether the account's service principals may act as clients; `None`: no such account.
    pub fn may_be_clients(&self, login: &super::Login) -> Option<bool> {
        let entitlements = self.read().entitlements.clone();
        let accounts = entitlements.accounts();
        accounts.iter().find(|account| account.login == *login).map(|account| account.client)
    }

    /// The accounts that are in force now, with the terms of their tickets.
    pub fn accounts(&self) -> Vec<GrantedTicket> {
        let entitlements = self.read().entitlements.clone();
        let of = |account: &Arc<RoleAccount>| tickets::ticket(&self.rules, account).ok();
        entitlements.accounts().into_iter().filter_map(of).collect()
    }

    /// How the entitlements are.
    pub fn status(&self) -> PolicyStatus {
        let state = self.read();
        PolicyStatus {
            accounts: state.entitlements.accounts().len(),
            loaded_at: state.loaded_at,
            problem: state.problem.as_ref().map(ToString::to_string),
        }
    }

    /// Reads the directory again, every so often, until `stop`.
    pub async fn keep_fresh(self: Arc<Self>, book: Book, every: Duration, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
            if let Some(line) = self.clone().read_again().await {
                let _ = book.audit_later(line).await; // it fails only when the broker ends
            }
        }
    }

    /// Reads the directory again. A line for the audit log when that is news; what can't be
    /// used is logged here.
    pub async fn read_again(self: Arc<Self>) -> Option<Record> {
        let policy = self.clone();
        let read = tokio::task::spawn_blocking(move || Entitlements::load(&policy.directory));
        let outcome = read.await.ok()?; // it fails only when the runtime is stopping
        self.take(outcome)
    }

    /// What is in force now.
    pub fn entitlements(&self) -> Arc<Entitlements> {
        self.read().entitlements.clone()
    }

    /// The rules that decisions go by.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Takes a reading over, or notes why not. A line for the audit log when that is news.
    fn take(&self, outcome: Result<Entitlements, Problems>) -> Option<Record> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(entitlements) => {
                let news = *state.entitlements != entitlements;
                state.problem = None;
                if !news {
                    return None;
                }
                let accounts = entitlements.accounts().len();
                state.entitlements = Arc::new(entitlements);
                state.loaded_at = self.clock.now().wall;
                let line = Record::new(Event::EntitlementsLoaded, Actor::Broker);
                Some(line.detail(&format!("{accounts} accounts")))
            }
            Err(problems) => {
                let news = state.problem.as_ref() != Some(&problems);
                let text = problems.to_string();
                state.problem = Some(problems);
                news.then(|| {
                    tracing::error!(
                        problems = text,
                        "the entitlements can't be used; those before stay"
                    );
                    Record::new(Event::EntitlementsRefused, Actor::Broker).detail(&text)
                })
            }
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}
