//! The model of a node: its agent, its pods, and what it can be told and tell.
//!
//! A stream keeps its order; calls of the agent's own and their answers don't. What comes while
//! a node can't be reached waits, as TCP makes it, or is lost with its call.

use std::collections::{BTreeMap, BTreeSet};

use krb_proto::{Generation, Kvno, LeaseId, NodeName, Principal};

use super::{
    message::{Conn, Keytab, ToAgent, ToBroker},
    plan::{Millis, SECOND},
    realm::KeyPrint,
    world::{Event, World},
};

/// The number of a pod.
pub type PodNo = u64;

/// A pod that runs.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Where.
    pub node: NodeName,
    /// What its keytab is for.
    pub services: Vec<Principal>,
}

/// How an agent behaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// As it should.
    Honest,
    /// As it should, late.
    Slow,
    /// As it likes.
    Liar,
}

/// What is on a volume.
#[derive(Clone, Debug)]
pub struct Volume {
    /// Whose.
    pub pod: PodNo,
    /// Its keys.
    pub keytab: Keytab,
}

/// An ask that is under way.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// For which pod.
    pub pod: PodNo,
    /// Since when.
    pub since: Millis,
    /// Whether its answer is no longer wanted.
    pub spoiled: bool,
}

/// An agent's memory, and its disk.
#[derive(Debug, Default)]
pub struct Agent {
    /// Of this process.
    pub instance: u64,
    /// The last generation it got.
    pub generation: Option<Generation>,
    /// The connection of its stream.
    pub conn: Option<Conn>,
    /// Whether that was welcomed.
    pub attached: bool,
    /// When the broker was last heard of.
    pub heard_at: Millis,
    /// Until when it may serve.
    pub serve_until: Option<Millis>,
    /// What is on its volumes.
    pub held: BTreeMap<LeaseId, Volume>,
    /// What it asked for.
    pub asks: BTreeMap<u64, Ask>,
    /// Leases that ended while asks were open.
    pub ended: BTreeSet<LeaseId>,
    /// Releases that the broker does not know of.
    pub releases: BTreeMap<LeaseId, PodNo>,
    /// Pushes for leases that it may be about to get.
    pub later: Vec<(Conn, LeaseId, Keytab)>,
}

/// A node.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// How its agent behaves.
    pub kind: Kind,
    /// The pods that are bound to it.
    pub pods: BTreeSet<PodNo>,
    /// Whether it runs.
    pub up: bool,
    /// Whether it goes, and gets no more pods.
    pub drained: bool,
    /// Until when it can't be reached.
    pub cut_until: Millis,
    /// Until when it stands still.
    pub frozen_until: Millis,
    /// When it was last not there as it should: cut off, frozen, unattached.
    pub away_at: Millis,
    /// Of this boot.
    pub boot: u64,
    /// Its agent.
    pub agent: Agent,
    /// What waits to be taken in.
    pub stalled: Vec<ToAgent>,
    /// Every key that ever came here.
    pub had: BTreeMap<Principal, BTreeMap<Kvno, KeyPrint>>,
    last_down: Millis,
    last_up: Millis,
}

impl Node {
    /// Whether the broker and it can reach each other now.
    pub fn reachable(&self, now: Millis) -> bool {
        self.up && now >= self.cut_until && now >= self.frozen_until
    }

    /// Whether what it says of its own pods is so.
    pub fn honest(&self) -> bool {
        self.kind != Kind::Liar
    }
}

impl World {
    /// A node joins.
    pub fn add_node(&mut self, kind: Kind) -> NodeName {
        let name: NodeName = format!("node-{}", self.new_name()).parse().expect("a name");
        let node = Node {
            name: name.clone(),
            kind,
            pods: BTreeSet::new(),
            up: true,
            drained: false,
            cut_until: 0,
            frozen_until: 0,
            away_at: self.now,
            boot: self.new_name(),
            agent: Agent { instance: self.new_name(), ..Agent::default() },
            stalled: Vec::new(),
            had: BTreeMap::new(),
            last_down: 0,
            last_up: 0,
        };
        self.nodes.insert(name.clone(), node);
        let first = self.beat_every();
        let first = self.random.below(first);
        self.after(first, Event::Beat(name.clone()));
        name
    }

