//! Filling a volume: for the driver, which waits, or again for a pod that runs without.
//!
//! One attempt is: tell the broker of releases of the same volume, Issue, write, remember.
//! The release goes first, else the Issue could be answered with the lease about to end.
//!
//! A volume that the driver has not mounted yet is filled through its descriptor, which is
//! closed before the driver is answered; what the agent does after that, it does by path.

use std::sync::Arc;

use krb_proto::{LeaseId, v1};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    agent::{Agent, Attached},
    backoff::{Backoff, jittered},
    holdings::{Ask, Filling, Held},
    material::Issued,
    place::{Place, PodNames},
    refusal::{Again, Refusal},
    volume::{Detached, Volume, VolumeError},
};

/// The first wait between attempts; it doubles.
const FIRST_WAIT: std::time::Duration = std::time::Duration::from_millis(50);

/// The most that attempts for a waiting driver are apart.
const LONGEST_WAIT: std::time::Duration = std::time::Duration::from_secs(2);

impl Agent {
    /// Fills a volume that the driver has mounted, or is going to. Tries for
    /// [`crate::agent::Times::fill`], or until the driver has `gone`. One that is going to be
    /// mounted waits for [`Self::look_after`].
    ///
    /// # Errors
    /// The text for the pod's owner.
    pub async fn fill(
        self: &Arc<Self>,
        place: &Place,
        names: &PodNames,
        detached: Option<Detached>,
        gone: &CancellationToken,
    ) -> Result<Filling, String> {
        let detached = detached.map(Arc::new);
        if detached.is_some() && self.look(|holdings| holdings.places().contains(place)) {
            // Nothing is mounted there: whatever was has gone without a word.
            self.change(|holdings| holdings.forget(place));
        }
        let deadline = Instant::now() + self.times.fill;
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut last = Refusal::away();
        while let Some(attached) = self.attached_before(deadline, gone).await {
            match self.attempt(&attached, place, names, detached.as_ref()).await {
                Ok(filling) => return Ok(filling),
                Err(refusal) => last = refusal,
            }
            let wait = match last.again {
                Again::Never => break,
                Again::Soon => backoff.wait(),
                Again::After(asked) => jittered(asked),
            };
            if gone.is_cancelled() || Instant::now() + wait >= deadline {
                break;
            }
            tokio::time::sleep(wait).await;
        }
        tracing::warn!(%place, refusal = last.text, "a volume was not filled");
        Err(last.text)
    }

    /// The driver has hung up after a volume was filled that was not mounted: it is in its
    /// place now, or its lease is given back.
    pub async fn look_after(self: &Arc<Self>, place: &Place, filling: Filling) {
        let (agent, at) = (Arc::clone(self), place.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let there = agent.volumes.lock(&at).is_mounted();
            if !there {
                tracing::warn!(place = %at, "a volume was filled and never mounted");
            }
            agent.change(|holdings| holdings.arrived(&at, filling, there));
        });
        if let Err(error) = looked.await {
            tracing::error!(%place, %error, "looking for a volume ended early");
            self.change(|holdings| holdings.arrived(place, filling, false));
        }
        self.empty_marked_soon().await; // it may have been wiped on its way
    }

    async fn attached_before(
        &self,
        deadline: Instant,
        gone: &CancellationToken,
    ) -> Option<Attached> {
        let mut session = self.session();
        let attached = async { session.wait_for(Option::is_some).await.ok()?.clone() };
        let waited = gone.run_until_cancelled(tokio::time::timeout_at(deadline, attached));
        waited.await?.ok()?
    }

    /// One attempt.
    ///
    /// # Errors
    /// Why it failed; nothing of it is left on the volume, unless an older lease of it is.
    pub async fn attempt(
        self: &Arc<Self>,
        attached: &Attached,
        place: &Place,
        names: &PodNames,
        detached: Option<&Arc<Detached>>,
    ) -> Result<Filling, Refusal> {
        for lease in self.look(|holdings| holdings.releases_of(place)) {
            self.release(attached, lease).await?;
        }
        let ask = OpenAsk::begin(self, place);
        let request = v1::IssueRequest {
            pod_uid: place.pod.to_string(),
            volume: place.volume.to_string(),
            generation: attached.generation.0,
            pod_namespace: names.namespace.clone(),
            pod_name: names.name.clone(),
        };
        let mut client = attached.client.clone();
        let answer = self.call(attached, client.issue(request)).await?;
        let issued = Issued::check(answer, place).map_err(|error| {
            tracing::error!(%place, %error, "an Issue was answered badly");
            Refusal::lasting("the credential broker failed", "INTERNAL")
        })?;
        let detached = detached.cloned();
        let install = move || ask.install(&issued, detached.as_deref());
        let installed = tokio::task::spawn_blocking(install).await;
        let installed = installed.unwrap_or_else(|error| {
            tracing::error!(%place, %error, "writing ended early");
            Err(Refusal::lasting("the node's agent failed", "INTERNAL"))
        });
        self.persist().await;
        installed
    }

    /// Tells the broker of a release.
    ///
    /// # Errors
    /// It could not be told.
    pub async fn release(
        self: &Arc<Self>,
        attached: &Attached,
        lease: LeaseId,
    ) -> Result<(), Refusal> {
        let generation = attached.generation.0;
        let request = v1::ReleaseRequest { lease_id: lease.to_string(), generation };
        let mut client = attached.client.clone();
        self.call(attached, client.release(request)).await?;
        self.change(|holdings| holdings.released(lease));
        Ok(())
    }

    /// Waits for an answer as long as it may take and the session lasts.
    async fn call<T>(
        &self,
        attached: &Attached,
        answer: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Refusal> {
        let limited = tokio::time::timeout(self.times.call, answer);
        match attached.gone.run_until_cancelled(limited).await {
            Some(Ok(Ok(response))) => Ok(response.into_inner()),
            Some(Ok(Err(status))) => Err(Refusal::of(&status)),
            Some(Err(_)) | None => Err(Refusal::away()),
        }
    }
}

