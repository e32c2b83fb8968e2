//! The steps that are taken at the KDC: as `keys::walker::at_kdc`.

use std::{collections::BTreeSet, time::Duration};

use krb_broker::{
    kdc::Observation,
    keys::{
        ManagedPrincipal,
        propagation::Setting,
        standing::{Off, Standing},
        walk::{Burnt, Step},
    },
    krb5::key::{Enctype, Keyset},
};
use krb_proto::{Kvno, Principal};

use super::{
    broker::print_of,
    plan::{Millis, SECOND, Sabotage},
    realm::{Away, Call, Reply},
    sim::{Answer, Sim},
    walking::{LOOK_AGAIN, Took, push_all},
    world::{Event, Fate},
};

/// How long an answer is waited for.
const PATIENCE: Millis = 2 * SECOND;

/// Asks kadmin.
async fn kadmin(sim: &Sim, principal: &Principal, call: Call) -> Result<Reply, Away> {
    let slot = sim.with(|world| {
        if let Call::Activate(kvno, _) = call {
            world.check_activation(principal, kvno);
        }
        let slot = world.slots.open();
        let there = world.random.within(world.plan.kadmin);
        let lossy = world.now < world.realm.lossy_until && world.random.chance(400);
        let fate = match lossy {
            false => Fate::Answered,
            true if world.random.chance(500) => Fate::AnswerLost,
            true => Fate::Lost,
        };
        if world.now < world.realm.away_until {
            world.after(there, Event::Replied(slot, Err(Away)));
        } else {
            if fate != Fate::Answered {
                world.after(PATIENCE, Event::Replied(slot, Err(Away)));
            }
            world.after(there, Event::Kadmin(principal.clone(), call, slot, fate));
        }
        slot
    });
    match sim.wait(slot).await {
        Answer::Kadmin(reply) => reply,
        _ => Err(Away),
    }
}

/// Makes the next keyset, above every number that the store or the KDC ever used.
pub async fn make(sim: &Sim, principal: &Principal, step: &Step) -> Took {
    let Ok(Reply::Is(at_kdc)) = kadmin(sim, principal, Call::Inspect).await else {
        return Took::Failed;
    };
    if let Some((found, _)) = at_kdc.and_then(|entry| entry.key) {
        if !sim.with(|world| world.ledger().principal(principal).is_some_and(|p| p.ours)) {
            return Took::Failed;
        }
        sim.with(|world| world.ledger_mut().seen_at_kdc(principal, found));
    }
    let made = sim.with(|world| {
        let kvno = world.ledger().principal(principal)?.next_kvno().ok()?;
        let now = world.broker_now().wall;
        let keyset = Keyset::random(kvno, &[Enctype::Aes256Sha1], &world.entropy, now);
        world.walk(principal).made = Some((kvno, at_kdc.is_some()));
        Some(keyset)
    });
    let Some(keyset) = made else { return Took::Failed };
    let rules = sim.with(|world| world.plan.rules.clone());
    sim.commit_if(|ledger, _, now| {
        let still = ledger.next_step(principal, now.wall, &rules).is_same(step);
        still.then(|| {
            let _used_meanwhile = ledger.add_keyset(principal, keyset, now.wall);
        })
    })
    .await;
    Took::Step
}

