//! The broker's memory, and what serves its nodes: as `session::sync`, `issue` and `material`.

use std::{
    collections::{BTreeMap, HashMap},
    rc::Rc,
    time::{Duration, SystemTime},
};

use krb_broker::{
    clock::Now,
    entitlement::{Grant, GrantedPrincipal, Limits},
    keys::{propagation::Setting, standing::Off},
    krb5::key::Keyset,
    lease::{Holder, Lease},
    ledger::{Acknowledged, Ledger},
    session::{
        StreamId,
        attach::{Attach, Hello},
        clock_guard::ClockGuard,
    },
};
use krb_proto::{Generation, Kvno, LeaseId, NodeName, PodRef, Principal};

use super::{
    disk::{Note, Taken},
    message::{Conn, Keytab, ToAgent, ToBroker},
    node::PodNo,
    plan::{Millis, SECOND, Sabotage},
    realm::KeyPrint,
    sim::{Sim, SlotId},
    walking,
    world::World,
};

/// How long an issue may take.
const ISSUE_WITHIN: Millis = 15 * SECOND;

/// What a broker forgets when it dies.
pub struct Broker {
    /// The ledger.
    pub ledger: Ledger,
    /// The stream that each node can be reached by.
    pub hub: BTreeMap<NodeName, (StreamId, Conn)>,
    /// Whose connection is which stream.
    pub conns: BTreeMap<Conn, (NodeName, StreamId)>,
    next_stream: u64,
    /// The walks.
    pub walks: BTreeMap<Principal, Walk>,
    /// Watches the wall clock.
    pub guard: ClockGuard,
    /// How often it has ticked.
    pub ticks: u64,
}

/// One principal's walk.
#[derive(Default)]
pub struct Walk {
    /// Whether a task walks it.
    pub running: bool,
    /// Whether a step is being taken.
    pub locked: bool,
    /// Who waits for the lock.
    pub waiters: Vec<SlotId>,
    /// Whether it was woken while nobody slept.
    pub permit: bool,
    /// Where the walk sleeps.
    pub sleeping: Option<SlotId>,
    /// The keyset that this process made, and whether the KDC had the principal then.
    pub made: Option<(Kvno, bool)>,
    /// What was set by this process.
    pub set: Option<Setting>,
    /// How this process switched the principal off.
    pub off: Option<(Off, Setting)>,
    /// Who was pushed what, on which stream, and when.
    pub pushed: HashMap<(Awaited, LeaseId, StreamId), SystemTime>,
}

/// What a push is to bring about.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Awaited {
    /// That the holder has this kvno.
    Has(Kvno),
    /// That the holder has it no more.
    Lacks(Kvno),
}

impl Broker {
    /// A broker that starts with this ledger.
    pub fn new(ledger: Ledger, now: Now, clock_skew: Duration) -> Self {
        Self {
            ledger,
            hub: BTreeMap::new(),
            conns: BTreeMap::new(),
            next_stream: 0,
            walks: BTreeMap::new(),
            guard: ClockGuard::new(now, clock_skew),
            ticks: 0,
        }
    }

    fn new_stream(&mut self) -> StreamId {
        self.next_stream += 1;
        StreamId(self.next_stream)
    }
}

/// What tells a keyset from another.
pub fn print_of(keyset: &Keyset) -> KeyPrint {
    let first = keyset.keys.first().map(|key| key.contents().expose()).unwrap_or_default();
    first.iter().take(8).fold(0, |print, byte| (print << 8) | u64::from(*byte))
}

/// What the lease's keytab holds now.
pub fn keytab_of(ledger: &Ledger, lease: &Lease) -> Keytab {
    let mut keytab = BTreeMap::new();
    for managed in lease.principals.iter().filter_map(|name| ledger.principal(name)) {
        let keys: BTreeMap<Kvno, KeyPrint> =
            managed.delivered().map(|held| (held.keyset.kvno, print_of(&held.keyset))).collect();
        if !keys.is_empty() {
            keytab.insert(managed.principal.clone(), keys);
        }
    }
    Rc::new(keytab)
}

/// Records that the lease's node gets what its keytab holds now, and takes that out.
fn take_keys(ledger: &mut Ledger, id: &LeaseId, note: &mut Note) -> Option<(Lease, Keytab)> {
    let lease = ledger.deliver(id).ok()?;
    let keytab = keytab_of(ledger, &lease);
    for (principal, keys) in keytab.iter() {
        for kvno in keys.keys() {
            let node = lease.holder.node.clone();
            note.taken.push(Taken { principal: principal.clone(), kvno: *kvno, node });
        }
    }
    Some((lease, keytab))
}

