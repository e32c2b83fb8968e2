//! The whole of one history: its time, its events, its parts.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use krb_broker::{
    clock::{Boottime, Now, SeededEntropy},
    ledger::{Ledger, record},
    store::seal::{MasterKey, Sealer},
};
use krb_proto::{Kvno, LeaseId, NodeName, Principal};

use super::{
    broker::Broker,
    disk::{Disk, LeaseNote, Note, Queued},
    message::{ToAgent, ToBroker},
    node::{Node, Pod, PodNo},
    plan::{Millis, Mishap, Plan, SECOND, Sabotage},
    random::Random,
    realm::{Call, Realm},
    sim::{Answer, SlotId, Slots},
    truth::{Counts, Truth},
};

/// Something that happens at its time.
#[derive(Clone, Debug)]
pub enum Event {
    /// What a task waited for is there.
    Fill(SlotId),
    /// A walk looks again.
    Woken(SlotId),
    /// The flush ends.
    Flush,
    /// kadmin does what it was asked.
    Kadmin(Principal, Call, SlotId, Fate),
    /// kadmin's answer comes.
    Replied(SlotId, Result<super::realm::Reply, super::realm::Away>),
    /// A KDC is asked.
    Observe(Principal, usize, SlotId),
    /// The replica gets what the primary has.
    Propagate,
    /// A message comes to the broker.
    ToBroker(NodeName, ToBroker),
    /// A message comes to a node.
    ToAgent(NodeName, ToAgent),
    /// An agent does what it does every so often.
    Beat(NodeName),
    /// The broker asks what silence means.
    Tick,
    /// Something goes wrong.
    Mishap,
    /// The broker starts again.
    Restart,
    /// A node can be reached again, or goes on.
    Recover(NodeName),
    /// The wall clock is right again.
    ClockRight,
    /// As many pods run as should.
    Schedule,
    /// One more node is lost.
    LoseOne,
    /// Whether all is well.
    Settle,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// It is executed and answered.
    Answered,
    /// It is executed, and the answer is lost.
    AnswerLost,
    /// It never comes there.
    Lost,
}

#[derive(Debug)]
struct Entry {
    at: Millis,
    number: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// The world of one history.
pub struct World {
    /// The true time.
    pub now: Millis,
    number: u64,
    queue: BinaryHeap<Reverse<Entry>>,
    /// What the seed decides.
    pub random: Random,
    /// What the history is like.
    pub plan: Plan,
    /// What tasks wait for.
    pub slots: Slots,
    /// The store.
    pub disk: Disk,
    /// The broker, while it runs.
    pub broker: Option<Broker>,
    /// How far the broker's wall clock is off, in milliseconds.
    pub clock_offset: i64,
    /// What the broker's keys come from.
    pub entropy: SeededEntropy,
    /// Seals the broker's keys.
    pub sealer: Arc<Sealer>,
    /// The KDCs.
    pub realm: Realm,
    /// The nodes, dead ones too.
    pub nodes: BTreeMap<NodeName, Node>,
    /// Those of the beginning that are to be lost one by one.
    pub originals: VecDeque<NodeName>,
    /// The pods that run.
    pub pods: BTreeMap<PodNo, Pod>,
    /// When pods that no longer run ended.
    pub ended_pods: BTreeMap<PodNo, Millis>,
    /// All services.
    pub services: Vec<Principal>,
    /// What is really so.
    pub truth: Truth,
    /// What happened, in numbers.
    pub counts: Counts,
    /// What must never be, and was.
    pub violation: Option<String>,
    /// Whether all was well in the end.
    pub settled: bool,
    /// Whether nothing more goes wrong.
    pub healed: bool,
    /// The broker has just died.
    pub crashed: bool,
    /// Whether something changed that may break a rule.
    pub changed: bool,
    next_name: u64,
    trace: Option<VecDeque<String>>,
}

/// How much of a trace is kept.
const TRACE: usize = 4000;

impl World {
    /// An empty world; `tracing` keeps the end of what happens.
    pub fn new(plan: Plan, random: Random, tracing: bool) -> Self {
        let master = MasterKey::random(&SeededEntropy::new(1));
        let sealer = Arc::new(Sealer::new(&master, Arc::new(SeededEntropy::new(2))));
        let mut random = random;
        let entropy = SeededEntropy::new(random.draw());
        let service = |n| {
            format!("HTTP/web-{n}.tsfoo.svc.cluster.local@EXAMPLE.COM").parse().expect("a name")
        };
        Self {
            now: 0,
            number: 0,
            queue: BinaryHeap::new(),
            random,
            services: (0..plan.principals).map(service).collect(),
            plan,
            slots: Slots::default(),
            disk: Disk::default(),
            broker: None,
            clock_offset: 0,
            entropy,
            sealer,
            realm: Realm::default(),
            nodes: BTreeMap::new(),
            originals: VecDeque::new(),
            pods: BTreeMap::new(),
            ended_pods: BTreeMap::new(),
            truth: Truth::default(),
            counts: Counts::default(),
            violation: None,
            settled: false,
            healed: false,
            crashed: false,
            changed: false,
            next_name: 0,
            trace: tracing.then(VecDeque::new),
        }
    }

