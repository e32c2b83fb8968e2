//! What nobody asks for: keys whose time has come are replaced, and principals that nobody has
//! held for long are disabled, or deleted where they were one pod's own.

use std::time::{Duration, SystemTime};

use krb_proto::Principal;
use tokio_util::sync::CancellationToken;

use super::{standing::Off, walker::Walker};
use crate::{
    audit::{Actor, Event, Record},
    ledger::{Ledger, book::Book},
};

/// How long principals may be without a holder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IdleTimes {
    /// Then they are disabled.
    pub disable: Duration,
    /// Then those that are a pod's own are deleted.
    pub delete: Duration,
}

/// The task that does it.
pub struct Upkeep {
    /// The ledger.
    pub book: Book,
    /// Replaces keys.
    pub walker: Walker,
    /// How long principals may be without a holder.
    pub idle: IdleTimes,
    /// How often it looks.
    pub every: Duration,
}

impl Upkeep {
    /// Runs until `stop`, or until nothing can be recorded any more.
    pub async fn run(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(self.every)).await.is_some() {
            let looked = self
                .book
                .commit_if(|ledger, lines, now| {
                    for (principal, how) in ledger.note_idle(now.wall, self.idle) {
                        let line = Record::new(Event::PrincipalIdle, Actor::Broker);
                        lines.push(line.principal(&principal).detail(how.name()));
                    }
                    ledger.forget_pruned(now.wall);
                    ledger.has_touched().then_some(())
                })
                .await;
            if looked.is_err() {
                return;
            }
            self.walker.kick_all();
        }
    }
}

impl Ledger {
    /// Notes which principals no live lease names, and switches those off that were so for long.
    /// Nothing that only time allows is done while the wall clock can't be relied on.
    pub fn note_idle(&mut self, now: SystemTime, times: IdleTimes) -> Vec<(Principal, Off)> {
        let unused: Vec<Principal> = self
            .principals()
            // One that was adopted and that no pod has taken yet is still its administrator's.
            .filter(|known| known.current().is_some() && known.switched_off.is_none())
            .filter(|known| !known.attributes.is_role_account())
            .filter(|known| !self.is_named(&known.principal))
            .map(|known| known.principal.clone())
            .collect();
        let mut off = Vec::new();
        for principal in unused {
            let Some(known) = self.principal(&principal) else { continue };
            let of_pod = known.of_pod;
            let Some(since) = known.idle_since else {
                self.is_idle_since(&principal, now);
                continue;
            };
            let (how, after) =
                if of_pod { (Off::Deleted, times.delete) } else { (Off::Disabled, times.disable) };
            let is_time = now.duration_since(since).is_ok_and(|idle| idle >= after);
            if is_time && self.clock_fault().is_none() {
                self.switch_off(&principal, how, None, now);
                off.push((principal, how));
            }
        }
        off
    }
}
