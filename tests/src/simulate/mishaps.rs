//! What goes wrong, and what operators do.

use krb_broker::{keys::due::Kind, keys::standing::Off, lease::LeaseState};
use krb_proto::{LeaseId, NodeName, Principal};

use super::{
    message::{ToAgent, ToBroker},
    plan::{HOUR, MINUTE, Millis, Mishap, SECOND},
    sim::Sim,
    upkeep, walking,
    world::{Event, World},
};

/// One thing goes wrong, or is done.
pub fn happen(sim: &Sim) {
    let Some(mishap) = sim.with(World::draw_mishap) else { return };
    sim.with(|world| world.say(|| format!("--- {mishap:?}")));
    match mishap {
        Mishap::RevokeOverlap | Mishap::RevokeNow | Mishap::RevokeDisable => revoke(sim, mishap),
        Mishap::SwitchOn => switch_on(sim),
        Mishap::Evict => evict(sim),
        Mishap::Rotate => ask(sim, Kind::Scheduled),
        Mishap::Emergency => ask(sim, Kind::Emergency),
        Mishap::BrokerCrash => sim.with(World::crash),
        _ => sim.with(|world| world.fault(mishap)),
    }
}

impl World {
    fn fault(&mut self, mishap: Mishap) {
        let span = self.random.within((SECOND, 3 * MINUTE));
        let until = self.now + span;
        match mishap {
            Mishap::KadminAway => self.realm.away_until = until,
            Mishap::KadminLossy => self.realm.lossy_until = until,
            Mishap::HeldPropagation => {
                self.realm.held_until = until;
                self.after(span, Event::Propagate);
            }
            // One that says nothing for the whole propagation time is not waited for.
            Mishap::ReplicaSilent if self.now > self.realm.silent_until + 15 * SECOND => {
                self.realm.silent_until = until.min(self.now + 45 * SECOND);
            }
            Mishap::ReplicaSilent => {}
            Mishap::ClockStep => self.step_clock(span),
            Mishap::SlowDisk => self.plan.flush = (1, self.random.within((20, 2 * SECOND))),
            Mishap::PodEnds => {
                let pods: Vec<_> = self.pods.keys().copied().collect();
                if let Some(pod) = self.random.pick(&pods).copied() {
                    self.end_pod(pod);
                }
            }
            _ => self.fault_of_node(mishap, span),
        }
    }

    /// The next of the nodes that there were in the beginning dies.
    pub fn lose_one(&mut self) {
        if let Some(name) = self.originals.pop_front() {
            self.say(|| format!("--- {name} dies"));
            self.kill(&name);
        }
    }

    fn step_clock(&mut self, span: Millis) {
        let large = self.random.chance(500);
        let most = if large { HOUR } else { 80 * SECOND };
        let size = self.random.below(most) as i64;
        let step = if self.random.chance(500) { size } else { -size };
        self.say(|| format!("the wall clock is off by {step} ms"));
        self.clock_offset = step;
        self.truth.unsteady_at = self.now;
        self.after(span, Event::ClockRight);
    }

    fn fault_of_node(&mut self, mishap: Mishap, span: Millis) {
        let up = self.nodes_that(|node| node.up && !node.drained);
        let Some(name) = self.random.pick(&up).cloned() else { return };
        self.say(|| format!("    of {name}, {span} ms"));
        let now = self.now;
        match mishap {
            Mishap::Partition => {
                let node = self.node(&name);
                (node.cut_until, node.away_at) = (now + span, now);
                self.after(span, Event::Recover(name));
            }
            Mishap::Freeze => {
                let node = self.node(&name);
                (node.frozen_until, node.away_at) = (now + span, now);
                self.after(span, Event::Recover(name));
            }
            Mishap::AgentRestart => self.restart_agent(&name, false),
            Mishap::Reboot => self.restart_agent(&name, true),
            Mishap::Kill => self.kill(&name),
            Mishap::Drain => self.drain(&name),
            _ => {}
        }
    }

    fn drain(&mut self, name: &NodeName) {
        self.node(name).drained = true;
        let pods: Vec<_> =
            self.pods.iter().filter(|(_, pod)| pod.node == *name).map(|(n, _)| *n).collect();
        pods.into_iter().for_each(|pod| self.end_pod(pod));
    }

    /// A drained node that holds nothing says that it goes.
    pub fn leave_drained(&mut self) {
        let empty = self.nodes_that(|node| {
            let agent = &node.agent;
            node.up
                && node.drained
                && agent.held.is_empty()
                && agent.releases.is_empty()
                && agent.asks.is_empty()
        });
        for name in empty {
            if let Some(conn) = self.node(&name).agent.conn.take() {
                self.say_up(&name, ToBroker::Goodbye { conn, empty: true });
            }
            self.node(&name).up = false;
        }
    }

    /// Everything that went wrong goes right from here on.
    pub fn heal(&mut self) {
        self.healed = true;
        self.say(|| "=== nothing more goes wrong".to_owned());
        (self.realm.away_until, self.realm.lossy_until) = (0, 0);
        (self.realm.held_until, self.realm.silent_until) = (0, 0);
        self.plan.crash_at_flush = 0;
        self.plan.flush = (1, 20);
        self.set_clock_right();
        for name in self.nodes_that(|node| node.up) {
            let node = self.node(&name);
            (node.cut_until, node.frozen_until) = (0, 0);
            self.recover(&name);
        }
        self.after(0, Event::Propagate);
    }