    /// Something happens after this span.
    pub fn after(&mut self, span: Millis, event: Event) {
        self.number += 1;
        let entry = Entry { at: self.now + span, number: self.number, event };
        self.queue.push(Reverse(entry));
    }

    /// What happens next.
    pub fn pop(&mut self) -> Option<Event> {
        let Reverse(entry) = self.queue.pop()?;
        self.now = entry.at;
        Some(entry.event)
    }

    /// A number that no name of this history has.
    pub fn new_name(&mut self) -> u64 {
        self.next_name += 1;
        self.next_name
    }

    /// The true time on a wall clock.
    pub fn true_wall(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_700_000_000) + Duration::from_millis(self.now)
    }

    /// A time of the true wall clock as virtual time; 0 for one before the beginning.
    pub fn millis_of(at: SystemTime) -> Millis {
        let start = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        u64::try_from(at.duration_since(start).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
    }

    /// This instant, as the broker sees it.
    pub fn broker_now(&self) -> Now {
        let off = Duration::from_millis(self.clock_offset.unsigned_abs());
        let wall = self.true_wall();
        let wall = if self.clock_offset < 0 { wall - off } else { wall + off };
        Now { boot: Boottime(Duration::from_millis(1_000_000 + self.now)), wall }
    }

    /// Notes what happens, if anybody wants to know.
    pub fn say(&mut self, what: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            if trace.len() == TRACE {
                trace.pop_front();
            }
            let what = what().replace(".tsfoo.svc.cluster.local@EXAMPLE.COM", "");
            trace.push_back(format!("{:>9.3} {what}", now as f64 / 1000.0));
        }
    }

    /// The end of what happened.
    pub fn trace(&self) -> impl Iterator<Item = &String> {
        self.trace.iter().flatten()
    }

    /// A rule is broken; the first one counts.
    pub fn violate(&mut self, what: impl fmt::Display) {
        self.say(|| format!("VIOLATION {what}"));
        self.violation.get_or_insert_with(|| what.to_string());
    }

    /// Changes the ledger; the change is flushed when the slot is filled.
    ///
    /// # Panics
    /// While the broker does not run: nothing of it runs then.
    pub fn write<T>(
        &mut self,
        change: impl FnOnce(&mut Ledger, &mut Note, Now) -> T,
    ) -> (T, SlotId) {
        self.guard_clock();
        let now = self.broker_now();
        let mut note = Note::default();
        let broker = self.broker.as_mut().expect("the broker runs");
        let outcome = change(&mut broker.ledger, &mut note, now);
        (outcome, self.submit(note))
    }

    /// As [`Self::write`], if there is anything to change.
    pub fn write_if<T>(
        &mut self,
        change: impl FnOnce(&mut Ledger, &mut Note, Now) -> Option<T>,
    ) -> (Option<T>, Option<SlotId>) {
        self.guard_clock();
        let now = self.broker_now();
        let mut note = Note::default();
        let broker = self.broker.as_mut().expect("the broker runs");
        match change(&mut broker.ledger, &mut note, now) {
            Some(outcome) => (Some(outcome), Some(self.submit(note))),
            None => (None, None),
        }
    }

