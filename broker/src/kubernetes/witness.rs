//! Node objects as witnesses of whether a silent node works.
//!
//! The view says it, or a direct question, whichever is the more recent, and for a minute. In a
//! quiet cluster no event confirms the view for so long: then each node that somebody asks of is
//! asked for in the background, every so often, for as long as somebody asks of it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream};
use krb_proto::NodeName;
use tokio_util::sync::CancellationToken;

use super::{asking::Asking, kept::KeptNode, view::View};
use crate::{
    clock::{Boottime, Clock, Now},
    pods::objects,
    session::witness::{FRESH_FOR, Witness, Witnesses},
};

/// How often the nodes that somebody asks of are gone through.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How recent an answer must be for the next question to wait.
const ASK_EVERY: Duration = Duration::from_secs(20);
/// How long a node is asked for after somebody last asked of it.
const WANTED_FOR: Duration = Duration::from_secs(60);
/// How many are asked for at once: others have questions, too.
const AT_ONCE: usize = 8;

/// The cluster's nodes. Clones share all.
#[derive(Clone)]
pub struct KubeNodes(Arc<Inner>);

struct Inner {
    view: Arc<View>,
    asking: Arc<Asking>,
    clock: Arc<dyn Clock>,
    /// When somebody last asked of each node.
    wanted: Mutex<HashMap<NodeName, Boottime>>,
}

impl KubeNodes {
    /// The nodes of `view`, and whatever `asking` has to be asked for.
    pub fn new(view: Arc<View>, asking: Arc<Asking>, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Inner { view, asking, clock, wanted: Mutex::default() }))
    }

    /// Asks for the nodes that somebody asks of, until `stop`.
    pub async fn keep_fresh(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            let questions: Vec<_> =
                self.0.wanted().into_iter().map(|node| ask(self.0.asking.clone(), node)).collect();
            let asking = stream::iter(questions).buffer_unordered(AT_ONCE).collect::<()>();
            if stop.run_until_cancelled(asking).await.is_none() {
                return;
            }
        }
    }
}

/// Asks for a node; the answer stays with `asking`.
async fn ask(asking: Arc<Asking>, node: NodeName) {
    if let Err(error) = asking.node(&node, ASK_EVERY).await {
        tracing::warn!(%node, %error, "nobody can say whether the node works");
    }
}

impl Inner {
    /// The nodes that somebody asked of in the last minute.
    fn wanted(&self) -> Vec<NodeName> {
        let now = self.clock.now().boot;
        let mut wanted = self.lock();
        wanted.retain(|_, at| now.since(*at) < WANTED_FOR);
        wanted.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeName, Boottime>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of the node, and as of when: from the view or a direct question, whichever
    /// is the more recent. The inner `None`: there is no such node.
    fn known(&self, node: &NodeName) -> Option<(Boottime, Option<KeptNode>)> {
        let seen = self.view.nodes.look(|nodes| Some((nodes.as_of()?, nodes.get(node).cloned())));
        let asked = self.asking.last_of_node(node).and_then(|answer| {
            let read = answer.value.map(|object| objects::node(&object)).transpose();
            Some((answer.as_of, read.ok()?.map(KeptNode::of)))
        });
        match (seen, asked) {
            (Some(seen), Some(asked)) => Some(if asked.0 > seen.0 { asked } else { seen }),
            (seen, asked) => seen.or(asked),
        }
    }
}

impl Witnesses for KubeNodes {
    fn of(&self, node: &NodeName, now: Now) -> Witness {
        self.0.lock().insert(node.clone(), now.boot);
        match self.0.known(node) {
            Some((as_of, node)) if now.boot.since(as_of) < FRESH_FOR => match node {
                None => Witness::NodeGone,
                Some(KeptNode { ready: Some(true), .. }) => Witness::NodeReady,
                Some(KeptNode { ready: Some(false), .. }) => Witness::NodeNotReady,
                Some(KeptNode { ready: None, .. }) => Witness::Unknown,
            },
            _ => Witness::Unknown,
        }
    }

    fn is_deleted(&self, node: &NodeName, uid: Option<&str>, _: Now) -> bool {
        self.0.known(node).is_some_and(|(_, known)| match (known, uid) {
            (None, _) => true,
            (Some(known), Some(uid)) => !known.uid.is_empty() && known.uid != uid,
            (Some(_), None) => false,
        })
    }

    fn node_uid(&self, node: &NodeName) -> Option<String> {
        let known = match self.0.known(node) {
            Some((_, known)) => known,
            None => self.0.view.nodes.look(|nodes| nodes.get(node).cloned()),
        };
        known.map(|node| node.uid).filter(|uid| !uid.is_empty())
    }
}
