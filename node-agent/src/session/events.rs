//! Pushes and wipes, worked off in the order in which they came.

use std::{collections::VecDeque, sync::Arc};

use krb_proto::{
    LeaseId,
    v1::{self, sync_request::Event as Said},
};
use tokio::sync::mpsc;

use crate::{
    agent::Agent,
    holdings::PushTo,
    material::{Contents, Digest},
    place::Place,
    volume::VolumeError,
};

/// What the broker sent.
#[derive(Debug)]
pub enum Event {
    /// New material for a lease.
    Push(v1::Push),
    /// A lease has ended.
    Wipe(v1::Wipe),
}

/// A push that has been checked.
struct Push {
    id: u64,
    lease: LeaseId,
    contents: Arc<Contents>,
    /// See [`crate::holdings::Holdings::push_to`].
    arrived: u64,
}

/// Works off `queue` until the stream drops it. Acknowledgements go `out`.
pub async fn work(
    agent: Arc<Agent>,
    mut queue: mpsc::Receiver<Event>,
    out: mpsc::WeakSender<v1::SyncRequest>,
) {
    let mut early: VecDeque<Push> = VecDeque::new();
    let mut changes = agent.changes();
    loop {
        let event = tokio::select! {
            biased;
            event = queue.recv() => event,
            _ = changes.changed(), if !early.is_empty() => {
                for push in std::mem::take(&mut early) {
                    early.extend(apply(&agent, push, &out).await);
                }
                continue;
            }
        };
        match event {
            None => return,
            Some(Event::Wipe(wipe)) => apply_wipe(&agent, &wipe).await,
            Some(Event::Push(push)) => {
                let Some(push) = check(&agent, push) else { continue };
                if early.iter().any(|earlier| earlier.lease == push.lease) {
                    early.push_back(push);
                } else {
                    early.extend(apply(&agent, push, &out).await);
                }
            }
        }
    }
}

fn check(agent: &Agent, push: v1::Push) -> Option<Push> {
    let contents = Contents::check(push.material);
    let lease = push.lease_id.parse();
    match (contents, lease) {
        (Ok(contents), Ok(lease)) => {
            let arrived = agent.look(crate::holdings::Holdings::asks_until_now);
            Some(Push { id: push.push_id, lease, contents: Arc::new(contents), arrived })
        }
        (contents, _) => {
            let error = contents.err().map(|error| error.to_string()).unwrap_or_default();
            tracing::error!(push = push.push_id, error, "a push can't be used");
            None
        }
    }
}

/// Writes a push and acknowledges it. Gives it back when it must wait for an Issue, or for a
/// volume to be in its place.
async fn apply(
    agent: &Arc<Agent>,
    push: Push,
    out: &mpsc::WeakSender<v1::SyncRequest>,
) -> Option<Push> {
    let place = match agent.look(|holdings| holdings.push_to(push.lease, push.arrived)) {
        PushTo::Later => return Some(push),
        PushTo::Volume(place, _) => place,
        PushTo::Nowhere => {
            tracing::warn!(lease = %push.lease, push = push.id, "a push for a lease not held");
            return None;
        }
    };
    let writer = Arc::clone(agent);
    let (lease, contents) = (push.lease, Arc::clone(&push.contents));
    let written = tokio::task::spawn_blocking(move || write(&writer, &place, lease, &contents));
    match written.await.unwrap_or(Written::No) {
        Written::Done => {}
        Written::Later => return Some(push),
        // Said why; without an acknowledgement the broker goes on counting us as old.
        Written::No => return None,
        Written::Gone => {
            agent.persist().await;
            return None;
        }
    }
    agent.persist().await;
    let generation = agent.look(crate::holdings::Holdings::generation)?;
    let acknowledgement = v1::Acknowledgement {
        push_id: push.id,
        lease_id: push.lease.to_string(),
        principals: push.contents.principals().iter().map(Into::into).collect(),
        keytab_digest: push
            .contents
            .digest()
            .map(|digest: Digest| digest.to_vec())
            .unwrap_or_default(),
        generation: generation.0,
    };
    let message = v1::SyncRequest { event: Some(Said::Acknowledgement(acknowledgement)) };
    let _a_session_that_has_ended_takes_none = out.upgrade()?.send(message).await;
    None
}

/// What came of writing a push.
enum Written {
    /// The material is in place, and the lease still held.
    Done,
    /// The volume is not in its place yet.
    Later,
    /// It can't be written, or the lease is no longer held.
    No,
    /// The volume is no more; its lease is to be released.
    Gone,
}

/// Writes a push, if it still may be. Blocks.
fn write(agent: &Agent, place: &Place, lease: LeaseId, contents: &Contents) -> Written {
    let volume = agent.volumes.lock(place);
    let owner = match agent.look(|holdings| holdings.push_to(lease, 0)) {
        PushTo::Volume(_, owner) => owner,
        PushTo::Later => return Written::Later,
        PushTo::Nowhere => return Written::No, // wiped meanwhile
    };
    match volume.replace(lease, &owner, contents) {
        Ok(()) => {}
        Err(VolumeError::NotMounted) => {
            // Its unmount never reached us: we were away. The lease goes back.
            tracing::warn!(%place, %lease, "the volume was taken off without a word");
            agent.change(|holdings| holdings.forget(place));
            return Written::Gone;
        }
        Err(error) => {
            tracing::error!(%place, %lease, %error, "a push can't be written; it is not acknowledged");
            return Written::No;
        }
    }
    if agent.change(|holdings| holdings.pushed(place, lease, contents)) {
        Written::Done
    } else {
        Written::No
    }
}

async fn apply_wipe(agent: &Arc<Agent>, wipe: &v1::Wipe) {
    let Ok(lease) = wipe.lease_id.parse() else {
        tracing::error!("a wipe of a malformed lease");
        return;
    };
    let again = wipe.reason == "UNKNOWN_LEASE"; // the broker has lost it, the pod is still there
    tracing::warn!(%lease, reason = krb_proto::text::shown(&wipe.reason), "a lease has ended");
    if agent.change(|holdings| holdings.lease_ended(lease, again)) {
        agent.empty_marked_soon().await;
    }
}
