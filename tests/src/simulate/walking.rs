//! The glue around the steps of a key: as `keys::walker`.

use krb_broker::{
    keys::{
        due::Kind,
        walk::{ASK_AGAIN, Burnt, Step, Waiting},
    },
    ledger::Ledger,
};
use krb_proto::{LeaseId, Principal};

use super::{
    at_kdc,
    broker::{Awaited, Walk, push},
    disk::Note,
    plan::{Millis, SECOND, Sabotage},
    sim::{Answer, Sim},
    world::{Event, World},
};

const BACK_OFF: (Millis, Millis) = (500, 30 * SECOND);
/// The pauses between two looks at a KDC that lags.
pub const LOOK_AGAIN: (Millis, Millis) = (100, 5 * SECOND);
/// A walk that is woken looks this much later, so that what comes at once counts once.
const WAKING: Millis = 5;

/// What came of a step.
pub enum Took {
    /// It was taken.
    Step,
    /// There is none now.
    Rest,
    /// There is none before this much time has passed.
    Nothing(Millis),
    /// It failed, and is tried again.
    Failed,
}

impl World {
    /// The principal's walk.
    ///
    /// # Panics
    /// While the broker does not run: only its tasks ask.
    pub fn walk(&mut self, principal: &Principal) -> &mut Walk {
        let broker = self.broker.as_mut().expect("the broker runs");
        broker.walks.entry(principal.clone()).or_default()
    }

    /// What the walk is to do now.
    pub fn next_step(&self, principal: &Principal) -> Step {
        let now = self.broker_now().wall;
        let step = self.ledger().next_step(principal, now, &self.plan.rules);
        self.sabotaged(step)
    }

    fn sabotaged(&self, step: Step) -> Step {
        sabotage(self.plan.sabotage, step)
    }
}

fn sabotage(how: Option<Sabotage>, step: Step) -> Step {
    match (how, step) {
        (Some(Sabotage::IgnoreFence), Step::Burn { kvno, why: Burnt::Exposed }) => {
            Step::Activate { kvno, without: Vec::new() }
        }
        (
            Some(Sabotage::NoAcknowledgement),
            Step::Wait { what: Waiting::Acknowledgements { kvno, .. }, .. },
        ) => Step::Activate { kvno, without: Vec::new() },
        (_, step) => step,
    }
}

/// Walks the principal on in the background, or wakes the walk that does.
pub fn kick(sim: &Sim, principal: &Principal) {
    let begins = sim.with(|world| {
        let walk = world.walk(principal);
        if !walk.running {
            walk.running = true;
            return true;
        }
        match walk.sleeping.take() {
            Some(slot) => world.after(WAKING, Event::Woken(slot)),
            None => walk.permit = true,
        }
        false
    });
    if begins {
        let (task, principal) = (sim.clone(), principal.clone());
        sim.spawn(async move { walk(&task, &principal).await });
    }
}

/// Walks every principal on that is not at rest.
pub fn kick_all(sim: &Sim) {
    let mut walking = sim.with(|world| {
        let now = world.broker_now().wall;
        world.ledger().walking(now, &world.plan.rules)
    });
    walking.sort();
    walking.iter().for_each(|principal| kick(sim, principal));
}

async fn walk(sim: &Sim, principal: &Principal) {
    let mut pause = BACK_OFF.0;
    loop {
        lock(sim, principal).await;
        let took = take_step(sim, principal).await;
        unlock(sim, principal);
        let wait = match took {
            Took::Step => {
                pause = BACK_OFF.0;
                continue;
            }
            Took::Rest => {
                let at_rest = sim.with(|world| {
                    world.ledger_mut().set_waiting(principal, None);
                    let at_rest = world.next_step(principal) == Step::Rest;
                    world.walk(principal).running = !at_rest;
                    at_rest
                });
                if at_rest {
                    return;
                }
                continue;
            }
            Took::Nothing(wait) => wait,
            Took::Failed => {
                sim.with(|world| {
                    let why = Some("a step failed".to_owned());
                    world.ledger_mut().set_waiting(principal, why);
                });
                pause = (pause * 2).min(BACK_OFF.1);
                pause
            }
        };
        sleep(sim, principal, wait).await;
    }
}

async fn sleep(sim: &Sim, principal: &Principal, span: Millis) {
    let slot = sim.with(|world| {
        if std::mem::take(&mut world.walk(principal).permit) {
            return None;
        }
        let slot = world.slots.open();
        world.walk(principal).sleeping = Some(slot);
        world.after(span, Event::Woken(slot));
        Some(slot)
    });
    if let Some(slot) = slot {
        sim.wait(slot).await;
        sim.with(|world| world.walk(principal).sleeping = None);
    }
}

async fn lock(sim: &Sim, principal: &Principal) {
    loop {
        let slot = sim.with(|world| {
            if !world.walk(principal).locked {
                world.walk(principal).locked = true;
                return None;
            }
            let slot = world.slots.open();
            world.walk(principal).waiters.push(slot);
            Some(slot)
        });
        match slot {
            Some(slot) => sim.wait(slot).await,
            None => return,
        };
    }
}

fn unlock(sim: &Sim, principal: &Principal) {
    sim.with(|world| {
        world.walk(principal).locked = false;
        for slot in std::mem::take(&mut world.walk(principal).waiters) {
            world.slots.fill(slot, Answer::Now);
        }
    });
}

