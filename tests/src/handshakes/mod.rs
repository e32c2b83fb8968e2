//! Real GSSAPI handshakes all the time, by the C library of the system: clients of a service and
//! every pod that offers it.
//!
//! Each holder's acceptor is a process in the pod's container, which opens the mounted keytab
//! anew at each handshake. Each acceptor has an initiator of its own, which takes turns: once
//! with a ccache that it keeps, so that a service ticket is used for its whole life, and once
//! with a ccache that holds a TGT alone, so that the KDC is asked for a ticket under the key
//! that it uses now. Both sides must have proved who they are.
//!
//! Nothing is asked twice: a handshake that fails is counted, with what the library said.

mod program;
mod side;
pub mod single;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use side::{Broken, Side};

use crate::{
    realm::RealmError,
    world::{World, WorldError, container, pods::Pod, wait_for},
};

/// Between two handshakes of one holder: the machine has other things to do too.
const PACE: Duration = Duration::from_millis(10);
/// How many rounds a handshake may take. Mutual authentication takes one.
const ROUNDS: usize = 4;

/// What came of the handshakes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// How many succeeded, on both sides.
    pub done: u64,
    /// Each that failed: whose, with which ccache, which side, and what the library said.
    pub failed: Vec<String>,
}

/// What a holder's handshakes are to do, or do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
enum Course {
    Run,
    Hold,
    End,
}

/// One holder's part: what it is to do, what it does, and what came of it.
struct Holder {
    pod: String,
    wish: AtomicU8,
    now: AtomicU8,
    tally: Mutex<Tally>,
}

/// Handshakes that go on until they are stopped, or dropped.
pub struct Handshakes {
    holders: Vec<Arc<Holder>>,
    thread: Option<JoinHandle<()>>,
}

impl Handshakes {
    /// Begins, with every pod as a holder of `service` (`HTTP@host`) and the role account `login`
    /// as the client of all. The pods must be mounted. Returns after each had one handshake.
    ///
    /// # Errors
    /// When a process can't be started, or the account gets no ticket.
    pub fn start(
        world: &World,
        service: &str,
        login: &str,
        pods: &[&Pod],
    ) -> Result<Self, WorldError> {
        let program = program::built()?;
        let tgt = ticket(world, login)?;
        let mut holders = Vec::new();
        let mut pairs = Vec::new();
        for pod in pods {
            let holder = Arc::new(Holder {
                pod: pod.name.clone(),
                wish: AtomicU8::new(Course::Run as u8),
                now: AtomicU8::new(Course::Run as u8),
                tally: Mutex::default(),
            });
            let kept = world.dir().join(format!("kept-{}.ccache", pod.name));
            fs::copy(&tgt, &kept)?;
            pairs.push(Pair {
                holder: holder.clone(),
                acceptor: acceptor(world, pod, &program)?,
                initiator: initiator(&world.realm.profile_path(), &program)?,
                service: service.to_owned(),
                fresh: world.dir().join(format!("fresh-{}.ccache", pod.name)),
                kept,
                tgt: tgt.clone(),
            });
            holders.push(holder);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::spawn(move || runtime.block_on(run_all(pairs)));
        let load = Self { holders, thread: Some(thread) };
        wait_for("the first handshakes", || {
            let began = |holder: &Arc<Holder>| {
                let tally = holder.tally();
                tally.done > 0 || !tally.failed.is_empty()
            };
            load.holders.iter().all(began).then_some(())
        })?;
        Ok(load)
    }

    /// Lets the handshakes of this pod rest; returns when none is under way. Its acceptor stays.
    ///
    /// # Errors
    /// When the pod is no holder, or its handshake does not end.
    pub fn hold(&self, pod: &str) -> Result<(), WorldError> {
        let holder = self.holder(pod)?;
        holder.set(Course::Hold);
        wait_for("a handshake to end", || {
            (holder.now.load(Ordering::SeqCst) != Course::Run as u8).then_some(())
        })
    }

    /// Goes on with this pod after [`Self::hold`].
    ///
    /// # Errors
    /// When the pod is no holder.
    pub fn resume(&self, pod: &str) -> Result<(), WorldError> {
        self.holder(pod)?.set(Course::Run);
        Ok(())
    }

    /// What came of the handshakes of this pod so far.
    ///
    /// # Errors
    /// When the pod is no holder.
    pub fn tally_of(&self, pod: &str) -> Result<Tally, WorldError> {
        Ok(self.holder(pod)?.tally())
    }

    /// What came of all so far.
    pub fn tally(&self) -> Tally {
        let mut sum = Tally::default();
        for holder in &self.holders {
            let tally = holder.tally();
            sum.done += tally.done;
            sum.failed.extend(tally.failed);
        }
        sum
    }

    /// Ends them, each after the handshake that is under way; what came of all.
    pub fn stop(mut self) -> Tally {
        self.end();
        self.tally()
    }

    fn holder(&self, pod: &str) -> Result<&Arc<Holder>, WorldError> {
        let found = self.holders.iter().find(|holder| holder.pod == pod);
        found.ok_or_else(|| WorldError::new("finding a holder", format!("{pod} is none")))
    }

    fn end(&mut self) {
        for holder in &self.holders {
            holder.set(Course::End);
        }
        if let Some(thread) = self.thread.take() {
            // a panic in there has been reported by the thread itself
            let _ = thread.join();
        }
    }
}

impl Drop for Handshakes {
    fn drop(&mut self) {
        self.end();
    }
}

impl Holder {
    fn set(&self, course: Course) {
        self.wish.store(course as u8, Ordering::SeqCst);
    }

