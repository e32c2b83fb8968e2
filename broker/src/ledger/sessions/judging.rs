//! What silences come to, all nodes together, and what the brake holds of it.
//!
//! All verdicts of a tick are known before any is acted on, so that nodes that were cut off at
//! one instant never get their first third through.

use std::{
    collections::{BTreeSet, HashSet},
    time::{Duration, SystemTime},
};

use krb_proto::{NodeName, PodUid};

use super::{Change, Ledger, Touched};
use crate::{
    clock::{Boottime, Now},
    session::{
        Cause, Rules, Session, SessionState, Verdict, Witness,
        brake::{Brake, Limits, Sessions},
    },
};

/// Pods that are gone while the brake is on.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HeldPods {
    held: BTreeSet<PodUid>,
    /// Those that an operator lets pass.
    released: BTreeSet<PodUid>,
    /// Whether it was said that the brake is on.
    brake_said: bool,
}

/// What an operator let pass the brake.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Released {
    /// Nodes that are silent: they are lost as soon as their time is up.
    pub nodes: Vec<NodeName>,
    /// How many pods that are gone.
    pub pods: usize,
}

/// Sessions whose time is up, and those whose time is running.
#[derive(Default)]
struct Silent {
    due: Vec<(NodeName, Cause)>,
    coming: Vec<NodeName>,
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl Ledger {
    /// A brake with these limits, which knows what was lost before the start.
    pub fn set_brake(&mut self, limits: Limits, now: Now) {
        let mut brake = Brake::new(limits);
        let losses = self.sessions.values().filter_map(|session| session.last_loss.as_ref());
        for loss in losses.filter(|loss| loss.cause.is_automatic()) {
            let age = now.wall.duration_since(loss.at).unwrap_or_default();
            if age < limits.window {
                brake.remember_loss(Boottime(now.boot.0.saturating_sub(age)));
            }
        }
        self.brake = brake;
    }

    /// Why automatic revocation pauses; `None` while it does not.
    pub fn braked(&self) -> Option<String> {
        self.brake.why()
    }

    /// How many pods that are gone the brake holds.
    pub fn held_pods(&self) -> usize {
        self.held_pods.held.len()
    }

    /// The nodes that are silent now, by their time: of whom a witness is to be asked.
    pub fn silent_nodes(&self, now: Now, silent_after: Duration) -> Vec<NodeName> {
        let silent = |s: &&Session| s.is_there() && now.boot.since(s.last_heard) >= silent_after;
        self.sessions.values().filter(silent).map(|session| session.node.clone()).collect()
    }

    /// What each node's silence means now; what it means is done.
    pub fn judge_all(
        &mut self,
        now: Now,
        witness: &dyn Fn(&NodeName) -> Witness,
        rules: &Rules,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut silent = Silent::default();
        for session in self.sessions.values_mut().filter(|session| session.is_there()) {
            let said = witness(&session.node);
            let verdict = session.judge(now, said, rules);
            let node = session.node.clone();
            session.braked &= matches!(verdict, Verdict::Lost(_));
            if verdict != Verdict::Attached && session.state == SessionState::Attached {
                session.state = SessionState::Silent;
                self.touched.insert(Touched::Session(node.clone()));
                changes.push(Change::Silent(node.clone()));
            }
            changes.extend(session.alert(&verdict, now).map(|a| Change::Alert(node.clone(), a)));
            match verdict {
                Verdict::Lost(cause) => silent.due.push((node, cause)),
                Verdict::Silent | Verdict::Unwitnessed => silent.coming.push(node),
                // deleted with others of which one is due already: they are judged together
                Verdict::Attached if said == Witness::NodeGone => silent.coming.push(node),
                Verdict::Attached | Verdict::AgentFault => {}
            }
        }
        self.end_silent(silent, now, &mut changes);
        changes.extend(self.brake_turn());
        changes
    }

    fn end_silent(&mut self, silent: Silent, now: Now, changes: &mut Vec<Change>) {
        if silent.due.is_empty() {
            self.brake.sessions(now.boot, self.seen(0, 0));
            return;
        }
        let due = silent.due.iter().map(|(node, _)| node);
        let holders = self.holding_anything(due.chain(&silent.coming));
        let holds = |node: &NodeName| holders.contains(node);
        let coming = silent.coming.iter().filter(|node| holds(node)).count();
        let mut due = Vec::new();
        for (node, cause) in silent.due {
            if !holds(&node) {
                self.sessions.entry(node.clone()).and_modify(Session::leave);
                self.touched.insert(Touched::Session(node.clone()));
                changes.push(Change::Left(node));
            } else if self.clock_fault.is_some() {
                // what a clock in doubt says of anybody waits
            } else if cause == Cause::LeaseTtl || self.sessions[&node].brake_released {
                self.lose_now(&node, &cause, now.wall, changes);
            } else {
                due.push((self.sessions[&node].last_heard, node, cause));
            }
        }
        if self.clock_fault.is_some() {
            return;
        }
        due.sort_by(|(a, x, _), (b, y, _)| (a, x).cmp(&(b, y)));
        let passing = self.brake.sessions(now.boot, self.seen(due.len(), coming));
        for (number, (_, node, cause)) in due.into_iter().enumerate() {
            if count(number) < passing {
                self.lose_now(&node, &cause, now.wall, changes);
            } else {
                self.sessions.entry(node).and_modify(|session| session.braked = true);
            }
        }
    }

    fn lose_now(
        &mut self,
        node: &NodeName,
        cause: &Cause,
        now: SystemTime,
        changes: &mut Vec<Change>,
    ) {
        changes.extend(self.lose(node, cause, now).map(Change::Lost));
    }

    fn seen(&self, due: usize, coming: usize) -> Sessions {
        let all = self.sessions.values().filter(|session| session.is_there()).count();
        Sessions { all: count(all), due: count(due), coming: count(coming) }
    }

    /// Those of the nodes that have a live lease, or were given a key that somebody may still
    /// accept.
    fn holding_anything<'a>(&self, nodes: impl Iterator<Item = &'a NodeName>) -> HashSet<NodeName> {
        let (mut holding, others): (HashSet<_>, HashSet<_>) =
            nodes.cloned().partition(|node| self.has_live(node));
        if !others.is_empty() {
            let keysets = self.principals.values().flat_map(|known| known.keysets.values());
            let given = keysets.flat_map(|held| held.delivered_to.iter().map(|(node, _)| node));
            holding.extend(given.filter(|node| others.contains(*node)).cloned());
        }
        holding
    }