/// Sees that the principal has a key that the KDC uses. `None` when that can't be done in time.
pub async fn ensure(sim: &Sim, principal: &Principal, deadline: Millis) -> Option<()> {
    let ready =
        || sim.with(|world| world.ledger().principal(principal).is_some_and(|p| p.is_ready()));
    if ready() {
        return Some(());
    }
    lock(sim, principal).await;
    let done = loop {
        if ready() {
            break Some(());
        }
        if sim.with(|world| world.now >= deadline) {
            break None;
        }
        match take_step(sim, principal).await {
            Took::Step => {}
            Took::Rest => break Some(()),
            Took::Nothing(pause) => {
                let left = sim.with(|world| deadline.saturating_sub(world.now));
                sim.sleep(pause.min(left)).await;
            }
            Took::Failed => break None,
        }
    };
    unlock(sim, principal);
    done
}

async fn take_step(sim: &Sim, principal: &Principal) -> Took {
    let step = sim.with(|world| {
        world.guard_clock();
        let step = world.next_step(principal);
        if !matches!(step, Step::Rest | Step::Wait { .. }) {
            world.say(|| format!("{principal}: {step:?}"));
        }
        step
    });
    match &step {
        Step::Rest => Took::Rest,
        Step::Wait { until, what } => {
            let until = World::millis_of(*until);
            wait(sim, principal, until, what.clone()).await
        }
        Step::Make => at_kdc::make(sim, principal, &step).await,
        Step::Set(kvno) => at_kdc::set(sim, principal, *kvno).await,
        Step::SwitchOff(how) => at_kdc::switch_off(sim, principal, *how).await,
        _ => {
            record_step(sim, principal, &step).await;
            Took::Step
        }
    }
}

/// Records a step that is nothing but a record, if it is still the one to take.
async fn record_step(sim: &Sim, principal: &Principal, step: &Step) {
    let (rules, how) = sim.with(|world| (world.plan.rules.clone(), world.plan.sabotage));
    sim.with(|world| {
        if sabotage(how, world.next_step(principal)).is_same(step) {
            world.answers_for(principal, step);
        }
    });
    let taken = sim
        .commit_if(|ledger, note, now| {
            let still = sabotage(how, ledger.next_step(principal, now.wall, &rules)).is_same(step);
            (still && ledger.take_step(principal, step, now.wall))
                .then(|| note_step(note, principal, step))
        })
        .await;
    if taken.is_none() {
        return;
    }
    if matches!(step, Step::Burn { .. }) {
        push_all(sim, principal).await;
    }
}

impl World {
    /// Holds a step that is about to be recorded against what it may break. Before it is flushed:
    /// a crash may leave it done, and nobody told.
    fn answers_for(&mut self, principal: &Principal, step: &Step) {
        let now = self.broker_now().wall;
        let kind = self.ledger().due(principal, now, &self.plan.rules);
        let since = since_of(self.ledger(), principal, step);
        let debt = self.ledger().principal(principal).map(|known| known.debt.clone());
        let ahead = debt.is_some_and(|debt| debt.ahead || debt.asked == Some(Kind::Emergency));
        match step {
            Step::Activate { kvno, without } => {
                self.goes_without(principal, *kvno, without, kind, since);
            }
            Step::Drop(kvno) if ahead => self.leaves_abruptly(principal, *kvno),
            Step::Return => self.gave_up_all(principal),
            _ => {}
        }
    }
}

fn since_of(ledger: &Ledger, principal: &Principal, step: &Step) -> Option<Millis> {
    let held = ledger.principal(principal)?.keysets.get(&step.kvno()?)?;
    Some(World::millis_of(held.since))
}

fn note_step(note: &mut Note, principal: &Principal, step: &Step) {
    if let Step::Activate { kvno, .. } = step {
        note.activating.push((principal.clone(), *kvno));
    }
}

/// Pushes to every holder.
pub async fn push_all(sim: &Sim, principal: &Principal) {
    let holders = sim.with(|world| world.ledger().active_with(principal));
    push(sim, &holders).await;
}

/// Waits, after pushing to the holders that the wait is for.
async fn wait(sim: &Sim, principal: &Principal, until: Millis, what: Waiting) -> Took {
    let text = what.to_string();
    sim.with(|world| world.ledger_mut().set_waiting(principal, Some(text)));
    let left = |sim: &Sim| {
        sim.with(|world| {
            let now = World::millis_of(world.broker_now().wall);
            until.saturating_sub(now).max(LOOK_AGAIN.0)
        })
    };
    let (awaited, from) = match what {
        Waiting::Acknowledgements { kvno, from } => (Awaited::Has(kvno), from),
        Waiting::Removal { kvno, from } => (Awaited::Lacks(kvno), from),
        Waiting::Tickets { .. } | Waiting::Turn { .. } | Waiting::Clock => {
            return Took::Nothing(left(sim));
        }
    };
    let now = sim.with(|world| world.broker_now().wall);
    let owed: Vec<LeaseId> = sim.with(|world| {
        let lately =
            |at: &std::time::SystemTime| now.duration_since(*at).is_ok_and(|age| age < ASK_AGAIN);
        world.walk(principal).pushed.retain(|_, at| lately(at));
        let broker = world.broker.as_ref().expect("the broker runs");
        let pushed = &broker.walks[principal].pushed;
        let stream =
            |id: &LeaseId| broker.ledger.session(&broker.ledger.lease(id)?.holder.node)?.stream;
        let owed = |id: &LeaseId| {
            stream(id).is_some_and(|stream| !pushed.contains_key(&(awaited, *id, stream)))
        };
        from.into_iter().filter(owed).collect()
    });
    if !owed.is_empty() {
        let pushed = push(sim, &owed).await;
        sim.with(|world| {
            let entries = pushed.into_iter().map(|(id, stream)| ((awaited, id, stream), now));
            world.walk(principal).pushed.extend(entries);
        });
    }
    Took::Nothing(left(sim))
}
