//! One node's stream: Hello, heartbeats, acknowledgements and Goodbye come in; pushes, wipes
//! and fences go out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime},
};

use krb_proto::{Generation, LeaseId, NodeName, Principal, duration, reason::Reason, v1};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;
use v1::{sync_request::Event as Said, sync_response::Event as Told};

use super::{
    Alert, KeyHash, StreamId, Times,
    attach::{Attach, Hello},
    hub::Hub,
    pace::NodePace,
};
use crate::{
    audit::{Actor, Event, Record},
    keys::walker::Walker,
    ledger::{Acknowledged, book::Book},
    material::{self, Pusher},
    store::committer::CommitError,
    tokens::NodeTokens,
};

/// The most leases that one inventory may name: a node does not run more pods.
const MAX_INVENTORY: usize = 10_000;

/// The most wipes that an inventory brings about on one stream, so that they fit into what may
/// wait for a node. The stream ends behind them: the next inventory is shorter by as many.
const MOST_WIPES: usize = 2_048;

/// How many leases are pushed to in one round, under one hold of the ledger.
const PUSHED_AT_ONCE: usize = 64;

/// What serves the streams.
#[derive(Clone)]
pub struct Syncing {
    /// The ledger.
    pub book: Book,
    /// Which stream a node can be reached by.
    pub hub: Arc<Hub>,
    /// The way to the nodes.
    pub pusher: Pusher,
    /// Whose walks wait for acknowledgements.
    pub walker: Walker,
    /// The spans of a session.
    pub times: Times,
    /// How often a node may say Hello.
    pub attaches: Arc<NodePace>,
    /// How often a node may acknowledge.
    pub acknowledgements: Arc<NodePace>,
}

/// How the caller of a stream proved to be the node's agent.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Proof {
    /// Its key.
    pub key: Option<KeyHash>,
    /// The uid of its Node object, where that is known.
    pub node_uid: Option<String>,
}

/// Until when a stream is served that was opened with some proof.
#[derive(Clone)]
pub struct Until {
    /// When the certificate or token ends.
    pub not_after: SystemTime,
    /// Who reviews tokens, where it was one: while nobody can be asked, no newer one can be had
    /// either, and the stream goes on.
    pub tokens: Option<Arc<dyn NodeTokens>>,
}

impl Until {
    async fn is_over(&self, now: SystemTime) -> bool {
        self.not_after < now
            && match &self.tokens {
                Some(tokens) => tokens.answers().await,
                None => true,
            }
    }
}

/// How an attach ended.
pub enum Attached {
    /// The stream is the node's; what goes out comes out of the receiver.
    Welcome(StreamId, mpsc::Receiver<v1::SyncResponse>),
    /// The agent wipes and comes again.
    Fenced(Generation),
    /// Too many agents under one name.
    Wait,
    /// Another Node object had the name, and its session is about to be lost.
    Replaces,
    /// It attaches too often; again after this.
    TooOften(Duration),
    /// The agent wipes, and comes again rarely.
    Banned(Generation),
}

impl Syncing {
    /// Attaches a stream by its Hello: the node's other streams end. Of refusals there is a
    /// line a minute, however often the node asks.
    ///
    /// # Errors
    /// When the record can't be made durable.
    pub async fn attach(
        &self,
        node: &NodeName,
        by: &Proof,
        hello: &v1::Hello,
    ) -> Result<Attached, CommitError> {
        if let Err(wait) = self.attaches.take(node, self.book.now()) {
            let line = Record::new(Event::SessionRefused, Actor::Node(node.clone()));
            self.book.audit_denial_later(line.node(node).reason(Reason::RateLimited)).await?;
            return Ok(Attached::TooOften(wait));
        }
        let stream = self.hub.new_stream();
        let said = Hello {
            boot_id: krb_proto::text::shown(&hello.boot_id),
            instance: krb_proto::text::shown(&hello.instance),
            generation: hello.generation.map(Generation),
            key: by.key,
            node_uid: by.node_uid.clone(),
        };
        let answer = self.answer(node, &said, stream).await?;
        if let Some(line) = refusal(node, &said, answer) {
            self.book.audit_denial_later(line).await?;
        }
        Ok(match answer {
            Attach::Welcome { generation } => {
                let first = self.welcome(node, generation);
                let receiver = self.hub.attach(node, stream, first);
                self.take_inventory(node, stream, &hello.inventory).await?;
                Attached::Welcome(stream, receiver)
            }
            Attach::Fenced { generation } => Attached::Fenced(generation),
            Attach::Wait { .. } => Attached::Wait,
            Attach::Replaces { .. } => Attached::Replaces,
            Attach::Banned => {
                tracing::warn!(%node, "a banned node tried to attach");
                let of = |session: &super::Session| session.generation;
                Attached::Banned(self.book.read(|l| l.session(node).map(of)).unwrap_or_default())
            }
        })
    }

