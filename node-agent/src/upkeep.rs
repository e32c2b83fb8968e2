//! What goes on beside the driver's calls: pods that run without material are served anew,
//! and the broker is told of releases.
//!
//! Both go on for as long as there is something to do: with back-off, a few at a time, and
//! only while a session is attached.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use krb_proto::LeaseId;
use tokio::{
    task::{JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    agent::{Agent, Attached},
    backoff::{Backoff, jittered},
    holdings::Holdings,
    place::{Place, PodNames},
    refusal::{Again, Refusal},
};

/// How many volumes are served anew, or releases told, at once.
const AT_ONCE: usize = 16;

/// The ceiling of the first wait after a failure; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// Serves pods that run without their material, until `stop`.
pub async fn serve_anew(agent: Arc<Agent>, stop: CancellationToken) {
    let work = Work::new(agent, Holdings::wanted, serve_one);
    stop.run_until_cancelled(work.run()).await;
}

fn serve_one(agent: Arc<Agent>, attached: Attached, place: Place) -> Attempt {
    Box::pin(async move {
        let done = agent.attempt(&attached, &place, &PodNames::default(), None).await.map(drop);
        match &done {
            Ok(()) => tracing::info!(%place, "served anew"),
            Err(refusal) => {
                tracing::warn!(%place, refusal = refusal.text, "a running pod is not served yet");
            }
        }
        done
    })
}

/// Tells the broker of releases, until `stop`.
pub async fn tell_releases(agent: Arc<Agent>, stop: CancellationToken) {
    let work = Work::new(agent, Holdings::releases, tell_one);
    stop.run_until_cancelled(work.run()).await;
}

fn tell_one(agent: Arc<Agent>, attached: Attached, lease: LeaseId) -> Attempt {
    Box::pin(async move {
        let done = agent.release(&attached, lease).await;
        match &done {
            Ok(()) => tracing::info!(%lease, "released"),
            Err(refusal) => {
                tracing::warn!(%lease, refusal = refusal.text, "a release is not told yet");
            }
        }
        agent.persist().await;
        done
    })
}

type Attempt = Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send>>;

/// Items that are attempted for as long as the holdings name them.
struct Work<Item> {
    agent: Arc<Agent>,
    open: fn(&Holdings) -> Vec<Item>,
    attempt: fn(Arc<Agent>, Attached, Item) -> Attempt,
    running: JoinSet<(Item, Result<(), Refusal>)>,
    busy: BTreeSet<Item>,
    /// What has failed, and when it is due again.
    failed: BTreeMap<Item, (Backoff, Instant)>,
}

impl<Item: Clone + Ord + Send + 'static> Work<Item> {
    fn new(
        agent: Arc<Agent>,
        open: fn(&Holdings) -> Vec<Item>,
        attempt: fn(Arc<Agent>, Attached, Item) -> Attempt,
    ) -> Self {
        let (running, busy, failed) = (JoinSet::new(), BTreeSet::new(), BTreeMap::new());
        Self { agent, open, attempt, running, busy, failed }
    }

    /// Never ends.
    async fn run(mut self) {
        let (mut changes, mut session) = (self.agent.changes(), self.agent.session());
        loop {
            changes.mark_unchanged();
            let attached = session.borrow_and_update().clone();
            let next = attached.and_then(|attached| self.begin(&attached));
            let due = tokio::time::sleep_until(next.unwrap_or_else(Instant::now));
            tokio::select! {
                Some(done) = self.running.join_next() => self.end(done),
                _ = changes.changed() => {}
                _ = session.changed() => {}
                () = due, if next.is_some() => {}
            }
        }
    }

    /// Begins what is due, and tells when the next will be.
    fn begin(&mut self, attached: &Attached) -> Option<Instant> {
        let open = self.agent.look(self.open);
        self.failed.retain(|item, _| open.contains(item));
        let now = Instant::now();
        for item in open {
            let waits = self.failed.get(&item).is_some_and(|(_, due)| *due > now);
            if waits || self.running.len() >= AT_ONCE || !self.busy.insert(item.clone()) {
                continue;
            }
            let done = (self.attempt)(Arc::clone(&self.agent), attached.clone(), item.clone());
            self.running.spawn(async move { (item, done.await) });
        }
        self.failed.values().map(|(_, due)| *due).filter(|due| *due > now).min()
    }

    fn end(&mut self, done: Result<(Item, Result<(), Refusal>), JoinError>) {
        match done {
            Ok((item, Ok(()))) => {
                self.busy.remove(&item);
                self.failed.remove(&item);
            }
            Ok((item, Err(refusal))) => {
                self.busy.remove(&item);
                let first = || (Backoff::new(FIRST_WAIT, self.agent.times.again), Instant::now());
                let (backoff, due) = self.failed.entry(item).or_insert_with(first);
                let asked = match refusal.again {
                    Again::After(asked) => jittered(asked),
                    Again::Soon | Again::Never => Duration::ZERO, // a rule may change
                };
                *due = Instant::now() + backoff.wait().max(asked);
            }
            Err(error) => {
                tracing::error!(%error, "an attempt ended early");
                self.busy.clear(); // at worst one is attempted twice, which is harmless
            }
        }
    }
}
