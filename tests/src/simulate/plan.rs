//! How large a history is, how long its spans are, and what goes wrong in it.

use std::time::Duration;

use krb_broker::{
    keys::{
        schedule::Schedule,
        walk::{WalkRules, WalkTimes},
    },
    session::Times,
};

use super::random::Random;

/// Virtual time, in milliseconds since the history began.
pub type Millis = u64;

/// One second.
pub const SECOND: Millis = 1000;
/// One minute.
pub const MINUTE: Millis = 60 * SECOND;
/// One hour.
pub const HOUR: Millis = 60 * MINUTE;

/// What is done wrong on purpose: the simulator must find it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Sabotage {
    /// What a round was to record leaves before the round is flushed.
    SkipFlush,
    /// A new key is set at the KDC under the number of the one before.
    ReuseNumber,
    /// A key that a fenced node was given is activated all the same.
    IgnoreFence,
    /// A key counts as used by every KDC as soon as it is set at the primary.
    NoObservation,
    /// A key is activated before its holders have it.
    NoAcknowledgement,
}

/// What may happen besides the usual: how likely it is, against all the others.
pub type Menu = Vec<(Mishap, u64)>;

/// One kind of thing that happens to a history.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Mishap {
    /// The broker dies and starts again.
    BrokerCrash,
    /// A node can't reach the broker for a while.
    Partition,
    /// A node stands still for a while.
    Freeze,
    /// An agent starts again; what it holds stays.
    AgentRestart,
    /// A node starts again; what it holds is gone.
    Reboot,
    /// A node dies, with all it holds.
    Kill,
    /// A node is drained, and its agent says that it goes.
    Drain,
    /// kadmin does not answer for a while.
    KadminAway,
    /// Calls of kadmin get lost, or their answers, for a while.
    KadminLossy,
    /// The replica gets no changes for a while.
    HeldPropagation,
    /// The replica does not answer for a while.
    ReplicaSilent,
    /// The broker's wall clock is wrong for a while.
    ClockStep,
    /// The disk is slow for a while.
    SlowDisk,
    /// A pod ends.
    PodEnds,
    /// An operator revokes a lease, with an overlap.
    RevokeOverlap,
    /// An operator revokes a lease now.
    RevokeNow,
    /// An operator disables the principals of a lease.
    RevokeDisable,
    /// An operator uses a disabled principal again.
    SwitchOn,
    /// An operator evicts a node.
    Evict,
    /// An operator asks for a rotation.
    Rotate,
    /// An operator asks for an emergency.
    Emergency,
}

/// Everything that is drawn before a history begins.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Nodes, without those that replace dead ones.
    pub nodes: usize,
    /// Pods that are kept running.
    pub pods: usize,
    /// Services.
    pub principals: usize,
    /// How many of a hundred nodes lie, and how many are slow.
    pub liars: u64,
    /// See `liars`.
    pub slow: u64,
    /// How long things go wrong.
    pub trouble: Millis,
    /// How long after that all must be well.
    pub settle_within: Millis,
    /// Between two mishaps.
    pub mishap_every: (Millis, Millis),
    /// How often one of the nodes of the beginning dies, if they do.
    pub loses_every: Option<Millis>,
    /// How often pods are brought to nodes.
    pub schedules_every: Millis,
    /// What may go wrong.
    pub menu: Menu,
    /// A message's way.
    pub network: (Millis, Millis),
    /// A flush.
    pub flush: (Millis, Millis),
    /// A call of kadmin, each way.
    pub kadmin: (Millis, Millis),
    /// Until the replica has a change.
    pub propagation: (Millis, Millis),
    /// How many of a thousand flushes the broker does not survive.
    pub crash_at_flush: u64,
    /// The spans of sessions.
    pub times: Times,
    /// The spans and schedules of walks.
    pub rules: WalkRules,
    /// The longest life of a service's tickets.
    pub max_life: Duration,
    /// How often the broker asks what silence means, and sweeps.
    pub tick: Millis,
    /// Whether everything is checked after every event, or at each tick only.
    pub check_always: bool,
    /// What is done wrong on purpose.
    pub sabotage: Option<Sabotage>,
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Plan {
    /// A small cluster in which much goes wrong, in minutes for what takes hours.
    pub fn of_trouble(random: &mut Random) -> Self {
        let schedule = if random.chance(300) {
            vec![("HTTP/*".parse().expect("a pattern"), seconds(400))]
        } else {
            Vec::new()
        };
        Self {
            nodes: 2 + random.below(3) as usize,
            pods: 2 + random.below(5) as usize,
            principals: 1 + random.below(2) as usize,
            liars: if random.chance(400) { 30 } else { 0 },
            slow: if random.chance(300) { 25 } else { 0 },
            trouble: 15 * MINUTE,
            settle_within: 6 * HOUR,
            mishap_every: if random.chance(500) {
                (SECOND, 20 * SECOND)
            } else {
                (10 * SECOND, 2 * MINUTE)
            },
            loses_every: None,
            schedules_every: 10 * SECOND,
            menu: menu(random),
            network: (1, if random.chance(300) { 3 * SECOND } else { 50 }),
            flush: (1, 20),
            kadmin: (1, 40),
            propagation: (100, if random.chance(500) { 20 * SECOND } else { 500 }),
            crash_at_flush: if random.chance(300) { 10 } else { 0 },
            times: Times {
                heartbeat: seconds(10),
                silent_after: seconds(25),
                lost_after: seconds(60),
                lease_ttl: seconds(1800),
                unclaimed_after: seconds(60),
                ..Times::default()
            },
            rules: WalkRules {
                times: WalkTimes {
                    acknowledge_within: seconds(15),
                    holder_deadline: seconds(40),
                    rekey_min_interval: seconds(30),
                    kdc_propagation: seconds(60),
                    clock_skew: seconds(90),
                },
                schedule: Schedule(schedule),
            },
            max_life: seconds(300),
            tick: 5 * SECOND,
            check_always: true,
            sabotage: None,
        }
    }
}