    /// What the ledger says to a Hello; durable where that changes anything.
    async fn answer(
        &self,
        node: &NodeName,
        said: &Hello,
        stream: StreamId,
    ) -> Result<Attach, CommitError> {
        let mut answer = Attach::Banned;
        self.book
            .commit_essential_if(|ledger, lines, now| {
                answer = ledger.attach(node, said, stream, now);
                lines.extend(attach_line(node, said, answer));
                (ledger.has_touched() || !lines.is_empty()).then_some(())
            })
            .await?;
        Ok(answer)
    }

    fn welcome(&self, node: &NodeName, generation: Generation) -> Told {
        let now = self.book.now();
        let max_until = self.book.read(|ledger| {
            let until = ledger.session(node)?.max_until(&self.times);
            until.duration_since(now.wall).ok()
        });
        Told::Welcome(v1::Welcome {
            generation: generation.0,
            heartbeat_interval: Some(duration(self.times.heartbeat)),
            max_until: Some(duration(max_until.unwrap_or_default())),
        })
    }

    /// What the agent has is compared with what it is to have: what is unknown is wiped, what
    /// is old is pushed anew, what is missing waits to be claimed. A lease that is named more
    /// than once counts once, as it was named first.
    async fn take_inventory(
        &self,
        node: &NodeName,
        stream: StreamId,
        inventory: &[v1::InventoryItem],
    ) -> Result<(), CommitError> {
        let items = digests(inventory);
        let claimed: BTreeSet<LeaseId> = items.keys().copied().collect();
        let strangers: BTreeSet<LeaseId> = self
            .book
            .note(|ledger, now| ledger.take_inventory(node, &claimed, now))
            .into_iter()
            .collect();
        self.wipe_strangers(node, stream, &strangers);
        let mut old = Vec::new();
        for (id, digest) in items.iter().filter(|(id, _)| !strangers.contains(id)) {
            let same = self.acknowledged(stream, id, digest).is_some();
            if !same || self.has_newer_tickets(id) {
                old.push(*id);
            }
        }
        self.push(node, &old).await?;
        let principals: BTreeSet<Principal> = self.book.read(|ledger| {
            let lease = |id: &LeaseId| ledger.lease(id);
            claimed.iter().filter_map(lease).flat_map(|lease| lease.principals.clone()).collect()
        });
        self.wake(&principals);
        Ok(())
    }

    fn wipe_strangers(&self, node: &NodeName, stream: StreamId, strangers: &BTreeSet<LeaseId>) {
        for id in strangers.iter().take(MOST_WIPES) {
            let reason =
                if self.book.read(|l| l.lease(id).is_some()) { "ENDED" } else { "UNKNOWN_LEASE" };
            let wipe = v1::Wipe { lease_id: id.to_string(), reason: reason.to_owned() };
            self.tell(node, Told::Wipe(wipe));
        }
        if strangers.len() > MOST_WIPES {
            let strangers = strangers.len();
            tracing::warn!(%node, strangers, "too many leases to wipe at once; it attaches anew");
            self.hub.detach(node, stream);
        }
    }