/// Takes a message in.
pub fn hear(sim: &Sim, node: &NodeName, message: ToBroker) {
    if sim.with(|world| world.broker.is_none()) {
        return;
    }
    let (sim, node) = (sim.clone(), node.clone());
    match message {
        ToBroker::Hello { conn, boot, instance, generation, inventory } => {
            let said = Hello {
                boot_id: boot.to_string(),
                instance: instance.to_string(),
                generation,
                key: None,
                node_uid: None,
            };
            let task = sim.clone();
            sim.spawn(async move { attach(&task, &node, conn, said, inventory).await });
        }
        ToBroker::Ack { conn, generation, lease, keytab } => {
            let Some(stream) = sim.with(|world| world.current_stream(&node, conn)) else { return };
            let counts = sim.with(|world| {
                let ledger = &world.ledger();
                let own = ledger.lease(&lease).is_some_and(|lease| lease.holder.node == node);
                own && ledger.check_session(&node, generation).is_ok()
            });
            if counts {
                acknowledged(&sim, stream, &lease, &keytab);
            }
        }
        ToBroker::Goodbye { conn, empty } => {
            let Some(stream) = sim.with(|world| world.current_stream(&node, conn)) else { return };
            let task = sim.clone();
            sim.spawn(async move {
                task.commit(|ledger, _, _| empty && ledger.goodbye_empty(&node, stream)).await;
                task.with(|world| world.end_stream(conn));
            });
        }
        ToBroker::Closed { conn } => sim.with(|world| world.end_stream(conn)),
        ToBroker::Issue { ask, generation, pod } => {
            let task = sim.clone();
            sim.spawn(async move { issue(&task, &node, generation, ask, pod).await });
        }
        ToBroker::Release { lease } => {
            let task = sim.clone();
            sim.spawn(async move {
                task.commit(|ledger, _, now| {
                    let own = ledger.lease(&lease).is_some_and(|lease| lease.holder.node == node);
                    own && ledger.release(&lease, "released by its node", now.wall)
                })
                .await;
                task.with(|world| world.tell(&node, ToAgent::Released { lease }));
            });
        }
    }
}

async fn attach(
    sim: &Sim,
    node: &NodeName,
    conn: Conn,
    said: Hello,
    inventory: Vec<(LeaseId, Keytab)>,
) {
    let stream = sim.with(|world| world.broker.as_mut().expect("it runs").new_stream());
    let times = sim.with(|world| world.plan.times);
    let ignores_fences = sim.with(|world| world.plan.sabotage == Some(Sabotage::IgnoreFence));
    let (answer, serve_for) = sim
        .commit(|ledger, _, now| {
            let mut answer = ledger.attach(node, &said, stream, now);
            if ignores_fences && matches!(answer, Attach::Fenced { .. }) {
                let forgiven = Hello { generation: None, ..said.clone() };
                answer = ledger.attach(node, &forgiven, stream, now);
            }
            let until = ledger.session(node).map(|session| session.max_until(&times));
            let left = until.and_then(|until| until.duration_since(now.wall).ok());
            (answer, left.unwrap_or_default())
        })
        .await;
    sim.with(|world| world.say(|| format!("{node} attaches as {stream:?}: {answer:?}")));
    let generation = match answer {
        Attach::Welcome { generation } => generation,
        Attach::Fenced { .. } => {
            return sim.with(|world| world.tell(node, ToAgent::Fenced { conn }));
        }
        Attach::Wait { .. } | Attach::Replaces { .. } | Attach::Banned => {
            return sim.with(|world| world.tell(node, ToAgent::Wait { conn }));
        }
    };
    sim.with(|world| {
        world.hub_attach(node, stream, conn);
        let serve_for = serve_for.as_millis() as Millis;
        world.tell(node, ToAgent::Welcome { conn, generation, serve_for });
    });
    take_inventory(sim, node, stream, &inventory).await;
}

async fn take_inventory(
    sim: &Sim,
    node: &NodeName,
    stream: StreamId,
    inventory: &[(LeaseId, Keytab)],
) {
    let claimed = inventory.iter().map(|(id, _)| *id).collect();
    let strangers = sim.with(|world| {
        let now = world.broker_now();
        world.ledger_mut().take_inventory(node, &claimed, now)
    });
    for lease in &strangers {
        let again = sim.with(|world| world.ledger().lease(lease).is_none());
        sim.with(|world| {
            world.tell_by_hub(node, |conn| ToAgent::Wipe { conn, lease: *lease, again })
        });
    }
    let mut old = Vec::new();
    for (id, keytab) in inventory.iter().filter(|(id, _)| !strangers.contains(id)) {
        if !acknowledged(sim, stream, id, keytab) {
            old.push(*id);
        }
    }
    if !old.is_empty() {
        push(sim, &old).await;
    }
    let principals: Vec<Principal> = sim.with(|world| {
        let ledger = world.ledger();
        let leases = claimed.iter().filter_map(|id| ledger.lease(id));
        leases.flat_map(|lease| lease.principals.clone()).collect()
    });
    wake(sim, &principals);
}

