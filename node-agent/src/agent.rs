//! What the agent's tasks share: the holdings, the volumes, the journal, the session.
//!
//! The holdings are locked for moments only, never over I/O. A volume's own lock is taken
//! before the holdings', never after. The journal is written by whoever waits for it; those
//! who wait together share one write.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use krb_proto::{Generation, v1::node_service_client::NodeServiceClient};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    dial::ToBroker,
    holdings::Holdings,
    journal::Journal,
    place::Place,
    volume::{VolumeError, Volumes},
};

/// How long the agent waits for what.
#[derive(Clone, Debug)]
pub struct Times {
    /// For a connection, and for Welcome.
    pub connect: Duration,
    /// For the answer to one Issue or Release.
    pub call: Duration,
    /// For a volume to be filled, all attempts together. The driver itself gives up at 100 s.
    pub fill: Duration,
    /// The ceiling of the waits between connections.
    pub reconnect: Duration,
    /// The ceiling of the waits between attempts to serve a pod anew, or to tell a release.
    pub again: Duration,
    /// How often the end of serving is looked at, and what could not be emptied is tried again.
    pub tick: Duration,
    /// For the broker to take the Goodbye.
    pub goodbye: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connect: seconds(10),
            call: seconds(30),
            fill: seconds(90),
            reconnect: seconds(5),
            again: seconds(60),
            tick: seconds(1),
            goodbye: seconds(1),
        }
    }
}

/// An attached session.
#[derive(Clone, Debug)]
pub struct Attached {
    /// The broker.
    pub client: NodeServiceClient<ToBroker>,
    /// The generation that Welcome gave.
    pub generation: Generation,
    /// Cancelled when the session ends.
    pub gone: CancellationToken,
}

/// Who this agent is to the broker.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The kernel's boot id.
    pub boot_id: String,
    /// Random, of this start.
    pub instance: String,
}

/// The agent of one node.
pub struct Agent {
    /// Who it is.
    pub identity: Identity,
    /// The volumes that it writes.
    pub volumes: Volumes,
    /// How long it waits.
    pub times: Times,
    clock: Arc<dyn Clock>,
    holdings: Mutex<Holdings>,
    changed: watch::Sender<()>,
    attached: watch::Sender<Option<Attached>>,
    journal: Journal,
    written: tokio::sync::Mutex<Option<u64>>,
}

impl Agent {
    /// An agent that goes on where the journal ends: what is no longer mounted is released,
    /// what is mounted and unknown is emptied and asked for.
    ///
    /// # Errors
    /// The journal or kubelet's directory can't be read.
    pub fn resume(
        identity: Identity,
        volumes: Volumes,
        journal: Journal,
        times: Times,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Self> {
        let mut holdings = Holdings::resume(journal.read(&identity.boot_id)?);
        for place in holdings.places() {
            if !volumes.lock(&place).is_mounted() {
                tracing::info!(%place, "a volume was taken off while the agent was away");
                holdings.forget(&place);
            }
        }
        for place in volumes.mounted()? {
            holdings.found(place);
        }
        let agent = Self {
            identity,
            volumes,
            times,
            clock,
            holdings: Mutex::new(holdings),
            changed: watch::Sender::new(()),
            attached: watch::Sender::new(None),
            journal,
            written: tokio::sync::Mutex::default(),
        };
        agent.change(|holdings| holdings.expired(agent.clock.now()));
        agent.empty_marked();
        Ok(agent)
    }

    /// Looks at the holdings.
    pub fn look<T>(&self, at: impl FnOnce(&Holdings) -> T) -> T {
        at(&self.holdings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the holdings, and wakes those who wait for a change.
    pub fn change<T>(&self, change: impl FnOnce(&mut Holdings) -> T) -> T {
        let result = change(&mut self.holdings.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_replace(());
        result
    }

    /// Tells of each change from now on.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The session, now and as it changes.
    pub fn session(&self) -> watch::Receiver<Option<Attached>> {
        self.attached.subscribe()
    }

    /// The session is this one from now on, or there is none.
    pub fn set_session(&self, attached: Option<Attached>) {
        if let Some(old) = self.attached.send_replace(attached) {
            old.gone.cancel();
        }
    }

    /// The broker has answered.
    pub fn replied(&self, max_until: Duration) {
        self.change(|holdings| holdings.replied(max_until, self.clock.now()));
    }

    /// The session is attached.
    pub fn welcomed(&self, generation: Generation, max_until: Duration) {
        self.change(|holdings| holdings.welcomed(generation, max_until, self.clock.now()));
    }

    /// Ends the serving if its time has passed.
    pub fn expire(&self) {
        if self.change(|holdings| holdings.expired(self.clock.now())) {
            tracing::error!("no word from the broker until max_until: everything is wiped");
        }
    }

    /// Writes the journal, if something has changed since. One that can't be written is
    /// logged and does not stop the work: an agent that starts without one empties and asks
    /// again for all that it finds.
    pub async fn persist(self: &Arc<Self>) {
        let wanted = self.look(|holdings| holdings.record().1);
        let mut written = self.written.lock().await;
        if written.is_some_and(|done| done >= wanted) {
            return;
        }
        let agent = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || agent.write_journal()).await;
        match done {
            Ok(Ok(number)) => *written = Some(number),
            Ok(Err(error)) => tracing::error!(%error, "the journal can't be written"),
            Err(error) => tracing::error!(%error, "the journal was not written"),
        }
    }

    fn write_journal(&self) -> io::Result<u64> {
        let (text, number) = self.look(|holdings| {
            let (record, number) = holdings.record();
            (Journal::text(&self.identity.boot_id, record), number)
        });
        self.journal.write(&text)?;
        Ok(number)
    }

    /// Empties every volume that is marked for it; one that can't be is tried at each tick.
    /// Blocks.
    pub fn empty_marked(&self) {
        for place in self.look(Holdings::to_empty) {
            self.empty(&place);
        }
    }

    fn empty(&self, place: &Place) {
        let volume = self.volumes.lock(place);
        if !self.look(|holdings| holdings.must_be_emptied(place)) {
            return; // filled anew meanwhile
        }
        match volume.empty() {
            Ok(()) => {
                tracing::info!(%place, "emptied");
                self.change(|holdings| holdings.emptied(place));
            }
            Err(VolumeError::NotMounted) => self.change(|holdings| holdings.forget(place)),
            Err(error) => tracing::error!(%place, %error, "the volume can't be emptied"),
        }
    }

    /// [`Self::empty_marked`] where blocking is not allowed, and then the journal.
    pub async fn empty_marked_soon(self: &Arc<Self>) {
        if !self.look(|holdings| holdings.to_empty().is_empty()) {
            let agent = Arc::clone(self);
            if let Err(error) = tokio::task::spawn_blocking(move || agent.empty_marked()).await {
                tracing::error!(%error, "emptying ended early");
            }
        }
        self.persist().await;
    }

    /// Looks at the end of serving, and tries again what could not be emptied, until `stop`.
    pub async fn keep_time(self: Arc<Self>, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(self.times.tick)).await.is_some() {
            self.expire();
            self.empty_marked_soon().await;
        }
    }
}