    /// Pushes to leases of the node, a few at a time: others use the ledger in between.
    async fn push(&self, node: &NodeName, old: &[LeaseId]) -> Result<(), CommitError> {
        for few in old.chunks(PUSHED_AT_ONCE) {
            match self.pusher.push(few).await {
                // its pods serve on with what they have, and are given the rest later
                Err(error) if !error.is_final() => {
                    tracing::warn!(%node, %error, "what the node lacks is not pushed now");
                    break;
                }
                pushed => pushed.map(drop)?,
            }
        }
        Ok(())
    }

    /// Whether tickets that the node may have missed are at hand: it was not attached when
    /// they were pushed, for all that is known.
    fn has_newer_tickets(&self, id: &LeaseId) -> bool {
        self.book.read(|ledger| {
            let Some(lease) = ledger.lease(id) else { return false };
            lease.shared_tickets().any(|ticket| {
                self.pusher.fetched_at(&ticket).is_some_and(|at| lease.acquired_at < at)
            })
        })
    }

    /// Serves a stream that is attached, until it ends, what proved the agent does (`until`), or
    /// the broker stops.
    pub async fn serve(
        &self,
        node: &NodeName,
        stream: StreamId,
        mut said: impl Stream<Item = Result<v1::SyncRequest, tonic::Status>> + Unpin,
        until: Until,
        stop: &CancellationToken,
    ) {
        // An agent that says nothing for as long as makes its node silent is gone: whatever
        // still comes on this stream then does not count.
        while let Some(Ok(Some(Ok(message)))) =
            stop.run_until_cancelled(tokio::time::timeout(self.silence(), said.next())).await
        {
            let current = self.book.read(|ledger| ledger.is_current_stream(node, stream));
            let over = until.is_over(self.book.now().wall).await;
            if !current || over || !self.hear(node, stream, message).await {
                break;
            }
        }
        self.hub.detach(node, stream);
        self.book.note(|ledger, _| ledger.stream_ended(node, stream));
    }

    fn silence(&self) -> Duration {
        self.times.silent_after + self.times.lost_after
    }

    /// Takes one message in. False when the stream is to end.
    async fn hear(&self, node: &NodeName, stream: StreamId, message: v1::SyncRequest) -> bool {
        match message.event {
            Some(Said::Heartbeat(_)) => self.heartbeat(node, stream),
            Some(Said::Acknowledgement(ack)) => {
                // each costs a keytab under the ledger's lock: who sends too many is heard slowly
                while let Err(wait) = self.acknowledgements.take(node, self.book.now()) {
                    tokio::time::sleep(wait).await;
                }
                self.acknowledgement(node, stream, &ack)
            }
            Some(Said::Goodbye(goodbye)) => {
                self.goodbye(node, stream, goodbye.reason()).await;
                false
            }
            Some(Said::Hello(_)) | None => false,
        }
    }

    fn heartbeat(&self, node: &NodeName, stream: StreamId) -> bool {
        let heard = self.book.note(|ledger, now| {
            let until = ledger.heard(node, stream, now, &self.times).ok()?;
            until.duration_since(now.wall).ok()
        });
        let Some(max_until) = heard else { return false };
        let reply = v1::HeartbeatReply { max_until: Some(duration(max_until)) };
        self.tell(node, Told::HeartbeatReply(reply));
        true
    }

    /// An acknowledgement counts for a lease of the node, on the stream and generation that
    /// it was pushed on, and for what the lease is to have now.
    fn acknowledgement(
        &self,
        node: &NodeName,
        stream: StreamId,
        ack: &v1::Acknowledgement,
    ) -> bool {
        let Ok(id) = ack.lease_id.parse::<LeaseId>() else { return false };
        let counts = self.book.read(|ledger| {
            let own = ledger.lease(&id).is_some_and(|lease| &lease.holder.node == node);
            own && ledger.check_session(node, Generation(ack.generation)).is_ok()
        });
        if counts && let Some(principals) = self.acknowledged(stream, &id, &ack.keytab_digest) {
            self.wake(&principals);
        }
        true
    }

