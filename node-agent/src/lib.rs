//! The agent of one node: fetches what the node's pods may have, and writes it into their
//! volumes.
//!
//! ```text
//!  driver ──socket──> filling ─────┐            ┌──> volume    (files on a tmpfs)
//!                                  ├─> agent ───┤
//!  broker <─dial─── session ───────┤  (holdings)├──> journal   (what is remembered)
//!                   upkeep ────────┘            └──> session   (Issue, Release)
//! ```
//!
//! - [`holdings`] decides: what is held, what must go, which answer came too late. Pure.
//! - [`session`] keeps one stream to the broker: heartbeats, pushes, wipes, fences.
//! - [`filling`] fills a volume for the driver, which calls over [`socket`].
//! - [`upkeep`] serves running pods anew and tells the broker of releases.
//! - [`volume`] writes files where no pod can lead it astray.
//! - [`journal`] is what a restart goes on from. It holds no secret.
//! - [`install`] puts the driver into kubelet's directory, before the agent starts.
//!
//! The agent knows nothing of Kerberos: material is opaque to it. It believes the broker, and
//! of the driver only which volume is meant. What it holds is in memory for the moment of
//! writing, and else on the pods' own tmpfs.

pub mod agent;
pub mod backoff;
pub mod clock;
pub mod config;
pub mod dial;
pub mod filling;
pub mod holdings;
pub mod hygiene;
pub mod install;
pub mod journal;
pub mod material;
pub mod place;
pub mod refusal;
pub mod session;
pub mod socket;
pub mod upkeep;
pub mod volume;

use std::{fs, io, os::unix::fs::DirBuilderExt as _, path::Path, sync::Arc};

use tokio::{net::UnixListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    agent::{Agent, Identity},
    clock::SystemClock,
    config::Config,
    dial::Dial,
    journal::Journal,
    volume::Volumes,
};

/// Why the agent can't start.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct StartError {
    doing: &'static str,
    source: io::Error,
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError { doing, source }
}

/// Runs the agent until `stop`; then it says Goodbye and leaves the files on the volumes.
///
/// # Errors
/// It could not start.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), StartError> {
    let identity = identity().map_err(failed("reading the boot id"))?;
    make_run_dir(&config.run_dir).map_err(failed("making the run directory"))?;
    let (volumes, journal) = (Volumes::new(config.kubelet.clone()), Journal::new(&config.run_dir));
    let agent =
        Agent::resume(identity, volumes, journal, config.times.clone(), Arc::new(SystemClock))
            .map_err(failed("going on from the journal"))?;
    let agent = Arc::new(agent);
    agent.persist().await;
    let listener = socket::bind(&config.socket()).map_err(failed("listening for the driver"))?;
    tracing::info!(node = %config.node, broker = %config.dial.broker, "the agent runs");

    serve(agent, Arc::new(config.dial), listener, config.calls_at_once, stop).await;
    Ok(())
}

/// Everything that the agent does, until `stop`. [`run`] says with which clock and over which
/// connection.
pub async fn serve(
    agent: Arc<Agent>,
    dial: Arc<dyn Dial>,
    listener: UnixListener,
    calls_at_once: usize,
    stop: CancellationToken,
) {
    let mut tasks = JoinSet::new(); // whoever drops this future ends them all
    tasks.spawn(session::keep(Arc::clone(&agent), dial, stop.clone()));
    tasks.spawn(upkeep::serve_anew(Arc::clone(&agent), stop.clone()));
    tasks.spawn(upkeep::tell_releases(Arc::clone(&agent), stop.clone()));
    tasks.spawn(Arc::clone(&agent).keep_time(stop.clone()));
    tasks.spawn(socket::serve(Arc::clone(&agent), listener, calls_at_once, stop.clone()));

    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a task of the agent ended early; the agent ends with it");
        }
        stop.cancel(); // none goes on without the others
    }
    agent.persist().await;
}

fn identity() -> io::Result<Identity> {
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let instance = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Identity { boot_id, instance })
}

/// Makes the directory of the socket and the journal, or checks that it is root's alone.
fn make_run_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other("it is no directory of the agent's own user"));
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}
