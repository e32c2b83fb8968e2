//! The session with the broker: kept up for as long as the agent runs.
//!
//! A stream that fails, goes silent or is fenced is followed by the next, after a wait with
//! full jitter. Between two streams nothing is lost: what is held is served on until its
//! time is up, and the next Hello tells of it.

mod events;
mod stream;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use self::stream::End;
use crate::{agent::Agent, backoff::Backoff, dial::Dial};

/// The ceiling of the first wait before a connection: after a restart of the broker all
/// agents come within this.
const FIRST_WAIT: std::time::Duration = std::time::Duration::from_secs(1);

/// The ceiling of the first wait of a node that is banned; it doubles.
const BANNED_WAIT: std::time::Duration = std::time::Duration::from_secs(10);

/// Why there is no session, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No connection.
    #[error("connecting to the broker")]
    Dial(#[from] crate::dial::DialError),
    /// The broker ended the stream with an error.
    #[error("the broker ended the session: {}: {}", .0.code(), .0.message())]
    Status(Box<tonic::Status>),
    /// The broker ended the stream.
    #[error("the broker ended the session")]
    Ended,
    /// No Welcome, or no reply to heartbeats, within its time.
    #[error("the broker is silent")]
    Silent,
    /// The broker said what can't be.
    #[error("the broker said what it never does: {0}")]
    Protocol(&'static str),
    /// Its messages came faster than they could be worked off.
    #[error("too many messages of the broker wait")]
    Overrun,
}

impl From<tonic::Status> for SessionError {
    fn from(status: tonic::Status) -> Self {
        Self::Status(Box::new(status))
    }
}

/// Keeps a session until `stop`, then says Goodbye.
pub async fn keep(agent: Arc<Agent>, dial: Arc<dyn Dial>, stop: CancellationToken) {
    let mut backoff = Backoff::new(FIRST_WAIT.min(agent.times.reconnect), agent.times.reconnect);
    let mut banned = Backoff::new(BANNED_WAIT, agent.times.again.max(BANNED_WAIT));
    while !stop.is_cancelled() {
        let (welcomed, end) = one(&agent, &*dial, &stop).await;
        agent.set_session(None);
        if welcomed {
            backoff.reset();
            banned.reset();
        }
        match end {
            Ok(End::Stopped) => break,
            Ok(End::Fenced) => {
                tracing::error!("fenced by the broker: everything is wiped and asked for anew");
                agent.change(crate::holdings::Holdings::fenced);
                agent.empty_marked_soon().await;
                if welcomed {
                    continue; // at once; but a broker that only fences is not hammered
                }
            }
            Ok(End::Banned) => {
                tracing::error!(
                    "this node is banned: everything is wiped; an operator must unban it"
                );
                agent.change(crate::holdings::Holdings::fenced);
                agent.empty_marked_soon().await;
                stop.run_until_cancelled(tokio::time::sleep(banned.wait())).await;
                continue;
            }
            Err(error) => tracing::warn!(error = chain(&error), "no session with the broker"),
        }
        stop.run_until_cancelled(tokio::time::sleep(backoff.wait())).await;
    }
}

/// One connection and one stream over it. Tells whether there was a Welcome.
async fn one(
    agent: &Arc<Agent>,
    dial: &dyn Dial,
    stop: &CancellationToken,
) -> (bool, Result<End, SessionError>) {
    let dialled = tokio::time::timeout(agent.times.connect, dial.dial());
    match stop.run_until_cancelled(dialled).await {
        None => (false, Ok(End::Stopped)),
        Some(Err(_)) => (false, Err(SessionError::Silent)),
        Some(Ok(Err(error))) => (false, Err(error.into())),
        Some(Ok(Ok(channel))) => stream::run(agent, channel, stop).await,
    }
}

/// The error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