/// The nodes of [`Plan::of_a_day`].
pub const DAY_NODES: usize = 300;
/// Its holders.
pub const DAY_HOLDERS: usize = 3000;

impl Plan {
    /// A day on which every node dies once, one by one: one service whose tickets live for ten
    /// hours, with the spans that the broker has unless it is told otherwise.
    pub fn of_a_day() -> Self {
        let mut plan = Self::of_trouble(&mut Random::of_history(0, 0));
        plan.nodes = DAY_NODES;
        plan.pods = DAY_HOLDERS;
        plan.principals = 1;
        (plan.liars, plan.slow) = (0, 0);
        plan.trouble = 24 * HOUR;
        plan.loses_every = Some(24 * HOUR / DAY_NODES as Millis);
        plan.schedules_every = MINUTE;
        plan.mishap_every = (25 * HOUR, 25 * HOUR);
        (plan.network, plan.propagation) = ((5, 5), (100, 30 * SECOND));
        plan.crash_at_flush = 0;
        plan.times = Times {
            heartbeat: seconds(120),
            silent_after: seconds(300),
            lost_after: seconds(300),
            ..Times::default()
        };
        plan.rules = WalkRules::default();
        plan.max_life = seconds(36_000);
        plan.tick = 30 * SECOND;
        plan.check_always = false;
        plan
    }
}

/// A few kinds of mishaps for each history: what goes wrong together is what matters.
fn menu(random: &mut Random) -> Menu {
    use Mishap::{
        AgentRestart, BrokerCrash, ClockStep, Drain, Emergency, Evict, Freeze, HeldPropagation,
        KadminAway, KadminLossy, Kill, Partition, PodEnds, Reboot, ReplicaSilent, RevokeDisable,
        RevokeNow, RevokeOverlap, Rotate, SlowDisk, SwitchOn,
    };
    let all = [
        (BrokerCrash, 6),
        (Partition, 6),
        (Freeze, 4),
        (AgentRestart, 4),
        (Reboot, 3),
        (Kill, 3),
        (Drain, 3),
        (KadminAway, 4),
        (KadminLossy, 4),
        (HeldPropagation, 4),
        (ReplicaSilent, 3),
        (ClockStep, 3),
        (SlowDisk, 2),
        (PodEnds, 8),
        (RevokeOverlap, 6),
        (RevokeNow, 3),
        (RevokeDisable, 2),
        (Evict, 3),
        (Rotate, 6),
        (Emergency, 2),
    ];
    let mut menu: Menu = all.into_iter().filter(|_| random.chance(450)).collect();
    if menu.iter().any(|(mishap, _)| *mishap == RevokeDisable) {
        menu.push((SwitchOn, 6));
    }
    menu.push((PodEnds, 2));
    menu
}