    fn beat_every(&self) -> Millis {
        self.plan.times.heartbeat.as_millis() as Millis
    }

    /// The broker says something to a node. It has left from here on.
    pub fn tell(&mut self, name: &NodeName, message: ToAgent) {
        self.check_leaves(name, &message);
        let delay = self.random.within(self.plan.network);
        let Some(node) = self.nodes.get_mut(name) else { return };
        let mut at = self.now + delay;
        if message.conn().is_some() {
            at = at.max(node.last_down);
            node.last_down = at;
        }
        let span = at - self.now;
        self.after(span, Event::ToAgent(name.clone(), message));
    }

    /// A node says something to the broker.
    pub fn say_up(&mut self, name: &NodeName, message: ToBroker) {
        let mut delay = self.random.within(self.plan.network);
        let slow = self.random.below(60 * SECOND);
        let Some(node) = self.nodes.get_mut(name) else { return };
        if node.kind == Kind::Slow && matches!(message, ToBroker::Ack { .. }) {
            delay += slow;
        }
        let mut at = self.now + delay;
        if !matches!(message, ToBroker::Issue { .. } | ToBroker::Release { .. }) {
            at = at.max(node.last_up);
            node.last_up = at;
        }
        let span = at - self.now;
        self.after(span, Event::ToBroker(name.clone(), message));
    }

    /// A message arrives at a node, or waits until it can.
    pub fn arrive(&mut self, name: &NodeName, message: ToAgent) {
        let (now, lost) = (self.now, self.random.chance(500));
        let Some(node) = self.nodes.get_mut(name).filter(|node| node.up) else { return };
        if node.reachable(now) && node.stalled.is_empty() {
            self.take_in(name, message);
        } else if message.conn().is_some() || !lost {
            node.stalled.push(message);
        }
    }

