//! What the broker does every so often: as `session::watch`.

use std::time::Duration;

use krb_broker::{
    ledger::sessions::Change,
    session::{SessionState, Witness},
};
use krb_proto::{LeaseId, NodeName, Principal};

use super::{
    message::ToAgent,
    plan::{Millis, SECOND, Sabotage},
    sim::Sim,
    walking,
    world::World,
};

/// A pod that is gone for so long holds nothing any more.
const GONE_AFTER: Millis = 30 * SECOND;
/// How long ended leases are kept.
const KEEP_ENDED: Duration = Duration::from_secs(900);
/// A wall clock that jumps by more is not relied on.
const MOST_JUMP: i64 = 10_000;
/// Every so many ticks the broker sweeps.
const SWEEP_EVERY: u64 = 6;

/// One tick.
pub fn tick(sim: &Sim) {
    let sweeps = sim.with(|world| {
        let lead = world.clock_lead();
        let broker = world.broker.as_mut()?;
        broker.ticks += 1;
        let jumped = (lead - broker.clock_lead).abs() >= MOST_JUMP;
        let fault = jumped.then(|| "the wall clock has jumped".to_owned());
        broker.ledger.set_clock_fault(fault);
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
    let times = sim.with(|world| world.plan.times);
    let losses = sim
        .commit_if(|ledger, note, now| {
            let mut losses = Vec::new();
            let changes = ledger.judge_all(now, Witness::NotApplicable, &times);
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
    if sim.with(|world| world.plan.sabotage == Some(Sabotage::NoReplacement)) {
        return;
    }
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
            let loss = ledger.lose(node, "an operator evicted it", now.wall)?;
            note.fenced.push(node.clone());
            Some(loss.principals)
        })
        .await;
    if let Some(principals) = loss {
        after_loss(sim, node, principals);
    }
}

async fn sweep(sim: &Sim) {
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
    walking::kick_all(sim);
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
