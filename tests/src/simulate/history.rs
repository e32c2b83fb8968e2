//! One history, from its first event to its last.

use krb_proto::{LeaseId, NodeName};

use super::{
    broker::{self, Broker},
    mishaps,
    node::{Kind, Pod},
    plan::{MINUTE, Plan, SECOND},
    random::Random,
    realm::{Call, Reply},
    sim::{Answer, Sim, Tasks},
    truth::Counts,
    upkeep, walking,
    world::{Event, Fate, World},
};

/// What came of a history.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The rule that was broken.
    pub violation: Option<String>,
    /// The end of what happened, where it was traced.
    pub trace: Vec<String>,
    /// What happened, in numbers.
    pub counts: Counts,
}

/// Runs one history to its end, or until a rule is broken.
pub fn run(plan: Plan, random: Random, tracing: bool) -> Outcome {
    let sim = Sim::new(World::new(plan, random, tracing));
    let mut tasks = Tasks::default();
    begin(&sim);
    while let Some(event) = sim.with(World::pop) {
        handle(&sim, event);
        if sim.with(|world| std::mem::take(&mut world.crashed)) {
            tasks.clear();
        }
        tasks.run(&sim);
        let over = sim.with(|world| {
            world.counts.events += 1;
            if world.plan.check_always && std::mem::take(&mut world.changed) {
                world.check_everything();
            }
            world.settled || world.violation.is_some()
        });
        if over {
            break;
        }
    }
    tasks.clear();
    sim.with(|world| Outcome {
        violation: world.violation.clone(),
        trace: world.trace().cloned().collect(),
        counts: world.counts,
    })
}

fn begin(sim: &Sim) {
    sim.with(|world| {
        for number in 0..world.plan.nodes {
            let drawn = world.random.below(100);
            let kind = match drawn {
                _ if number == 0 => Kind::Honest,
                drawn if drawn < world.plan.liars => Kind::Liar,
                drawn if drawn < world.plan.liars + world.plan.slow => Kind::Slow,
                _ => Kind::Honest,
            };
            let node = world.add_node(kind);
            world.originals.push_back(node);
        }
        if let Some(every) = world.plan.loses_every {
            world.after(every, Event::LoseOne);
        }
        world.after(0, Event::Restart);
        world.after(0, Event::Schedule);
        let first = world.random.within(world.plan.mishap_every) + MINUTE;
        world.after(first, Event::Mishap);
        world.after(world.plan.trouble, Event::Settle);
        world.after(world.plan.tick, Event::Tick);
    });
}

fn handle(sim: &Sim, event: Event) {
    match event {
        Event::Fill(slot) | Event::Woken(slot) => {
            sim.with(|world| world.slots.fill(slot, Answer::Now))
        }
        Event::Flush => sim.with(flush),
        Event::Kadmin(principal, call, slot, fate) => sim.with(|world| {
            execute(world, &principal, &call, slot, fate);
        }),
        Event::Replied(slot, reply) => {
            sim.with(|world| world.slots.fill(slot, Answer::Kadmin(reply)));
        }
        Event::Observe(principal, kdc, slot) => sim.with(|world| {
            let seen = world.realm.observe(kdc, &principal, world.now);
            world.slots.fill(slot, Answer::Seen(seen));
        }),
        Event::Propagate => sim.with(propagate),
        Event::ToBroker(node, message) => {
            let arrives = sim.with(|world| {
                let now = world.now;
                let from = world.nodes.get(&node);
                from.is_some_and(|node| now >= node.cut_until)
            });
            if arrives {
                broker::hear(sim, &node, message);
            }
        }
        Event::ToAgent(node, message) => sim.with(|world| world.arrive(&node, message)),
        Event::Beat(node) => sim.with(|world| world.beat(&node)),
        Event::Tick => {
            sim.with(|world| world.after(world.plan.tick, Event::Tick));
            upkeep::tick(sim);
        }
        Event::Mishap => {
            if !sim.with(|world| world.healed) {
                let next = sim.with(|world| world.random.within(world.plan.mishap_every));
                sim.with(|world| world.after(next, Event::Mishap));
                mishaps::happen(sim);
            }
        }
        Event::Restart => restart(sim),
        Event::Recover(node) => sim.with(|world| world.recover(&node)),
        Event::ClockRight => sim.with(World::set_clock_right),
        Event::Schedule => sim.with(|world| {
            world.after(world.plan.schedules_every, Event::Schedule);
            schedule(world);
        }),
        Event::LoseOne => sim.with(|world| {
            if let Some(every) = world.plan.loses_every {
                world.after(every, Event::LoseOne);
            }
            world.lose_one();
        }),
        Event::Settle => settle(sim),
    }
}