/// Records that the holder has what it is to have, if this is it.
fn acknowledged(sim: &Sim, stream: StreamId, id: &LeaseId, keytab: &Keytab) -> bool {
    let principals = sim.with(|world| {
        let ledger = world.ledger_mut();
        let lease = ledger.lease(id)?;
        let (wanted, principals) = (keytab_of(ledger, lease), lease.principals.clone());
        if wanted != *keytab {
            return None;
        }
        let known = |name: &Principal| {
            let managed = ledger.principal(name)?;
            Some((name.clone(), managed.delivered_kvnos().into_iter().collect()))
        };
        let kvnos = principals.iter().filter_map(known).collect();
        ledger.acknowledge(id, Acknowledged { stream, kvnos });
        world.say(|| format!("{id} is acknowledged on {stream:?}: {}", numbers(keytab)));
        Some(principals)
    });
    match principals {
        Some(principals) => {
            wake(sim, &principals);
            true
        }
        None => false,
    }
}

/// The numbers in a keytab, for people.
pub fn numbers(keytab: &Keytab) -> String {
    let of = |(principal, keys): (&Principal, &BTreeMap<Kvno, KeyPrint>)| {
        format!("{principal} {:?}", keys.keys().map(|kvno| kvno.0).collect::<Vec<_>>())
    };
    keytab.iter().map(of).collect::<Vec<_>>().join(", ")
}

fn wake(sim: &Sim, principals: &[Principal]) {
    for principal in principals {
        if sim.with(|world| world.ledger().waiting(principal).is_some()) {
            walking::kick(sim, principal);
        }
    }
}

/// Pushes their whole material to these leases, recording first what leaves. Says which streams
/// took it.
pub async fn push(sim: &Sim, leases: &[LeaseId]) -> Vec<(LeaseId, StreamId)> {
    let take = |ledger: &mut Ledger, note: &mut Note, id: &LeaseId| {
        let node = &ledger.lease(id)?.holder.node;
        ledger.session(node)?.stream?;
        ledger.is_active(id).then_some(())?;
        take_keys(ledger, id, note)
    };
    let taken: Vec<(Lease, Keytab)> = sim
        .commit(|ledger, note, _| leases.iter().filter_map(|id| take(ledger, note, id)).collect())
        .await;
    sim.with(|world| {
        let send = |(lease, keytab): (Lease, Keytab)| {
            let node = &lease.holder.node;
            let stream = world.broker.as_ref()?.hub.get(node)?.0;
            let id = lease.id;
            world.tell_by_hub(node, |conn| ToAgent::Push { conn, lease: id, keytab });
            Some((id, stream))
        };
        taken.into_iter().filter_map(send).collect()
    })
}

async fn issue(sim: &Sim, node: &NodeName, generation: Generation, ask: u64, pod: PodNo) {
    let reply = match try_issue(sim, node, generation, pod).await {
        Some((lease, keytab)) => {
            for principal in &lease.principals {
                let asks = |world: &mut World| {
                    world.ledger().principal(principal).is_some_and(|p| p.asks_holders())
                };
                if sim.with(asks) {
                    walking::kick(sim, principal);
                }
            }
            ToAgent::Issued { ask, pod, lease: lease.id, keytab }
        }
        None => ToAgent::Refused { ask },
    };
    sim.with(|world| world.tell(node, reply));
}

async fn try_issue(
    sim: &Sim,
    node: &NodeName,
    generation: Generation,
    pod: PodNo,
) -> Option<(Lease, Keytab)> {
    let began = sim.with(|world| world.now);
    sim.with(|world| world.ledger().check_issue(node, generation)).ok()?;
    let grant = sim.with(|world| {
        let bound = world.pods.get(&pod).filter(|pod| pod.node == *node)?;
        Some(grant(&bound.services))
    })?;
    let holder = holder(node, pod);
    let (bits, max_life) = sim.with(|world| {
        let (high, low) = (world.random.draw(), world.new_name());
        let mut bits = [0; 16];
        bits[..8].copy_from_slice(&high.to_be_bytes());
        bits[8..].copy_from_slice(&low.to_be_bytes());
        (bits, world.plan.max_life)
    });
    let admitted = sim
        .commit(|ledger, note, now| {
            let id = LeaseId::from_random(bits);
            let admitted = ledger.admit(id, holder, generation, &grant, now.wall).ok()?;
            ledger.take_up(&grant, max_life, now.wall);
            if !ledger.is_ready(&grant) {
                return Some((admitted.lease, None));
            }
            Some((admitted.lease, Some(deliver(ledger, note, node, generation, &admitted.lease)?)))
        })
        .await?;
    let (id, delivery) = admitted;
    if delivery.is_some() {
        return delivery;
    }
    for granted in &grant.principals {
        walking::ensure(sim, &granted.principal, began + ISSUE_WITHIN).await?;
    }
    sim.commit(|ledger, note, _| deliver(ledger, note, node, generation, &id)).await
}

