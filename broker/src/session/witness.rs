//! What a second source says of a node whose agent is silent.
//!
//! Silence alone does not tell a dead node from a broker that is cut off. Where there is a
//! cluster, its own view of the node is asked; it counts for [`FRESH_FOR`] after it was read.

use std::time::Duration;

use krb_proto::NodeName;

use crate::clock::Now;

/// How long a reading counts.
pub const FRESH_FOR: Duration = Duration::from_secs(60);

/// What a second source says of a node.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Witness {
    /// There is no second source: time alone decides.
    NotApplicable,
    /// The node works, so it is the agent that does not.
    NodeReady,
    /// The node does not work.
    NodeNotReady,
    /// There is no such node any more.
    NodeGone,
    /// The source can't be read, or what it said is old.
    Unknown,
}

/// A source of witnesses.
pub trait Witnesses: Send + Sync {
    /// What the source says of the node at `now`. Does not block: it answers from what was read.
    fn of(&self, node: &NodeName, now: Now) -> Witness;

    /// Whether the Node object of this uid (of whatever uid, where that is not known) is there no
    /// more, or has another one in its place, by what was read last. Asks nobody: it is looked
    /// at for all nodes at once.
    fn is_deleted(&self, node: &NodeName, _uid: Option<&str>, now: Now) -> bool {
        self.of(node, now) == Witness::NodeGone
    }

    /// The uid of the Node object that has the name now, where the source knows it. Does not block.
    fn node_uid(&self, _: &NodeName) -> Option<String> {
        None
    }
}

/// Where there is no second source.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoWitnesses;

impl Witnesses for NoWitnesses {
    fn of(&self, _: &NodeName, _: Now) -> Witness {
        Witness::NotApplicable
    }
}

#[cfg(any(test, feature = "testing"))]
pub use testing::FakeCluster;

#[cfg(any(test, feature = "testing"))]
mod testing {
    use std::{
        collections::HashMap,
        sync::{Mutex, MutexGuard},
    };

    use super::{FRESH_FOR, NodeName, Now, Witness, Witnesses};
    use crate::clock::Boottime;

    /// A cluster in memory. A node that it was never told of is gone; it can become unreadable
    /// as a whole, and then what was read grows old.
    #[derive(Debug, Default)]
    pub struct FakeCluster(Mutex<State>);

    #[derive(Debug, Default)]
    struct State {
        ready: HashMap<NodeName, bool>,
        unreadable_since: Option<Boottime>,
    }

    impl FakeCluster {
        /// The node is Ready, or NotReady.
        pub fn set_ready(&self, node: &NodeName, ready: bool) {
            self.state().ready.insert(node.clone(), ready);
        }

        /// The Node object is deleted.
        pub fn delete(&self, node: &NodeName) {
            self.state().ready.remove(node);
        }

        /// The API server is away from now on.
        pub fn fail(&self, now: Now) {
            self.state().unreadable_since.get_or_insert(now.boot);
        }

        /// It answers again.
        pub fn heal(&self) {
            self.state().unreadable_since = None;
        }

        fn state(&self) -> MutexGuard<'_, State> {
            self.0.lock().expect("no test panicked with the cluster")
        }
    }

    impl Witnesses for FakeCluster {
        fn of(&self, node: &NodeName, now: Now) -> Witness {
            let state = self.state();
            if state.unreadable_since.is_some_and(|since| now.boot.since(since) >= FRESH_FOR) {
                return Witness::Unknown;
            }
            match state.ready.get(node) {
                Some(true) => Witness::NodeReady,
                Some(false) => Witness::NodeNotReady,
                None => Witness::NodeGone,
            }
        }
    }
}
