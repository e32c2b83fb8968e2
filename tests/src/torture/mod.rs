//! SIGKILL of the broker under load, on a real realm: whatever it was doing, nothing that it
//! acknowledged is lost, and the KDC, the store and the mounted keytabs agree once all is quiet.
//!
//! Nodes with real agents mount and unmount pods that share services; their agents stop for a
//! while or die, so that nodes are lost and keys replaced; operators ask for new keys and take
//! leases away. Meanwhile the broker is killed: at any moment, right after a step of a walk, or
//! while it starts.
//!
//! A seed decides what is asked for and when; what it meets depends on the machine too.

mod chance;
pub mod check;
mod moment;
mod operator;
mod place;

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::Path,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use krb_broker::clock::{Boottime, Clock as _, SystemClock};
use krb_proto::v1::GetLeaseRequest;
use serde_json::json;
use tokio::runtime::Runtime;

use self::{
    chance::Chance,
    check::{Findings, Volume},
    moment::Moments,
    place::{Acknowledged, Counts, Place},
};
use crate::{
    realm::Options,
    world::{TSFOO, World, WorldError, broker::Settings, make_dir, node::Node, pause, pods::Pod},
};

const NODES: [&str; 3] = ["node-a", "node-b", "node-c"];
/// What each node's pods offer: the name of their Service, and the services in their keytab.
const PODS: [(&str, &str); 4] =
    [("front", "HTTP"), ("front", "HTTP"), ("files", "HTTP,nfs"), ("back", "nfs")];
/// Kills between two comparisons.
const KILLS_IN_A_ROUND: u32 = 5;
/// How long everything may take to come to rest.
const REST_WITHIN: Duration = Duration::from_secs(60);

/// How much is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// So many kills,
    pub kills: u32,
    /// but none after this time; then only the last comparison.
    pub time: Duration,
    /// Decides what happens.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug)]
pub struct Verdict {
    /// How often the broker was killed.
    pub kills: u32,
    /// The seed of the run.
    pub seed: u64,
    /// What was wrong.
    pub findings: Findings,
    /// What the nodes lived through.
    load: Counts,
    /// How often the KDC got a new key, as the broker's log has it.
    rekeys: usize,
}

impl Verdict {
    /// Whether nothing was wrong.
    pub fn is_clean(&self) -> bool {
        self.findings.lost.is_empty() && self.findings.differences.is_empty()
    }

    /// What the broker was killed under: without load the verdict means little.
    pub fn load(&self) -> String {
        let Counts { mounts, unmounts, accidents, revocations, refused } = &self.load;
        let refused: u64 = refused.values().sum();
        format!(
            "{mounts} mounts ({refused} more refused), {unmounts} unmounts, {accidents} accidents of agents, {revocations} revocations, {} new keys in use",
            self.rekeys
        )
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Findings { lost, differences } = &self.findings;
        let (kills, seed) = (self.kills, self.seed);
        write!(
            f,
            "torture: kills={kills} seed={seed} lost={} differences={}",
            lost.len(),
            differences.len()
        )
    }
}

/// Carries the plan out. `tell` is given a line now and then, and what is found at once.
///
/// # Errors
/// When the world can't be built, or a program of it does what no kill excuses.
pub fn run(plan: Plan, tell: &mut dyn FnMut(String)) -> Result<Verdict, WorldError> {
    let mut world = world()?;
    let acknowledged = Acknowledged::default();
    let places = places(&mut world, plan.seed, &acknowledged)?;
    let mut run = Run {
        moments: Moments::new(world.dir().join("audit.log")),
        world,
        places: &places,
        acknowledged,
        runtime: Runtime::new()?,
        plan,
        chance: Chance::new(plan.seed, 0),
        began: SystemClock.now().boot,
        kills: 0,
        compared: 0,
        findings: Findings::default(),
        tell,
    };
    let outcome = run.under_load();
    let verdict = run.verdict();
    if outcome.is_err() || !verdict.is_clean() {
        run.keep_logs()?;
    }
    let mut world = run.world;
    let nodes = places
        .into_iter()
        .map(|place| place.into_inner().unwrap_or_else(PoisonError::into_inner).node);
    world.nodes.extend(nodes); // they go before the broker does
    outcome.map(|()| verdict)
}