    fn tally(&self) -> Tally {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, outcome: Result<(), String>) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(()) => tally.done += 1,
            Err(said) => tally.failed.push(said),
        }
    }
}

/// One holder and its client.
struct Pair {
    holder: Arc<Holder>,
    acceptor: Side,
    initiator: Side,
    service: String,
    tgt: PathBuf,
    kept: PathBuf,
    fresh: PathBuf,
}

async fn run_all(pairs: Vec<Pair>) {
    let mut tasks = tokio::task::JoinSet::new();
    for pair in pairs {
        tasks.spawn(pair.run());
    }
    while tasks.join_next().await.is_some() {}
}

impl Pair {
    async fn run(mut self) {
        let mut with_kept = false;
        loop {
            let wish = self.holder.wish.load(Ordering::SeqCst);
            self.holder.now.store(wish, Ordering::SeqCst);
            if wish == Course::End as u8 {
                return;
            }
            if wish == Course::Run as u8 {
                with_kept = !with_kept;
                let outcome = self.shake(with_kept).await;
                let lost = matches!(outcome, Err(Broken::Side(_)));
                let ccache = if with_kept { "a kept" } else { "a fresh" };
                let named =
                    |broken: Broken| format!("{}, {ccache} ccache: {broken}", self.holder.pod);
                self.holder.count(outcome.map_err(named));
                if lost {
                    // without its process there is nothing to go on with
                    self.holder.now.store(Course::End as u8, Ordering::SeqCst);
                    return;
                }
            }
            tokio::time::sleep(PACE).await;
        }
    }

    async fn shake(&mut self, with_kept: bool) -> Result<(), Broken> {
        if !with_kept {
            fs::copy(&self.tgt, &self.fresh).map_err(|e| Broken::Side(e.to_string()))?;
        }
        let ccache = if with_kept { &self.kept } else { &self.fresh };
        complete(&mut self.initiator, &mut self.acceptor, ccache, &self.service).await
    }
}

/// One handshake from beginning to end: until both sides are done.
async fn complete(
    initiator: &mut Side,
    acceptor: &mut Side,
    ccache: &Path,
    service: &str,
) -> Result<(), Broken> {
    let mut asked = initiator.begin(ccache, service).await?;
    for _ in 0..ROUNDS {
        let answer = acceptor.go_on(&asked.token).await?;
        if asked.is_last && answer.is_last && answer.token.is_empty() {
            return Ok(());
        }
        asked = initiator.go_on(&answer.token).await?;
        if asked.is_last && answer.is_last && asked.token.is_empty() {
            return Ok(());
        }
    }
    Err(Broken::Handshake("both sides: it does not end".to_owned()))
}

fn acceptor(world: &World, pod: &Pod, program: &Path) -> Result<Side, WorldError> {
    let place = pod.object["spec"]["nodeName"].as_str().unwrap_or_default();
    let node = world.nodes.iter().find(|node| node.name() == place);
    let node = node.ok_or_else(|| WorldError::new(format!("the node of {}", pod.name), place))?;
    let script = format!("exec '{}' accept", program.display());
    Side::start("acceptor", &container::command(node, pod, "/usr/bin", &script))
}

fn initiator(profile: &Path, program: &Path) -> Result<Side, WorldError> {
    let mut command = Command::new(program);
    command.arg("initiate").env_clear().env("KRB5_CONFIG", profile);
    Side::start("initiator", &command)
}

/// A ccache with a TGT of this role account, fetched with the keytab that its administrator has.
fn ticket(world: &World, login: &str) -> Result<PathBuf, WorldError> {
    let wrong = |e: RealmError| WorldError::new(format!("a ticket of {login}"), e);
    let keytab = world.realm.dir().join(format!("{login}.keytab"));
    let ccache = world.dir().join(format!("handshakes-{login}.ccache"));
    let kinit = world.realm.tool("kinit").map_err(wrong)?;
    let kinit = kinit.env("KRB5CCNAME", format!("FILE:{}", ccache.display()));
    kinit
        .args([Path::new("-k"), Path::new("-t"), &keytab, Path::new(login)])
        .run()
        .map_err(wrong)?;
    Ok(ccache)
}