    /// Records that the holder has the keytab that it is to have, if this is its digest. Which
    /// keys are in it the broker knows best; no list of an agent's is kept.
    fn acknowledged(
        &self,
        stream: StreamId,
        id: &LeaseId,
        digest: &[u8],
    ) -> Option<BTreeSet<Principal>> {
        self.book.note(|ledger, _| {
            let (wanted, kvnos) = material::wanted(ledger, id)?;
            let principals = kvnos.keys().cloned().collect();
            (wanted == digest).then(|| {
                ledger.acknowledge(id, Acknowledged { stream, kvnos });
                principals
            })
        })
    }

    /// Walks that wait for a holder look again.
    fn wake(&self, principals: &BTreeSet<Principal>) {
        for principal in principals {
            if self.book.read(|ledger| ledger.waiting(principal).is_some()) {
                self.walker.kick(principal);
            }
        }
    }

    async fn goodbye(&self, node: &NodeName, stream: StreamId, reason: v1::goodbye::Reason) {
        let empty = reason == v1::goodbye::Reason::Empty;
        // A failed store ends the broker; the silence that follows is judged after it.
        let _ = self
            .book
            .commit_essential(|ledger, lines, _| {
                let left = empty && ledger.goodbye_empty(node, stream);
                let event = if left { Event::SessionLeft } else { Event::SessionGoodbye };
                let line = Record::new(event, Actor::Node(node.clone())).node(node);
                lines.push(line.detail(reason.as_str_name()));
            })
            .await;
    }

    fn tell(&self, node: &NodeName, event: Told) {
        self.hub.send(node, event);
    }
}

/// The digest that the agent names for each lease, by the first item that names it.
fn digests(inventory: &[v1::InventoryItem]) -> BTreeMap<LeaseId, &[u8]> {
    let mut digests = BTreeMap::new();
    for item in inventory.iter().take(MAX_INVENTORY) {
        if let Ok(id) = item.lease_id.parse() {
            digests.entry(id).or_insert(item.keytab_digest.as_slice());
        }
    }
    digests
}

/// What the audit log has of what an attach changed.
fn attach_line(node: &NodeName, said: &Hello, answer: Attach) -> Option<Record> {
    match answer {
        Attach::Welcome { generation } => {
            let line = Record::new(Event::SessionAttached, Actor::Node(node.clone())).node(node);
            Some(line.generation(generation).detail(&who(said)))
        }
        Attach::Wait { first: true } => {
            let alert = Record::new(Event::SessionAlert, Actor::Broker).node(node);
            Some(alert.detail(&Alert::ManyAgents.to_string()))
        }
        Attach::Replaces { first: true } => {
            let alert = Record::new(Event::SessionAlert, Actor::Broker).node(node);
            let uid = said.node_uid.as_deref().unwrap_or_default();
            Some(alert.detail(&format!("another Node object has its name now: {uid}")))
        }
        Attach::Wait { first: false }
        | Attach::Replaces { first: false }
        | Attach::Fenced { .. }
        | Attach::Banned => None,
    }
}

/// What it has of one that was refused: the node can ask for that as often as it likes.
fn refusal(node: &NodeName, said: &Hello, answer: Attach) -> Option<Record> {
    let of = |event| {
        let line = Record::new(event, Actor::Node(node.clone())).node(node);
        line.detail(&who(said))
    };
    match answer {
        Attach::Welcome { .. } => None,
        Attach::Fenced { generation } => Some(of(Event::SessionFenced).generation(generation)),
        Attach::Banned => Some(of(Event::SessionRefused).reason(Reason::Banned)),
        Attach::Wait { .. } | Attach::Replaces { .. } => Some(of(Event::SessionRefused)),
    }
}

fn who(said: &Hello) -> String {
    format!("boot {} instance {}", said.boot_id, said.instance)
}

#[cfg(test)]
mod tests;
