//! Until when what was handed out can be misused, tried with the stock tools and the C library:
//! what a dead node had, what was forged with it, what a pod left behind where it was; and nodes
//! that return.
//!
//! A thief here tries all the time what he has, and no attempt that begins after the time that the
//! API names may succeed. Before that time some must: else the story would show nothing.

mod ccache;
mod forged;
mod moved;
mod propagation;
mod returning;
mod stolen;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use krb_broker::clock::{Clock as _, SystemClock};
use krb_proto::v1::Lease;
use krb_tests::{
    handshakes::single::{Acceptor, Initiator, Outcome},
    realm::{Options, Tool},
    world::{TSFOO, World, WorldError, api::Api, broker::Settings, node::Node, pods::Pod},
};

type Story = Result<(), Box<dyn std::error::Error>>;

/// What the holders offer.
const SERVICE: &str = "HTTP@web.tsfoo.svc.cluster.local";
const PRINCIPAL: &str = "HTTP/web.tsfoo.svc.cluster.local@TEST.EXAMPLE.COM";
/// What all clocks may differ by, in seconds: the broker's, the KDCs' and the pods'.
const SKEW: u32 = 3;
/// Longer than any exposure of these stories.
const MOST: Duration = Duration::from_secs(90);

/// Tickets for a service live 3 s, so that a key retires soon. A node is lost after 4 s.
fn settings() -> Settings {
    Settings {
        realm: format!(
            "service_max_life = \"3s\"\nclock_skew = \"{SKEW}s\"\n\
             acknowledge_within = \"3s\"\nkdc_propagation = \"1s\"\n"
        ),
        ..Settings::default()
    }
}

/// A realm whose KDCs and clients tolerate no more than the broker believes.
fn options(kdcs: usize) -> Options {
    Options { kdcs, clock_skew: SKEW, ..Options::default() }
}

/// A world of these nodes that has the service.
fn world(nodes: &[&str], options: Options, settings: Settings) -> Result<World, WorldError> {
    let world = World::build(nodes, &[TSFOO], options, settings)?;
    world.pods.service("tsfoo", "web")?;
    Ok(world)
}

fn node<'a>(world: &'a World, name: &str) -> Result<&'a Node, WorldError> {
    let found = world.nodes.iter().find(|node| node.name() == name);
    found.ok_or_else(|| WorldError::new("finding a node", name))
}

/// A mounted pod of this node that has a keytab, and no ticket that would outlive it.
fn holder(world: &World, name: &str, place: &str) -> Result<Pod, WorldError> {
    mounted(world, name, place, &[("ts/services", "HTTP")])
}

fn mounted(
    world: &World,
    name: &str,
    place: &str,
    asked: &[(&str, &str)],
) -> Result<Pod, WorldError> {
    let pod = Pod::new(name, TSFOO.login, TSFOO.uid, place).annotated(asked);
    let pod = world.apply(&pod)?;
    let answer = node(world, place)?.mount(&pod)?;
    if answer.is_success() {
        return Ok(pod);
    }
    Err(WorldError::new(format!("mounting {name}"), format!("{answer:?}\n{}", world.broker.log())))
}

/// What somebody takes along of a mounted volume: a copy of this file.
fn taken(world: &World, pod: &Pod, part: &str) -> Result<PathBuf, WorldError> {
    let place = pod.object["spec"]["nodeName"].as_str().unwrap_or_default();
    let bytes = node(world, place)?.read(pod, part);
    let bytes = bytes.ok_or_else(|| WorldError::new("stealing", format!("there is no {part}")))?;
    let copy = world.dir().join(format!("stolen-{}-{}", pod.name, part.replace('/', "-")));
    fs::write(&copy, bytes)?;
    Ok(copy)
}