    fn submit(&mut self, mut note: Note) -> SlotId {
        let broker = self.broker.as_mut().expect("the broker runs");
        let round = broker.ledger.take_round(&self.sealer);
        note_records(&broker.ledger, &round.puts, &mut note);
        let slot = self.slots.open();
        self.disk.queue.push_back(Queued { round, note, slot });
        self.changed = true;
        if self.plan.sabotage == Some(Sabotage::SkipFlush) {
            self.slots.fill(slot, Answer::Now);
        }
        if !self.disk.flushing {
            self.disk.flushing = true;
            let span = self.random.within(self.plan.flush);
            self.after(span, Event::Flush);
        }
        slot
    }

    /// The flush is done: all rounds that waited are durable, and those who waited are told.
    pub fn flushed(&mut self) {
        self.disk.flushing = false;
        while self.keep_one() {}
    }

    /// One more round is durable.
    pub fn keep_one(&mut self) -> bool {
        let Some(queued) = self.disk.write_one() else { return false };
        self.now_durable(&queued.note);
        self.slots.fill(queued.slot, Answer::Now);
        self.changed = true;
        true
    }

    /// The broker dies: of what was not flushed, some is on the disk all the same.
    pub fn crash(&mut self) {
        if self.broker.take().is_none() {
            return;
        }
        let kept = self.random.below(self.disk.queue.len() as u64 + 1);
        let lost = self.disk.queue.len() as u64 - kept;
        self.say(|| format!("the broker dies; {kept} rounds are on the disk, {lost} are lost"));
        for _ in 0..kept {
            self.keep_one();
        }
        self.disk.queue.clear();
        self.disk.flushing = false;
        self.slots.clear();
        self.crashed = true;
        self.counts.crashes += 1;
        self.close_all_streams();
        self.check_after_crash();
        let span = self.random.within((2 * SECOND, 15 * SECOND));
        self.after(span, Event::Restart);
    }

    /// What the store has, read back.
    pub fn read_ledger(&mut self) -> Option<Ledger> {
        let records: Vec<_> =
            self.disk.records.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let now = self.broker_now();
        match record::read("test".into(), &records, &self.sealer, now) {
            Ok(ledger) => Some(ledger),
            Err(error) => {
                self.violate(format!("the store can't be read back: {error}"));
                None
            }
        }
    }

    /// Draws a mishap from the menu.
    pub fn draw_mishap(&mut self) -> Option<Mishap> {
        let all: u64 = self.plan.menu.iter().map(|(_, weight)| weight).sum();
        let mut at = self.random.below(all);
        for (mishap, weight) in &self.plan.menu {
            if at < *weight {
                return Some(*mishap);
            }
            at -= weight;
        }
        None
    }

    /// The nodes of which something is true.
    pub fn nodes_that(&self, is: impl Fn(&Node) -> bool) -> Vec<NodeName> {
        self.nodes.values().filter(|node| is(node)).map(|node| node.name.clone()).collect()
    }
}

/// Notes what the records of a round mean.
fn note_records(ledger: &Ledger, puts: &[(Vec<u8>, Vec<u8>)], note: &mut Note) {
    let mut seen = BTreeSet::new();
    for (key, _) in puts {
        let Some((kind, name)) = key.split_first() else { continue };
        match kind {
            b'L' => {
                let id = <[u8; 16]>::try_from(name).ok().map(LeaseId::from_random);
                if let Some(lease) = id.and_then(|id| ledger.lease(&id)) {
                    note.leases.push(LeaseNote {
                        lease: lease.id,
                        node: lease.holder.node.clone(),
                        state: lease.state,
                        principals: lease.principals.clone(),
                    });
                }
            }
            b'K' => {
                let Some(zero) = name.iter().position(|byte| *byte == 0) else { continue };
                let principal =
                    std::str::from_utf8(&name[..zero]).ok().and_then(|n| n.parse().ok());
                let kvno = <[u8; 4]>::try_from(&name[zero + 1..]).ok().map(u32::from_be_bytes);
                if let (Some(principal), Some(kvno)) = (principal, kvno) {
                    seen.insert((principal, Kvno(kvno)));
                }
            }
            _ => {}
        }
    }
    for (principal, kvno) in seen {
        let held = ledger.principal(&principal).and_then(|known| known.keysets.get(&kvno));
        if let Some(held) = held {
            note.keysets.push((principal, kvno, super::broker::print_of(&held.keyset)));
        }
    }
}
