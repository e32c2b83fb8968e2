//! The socket that the driver calls: root alone, one request and one reply a connection.
//!
//! The directory is 0700 and the caller's uid is asked of the kernel. Whatever a caller
//! sends or leaves out, it costs one slot for a bounded time.
//!
//! A volume that is not mounted yet comes as a descriptor. After it is filled the connection
//! stays open until the driver hangs up, and only then the agent looks whether the volume is in
//! its place. An agent that hangs up first, because it ends or has waited enough, is seen by the
//! driver, which then does not leave the volume there: so both agree on what is held.

mod request;

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc};

use krb_proto::driver::{self, Call, Fill, Forget, Reply};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::request::Received;
use crate::{
    agent::Agent,
    holdings::Filling,
    place::{Place, PodNames},
    refusal::line,
    volume::Detached,
};

/// How long a caller may take to send its request, or to take its reply.
const FRAME_TIME: std::time::Duration = std::time::Duration::from_secs(5);

/// How long a driver may take to put a filled volume in its place: a moment, if it runs at all.
const PLACE_TIME: std::time::Duration = std::time::Duration::from_secs(10);

/// Listens at this path, in a directory that only root may enter. A socket that an earlier
/// agent left is replaced.
///
/// # Errors
/// Those of the file system.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves at most `at_once` callers at a time until `stop`; then those that are being served
/// are answered, and nobody else.
pub async fn serve(
    agent: Arc<Agent>,
    listener: UnixListener,
    at_once: usize,
    stop: CancellationToken,
) {
    let (slots, calls) = (Arc::new(Semaphore::new(at_once)), TaskTracker::new());
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { break };
        let stream = match stop.run_until_cancelled(listener.accept()).await {
            None => break,
            Some(Ok((stream, _))) => stream,
            Some(Err(error)) => {
                tracing::error!(%error, "a call can't be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let (agent, stop) = (Arc::clone(&agent), stop.clone());
        calls.spawn(async move {
            if let Err(error) = answer(&agent, stream, &stop).await {
                tracing::warn!(%error, "a call was not answered");
            }
            drop(slot);
        });
    }
    calls.close();
    calls.wait().await;
}

async fn answer(
    agent: &Arc<Agent>,
    mut stream: UnixStream,
    stop: &CancellationToken,
) -> io::Result<()> {
    let caller = stream.peer_cred()?;
    if caller.uid() != 0 {
        tracing::error!(uid = caller.uid(), pid = caller.pid(), "only root may call");
        return Ok(());
    }
    let request = tokio::time::timeout(FRAME_TIME, request::read(&stream)).await??;
    // Filling may take long: a driver that dies meanwhile, or an agent that stops, ends it.
    let gone = stop.child_token();
    let (failure, coming) = {
        let served = serve_one(agent, request, &gone);
        tokio::pin!(served);
        let mut rest = [0; 1];
        tokio::select! {
            outcome = &mut served => outcome,
            _ = stream.read(&mut rest) => {
                gone.cancel();
                served.await
            }
        }
    };
    let reply = driver::frame(&Reply { failure });
    let sent = tokio::time::timeout(FRAME_TIME, stream.write_all(&reply)).await;
    if let Some((place, filling)) = coming {
        if matches!(sent, Ok(Ok(()))) {
            let mut rest = [0; 1];
            let hung_up = tokio::time::timeout(PLACE_TIME, stream.read(&mut rest));
            stop.run_until_cancelled(hung_up).await;
        }
        drop(stream); // before looking: a driver that moves the volume later sees it
        agent.look_after(&place, filling).await;
    }
    sent?
}

/// The failure text, empty on success; and the volume that is filled and not mounted yet.
async fn serve_one(
    agent: &Arc<Agent>,
    received: Received,
    gone: &CancellationToken,
) -> (String, Option<(Place, Filling)>) {
    let served = match received.request.call {
        Some(Call::Fill(fill)) => fill_one(agent, &fill, received.volume, gone).await,
        Some(Call::Forget(forget)) => forget_one(agent, &forget).await.map(|()| None),
        None => Err(line("the driver asked for nothing this agent knows", "INVALID_ARGUMENT")),
    };
    match served {
        Ok(coming) => (String::new(), coming),
        Err(text) => (text, None),
    }
}

async fn fill_one(
    agent: &Arc<Agent>,
    fill: &Fill,
    volume: Option<Detached>,
    gone: &CancellationToken,
) -> Result<Option<(Place, Filling)>, String> {
    let place = place_to_fill(agent, fill, volume.is_some())?;
    let names = PodNames { namespace: fill.pod_namespace.clone(), name: fill.pod_name.clone() };
    let filling = agent.fill(&place, &names, volume, gone).await?;
    Ok(fill.detached.then_some((place, filling)))
}

/// The volume that the driver names, if all it says of it agrees.
fn place_to_fill(agent: &Agent, fill: &Fill, came_along: bool) -> Result<Place, String> {
    let refused = |text: &str| line(text, "INVALID_ARGUMENT");
    if fill.detached != came_along {
        return Err(refused("the volume did not come as the driver said"));
    }
    let named = Place::new(&fill.pod_uid, &fill.volume)
        .map_err(|_| refused("the pod's uid or the volume's name is malformed"))?;
    let place = agent.volumes.kubelet().place(&fill.target).map_err(|e| refused(&e.to_string()))?;
    if place != named {
        return Err(refused("the target is not kubelet's directory for this pod and volume"));
    }
    Ok(place)
}

/// A volume is being taken off. The broker is told later; the caller does not wait for it.
async fn forget_one(agent: &Arc<Agent>, forget: &Forget) -> Result<(), String> {
    let place = agent.volumes.kubelet().place(&forget.target);
    let place = place.map_err(|error| line(&error.to_string(), "INVALID_ARGUMENT"))?;
    agent.change(|holdings| holdings.forget(&place));
    agent.persist().await;
    tracing::info!(%place, "taken off");
    Ok(())
}
