//! A serving certificate that the replicas of the webhook make themselves.
//!
//! One Secret in their namespace holds the CA that they share; each signs a certificate for a
//! key that only it has, and all of them write the CA into their one named pair of webhook
//! configurations. Nothing of Kerberos is in that Secret.
//!
//! Writes go by `resourceVersion`, and the configurations are read before the Secret: a
//! replica that decided by an older Secret finds its write refused, and looks again.

mod authority;
mod cluster;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use self::{
    authority::{Authorities, Authority, AuthorityError, throwaway},
    cluster::{Cluster, ClusterError},
};
use super::serving::{Certificates, Material, ServingError};
use crate::{
    audit::chain,
    clock::{Boottime, Clock, Now},
    config::admission::SelfMade,
    kubernetes::client::{ConnectError, connect},
};

/// How often a look begins anew because another replica wrote meanwhile.
const ATTEMPTS: usize = 5;

/// How long a look may take.
const LOOK: Duration = Duration::from_secs(20);

/// Why the certificate could not be looked after now.
#[derive(Debug, thiserror::Error)]
pub enum SelfMadeError {
    /// There is no way to the API server.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The API server did not do what was asked.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A certificate can't be made, or what is stored is none.
    #[error("the webhook's CA")]
    Authority(#[from] AuthorityError),
    /// The certificate can't be served.
    #[error(transparent)]
    Serving(#[from] ServingError),
    /// The API server did not answer in time.
    #[error("the API server did not answer in {}s", LOOK.as_secs())]
    TooLong,
    /// Others wrote each time.
    #[error("other replicas wrote each time; the next look is in a while")]
    Conflict,
}

/// Looks after the certificate of this replica.
pub struct Keeper {
    settings: SelfMade,
    cluster: Cluster,
    certificates: Arc<Certificates>,
    clock: Arc<dyn Clock>,
    /// Since when both configurations are known to have each CA.
    believed: BTreeMap<u64, Boottime>,
    /// What is served, and the CA that signed it.
    serving: Option<(u64, Material)>,
}

impl Keeper {
    /// Serves what lets probes be answered. The API server is not asked yet.
    ///
    /// # Errors
    /// When it can't be said where the API server is.
    pub async fn new(
        settings: SelfMade,
        certificates: Arc<Certificates>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, SelfMadeError> {
        certificates.offer(&throwaway()?)?;
        let cluster = Cluster::new(connect(&settings.kubernetes).await?, &settings);
        let believed = BTreeMap::new();
        Ok(Self { settings, cluster, certificates, clock, believed, serving: None })
    }

    /// Looks at all of it every so often until `stop`. While the API server is away, what is
    /// served goes on being served.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut said = None;
        loop {
            let looked = self.look();
            let Some(outcome) = stop.run_until_cancelled(looked).await else { return };
            let problem = outcome.err().map(|error| chain(&error));
            if problem.is_some() && problem != said {
                tracing::warn!(problem, "the webhook's certificate could not be looked after");
            }
            said = problem;
            let pause = tokio::time::sleep(self.settings.every);
            if stop.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }

    async fn look(&mut self) -> Result<(), SelfMadeError> {
        for _ in 0..ATTEMPTS {
            let looked = tokio::time::timeout(LOOK, self.look_once()).await;
            match looked.map_err(|_| SelfMadeError::TooLong)? {
                Err(SelfMadeError::Cluster(error)) if error.is_conflict() => {}
                other => return other,
            }
        }
        Err(SelfMadeError::Conflict)
    }

    async fn look_once(&mut self) -> Result<(), SelfMadeError> {
        let configurations = self.cluster.configurations().await?;
        let secret = self.cluster.secret().await?;
        let now = self.clock.now();
        let mut authorities = Authorities::read(&secret.entries)?;
        if authorities.wants_new(now.wall, self.settings.life) {
            let new = Authority::new(now.wall, self.settings.life)?;
            tracing::info!(ca = new.id(), "a CA was made");
            authorities = authorities.with(new, now.wall);
            self.cluster.write_secret(&secret, authorities.entries()).await?;
        }
        let bundle = authorities.bundle(now.wall);
        for configuration in configurations {
            self.cluster.trust(configuration, &bundle).await?;
        }
        self.note_believed(&authorities, now);
        self.serve(&authorities, now)
    }

    fn note_believed(&mut self, authorities: &Authorities, now: Now) {
        let living: Vec<u64> = authorities.living(now.wall).map(Authority::id).collect();
        self.believed.retain(|id, _| living.contains(id));
        for id in living {
            self.believed.entry(id).or_insert(now.boot);
        }
    }

    /// A new CA is served by once the API servers have had two looks' time to hear of it.
    fn serve(&mut self, authorities: &Authorities, now: Now) -> Result<(), SelfMadeError> {
        let settle = 2 * self.settings.every;
        let settled = |id| self.believed.get(&id).is_some_and(|at| now.boot.since(*at) >= settle);
        let Some(signer) = authorities.signer(now.wall, settled) else { return Ok(()) };
        let (ca, material) = match self.serving.take() {
            Some((ca, material)) if ca == signer.id() => (ca, material),
            _ => (signer.id(), signer.serve(&self.settings.names, now.wall)?),
        };
        let offered = self.certificates.offer(&material); // the client CA may be another
        self.serving = Some((ca, material));
        if offered? {
            tracing::info!(ca, "a certificate of this CA is served");
        }
        Ok(())
    }
}
