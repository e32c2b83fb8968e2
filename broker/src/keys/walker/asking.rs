//! Asks holders for what a walk waits for: pushes, each repeated now and then until it is
//! acknowledged.

use std::time::{Duration, SystemTime};

use krb_proto::{LeaseId, Principal};

use super::{Awaited, LOOK_AGAIN, Took, Turn, WalkError, Walker};
use crate::{
    keys::walk::{ASK_AGAIN, Waiting},
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
        let (awaited, from) = match what {
            Waiting::Acknowledgements { kvno, from } => (Awaited::Has(kvno), from),
            Waiting::Removal { kvno, from } => (Awaited::Lacks(kvno), from),
            Waiting::Tickets { .. } | Waiting::Turn { .. } | Waiting::Clock => {
                return Ok(Took::Nothing(self.until(until)));
            }
        };
        let now = self.0.book.now().wall;
        let lately = |at: &SystemTime| now.duration_since(*at).is_ok_and(|age| age < ASK_AGAIN);
        turn.pushed.retain(|_, at| lately(at));
        let owed: Vec<LeaseId> = self.0.book.read(|ledger| {
            let stream = |id: &LeaseId| ledger.session(&ledger.lease(id)?.holder.node)?.stream;
            let owed = |id: &LeaseId| {
                let key = |stream| (awaited, *id, stream);
                stream(id).is_some_and(|stream| !turn.pushed.contains_key(&key(stream)))
            };
            from.into_iter().filter(owed).collect()
        });
        if !owed.is_empty() {
            let pushed = self.push(principal, &owed).await?;
            turn.pushed.extend(pushed.into_iter().map(|(id, stream)| ((awaited, id, stream), now)));
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
