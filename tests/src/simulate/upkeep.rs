//! What the broker does every so often: as `session::watch`.

use std::time::Duration;

use krb_broker::{
    kdc::ClockReading,
    krb5::exchange::ClockOffset,
    ledger::sessions::Change,
    session::{Cause, Rules, SessionState, Witness},
};
use krb_proto::{LeaseId, NodeName, Principal};

use super::{
    message::ToAgent,
    plan::{Millis, SECOND},
    sim::Sim,
    walking,
    world::World,
};

/// A pod that is gone for so long holds nothing any more.
const GONE_AFTER: Millis = 30 * SECOND;
/// How long ended leases are kept.
const KEEP_ENDED: Duration = Duration::from_secs(900);
/// Every so many ticks the broker sweeps.
const SWEEP_EVERY: u64 = 6;

impl World {
    /// A wall clock that has jumped is not relied on, from the first time that it is read.
    pub fn guard_clock(&mut self) {
        let ahead = -self.clock_offset / 1000;
        let now = self.broker_now();
        let Some(broker) = self.broker.as_mut() else { return };
        let reading =
            ClockReading { kdc: "kdc1".to_owned(), offset: ClockOffset(ahead), at: now.boot };
        broker.guard.look(now, &[reading]);
        let fault = broker.guard.fault().map(str::to_owned);
        broker.ledger.set_clock_fault(fault);
    }
}

/// One tick.
pub fn tick(sim: &Sim) {
    let sweeps = sim.with(|world| {
        world.guard_clock();
        let broker = world.broker.as_mut()?;
        broker.ticks += 1;
        Some(broker.ticks.is_multiple_of(SWEEP_EVERY))
    });
    let Some(sweeps) = sweeps else { return };
    let task = sim.clone();
    sim.spawn(async move {
        judge(&task).await;
        if sweeps {
            sweep(&task).await;
        }
    });
}

async fn judge(sim: &Sim) {
    let rules = sim.with(|world| Rules { times: world.plan.times, ..Rules::default() });
    let losses = sim
        .commit_if(|ledger, note, now| {
            let mut losses = Vec::new();
            let changes = ledger.judge_all(now, &|_| Witness::NotApplicable, &rules);
            let any = !changes.is_empty();
            for change in changes {
                if let Change::Lost(loss) = change {
                    note.fenced.push(loss.node.clone());
                    losses.push((loss.node, loss.principals));
                }
            }
            losses.sort();
            any.then_some(losses)
        })
        .await;
    for (node, principals) in losses.unwrap_or_default() {
        after_loss(sim, &node, principals);
    }
}

fn after_loss(sim: &Sim, node: &NodeName, mut principals: Vec<Principal>) {
    sim.with(|world| {
        world.say(|| format!("{node} is lost"));
        world.hub_cut(node);
    });
    principals.sort();
    principals.iter().for_each(|principal| walking::kick(sim, principal));
}

/// An operator gives a node up.
pub async fn lose(sim: &Sim, node: &NodeName) {
    let loss = sim
        .commit_if(|ledger, note, now| {
            let state = ledger.session(node)?.state;
            if matches!(state, SessionState::Lost | SessionState::Left) {
                return None;
            }
            let loss =
                ledger.lose(node, &Cause::Evicted { by: "operator".to_owned() }, now.wall)?;
            note.fenced.push(node.clone());
            Some(loss.principals)
        })
        .await;
    if let Some(principals) = loss {
        after_loss(sim, node, principals);
    }
}

async fn sweep(sim: &Sim) {
    walking::kick_all(sim);
    if sim.with(|world| world.ledger().clock_fault().is_some()) {
        return;
    }
    let gone: Vec<LeaseId> = sim.with(|world| {
        let ended = &world.ended_pods;
        let is_gone =
            |number: u64| ended.get(&number).is_some_and(|at| world.now >= at + GONE_AFTER);
        let number = |uid: &str| uid.trim_start_matches("uid-").parse().unwrap_or(0);
        let of_pod = |uid: &krb_proto::PodUid| world.ledger().live_of_pod(uid);
        let pods = world.ledger().live_pods();
        pods.iter().filter(|uid| is_gone(number(uid.as_str()))).flat_map(of_pod).collect()
    });
    release(sim, &gone, "its pod is gone").await;
    let unclaimed = sim.with(|world| {
        let (now, times) = (world.broker_now(), world.plan.times);
        let mut unclaimed = world.ledger().unclaimed(now, &times);
        unclaimed.sort();
        unclaimed
    });
    release(sim, &unclaimed, "no agent claims its volume").await;
    let skew = sim.with(|world| world.plan.rules.times.clock_skew);
    sim.commit_if(|ledger, _, now| {
        ledger.forget_ended(KEEP_ENDED, skew, now.wall);
        ledger.forget_pruned(now.wall);
        ledger.has_touched().then_some(())
    })
    .await;
}

async fn release(sim: &Sim, leases: &[LeaseId], why: &str) {
    if leases.is_empty() {
        return;
    }
    let released = sim
        .commit(|ledger, _, now| {
            let mut released = Vec::new();
            for id in leases {
                if ledger.release(id, why, now.wall)
                    && let Some(lease) = ledger.lease(id)
                {
                    released.push((*id, lease.holder.node.clone()));
                }
            }
            released
        })
        .await;
    sim.with(|world: &mut World| {
        for (lease, node) in released {
            world.say(|| format!("{lease} on {node} is released: {why}"));
            world.tell_by_hub(&node, |conn| ToAgent::Wipe { conn, lease, again: false });
        }
    });
}