/// Sets the key at the KDC and sees that every KDC uses it.
pub async fn set(sim: &Sim, principal: &Principal, kvno: Kvno) -> Took {
    let known = sim.with(|world| {
        let managed = world.ledger().principal(principal)?;
        let held = managed.keysets.get(&kvno)?;
        let has_none = managed.current().is_none();
        let never_used = has_none && managed.standing == Standing::InUse;
        Some((held.keyset.clone(), held.lagging.clone(), has_none, never_used))
    });
    let Some((keyset, lagging, first, never_used)) = known else { return Took::Step };
    sim.with(|world| world.walk(principal).off = None);
    let is_set =
        sim.with(|world| world.walk(principal).set.as_ref().is_some_and(|set| set.kvno == kvno));
    if !is_set {
        match set_at_kdc(sim, principal, &keyset, first).await {
            Ok(Reply::InTheWay(found)) => return give_way(sim, principal, kvno, found).await,
            Ok(Reply::Done) => sim.with(|world| {
                let now = world.broker_now().boot;
                world.walk(principal).set = Some(Setting::new(kvno, now, &lagging));
            }),
            _ => return Took::Failed,
        }
    }
    let skips = sim.with(|world| world.plan.sabotage == Some(Sabotage::NoObservation));
    if !never_used && !skips {
        let seen = observe(sim, principal).await;
        let lags = sim.with(|world| {
            let now = world.broker_now().boot;
            let propagation = world.plan.rules.times.kdc_propagation;
            world.walk(principal).set.as_mut().map(|set| set.lags(&seen, now, propagation))
        });
        let lagging = sim.with(|world| world.walk(principal).set.as_ref().map(Setting::lagging));
        remember_lagging(sim, principal, Some(kvno), lagging).await;
        if let Some(pause) = waits_for(sim, principal, lags) {
            return Took::Nothing(pause);
        }
        sim.commit(|_, _, _| ()).await; // KeyObserved
    }
    sim.with(|world| world.walk(principal).pushed.clear());
    if became_current(sim, principal, kvno).await {
        Took::Step
    } else {
        Took::Nothing(LOOK_AGAIN.1)
    }
}

/// Stores which KDCs were seen to lag, where that is not what is stored.
async fn remember_lagging(
    sim: &Sim,
    principal: &Principal,
    kvno: Option<Kvno>,
    lagging: Option<BTreeSet<String>>,
) {
    let (Some(kvno), Some(lagging)) = (kvno, lagging) else { return };
    let _as_known = sim
        .commit_if(|ledger, _, _| ledger.set_lagging(principal, kvno, &lagging).then_some(()))
        .await;
}

/// How long to wait for the KDCs that lag, and says so; `None` when none does.
fn waits_for(
    sim: &Sim,
    principal: &Principal,
    lags: Option<(Vec<String>, Duration)>,
) -> Option<Millis> {
    let (lags, pause) = lags.filter(|(lags, _)| !lags.is_empty())?;
    sim.with(|world| world.ledger_mut().set_waiting(principal, Some(lags.join(", "))));
    Some((pause.as_millis() as Millis).clamp(LOOK_AGAIN.0, LOOK_AGAIN.1))
}

/// False while the wall clock is in doubt, since the key before retires by it.
async fn became_current(sim: &Sim, principal: &Principal, kvno: Kvno) -> bool {
    let doubted = sim.with(|world| {
        world.guard_clock();
        world.ledger().clock_fault().is_some()
    });
    if doubted {
        return false;
    }
    // Before it is flushed: a crash may leave it done, and nobody told.
    sim.with(|world| {
        if world.ledger().principal(principal).is_some_and(|p| p.debt.is_abrupt()) {
            world.leaves_abruptly(principal, Kvno(kvno.0 - 1));
        }
    });
    sim.commit(|ledger, _, now| {
        ledger.became_current(principal, kvno, now.wall);
        ledger.finish_revoking(principal);
    })
    .await;
    sim.with(|world| {
        world.counts.rotations += 1;
        world.say(|| format!("{principal}: {kvno} is current"));
    });
    true
}

async fn set_at_kdc(
    sim: &Sim,
    principal: &Principal,
    keyset: &Keyset,
    first: bool,
) -> Result<Reply, Away> {
    let (made, (ours, standing), reuses) = sim.with(|world| {
        let managed = world.ledger().principal(principal);
        let known = managed.map_or((false, Standing::InUse), |p| (p.ours, p.standing));
        let reuses = world.plan.sabotage == Some(Sabotage::ReuseNumber);
        (world.walk(principal).made, known, reuses)
    });
    let exists = match made {
        Some((made, exists)) if made == keyset.kvno => exists,
        _ if first => match kadmin(sim, principal, Call::Inspect).await? {
            Reply::Is(None) => false,
            Reply::Is(Some(entry))
                if ours || entry.key.is_none_or(|(found, _)| found == keyset.kvno) =>
            {
                true
            }
            _ => return Err(Away),
        },
        _ => true,
    };
    if !exists {
        kadmin(sim, principal, Call::Create).await?;
        sim.with(|world| world.walk(principal).made = Some((keyset.kvno, true)));
        sim.commit(|ledger, _, _| ledger.is_ours_now(principal)).await;
    }
    let kvno = if reuses && !first { Kvno(keyset.kvno.0 - 1) } else { keyset.kvno };
    match kadmin(sim, principal, Call::Activate(kvno, print_of(keyset))).await? {
        Reply::Done => {}
        other => return Ok(other),
    }
    if exists && standing != Standing::InUse {
        kadmin(sim, principal, Call::SetDisabled(false)).await?;
    }
    Ok(Reply::Done)
}

