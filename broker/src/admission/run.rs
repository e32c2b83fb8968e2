//! `krb-broker admission`: wired here, read top to bottom. It has no key, no store and no KDC.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    callers::{Callers, CallersError},
    connections,
    self_made::{Keeper, SelfMadeError},
    server::{MAX_IN_FLIGHT, Webhook, router},
    serving::{Certificates, Material, ServingError},
};
use crate::{
    clock::{Clock, SystemClock},
    config::admission::{AdmissionConfig, CertificateSource},
    entitlement::{policy::Policy, problems::Problems},
};

/// How often the certificate's files are looked at.
const FILES_EVERY: Duration = Duration::from_secs(5);

/// How long it goes on serving once it is told to stop: the API server still calls meanwhile.
const LINGER: Duration = Duration::from_secs(5);

/// Why the webhook does not run.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// The entitlements are wrong.
    #[error("the entitlements can't be used:\n{0}")]
    Entitlements(#[from] Problems),
    /// What callers must show can't be read.
    #[error("what the API server's calls end with")]
    Callers(#[from] CallersError),
    /// The certificate can't be served.
    #[error("the webhook's certificate")]
    Certificate(#[from] ServingError),
    /// The certificate can't be made.
    #[error("the webhook's certificate")]
    SelfMade(#[from] SelfMadeError),
    /// The address can't be listened at.
    #[error("listening at {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// Runs the webhook until `stop`, and a little longer.
///
/// # Errors
/// When it can't start.
pub async fn run(config: AdmissionConfig, stop: CancellationToken) -> Result<(), AdmissionError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let policy = Policy::load(config.entitlements, config.rules, clock.clone())?;
    let policy = Arc::new(policy);
    let callers = Callers::new(config.client_ca.is_some(), config.path_end.as_deref())?;
    let certificates = Arc::new(Certificates::new(config.client_ca));
    let failed = |source| AdmissionError::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(failed)?;

    let tasks = TaskTracker::new();
    let stopping = stop.child_token();
    tasks.spawn(read_entitlements(policy.clone(), config.entitlements_every, stopping.clone()));
    match config.certificate {
        CertificateSource::Files { certificate, key } => {
            let files = (certificate, key);
            certificates.offer(&Material::read(&files.0, &files.1).map_err(ServingError::from)?)?;
            tasks.spawn(read_files(files, certificates.clone(), stopping.clone()));
        }
        CertificateSource::SelfMade(settings) => {
            let keeper = Keeper::new(settings, certificates.clone(), clock.clone()).await?;
            tasks.spawn(keeper.run(stopping.clone()));
        }
    }
    let places = Semaphore::new(MAX_IN_FLIGHT);
    let webhook = Webhook { policy, certificates: certificates.clone(), clock, callers, places };
    tracing::info!(listen = %config.listen, "the webhook serves");
    let serving = CancellationToken::new();
    let served =
        connections::serve(listener, router(Arc::new(webhook)), certificates, serving.clone());
    tokio::join!(served, async {
        stop.cancelled().await;
        tokio::time::sleep(LINGER).await;
        serving.cancel();
    });
    tasks.close();
    tasks.wait().await;
    Ok(())
}

async fn read_entitlements(policy: Arc<Policy>, every: Duration, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
        if policy.clone().read_again().await.is_some() {
            let status = policy.status();
            tracing::info!(accounts = status.accounts, problem = status.problem, "entitlements");
        }
    }
}

/// Takes the files over as they change. What can't be used is said once and changes nothing.
async fn read_files(
    (certificate, key): (std::path::PathBuf, std::path::PathBuf),
    certificates: Arc<Certificates>,
    stop: CancellationToken,
) {
    let mut said = None;
    while stop.run_until_cancelled(tokio::time::sleep(FILES_EVERY)).await.is_some() {
        let read = Material::read(&certificate, &key).map_err(ServingError::from);
        let problem = match read.and_then(|material| certificates.offer(&material)) {
            Ok(true) => {
                tracing::info!("the certificate was replaced");
                None
            }
            Ok(false) => None,
            Err(error) => Some(crate::audit::chain(&error)),
        };
        if problem.is_some() && problem != said {
            tracing::error!(problem, "the new certificate can't be served; the one before is");
        }
        said = problem;
    }
}
