//! Asks holders for what a walk waits for: pushes, each repeated now and then until it is
//! acknowledged.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, SystemTime},
};

use krb_proto::{Kvno, LeaseId, Principal};

use super::{LOOK_AGAIN, Took, Turn, WalkError, Walker};
use crate::{
    keys::{
        ManagedPrincipal,
        walk::{ASK_AGAIN, Waiting},
    },
    session::StreamId,
};

impl Walker {
    /// Waits, after pushing to the holders that the wait is for.
    pub(super) async fn wait(
        &self,
        principal: &Principal,
        turn: &mut Turn,
        until: SystemTime,
        what: Waiting,
    ) -> Result<Took, WalkError> {
        let text = what.to_string();
        self.waits(principal, text);
        if !what.asks() {
            return Ok(Took::Nothing(self.until(until)));
        }
        let now = self.0.book.now().wall;
        let lately = |at: &SystemTime| now.duration_since(*at).is_ok_and(|age| age < ASK_AGAIN);
        let (kvnos, pushed) = &mut turn.pushed;
        let owed: Vec<LeaseId> = self.0.book.read(|ledger| {
            let wanted = ledger.principal(principal).map(ManagedPrincipal::delivered_kvnos);
            let wanted: BTreeSet<Kvno> = wanted.unwrap_or_default().into_iter().collect();
            if *kvnos != wanted {
                (*kvnos, *pushed) = (wanted, HashMap::new());
            }
            pushed.retain(|_, at| lately(at));
            let stream = |id: &LeaseId| ledger.session(&ledger.lease(id)?.holder.node)?.stream;
            let is_new = |id: &LeaseId| {
                stream(id).is_some_and(|stream| !pushed.contains_key(&(*id, stream)))
            };
            let lacking = ledger.holders(principal).into_iter();
            let lacking = lacking.filter(|holder| holder.has.as_ref() != Some(kvnos));
            lacking.map(|holder| holder.lease).filter(is_new).collect()
        });
        if !owed.is_empty() {
            let sent = self.push(principal, &owed).await?;
            turn.pushed.1.extend(sent.into_iter().map(|to| (to, now)));
        }
        Ok(Took::Nothing(self.until(until)))
    }

    pub(super) fn until(&self, until: SystemTime) -> Duration {
        until.duration_since(self.0.book.now().wall).unwrap_or_default().max(LOOK_AGAIN.0)
    }

    pub(super) async fn push_all(&self, principal: &Principal) -> Result<(), WalkError> {
        let holders = self.0.book.read(|ledger| ledger.active_with(principal));
        self.push(principal, &holders).await.map(drop)
    }

    pub(super) async fn push(
        &self,
        principal: &Principal,
        leases: &[LeaseId],
    ) -> Result<Vec<(LeaseId, StreamId)>, WalkError> {
        let store = |source| WalkError::Store { principal: principal.clone(), source };
        self.0.pusher.push(leases).await.map_err(store)
    }
}