    /// The node can be reached again: what waited comes in.
    pub fn recover(&mut self, name: &NodeName) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(name).filter(|node| node.reachable(now)) else {
            return;
        };
        node.away_at = now;
        let stalled = std::mem::take(&mut node.stalled);
        self.expire(name);
        for message in stalled {
            self.take_in(name, message);
        }
    }

    /// What an agent does every so often.
    pub fn beat(&mut self, name: &NodeName) {
        let (now, every) = (self.now, self.beat_every());
        let Some(node) = self.nodes.get_mut(name).filter(|node| node.up) else { return };
        let jitter = self.random.below(every / 10 + 1);
        if !node.reachable(now) {
            node.away_at = now;
        }
        let frozen = now < node.frozen_until;
        let reachable = node.reachable(now);
        self.after(every + jitter, Event::Beat(name.clone()));
        if frozen {
            return;
        }
        self.expire(name);
        self.keep_stream(name, reachable, every);
        self.end_old_asks(name);
        self.ask_for_pods(name);
        self.lie(name);
    }

    fn keep_stream(&mut self, name: &NodeName, reachable: bool, every: Millis) {
        let now = self.now;
        let agent = &mut self.node(name).agent;
        if let (Some(conn), true) = (agent.conn, agent.attached) {
            let serve_for = if reachable { self.heartbeat_of(name, conn) } else { None };
            let agent = &mut self.node(name).agent;
            match serve_for {
                Some(span) => {
                    agent.heard_at = now;
                    agent.serve_until = Some(now + span);
                    return;
                }
                None if !reachable && now < agent.heard_at + 3 * every => return,
                None => {
                    (agent.conn, agent.attached) = (None, false);
                    self.say_up(name, ToBroker::Closed { conn });
                }
            }
        }
        let node = self.node(name);
        node.away_at = now;
        if node.drained && node.agent.held.is_empty() {
            return;
        }
        let waits = node.agent.conn.is_some() && now < node.agent.heard_at + 2 * every;
        if !waits {
            self.connect(name);
        }
    }

    fn heartbeat_of(&mut self, name: &NodeName, conn: Conn) -> Option<Millis> {
        self.broker.as_ref()?;
        self.heartbeat(name, conn)
    }

    /// The node, which is there.
    ///
    /// # Panics
    /// When there is none of this name.
    pub fn node(&mut self, name: &NodeName) -> &mut Node {
        self.nodes.get_mut(name).expect("a node that there is")
    }

    fn connect(&mut self, name: &NodeName) {
        let (conn, now) = (self.new_name(), self.now);
        let node = self.node(name);
        if let Some(old) = node.agent.conn.replace(conn) {
            self.say_up(name, ToBroker::Closed { conn: old });
        }
        let node = self.node(name);
        (node.agent.attached, node.agent.heard_at) = (false, now);
        let mut inventory: Vec<(LeaseId, Keytab)> =
            node.agent.held.iter().map(|(id, volume)| (*id, volume.keytab.clone())).collect();
        let (kind, boot) = (node.kind, node.boot);
        let (instance, generation) = (node.agent.instance, node.agent.generation);
        if kind == Kind::Liar && self.broker.is_some() {
            inventory.extend(self.anybody_s_leases());
        }
        self.say_up(name, ToBroker::Hello { conn, boot, instance, generation, inventory });
    }

    fn anybody_s_leases(&mut self) -> Vec<(LeaseId, Keytab)> {
        let leases: Vec<LeaseId> = self.ledger().leases().map(|lease| lease.id).collect();
        let picked: Vec<LeaseId> = leases.into_iter().filter(|_| self.random.chance(300)).collect();
        let ledger = self.ledger();
        let keytab =
            |id: &LeaseId| Some((*id, super::broker::keytab_of(ledger, ledger.lease(id)?)));
        picked.iter().filter_map(keytab).collect()
    }

    fn end_old_asks(&mut self, name: &NodeName) {
        let now = self.now;
        let agent = &mut self.node(name).agent;
        agent.asks.retain(|_, ask| now < ask.since + 20 * SECOND);
        self.asks_changed(name);
    }

    /// With no ask open, pushes that waited go where they belong.
    fn asks_changed(&mut self, name: &NodeName) {
        let agent = &mut self.node(name).agent;
        if !agent.asks.is_empty() {
            return;
        }
        agent.ended.clear();
        for (conn, lease, keytab) in std::mem::take(&mut agent.later) {
            self.pushed(name, conn, lease, keytab);
        }
    }

    fn ask_for_pods(&mut self, name: &NodeName) {
        let node = &self.nodes[name];
        let agent = &node.agent;
        for lease in agent.releases.keys().copied().collect::<Vec<_>>() {
            self.say_up(name, ToBroker::Release { lease });
        }
        let agent = &self.nodes[name].agent;
        let Some(generation) = agent.generation.filter(|_| agent.attached) else { return };
        let served: BTreeSet<PodNo> = agent
            .held
            .values()
            .map(|volume| volume.pod)
            .chain(agent.asks.values().map(|ask| ask.pod))
            .chain(agent.releases.values().copied())
            .collect();
        let pods = &self.nodes[name].pods;
        let wanted: Vec<PodNo> = pods.difference(&served).copied().collect();
        for pod in wanted {
            let (ask, now) = (self.new_name(), self.now);
            let one = Ask { pod, since: now, spoiled: false };
            self.node(name).agent.asks.insert(ask, one);
            self.say_up(name, ToBroker::Issue { ask, generation, pod });
            if self.random.chance(50) {
                self.say_up(name, ToBroker::Issue { ask, generation, pod });
            }
        }
    }

    /// Nothing is held past its time, or without the broker's word.
    fn expire(&mut self, name: &NodeName) {
        let now = self.now;
        let agent = &mut self.node(name).agent;
        if agent.serve_until.is_some_and(|until| until <= now) {
            agent.serve_until = None;
            self.wipe_all(name);
        }
    }

    fn wipe_all(&mut self, name: &NodeName) {
        let node = self.node(name);
        if node.kind != Kind::Liar {
            node.agent.held.clear();
        }
        node.agent.asks.values_mut().for_each(|ask| ask.spoiled = true);
        self.changed = true;
    }

    fn take_in(&mut self, name: &NodeName, message: ToAgent) {
        let now = self.now;
        let node = self.node(name);
        if message.conn().is_some_and(|conn| node.agent.conn != Some(conn)) {
            if let ToAgent::Welcome { conn, .. } = message {
                self.say_up(name, ToBroker::Closed { conn });
            }
            return;
        }
        match message {
            ToAgent::Welcome { generation, serve_for, .. } => {
                let agent = &mut node.agent;
                agent.generation = Some(generation);
                (agent.attached, agent.heard_at) = (true, now);
                agent.serve_until = Some(now + serve_for);
                self.ask_for_pods(name);
            }
            ToAgent::Fenced { .. } => {
                let agent = &mut node.agent;
                (agent.generation, agent.serve_until) = (None, None);
                (agent.conn, agent.attached) = (None, false);
                self.wipe_all(name);
                self.connect(name);
            }
            ToAgent::Wait { .. } | ToAgent::Cut { .. } => {
                (node.agent.conn, node.agent.attached) = (None, false);
                (node.agent.heard_at, node.away_at) = (now, now);
            }
            ToAgent::Push { conn, lease, keytab } => self.pushed(name, conn, lease, keytab),
            ToAgent::Wipe { lease, again, .. } => self.wiped(name, lease, again),
            ToAgent::Issued { ask, pod, lease, keytab } => {
                self.issued(name, ask, pod, lease, keytab)
            }
            ToAgent::Refused { ask } => {
                node.agent.asks.remove(&ask);
                self.asks_changed(name);
            }
            ToAgent::Released { lease } => drop(node.agent.releases.remove(&lease)),
        }
    }

    fn receives(&mut self, name: &NodeName, keytab: &Keytab) {
        let node = self.node(name);
        for (principal, keys) in keytab.iter() {
            node.had.entry(principal.clone()).or_default().extend(keys);
        }
    }

    fn pushed(&mut self, name: &NodeName, conn: Conn, lease: LeaseId, keytab: Keytab) {
        self.receives(name, &keytab);
        let forgets = self.random.chance(500);
        let node = self.node(name);
        if node.agent.conn != Some(conn) {
            return;
        }
        let liar = node.kind == Kind::Liar;
        if node.agent.later.iter().any(|(_, earlier, _)| *earlier == lease) {
            // behind the one that waits: pushes keep their order
            node.agent.later.push((conn, lease, keytab));
            return;
        }
        match node.agent.held.get_mut(&lease) {
            None if !node.agent.asks.is_empty() => {
                node.agent.later.push((conn, lease, keytab));
                return;
            }
            None if !liar => return,
            None => {}
            Some(_) if liar && forgets => {}
            Some(volume) => {
                volume.keytab = keytab.clone();
                let pod = volume.pod;
                for ask in node.agent.asks.values_mut().filter(|ask| ask.pod == pod) {
                    ask.spoiled = true;
                }
            }
        }
        let Some(generation) = node.agent.generation else { return };
        self.changed = true;
        self.say(|| format!("{name} has of {lease}: {}", super::broker::numbers(&keytab)));
        self.check_holder(name, &lease);
        self.say_up(name, ToBroker::Ack { conn, generation, lease, keytab });
    }

    fn wiped(&mut self, name: &NodeName, lease: LeaseId, again: bool) {
        let node = self.node(name);
        if !node.agent.asks.is_empty() {
            node.agent.ended.insert(lease);
        }
        if node.kind == Kind::Liar {
            return;
        }
        let Some(volume) = node.agent.held.remove(&lease) else { return };
        self.changed = true;
        if !again {
            self.end_pod(volume.pod); // its volume is empty: its owner starts another
        }
    }

    fn issued(&mut self, name: &NodeName, ask: u64, pod: PodNo, lease: LeaseId, keytab: Keytab) {
        self.receives(name, &keytab);
        let runs = self.pods.contains_key(&pod);
        let node = self.node(name);
        let agent = &mut node.agent;
        let good = agent.asks.remove(&ask).is_some_and(|ask| !ask.spoiled)
            && !agent.ended.contains(&lease)
            && !agent.releases.contains_key(&lease);
        let held = agent.held.contains_key(&lease);
        if good && runs {
            let text = super::broker::numbers(&keytab);
            agent.held.insert(lease, Volume { pod, keytab });
            self.changed = true;
            self.say(|| format!("{name} is issued {lease}: {text}"));
            self.check_holder(name, &lease);
        } else if good && !held {
            agent.releases.insert(lease, pod); // granted, and of no use here
        }
        self.asks_changed(name);
    }

    /// A pod ends; its node says so when it can.
    pub fn end_pod(&mut self, number: PodNo) {
        let Some(pod) = self.pods.remove(&number) else { return };
        self.ended_pods.insert(number, self.now);
        self.changed = true;
        let Some(node) = self.nodes.get_mut(&pod.node) else { return };
        node.pods.remove(&number);
        let agent = &mut node.agent;
        for ask in agent.asks.values_mut().filter(|ask| ask.pod == number) {
            ask.spoiled = true;
        }
        if node.kind == Kind::Liar || !node.up {
            return;
        }
        let held: Vec<LeaseId> =
            agent.held.iter().filter(|(_, v)| v.pod == number).map(|(id, _)| *id).collect();
        for lease in held {
            let agent = &mut self.node(&pod.node).agent;
            agent.held.remove(&lease);
            agent.releases.insert(lease, number);
            if !agent.asks.is_empty() {
                agent.ended.insert(lease);
            }
            self.say_up(&pod.node, ToBroker::Release { lease });
            if self.random.chance(100) {
                self.say_up(&pod.node, ToBroker::Release { lease });
            }
        }
    }

    fn lie(&mut self, name: &NodeName) {
        let node = self.node(name);
        let (Some(conn), Some(generation)) = (node.agent.conn, node.agent.generation) else {
            return;
        };
        if node.kind != Kind::Liar || !node.agent.attached || self.broker.is_none() {
            return;
        }
        for (lease, keytab) in self.anybody_s_leases() {
            if self.random.chance(400) {
                self.say_up(name, ToBroker::Ack { conn, generation, lease, keytab });
            } else if self.random.chance(100) {
                self.say_up(name, ToBroker::Release { lease });
            }
        }
        if self.random.chance(30) {
            self.say_up(name, ToBroker::Goodbye { conn, empty: true });
        }
    }

    /// An agent starts again.
    pub fn restart_agent(&mut self, name: &NodeName, reboot: bool) {
        let (instance, boot, now) = (self.new_name(), self.new_name(), self.now);
        let node = self.node(name);
        let old = std::mem::take(&mut node.agent);
        node.away_at = now;
        node.agent.instance = instance;
        if reboot {
            node.boot = boot;
        } else {
            node.agent.generation = old.generation;
            node.agent.serve_until = old.serve_until;
            node.agent.held = old.held;
            node.agent.releases = old.releases;
        }
        node.stalled.clear();
        self.changed = true;
        if let Some(conn) = old.conn {
            self.say_up(name, ToBroker::Closed { conn });
        }
    }

    /// The node dies, with all it has.
    pub fn kill(&mut self, name: &NodeName) {
        let node = self.node(name);
        node.up = false;
        node.stalled.clear();
        let conn = node.agent.conn.take();
        self.changed = true;
        if let Some(conn) = conn.filter(|_| self.random.chance(500)) {
            self.say_up(name, ToBroker::Closed { conn });
        }
    }

    /// Keytabs of pods that run on nodes that tell the truth and serve them.
    pub fn honest_volumes(&self) -> impl Iterator<Item = (&Node, &LeaseId, &Volume)> {
        let serving = self.nodes.values().filter(|node| node.up && node.honest());
        serving
            .flat_map(|node| node.agent.held.iter().map(move |(id, volume)| (node, id, volume)))
            .filter(|(_, _, volume)| self.pods.contains_key(&volume.pod))
    }
}