/// What each KDC says, each at its own time.
async fn observe(sim: &Sim, principal: &Principal) -> Vec<Observation> {
    let mut seen = Vec::new();
    for kdc in 0..2 {
        let slot = sim.with(|world| {
            let slot = world.slots.open();
            let span = world.random.within(world.plan.kadmin);
            world.after(span, Event::Observe(principal.clone(), kdc, slot));
            slot
        });
        if let Answer::Seen(one) = sim.wait(slot).await {
            seen.push(one);
        }
    }
    seen
}

/// Switches the principal off at the KDC.
pub async fn switch_off(sim: &Sim, principal: &Principal, how: Off) -> Took {
    let made =
        sim.with(|world| world.ledger().principal(principal).is_some_and(|known| known.ours));
    let done = sim.with(|world| world.walk(principal).off.as_ref().map(|(done, _)| *done));
    if made && done != Some(how) {
        let call = match how {
            Off::Disabled => Call::SetDisabled(true),
            Off::Deleted => Call::Delete,
        };
        if !matches!(kadmin(sim, principal, call).await, Ok(Reply::Done)) {
            return Took::Failed;
        }
        sim.with(|world| {
            let now = world.broker_now().boot;
            let managed = world.ledger().principal(principal);
            let current = managed.and_then(ManagedPrincipal::current);
            let lagging = current.map(|held| held.lagging.clone()).unwrap_or_default();
            world.walk(principal).off = Some((how, Setting::switched_off(now, &lagging)));
        });
    }
    let skips = sim.with(|world| world.plan.sabotage == Some(Sabotage::NoObservation));
    if made && !skips {
        let seen = observe(sim, principal).await;
        let lags = sim.with(|world| {
            let now = world.broker_now().boot;
            let propagation = world.plan.rules.times.kdc_propagation;
            world.walk(principal).off.as_mut().map(|(_, off)| off.lags(&seen, now, propagation))
        });
        let (kvno, lagging) = sim.with(|world| {
            let managed = world.ledger().principal(principal);
            let current = managed.and_then(ManagedPrincipal::current);
            let kvno = current.map(|held| held.keyset.kvno);
            (kvno, world.walk(principal).off.as_ref().map(|(_, off)| off.lagging()))
        });
        remember_lagging(sim, principal, kvno, lagging).await;
        if let Some(pause) = waits_for(sim, principal, lags) {
            return Took::Nothing(pause);
        }
    }
    let rules = sim.with(|world| world.plan.rules.clone());
    sim.with(|world| {
        if world.next_step(principal) == Step::SwitchOff(how) {
            world.gave_up_all(principal);
        }
    });
    let _gone = sim
        .commit_if(|ledger, _, now| {
            let still = ledger.next_step(principal, now.wall, &rules) == Step::SwitchOff(how);
            still.then(|| {
                ledger.went_off(principal, how, now.wall);
                ledger.finish_revoking(principal);
            })
        })
        .await;
    sim.with(|world| world.walk(principal).off = None);
    Took::Step
}

/// The KDC has a number that is not below ours: ours is burnt, the next is above both.
async fn give_way(sim: &Sim, principal: &Principal, kvno: Kvno, found: Kvno) -> Took {
    sim.commit(|ledger, _, now| {
        ledger.seen_at_kdc(principal, found);
        let burn = Step::Burn { kvno, why: Burnt::InTheWay };
        ledger.take_step(principal, &burn, now.wall);
    })
    .await;
    push_all(sim, principal).await;
    Took::Step
}
