//! Runs the broker's glue as tasks in virtual time.
//!
//! A task is an async function that waits for slots: an answer of kadmin, a flush, a span. An
//! event fills a slot, and the task goes on at once. A crash drops all tasks wherever they
//! wait, which is what makes "a crash at any point" one line.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, VecDeque},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use krb_broker::{clock::Now, kdc::Observation, ledger::Ledger};

use super::{
    disk::Note,
    plan::Millis,
    realm::{Away, Reply},
    world::{Event, World},
};

/// What a slot is filled with.
#[derive(Debug)]
pub enum Answer {
    /// Only that it is time to go on.
    Now,
    /// What kadmin said.
    Kadmin(Result<Reply, Away>),
    /// What one KDC said.
    Seen(Observation),
}

/// The number of a slot.
pub type SlotId = u64;

/// A task of the broker.
pub type Task = Pin<Box<dyn Future<Output = ()>>>;

#[derive(Debug, Default)]
struct Slot {
    answer: Option<Answer>,
    task: Option<u64>,
}

/// What tasks wait for.
#[derive(Default)]
pub struct Slots {
    next: SlotId,
    open: HashMap<SlotId, Slot>,
    ready: VecDeque<u64>,
    spawned: Vec<Task>,
    current: u64,
}

impl Slots {
    /// A new slot, which nothing fills yet.
    pub fn open(&mut self) -> SlotId {
        self.next += 1;
        self.open.insert(self.next, Slot::default());
        self.next
    }

    /// Fills a slot; one that nobody has any more is no error.
    pub fn fill(&mut self, slot: SlotId, answer: Answer) {
        if let Some(open) = self.open.get_mut(&slot)
            && open.answer.is_none()
        {
            open.answer = Some(answer);
            self.ready.extend(open.task);
        }
    }

    /// The broker is gone, and with it all that waited.
    pub fn clear(&mut self) {
        self.open.clear();
        self.ready.clear();
        self.spawned.clear();
    }
}

/// The world, as its tasks share it.
#[derive(Clone)]
pub struct Sim(Rc<RefCell<World>>);

impl Sim {
    /// Shares a world.
    pub fn new(world: World) -> Self {
        Self(Rc::new(RefCell::new(world)))
    }

    /// Looks at the world, or changes it.
    pub fn with<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        look(&mut self.0.borrow_mut())
    }

    /// A task of the broker begins.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.with(|world| world.slots.spawned.push(Box::pin(task)));
    }

    /// Waits until the slot is filled.
    pub fn wait(&self, slot: SlotId) -> impl Future<Output = Answer> + use<> {
        let sim = self.clone();
        std::future::poll_fn(move |_| {
            sim.with(|world| {
                let current = world.slots.current;
                let Some(open) = world.slots.open.get_mut(&slot) else {
                    return Poll::Ready(Answer::Now);
                };
                match open.answer.take() {
                    Some(answer) => {
                        world.slots.open.remove(&slot);
                        Poll::Ready(answer)
                    }
                    None => {
                        open.task = Some(current);
                        Poll::Pending
                    }
                }
            })
        })
    }

    /// Waits for a span.
    pub async fn sleep(&self, span: Millis) {
        let slot = self.with(|world| {
            let slot = world.slots.open();
            world.after(span, Event::Fill(slot));
            slot
        });
        self.wait(slot).await;
    }

    /// Changes the ledger and waits until that is flushed.
    pub async fn commit<T>(&self, change: impl FnOnce(&mut Ledger, &mut Note, Now) -> T) -> T {
        let (outcome, flushed) = self.with(|world| world.write(change));
        self.wait(flushed).await;
        outcome
    }

    /// Changes the ledger, if there is anything to change, and waits until that is flushed.
    pub async fn commit_if<T>(
        &self,
        change: impl FnOnce(&mut Ledger, &mut Note, Now) -> Option<T>,
    ) -> Option<T> {
        let (outcome, flushed) = self.with(|world| world.write_if(change));
        if let Some(flushed) = flushed {
            self.wait(flushed).await;
        }
        outcome
    }
}

/// The tasks that run.
#[derive(Default)]
pub struct Tasks {
    next: u64,
    running: BTreeMap<u64, Task>,
}

impl Tasks {
    /// Drops them all.
    pub fn clear(&mut self) {
        self.running.clear();
    }

    /// Lets every task go on that can.
    pub fn run(&mut self, sim: &Sim) {
        loop {
            for task in sim.with(|world| std::mem::take(&mut world.slots.spawned)) {
                self.next += 1;
                self.running.insert(self.next, task);
                sim.with(|world| world.slots.ready.push_back(self.next));
            }
            let Some(next) = sim.with(|world| world.slots.ready.pop_front()) else { return };
            let Some(mut task) = self.running.remove(&next) else { continue };
            sim.with(|world| world.slots.current = next);
            let mut context = Context::from_waker(Waker::noop());
            if task.as_mut().poll(&mut context).is_pending() {
                self.running.insert(next, task);
            }
        }
    }
}
