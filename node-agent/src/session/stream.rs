//! One stream: Hello, Welcome, heartbeats, and what the broker pushes.
//!
//! Heartbeats never wait for a volume: pushes and wipes are worked off by a task of their
//! own, in the order in which they came.

use std::{sync::Arc, time::Duration};

use krb_proto::{
    Generation,
    reason::Reason,
    span,
    v1::{
        self, goodbye, node_service_client::NodeServiceClient, sync_request::Event as Said,
        sync_response::Event as Heard,
    },
};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::{SessionError, events};
use crate::{
    agent::{Agent, Attached},
    dial::ToBroker,
};

/// How many messages may wait to be sent, or to be worked off.
const QUEUE: usize = 4096;

/// After how many heartbeats without a reply the broker counts as silent.
const SILENT_AFTER: u32 = 3;

/// The heartbeat intervals that are believed.
const INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(3600);

/// How a stream ended, if not by an error.
#[derive(Debug)]
pub enum End {
    /// The agent stops; it has said Goodbye.
    Stopped,
    /// The generation has passed.
    Fenced,
    /// An operator has banned the node, or its key.
    Banned,
}

/// Runs one stream to its end. Tells whether it was welcomed.
pub async fn run(
    agent: &Arc<Agent>,
    channel: ToBroker,
    stop: &CancellationToken,
) -> (bool, Result<End, SessionError>) {
    let (out, said) = mpsc::channel(QUEUE);
    let (events, queue) = mpsc::channel(QUEUE);
    let worker = tokio::spawn(events::work(Arc::clone(agent), queue, out.downgrade()));
    let mut stream = Stream {
        agent,
        client: NodeServiceClient::new(channel),
        out: Some(out),
        events,
        beat: None,
    };
    let end = stream.talk(said, stop).await;
    let welcomed = stream.beat.is_some();
    drop(stream);
    // A push that is being written is written to the end before the next Hello is said.
    if let Err(error) = worker.await {
        tracing::error!(%error, "working off the broker's messages ended early");
    }
    (welcomed, end)
}

struct Stream<'a> {
    agent: &'a Arc<Agent>,
    client: NodeServiceClient<ToBroker>,
    /// None once the agent has said its last.
    out: Option<mpsc::Sender<v1::SyncRequest>>,
    events: mpsc::Sender<events::Event>,
    /// The heartbeat's interval, once welcomed.
    beat: Option<Duration>,
}

impl Stream<'_> {
    async fn talk(
        &mut self,
        said: mpsc::Receiver<v1::SyncRequest>,
        stop: &CancellationToken,
    ) -> Result<End, SessionError> {
        self.say(Said::Hello(self.hello()))?;
        let mut client = self.client.clone();
        let begun = client.sync(ReceiverStream::new(said));
        let begun = tokio::time::timeout(self.agent.times.connect, begun);
        let Some(begun) = stop.run_until_cancelled(begun).await else { return Ok(End::Stopped) };
        let mut heard = begun.map_err(|_| SessionError::Silent)??.into_inner();

        let mut beats = tokio::time::interval(*INTERVALS.end());
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent_at = Instant::now() + self.agent.times.connect;
        loop {
            let message = tokio::select! {
                message = heard.message() => message?.ok_or(SessionError::Ended)?,
                _ = beats.tick(), if self.beat.is_some() => {
                    self.say(Said::Heartbeat(v1::Heartbeat {}))?;
                    continue;
                }
                () = tokio::time::sleep_until(silent_at) => return Err(SessionError::Silent),
                () = stop.cancelled() => {
                    self.say_goodbye(&mut heard).await;
                    return Ok(End::Stopped);
                }
            };
            match message.event {
                Some(Heard::Fenced(fenced)) if fenced.reason == Reason::Banned.as_str() => {
                    return Ok(End::Banned);
                }
                Some(Heard::Fenced(_)) => return Ok(End::Fenced),
                Some(Heard::Welcome(welcome)) => {
                    let beat = self.attach(&welcome)?;
                    beats = tokio::time::interval_at(Instant::now() + beat, beat);
                    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    silent_at = Instant::now() + beat * SILENT_AFTER;
                }
                Some(Heard::HeartbeatReply(reply)) => {
                    let beat = self.beat.ok_or(SessionError::Protocol("a reply before Welcome"))?;
                    self.agent.replied(max_until(reply.max_until.as_ref())?);
                    silent_at = Instant::now() + beat * SILENT_AFTER;
                }
                Some(Heard::Push(push)) => self.pass_on(events::Event::Push(push))?,
                Some(Heard::Wipe(wipe)) => self.pass_on(events::Event::Wipe(wipe))?,
                None => tracing::warn!("the broker said something this agent does not know"),
            }
        }
    }

    fn hello(&self) -> v1::Hello {
        self.agent.look(|holdings| v1::Hello {
            boot_id: self.agent.identity.boot_id.clone(),
            instance: self.agent.identity.instance.clone(),
            generation: holdings.generation().map(|generation| generation.0),
            inventory: holdings.inventory(),
        })
    }

    fn attach(&mut self, welcome: &v1::Welcome) -> Result<Duration, SessionError> {
        let beat = welcome.heartbeat_interval.as_ref().map(span).unwrap_or_default();
        if !INTERVALS.contains(&beat) {
            return Err(SessionError::Protocol("a heartbeat interval of under 10 ms or over 1 h"));
        }
        let generation = Generation(welcome.generation);
        self.agent.welcomed(generation, max_until(welcome.max_until.as_ref())?);
        let (client, gone) = (self.client.clone(), CancellationToken::new());
        self.agent.set_session(Some(Attached { client, generation, gone }));
        self.beat = Some(beat);
        tracing::info!(%generation, heartbeat = ?beat, "attached");
        Ok(beat)
    }

    /// Puts a message behind those that wait; never waits itself.
    fn say(&self, event: Said) -> Result<(), SessionError> {
        let message = v1::SyncRequest { event: Some(event) };
        let out = self.out.as_ref().ok_or(SessionError::Ended)?;
        out.try_send(message).map_err(|_| SessionError::Silent)
    }

    fn pass_on(&self, event: events::Event) -> Result<(), SessionError> {
        self.events.try_send(event).map_err(|_| SessionError::Overrun)
    }

    /// Says Goodbye and waits, for a moment, until the broker has it.
    async fn say_goodbye(&mut self, heard: &mut Streaming<v1::SyncResponse>) {
        let empty = self.agent.look(crate::holdings::Holdings::is_empty);
        let reason = if empty { goodbye::Reason::Empty } else { goodbye::Reason::Restarting };
        if self.say(Said::Goodbye(v1::Goodbye { reason: reason.into() })).is_err() {
            return;
        }
        self.out = None;
        let ended = async { while let Ok(Some(_)) = heard.message().await {} };
        let _ended_or_not = tokio::time::timeout(self.agent.times.goodbye, ended).await;
    }
}

fn max_until(written: Option<&prost_types::Duration>) -> Result<Duration, SessionError> {
    written.map(span).ok_or(SessionError::Protocol("a reply without max_until"))
}