/// An Issue under way; over when dropped.
struct OpenAsk {
    agent: Arc<Agent>,
    ask: Ask,
}

impl Drop for OpenAsk {
    fn drop(&mut self) {
        self.agent.change(|holdings| holdings.ask_done(&self.ask));
    }
}

impl OpenAsk {
    fn begin(agent: &Arc<Agent>, place: &Place) -> Self {
        let ask = agent.change(|holdings| holdings.ask(place));
        Self { agent: Arc::clone(agent), ask }
    }

    /// Writes what was granted, if it still may be. Blocks.
    fn install(&self, issued: &Issued, detached: Option<&Detached>) -> Result<Filling, Refusal> {
        let (agent, place) = (&self.agent, self.ask.place());
        let volume = agent.volumes.lock(place);
        if !agent.look(|holdings| holdings.may_fill(&self.ask, issued.lease)) {
            return Err(self.too_late(issued.lease));
        }
        if let Err(error) = volume.fill(issued, detached) {
            return Err(self.unwritable(&volume, issued.lease, &error));
        }
        let held = Held::from(issued);
        let filled = agent.change(|h| h.filled(&self.ask, held, detached.is_some()));
        if let Some(filling) = filled {
            tracing::info!(%place, lease = %issued.lease, "filled");
            return Ok(filling);
        }
        if detached.is_none() {
            self.take_back(&volume); // the driver throws one away that is not mounted
        }
        Err(self.too_late(issued.lease))
    }

    /// The volume has changed since the Issue began: whoever asks, asks again.
    fn too_late(&self, lease: LeaseId) -> Refusal {
        self.agent.change(|holdings| holdings.unused(lease, self.ask.place()));
        Refusal { again: Again::Soon, ..Refusal::away() }
    }

    fn unwritable(&self, volume: &Volume<'_>, lease: LeaseId, error: &VolumeError) -> Refusal {
        let place = self.ask.place();
        tracing::error!(%place, %lease, %error, "what was issued can't be written");
        if !self.agent.look(|holdings| holdings.holds(place, lease)) {
            self.take_back(volume);
        }
        self.agent.change(|holdings| holdings.unwritten(place, lease));
        if *error == VolumeError::NotMounted {
            self.agent.change(|holdings| holdings.forget(place));
        }
        refusal_of(error)
    }

    fn take_back(&self, volume: &Volume<'_>) {
        match volume.empty() {
            Ok(()) | Err(VolumeError::NotMounted) => {}
            Err(error) => {
                tracing::error!(place = %self.ask.place(), %error, "the volume can't be emptied");
            }
        }
    }
}

/// What the pod's owner reads. The details, which change, are in the log.
fn refusal_of(error: &VolumeError) -> Refusal {
    match error {
        VolumeError::NotMounted => {
            Refusal::lasting("the volume is not mounted", "VOLUME_NOT_MOUNTED")
        }
        VolumeError::Foreign(_) => {
            Refusal::lasting("the volume was not made by the driver", "VOLUME_FOREIGN")
        }
        VolumeError::Full(_) => {
            Refusal::lasting("the volume is too small for its credentials", "VOLUME_FULL")
        }
        VolumeError::System { .. } => {
            Refusal::lasting("the node's agent can't write the volume", "VOLUME_FAILED")
        }
    }
}