    /// The wall clock is right again.
    pub fn set_clock_right(&mut self) {
        if self.clock_offset != 0 {
            self.clock_offset = 0;
            self.truth.unsteady_at = self.now;
        }
    }

    fn any_lease(&mut self) -> Option<LeaseId> {
        let broker = self.broker.as_ref()?;
        let live: Vec<LeaseId> = broker
            .ledger
            .leases()
            .filter(|l| l.state == LeaseState::Active)
            .map(|l| l.id)
            .collect();
        self.random.pick(&live).copied()
    }

    fn any_service(&mut self) -> Option<Principal> {
        self.random.pick(&self.services.clone()).cloned()
    }
}

fn revoke(sim: &Sim, how: Mishap) {
    let Some(lease) = sim.with(World::any_lease) else { return };
    let task = sim.clone();
    sim.spawn(async move {
        let principals = task.with(|world| {
            let named = world.ledger().lease(&lease).map(|lease| lease.principals.clone());
            let named = named.unwrap_or_default();
            world.say(|| format!("    of {lease}: {named:?}"));
            if how != Mishap::RevokeOverlap {
                world.truth.chosen.extend(named.iter().cloned());
            }
            if how == Mishap::RevokeNow {
                for principal in &named {
                    // what retires leaves at once, not only as a new key is set
                    let through = world.ledger().highest_outside(principal);
                    through.into_iter().for_each(|kvno| world.leaves_abruptly(principal, kvno));
                }
            }
            named
        });
        let ended = task
            .commit(|ledger, _, now| {
                let leases = if how == Mishap::RevokeDisable {
                    let with = |p: &Principal| ledger.active_with(p);
                    principals.iter().flat_map(with).collect()
                } else {
                    vec![lease]
                };
                let node = ledger.lease(&lease).map(|lease| lease.holder.node.clone());
                let given = |p: &Principal| ledger.given_to(p, node.as_ref()?);
                let given: Vec<_> = principals.iter().map(|p| (p.clone(), given(p))).collect();
                let hit = ledger.revoke(&leases, "an operator said so", now.wall);
                for (principal, kvno) in given {
                    if let (Mishap::RevokeNow, Some(kvno)) = (how, kvno) {
                        ledger.be_abrupt(&principal, kvno, now.wall);
                    }
                }
                if how == Mishap::RevokeDisable {
                    let by = || Some("operator".to_owned());
                    for principal in &principals {
                        ledger.switch_off(principal, Off::Disabled, by(), now.wall);
                    }
                }
                hit.leases
            })
            .await;
        for id in ended {
            task.with(|world| {
                let node = world.ledger().lease(&id).map(|lease| lease.holder.node.clone());
                if let Some(node) = node {
                    let wipe = |conn| ToAgent::Wipe { conn, lease: id, again: false };
                    world.tell_by_hub(&node, wipe);
                }
            });
        }
        principals.iter().for_each(|principal| walking::kick(&task, principal));
    });
}

fn switch_on(sim: &Sim) {
    if sim.with(|world| world.broker.is_none()) {
        return;
    }
    switch_all_on(sim);
}

/// Operators use every principal again that they disabled.
pub fn switch_all_on(sim: &Sim) {
    let off: Vec<Principal> = sim.with(|world| {
        let ledger = world.ledger();
        let is_off = |p: &&Principal| ledger.principal(p).is_some_and(|p| p.switched_off.is_some());
        world.services.iter().filter(is_off).cloned().collect()
    });
    let task = sim.clone();
    sim.spawn(async move {
        task.commit(|ledger, _, _| off.iter().for_each(|p| ledger.switch_on(p))).await;
        off.iter().for_each(|principal| walking::kick(&task, principal));
    });
}

fn evict(sim: &Sim) {
    if sim.with(|world| world.broker.is_none()) {
        return;
    }
    let nodes: Vec<NodeName> = sim.with(|world| world.nodes.keys().cloned().collect());
    let Some(node) = sim.with(|world| world.random.pick(&nodes).cloned()) else { return };
    sim.with(|world| world.say(|| format!("    of {node}")));
    let task = sim.clone();
    sim.spawn(async move { upkeep::lose(&task, &node).await });
}

fn ask(sim: &Sim, kind: Kind) {
    if sim.with(|world| world.broker.is_none()) {
        return;
    }
    let Some(principal) = sim.with(World::any_service) else { return };
    let task = sim.clone();
    sim.spawn(async move {
        if kind == Kind::Emergency {
            task.with(|world| world.truth.chosen.insert(principal.clone()));
        }
        task.commit(|ledger, _, _| ledger.ask_rekey(&principal, kind)).await;
        let known = task.with(|world| {
            world.ledger().principal(&principal).is_some_and(|p| p.current().is_some())
        });
        if known {
            walking::kick(&task, &principal);
        }
    });
}
