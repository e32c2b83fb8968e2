//! Which stream a node can be reached by.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use krb_proto::{NodeName, v1};
use tokio::sync::mpsc;

use super::StreamId;

/// How many messages may wait for one node; an agent that is further behind is cut off.
const QUEUE: usize = 4096;

/// The streams of all nodes. The newest of a node wins; dropping the older ends it.
#[derive(Debug, Default)]
pub struct Hub {
    next: AtomicU64,
    pushes: AtomicU64,
    streams: Mutex<Streams>,
}

type Streams = HashMap<NodeName, (StreamId, mpsc::Sender<v1::SyncResponse>)>;

impl Hub {
    /// A number that no stream had before.
    pub fn new_stream(&self) -> StreamId {
        StreamId(self.next.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// A number that no push had before; 0 is none.
    pub fn new_push(&self) -> u64 {
        self.pushes.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// `stream` is the node's from now on. What is sent to the node comes out of the receiver,
    /// `first` before all else.
    pub fn attach(
        &self,
        node: &NodeName,
        stream: StreamId,
        first: v1::sync_response::Event,
    ) -> mpsc::Receiver<v1::SyncResponse> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        // the queue is empty: there is room
        let _ = sender.try_send(v1::SyncResponse { event: Some(first) });
        self.lock().insert(node.clone(), (stream, sender));
        receiver
    }

    /// `stream` has ended; a newer one of the node stays.
    pub fn detach(&self, node: &NodeName, stream: StreamId) {
        let mut streams = self.lock();
        if streams.get(node).is_some_and(|(current, _)| *current == stream) {
            streams.remove(node);
        }
    }

    /// Ends every stream: the broker stops.
    pub fn cut_all(&self) {
        self.lock().clear();
    }

    /// Ends whatever stream the node has.
    pub fn cut(&self, node: &NodeName) {
        self.lock().remove(node);
    }

    /// Sends to the node, if it has a stream. One whose queue is full is cut off: it attaches
    /// anew, and its inventory says what it lacks.
    pub fn send(&self, node: &NodeName, event: v1::sync_response::Event) -> Option<StreamId> {
        let mut streams = self.lock();
        let (stream, sender) = streams.get(node)?;
        let stream = *stream;
        if sender.try_send(v1::SyncResponse { event: Some(event) }).is_err() {
            streams.remove(node);
            return None;
        }
        Some(stream)
    }

    fn lock(
        &self,
    ) -> std::sync::MutexGuard<'_, HashMap<NodeName, (StreamId, mpsc::Sender<v1::SyncResponse>)>>
    {
        self.streams.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