fn deliver(
    ledger: &mut Ledger,
    note: &mut Note,
    node: &NodeName,
    generation: Generation,
    id: &LeaseId,
) -> Option<(Lease, Keytab)> {
    ledger.check_issue(node, generation).ok()?;
    take_keys(ledger, id, note)
}

fn grant(services: &[Principal]) -> Grant {
    let granted = |principal: &Principal| GrantedPrincipal {
        principal: principal.clone(),
        client: principal.to_string().contains("web-1"),
        shared: false,
        of_pod: false,
    };
    Grant {
        account: "tsfoo".parse().expect("a login"),
        uid: 1234,
        gid: 1111,
        keytab_gid: None,
        principals: services.iter().map(granted).collect(),
        tickets: Vec::new(),
        limits: Limits {
            leases: 1_000_000,
            principals: 1000,
            new_principals_per_hour: 1000,
            weight: 1,
        },
    }
}

fn holder(node: &NodeName, pod: PodNo) -> Holder {
    let pod = PodRef {
        cluster: "test".into(),
        namespace: "tsfoo".parse().expect("a namespace"),
        name: format!("web-{pod}").parse().expect("a pod's name"),
        uid: format!("uid-{pod}").parse().expect("a uid"),
    };
    Holder { node: node.clone(), pod, volume: "krb-credentials".parse().expect("a volume") }
}

impl World {
    /// The ledger of the broker that runs.
    ///
    /// # Panics
    /// While none runs: only its tasks ask.
    pub fn ledger(&self) -> &Ledger {
        &self.broker.as_ref().expect("the broker runs").ledger
    }

    /// The same, to change what is not stored.
    ///
    /// # Panics
    /// As [`Self::ledger`].
    pub fn ledger_mut(&mut self) -> &mut Ledger {
        &mut self.broker.as_mut().expect("the broker runs").ledger
    }

    /// The stream of the connection, if it is the one that counts; else it ends.
    fn current_stream(&mut self, node: &NodeName, conn: Conn) -> Option<StreamId> {
        let (_, stream) = self.broker.as_ref()?.conns.get(&conn).cloned()?;
        if self.ledger().is_current_stream(node, stream) {
            return Some(stream);
        }
        self.end_stream(conn);
        None
    }

    fn hub_attach(&mut self, node: &NodeName, stream: StreamId, conn: Conn) {
        let Some(broker) = self.broker.as_mut() else { return };
        broker.conns.insert(conn, (node.clone(), stream));
        if let Some((_, old)) = broker.hub.insert(node.clone(), (stream, conn)) {
            self.tell(node, ToAgent::Cut { conn: old });
        }
    }

    /// The connection has ended.
    pub fn end_stream(&mut self, conn: Conn) {
        let Some(broker) = self.broker.as_mut() else { return };
        let Some((node, stream)) = broker.conns.remove(&conn) else { return };
        if broker.hub.get(&node).is_some_and(|(current, _)| *current == stream) {
            broker.hub.remove(&node);
        }
        broker.ledger.stream_ended(&node, stream);
        self.tell(&node, ToAgent::Cut { conn });
    }

    /// Ends whatever stream the node has.
    pub fn hub_cut(&mut self, node: &NodeName) {
        let cut = self.broker.as_mut().and_then(|broker| broker.hub.remove(node));
        if let Some((_, conn)) = cut {
            self.end_stream(conn);
        }
    }

    /// The broker is gone: so is every connection.
    pub fn close_all_streams(&mut self) {
        let conns: Vec<(NodeName, Conn)> = self
            .nodes
            .values()
            .filter_map(|node| Some((node.name.clone(), node.agent.conn?)))
            .collect();
        for (node, conn) in conns {
            self.tell(&node, ToAgent::Cut { conn });
        }
    }

    /// Tells the node something on its stream, if it has one.
    pub fn tell_by_hub(&mut self, node: &NodeName, message: impl FnOnce(Conn) -> ToAgent) {
        let conn = self.broker.as_ref().and_then(|broker| broker.hub.get(node)).map(|(_, c)| *c);
        if let Some(conn) = conn {
            self.tell(node, message(conn));
        }
    }

    /// A heartbeat. Returns for how long the node may serve.
    pub fn heartbeat(&mut self, node: &NodeName, conn: Conn) -> Option<Millis> {
        let (now, times) = (self.broker_now(), self.plan.times);
        let stream = self.current_stream(node, conn)?;
        let until = self.ledger_mut().heard(node, stream, now, &times).ok()?;
        let left: Duration = until.duration_since(now.wall).ok()?;
        Some(left.as_millis() as Millis)
    }
}