    fn has_live(&self, node: &NodeName) -> bool {
        let leases = self.by_node.get(node).into_iter().flatten();
        leases.filter_map(|id| self.leases.get(id)).any(crate::lease::Lease::is_live)
    }

    /// That the brake has gone on or off since this was last asked.
    fn brake_turn(&mut self) -> Option<Change> {
        let on = self.brake.is_on();
        let turned = std::mem::replace(&mut self.held_pods.brake_said, on) != on;
        turned.then(|| self.brake.why().map_or(Change::BrakeOff, Change::BrakeOn))
    }

    /// Of these pods, which are gone, those that may be released now; the brake holds the others.
    pub fn weigh_gone(&mut self, gone: Vec<PodUid>, now: Now) -> (Vec<PodUid>, Option<Change>) {
        if self.clock_fault.is_some() {
            return (Vec::new(), None);
        }
        let all = count(self.live_pods().len());
        let released = std::mem::take(&mut self.held_pods.released);
        let (mut pass, waiting): (Vec<_>, Vec<_>) =
            gone.into_iter().partition(|uid| released.contains(uid));
        if self.brake.pods(now.boot, all, count(waiting.len())) {
            self.held_pods.held.clear();
            pass.extend(waiting);
        } else {
            self.held_pods.held = waiting.into_iter().collect();
        }
        (pass, self.brake_turn())
    }

    /// An operator lets the silent ones of these nodes pass the brake, or with `None` all that is
    /// silent or held now, pods too. What comes later is held anew.
    pub fn release_brake(&mut self, nodes: Option<&[NodeName]>) -> Released {
        let named = |node: &NodeName| nodes.is_none_or(|nodes| nodes.contains(node));
        let mut released = Released::default();
        for session in self.sessions.values_mut() {
            if session.state == SessionState::Silent && named(&session.node) {
                session.brake_released = true;
                released.nodes.push(session.node.clone());
            }
        }
        released.nodes.sort();
        if nodes.is_none() {
            released.pods = self.held_pods.held.len();
            let held = std::mem::take(&mut self.held_pods.held);
            self.held_pods.released.extend(held);
        }
        released
    }
}

#[cfg(test)]
mod tests;