/// Pods come and go on a node until all is over.
fn act_on(place: &Mutex<Place>, stop: &AtomicBool) -> Result<(), WorldError> {
    while !stop.load(Ordering::SeqCst) {
        let mut held = locked(place);
        held.act()?;
        let rest = held.rest();
        drop(held);
        pause(rest);
    }
    Ok(())
}

fn locked(place: &Mutex<Place>) -> MutexGuard<'_, Place> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A run and what it has found so far.
struct Run<'a> {
    world: World,
    places: &'a [Mutex<Place>],
    acknowledged: Acknowledged,
    moments: Moments,
    runtime: Runtime,
    plan: Plan,
    chance: Chance,
    began: Boottime,
    kills: u32,
    /// How many there had been at the last comparison.
    compared: u32,
    findings: Findings,
    tell: &'a mut dyn FnMut(String),
}

impl Run<'_> {
    /// Has all nodes act while the broker is killed.
    fn under_load(&mut self) -> Result<(), WorldError> {
        let stop = AtomicBool::new(false);
        let places = self.places;
        std::thread::scope(|scope| {
            let actors: Vec<_> =
                places.iter().map(|place| scope.spawn(|| act_on(place, &stop))).collect();
            let outcome = self.carry_out();
            stop.store(true, Ordering::SeqCst);
            let panicked = |_| WorldError::new("a node's thread", "it panicked");
            let ended = actors.into_iter().map(|actor| actor.join().map_err(panicked)?);
            let ended: Result<Vec<()>, WorldError> = ended.collect();
            outcome.and(ended.map(drop))
        })
    }

    fn carry_out(&mut self) -> Result<(), WorldError> {
        while self.kills < self.plan.kills && self.elapsed() < self.plan.time {
            self.strike()?;
            if self.kills >= self.compared + KILLS_IN_A_ROUND {
                self.compare()?;
            }
        }
        if self.kills > self.compared { self.compare() } else { Ok(()) }
    }

    fn elapsed(&self) -> Duration {
        SystemClock.now().boot.since(self.began)
    }

    /// Has an operator do something.
    fn operate(&mut self) -> Result<(), WorldError> {
        // agents that have just come back have their hands full
        pause(self.chance.span(0, 300));
        let first = self.chance.below(self.places.len());
        let (before, after) = self.places.split_at(first);
        let mut place = after.iter().chain(before).find_map(|place| place.try_lock().ok());
        self.runtime.block_on(async {
            let api = self.world.operator().await?;
            operator::act(&api, &self.chance, place.as_deref_mut()).await
        })
    }

    /// Kills the broker, some times once more while it starts, and starts it again.
    fn strike(&mut self) -> Result<(), WorldError> {
        for _ in 0..self.chance.below(4) {
            self.operate()?;
        }
        self.moments.wait(&self.chance)?;
        let acknowledged = self.acknowledged.all();
        self.world.broker.kill();
        self.kills += 1;
        pause(self.chance.span(0, 200));
        if self.chance.happens(15) && self.kills < self.plan.kills {
            self.world.broker.launch()?;
            pause(self.chance.span(0, 300));
            self.world.broker.kill();
            self.kills += 1;
        }
        self.world.broker.restart()?;
        self.recall(&acknowledged)
    }

    /// The broker must know every lease that was acknowledged before it was killed.
    fn recall(&mut self, acknowledged: &BTreeMap<String, String>) -> Result<(), WorldError> {
        let world = &self.world;
        let lost = self.runtime.block_on(async {
            let mut lost = Vec::new();
            let api = world.operator().await?;
            for (pod, lease) in acknowledged {
                let asked =
                    api.leases().get_lease(GetLeaseRequest { lease_id: lease.clone() }).await;
                match asked {
                    Ok(_) => {}
                    Err(status) if status.code() == tonic::Code::NotFound => {
                        lost.push(format!("lease {lease} of pod {pod} is not known after a kill"))
                    }
                    Err(status) => return Err(WorldError::new("asking for a lease", status)),
                }
            }
            Ok(lost)
        })?;
        self.report(Findings { lost, differences: Vec::new() });
        Ok(())
    }

    /// Waits until all is quiet, and compares.
    fn compare(&mut self) -> Result<(), WorldError> {
        self.compared = self.kills;
        let held: Vec<_> = self.places.iter().map(locked).collect();
        let volumes: Vec<Volume<'_>> = held.iter().flat_map(|place| place.volumes()).collect();
        let (world, began) = (&self.world, SystemClock.now().boot);
        let found = self.runtime.block_on(async {
            let mut differences = Vec::new();
            let api = world.operator().await?;
            while let Some(unrest) = check::unrest(&api, &volumes)
                .await
                .map_err(|e| WorldError::new("asking for the status", e))?
            {
                if SystemClock.now().boot.since(began) > REST_WITHIN {
                    differences.push(format!("it does not come to rest: {unrest}"));
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let mut findings = check::compare(world, &volumes).await?;
            findings.differences.extend(differences);
            Ok::<_, WorldError>(findings)
        })?;
        let logs = held.iter().map(|place| place.node.log()).chain([world.broker.log()]);
        let panicked = logs.into_iter().find(|log| log.contains("panicked"));
        drop(held);
        self.report(found);
        if let Some(log) = panicked {
            return Err(WorldError::new("a program panicked", log));
        }
        let line = format!("{} kills, {} s", self.kills, self.elapsed().as_secs());
        (self.tell)(line);
        Ok(())
    }

    fn report(&mut self, found: Findings) {
        for what in found.lost.iter().chain(&found.differences) {
            (self.tell)(format!("after {} kills: {what}", self.kills));
        }
        self.findings.add(found);
    }

    fn verdict(&self) -> Verdict {
        let mut load = Counts::default();
        for place in self.places {
            load.add(&locked(place).counts);
        }
        let rekeys = self.world.broker.audited("key.current").len();
        let findings = self.findings.clone();
        Verdict { kills: self.kills, seed: self.plan.seed, findings, load, rekeys }
    }

    /// Copies what the programs wrote to where it stays.
    fn keep_logs(&mut self) -> Result<(), WorldError> {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
        let kept = target.join(format!("torture-{}", self.plan.seed));
        make_dir(&kept)?;
        for name in ["broker.log", "audit.log"] {
            let _ = fs::copy(self.world.dir().join(name), kept.join(name));
        }
        for place in self.places {
            let node = &locked(place).node;
            fs::write(kept.join(format!("{}.log", node.name())), node.log())?;
        }
        (self.tell)(format!("the logs are in {}", kept.display()));
        Ok(())
    }
}

/// A realm, a broker and nodes, with spans so short that things happen often.
fn world() -> Result<World, WorldError> {
    let settings = Settings {
        sessions: "heartbeat = \"100ms\"\nsilent_after = \"900ms\"\nlost_after = \"500ms\"\n\
                   lease_ttl = \"1h\"\nunclaimed_after = \"4s\"\n\
                   [sessions.brake]\nsessions = 1000\npods = 1000\n"
            .to_owned(),
        realm: "service_max_life = \"2s\"\nclock_skew = \"1s\"\n\
                acknowledge_within = \"2s\"\nkdc_propagation = \"3s\"\n"
            .to_owned(),
        ..Settings::default()
    };
    let world = World::build(&NODES, &[TSFOO], Options::default(), settings)?;
    for service in ["front", "files", "back"] {
        let object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": service, "namespace": TSFOO.login, "uid": format!("svc-{service}")},
            "spec": {"selector": {"app": service}, "ports": [{"port": 80}]},
        });
        world.pods.put(&format!("service-{service}"), &object)?;
    }
    Ok(world)
}

/// The nodes with their pods.
fn places(
    world: &mut World,
    seed: u64,
    acknowledged: &Acknowledged,
) -> Result<Vec<Mutex<Place>>, WorldError> {
    let nodes: Vec<Node> = std::mem::take(&mut world.nodes);
    let mut places = Vec::new();
    for (stream, node) in (1..).zip(nodes) {
        let mut pods = Vec::new();
        for (number, (service, keytab)) in PODS.iter().enumerate() {
            let name = format!("{service}-{number}-{}", node.name());
            let annotations = [("ts/services", *keytab), ("ts/prestashtkt", "true")];
            let pod = Pod::new(&name, TSFOO.login, TSFOO.uid, node.name());
            let pod = pod.annotated(&annotations).changed(|object| {
                object["metadata"]["labels"]["app"] = json!(service);
            });
            pods.push(world.apply(&pod)?);
        }
        let chance = Chance::new(seed, stream);
        places.push(Mutex::new(Place::new(node, pods, chance, acknowledged.clone())));
    }
    Ok(places)
}