/// A TGT of the role account from the KDC of this krb5.conf, in a ccache of this name.
fn tgt(world: &World, profile: &Path, name: &str) -> Result<PathBuf, WorldError> {
    let failed = |e: krb_tests::realm::RealmError| WorldError::new("asking for a TGT", e);
    let keytab = world.realm.dir().join(format!("{}.keytab", TSFOO.login));
    let ccache = world.dir().join(format!("{name}.ccache"));
    let kinit = Tool::new("kinit", profile).map_err(failed)?;
    let kinit = kinit.env("KRB5CCNAME", format!("FILE:{}", ccache.display()));
    let args = [Path::new("-k"), Path::new("-t"), &keytab, Path::new(TSFOO.login)];
    kinit.args(args).run().map_err(failed)?;
    Ok(ccache)
}

/// The C library reads a clock that the kernel sets forward at each tick: for so long it may be
/// a second behind.
const TICK: Duration = Duration::from_millis(20);

fn now() -> SystemTime {
    SystemClock.now().wall
}

/// The end of a lease's exposure, once the API names one.
fn end_of(lease: &Lease) -> Option<SystemTime> {
    let exposure = lease.exposure.as_ref().filter(|exposure| !exposure.open)?;
    SystemTime::try_from(exposure.exposed_until?).ok()
}

/// The newest lease of a pod, which has one.
async fn lease_of(api: &Api, pod: &Pod) -> Result<Lease, WorldError> {
    let failed = |what: &dyn std::fmt::Display| WorldError::new("looking at a lease", what);
    let lease = api.lease_of(&pod.uid).await.map_err(|e| failed(&e))?;
    lease.ok_or_else(|| failed(&pod.name))
}

/// A thief's attempts on one server.
struct Attempts {
    name: &'static str,
    client: Initiator,
    server: Acceptor,
    /// When the last began that succeeded, and with which ccache.
    last: Option<(SystemTime, PathBuf)>,
    count: usize,
}

impl Attempts {
    fn new(name: &'static str, profile: &Path, server: Acceptor) -> Result<Self, WorldError> {
        Ok(Self { name, client: Initiator::new(profile)?, server, last: None, count: 0 })
    }

    /// Tries it with a copy of this ccache.
    async fn with(&mut self, world: &World, ccache: &Path) -> Result<Outcome, WorldError> {
        self.count += 1;
        let copy = world.dir().join(format!("try-{}-{}.ccache", self.name, self.count));
        fs::copy(ccache, &copy)?;
        let began = now();
        let outcome = self.client.shake(&mut self.server, &copy, SERVICE).await?;
        if outcome.is_accepted() {
            if let Some((_, old)) = self.last.replace((began, copy)) {
                fs::remove_file(old)?;
            }
        } else {
            fs::remove_file(copy)?;
        }
        Ok(outcome)
    }
}

/// Has every attempt tried until the exposure of the pod's lease has ended: then it is that end.
/// Fails when an attempt that began later succeeds, or when none ever did.
async fn tried_until_its_end(
    world: &World,
    api: &Api,
    pod: &Pod,
    ccache: &Path,
    attempts: &mut [Attempts],
) -> Result<SystemTime, WorldError> {
    let wrong = |what: String| WorldError::new(format!("the exposure of {}", pod.name), what);
    let give_up = now() + MOST;
    let end = loop {
        for attempt in &mut *attempts {
            attempt.with(world, ccache).await?;
        }
        let lease = lease_of(api, pod).await?;
        match end_of(&lease) {
            Some(end) if now() > end + TICK => break end,
            _ if now() > give_up => return Err(wrong(format!("does not end: {lease:?}"))),
            _ => {}
        }
    };
    for attempt in attempts {
        match &attempt.last {
            None => return Err(wrong("nothing was ever accepted".to_owned())),
            Some((began, _)) if *began > end + TICK => {
                return Err(wrong(format!(
                    "ended at {end:?}, but not for what began at {began:?}"
                )));
            }
            Some(_) => {}
        }
    }
    Ok(end)
}

/// What the library said when it refused.
fn refusal(outcome: Outcome) -> Result<String, WorldError> {
    match outcome {
        Outcome::Refused(said) => Ok(said),
        Outcome::Accepted => {
            Err(WorldError::new("a refusal", format!("it was accepted before {:?}", now())))
        }
    }
}
