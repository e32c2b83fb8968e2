//! How role accounts are at the KDC whose keytabs were handed over.
//!
//! The broker sets nothing on them, but it may look, where the ACL gives it the right to
//! inquire (`i`). What should be otherwise is said once, in the log and in the audit log, and
//! again when it changes. Where it may not look it says nothing. Accounts are looked at one
//! after another, spread over half of the time until the next round.

use std::{collections::HashMap, sync::Arc, time::Duration};

use krb_proto::Principal;
use tokio_util::sync::CancellationToken;

use crate::{
    audit::{self, Actor, Event, Record},
    entitlement::{AccountMode, GrantedTicket, policy::Policy},
    kdc::{KdcError, KeyAdmin, PrincipalState, gate::Class},
    ledger::book::Book,
    store::committer::CommitError,
};

/// How soon it looks again after kadmin did not answer.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// What was last said of each account.
type Said = HashMap<Principal, Vec<&'static str>>;

/// The task that looks.
pub struct AccountWatch {
    /// Tells how a principal is.
    pub admin: Arc<dyn KeyAdmin>,
    /// Which accounts there are.
    pub policy: Arc<Policy>,
    /// Where it is written down.
    pub book: Book,
    /// How often it looks.
    pub every: Duration,
}

impl AccountWatch {
    /// Looks at once, and then every so often until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut said = Said::new();
        loop {
            let looked = stop.run_until_cancelled(self.look(&mut said)).await;
            let pause = match looked {
                Some(Ok(true)) => self.every,
                Some(Ok(false)) => self.every.min(TRY_AGAIN),
                Some(Err(_)) | None => return, // told to stop, or the broker is about to
            };
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Looks at every account, and says what has changed. False when kadmin is away.
    async fn look(&self, said: &mut Said) -> Result<bool, CommitError> {
        let admin = self.admin.for_class(Class::Housekeeping);
        let accounts = self.policy.accounts();
        let spread = self.every / 2 / u32::try_from(accounts.len().max(1)).unwrap_or(u32::MAX);
        for account in accounts {
            if account.mode == AccountMode::Managed {
                said.remove(&account.client);
                continue;
            }
            match admin.inspect(&account.client).await {
                Ok(state) => self.compare(account, state.as_ref(), said).await?,
                Err(error) => {
                    say_unseen(&account, &error);
                    if error.is_transient() {
                        return Ok(false);
                    }
                }
            }
            tokio::time::sleep(spread).await;
        }
        Ok(true)
    }

    /// Says what has changed since it was last said.
    async fn compare(
        &self,
        account: GrantedTicket,
        state: Option<&PrincipalState>,
        said: &mut Said,
    ) -> Result<(), CommitError> {
        let found = faults(state);
        let before = said.get(&account.client).map(Vec::as_slice).unwrap_or_default();
        if before != found {
            self.say(&account, &found).await?;
        }
        said.insert(account.client, found);
        Ok(())
    }

    async fn say(
        &self,
        account: &GrantedTicket,
        found: &[&'static str],
    ) -> Result<(), CommitError> {
        let faults = found.join("; ");
        let client = &account.client;
        if found.is_empty() {
            tracing::info!(%client, "the account is as it should be now");
        } else {
            tracing::warn!(%client, faults, "the account is not as it should be at the KDC");
        }
        let event = if found.is_empty() { Event::AccountMended } else { Event::AccountUnsafe };
        let line = Record::new(event, Actor::Broker).account(&account.login).principal(client);
        self.book.audit(line.detail(&faults)).await
    }
}

/// What should be otherwise with an account whose keytab was handed over.
fn faults(state: Option<&PrincipalState>) -> Vec<&'static str> {
    let Some(state) = state else {
        return vec!["the KDC does not know it"];
    };
    let faults = [
        (!state.requires_preauth, "it need not preauthenticate: +requires_preauth is missing"),
        (state.allows_svr, "tickets to it are issued: -allow_svr is missing"),
        (state.policy.is_none(), "it has no policy: whoever has its keytab can change its key"),
    ];
    faults.into_iter().filter(|(is_so, _)| *is_so).map(|(_, fault)| fault).collect()
}

fn say_unseen(account: &GrantedTicket, error: &KdcError) {
    let error = audit::chain(error);
    tracing::debug!(client = %account.client, error, "how the account is at the KDC is not known");
}