fn flush(world: &mut World) {
    if !world.disk.flushing {
        return; // the broker died meanwhile
    }
    if world.random.chance(world.plan.crash_at_flush) {
        return world.crash();
    }
    let is_keyset = |key: &Vec<u8>| key.first() == Some(&b'K');
    let prunes = world.disk.queue.iter().any(|queued| queued.round.deletes.iter().any(is_keyset));
    world.flushed();
    if prunes {
        world.check_pruned();
    }
}

fn execute(
    world: &mut World,
    principal: &krb_proto::Principal,
    call: &Call,
    slot: u64,
    fate: Fate,
) {
    if fate == Fate::Lost {
        return;
    }
    let reply = world.realm.execute(principal, call);
    world.say(|| format!("kadmin: {principal} {call:?} -> {reply:?} ({fate:?})"));
    if let (Call::Activate(kvno, print), Reply::Done) = (call, &reply) {
        world.check_set(principal, *kvno, *print);
    }
    if !matches!(call, Call::Inspect) {
        world.realm_changed();
        let span = world.random.within(world.plan.propagation);
        world.after(span, Event::Propagate);
    }
    if fate == Fate::Answered {
        let back = world.random.within(world.plan.kadmin);
        world.after(back, Event::Replied(slot, Ok(reply)));
    }
}

fn propagate(world: &mut World) {
    if world.now < world.realm.held_until {
        let span = world.realm.held_until - world.now;
        world.after(span, Event::Propagate);
        return;
    }
    world.realm.propagate();
    world.realm_changed();
}

fn restart(sim: &Sim) {
    let starts = sim.with(|world| {
        if world.broker.is_some() {
            return false;
        }
        let Some(ledger) = world.read_ledger() else { return false };
        world.truth.unsteady_at = world.now;
        let skew = world.plan.rules.times.clock_skew;
        world.broker = Some(Broker::new(ledger, world.broker_now(), skew));
        world.guard_clock();
        world.say(|| "the broker starts".to_owned());
        true
    });
    if starts {
        walking::kick_all(sim);
    }
}

fn schedule(world: &mut World) {
    world.leave_drained();
    let steady = world.plan.loses_every.is_some();
    let dead: Vec<_> = world
        .pods
        .iter()
        .filter(|(_, pod)| !world.nodes[&pod.node].up)
        .map(|(number, _)| *number)
        .collect();
    for pod in dead {
        if steady || world.random.chance(200) {
            world.end_pod(pod);
        }
    }
    let mut up = world.nodes_that(|node| node.up && !node.drained);
    if up.len() < world.plan.nodes && (steady || world.random.chance(300)) {
        up.push(world.add_node(Kind::Honest));
    }
    while world.pods.len() < world.plan.pods {
        let Some(node) = world.random.pick(&up).cloned() else { return };
        add_pod(world, node);
    }
}

fn add_pod(world: &mut World, node: NodeName) {
    let first = world.random.below(world.services.len() as u64) as usize;
    let mut services = vec![world.services[first].clone()];
    if world.random.chance(200) {
        services.clone_from(&world.services);
    }
    let number = world.new_name();
    world.node(&node).pods.insert(number);
    world.pods.insert(number, Pod { node, services });
}

/// From here on everything must come right by itself.
fn settle(sim: &Sim) {
    if !sim.with(|world| world.healed) {
        sim.with(World::heal);
    }
    if sim.with(|world| world.broker.is_some()) {
        mishaps::switch_all_on(sim);
    }
    sim.with(|world| {
        let wrong = world.what_is_not_well();
        match wrong {
            None => world.settled = true,
            Some(what) if world.now >= world.settle_deadline() => {
                world.violate(format!("long after the last fault {what}"));
            }
            Some(_) => world.after(30 * SECOND, Event::Settle),
        }
    });
}

/// The lease of a pod, where it has one.
pub fn lease_of(world: &World, node: &NodeName, pod: u64) -> Option<LeaseId> {
    let held = &world.nodes.get(node)?.agent.held;
    held.iter().find(|(_, volume)| volume.pod == pod).map(|(id, _)| *id)
}
