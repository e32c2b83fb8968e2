//! What operators ask of nodes: sessions and bans, in pages by name.

use std::collections::{BTreeSet, HashMap};

use krb_proto::NodeName;

use super::{Ledger, bans::Ban};
use crate::session::{Session, SessionState};

/// What a node is, as operators see it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum NodeState {
    /// It has this session, and may.
    Session(SessionState),
    /// It may not come back until it is unbanned.
    Banned,
}

/// A node.
#[derive(Clone, Copy, Debug)]
pub struct NodeLine<'a> {
    /// Its name.
    pub node: &'a NodeName,
    /// Its session; a node that is banned need never have had one.
    pub session: Option<&'a Session>,
    /// Its ban.
    pub ban: Option<&'a Ban>,
    /// How many live leases it has.
    pub live_leases: usize,
    /// Of how many principals it was given a key that somebody may still accept.
    pub keys_outside: usize,
}

impl NodeLine<'_> {
    /// What it is.
    pub fn state(&self) -> Option<NodeState> {
        let session = || self.session.map(|session| NodeState::Session(session.state));
        if self.ban.is_some() { Some(NodeState::Banned) } else { session() }
    }
}

impl Ledger {
    /// Up to `size` nodes after `after`, by name, that are in one of the states (none: in any),
    /// and after which the next page begins.
    pub fn list_nodes(
        &self,
        states: &BTreeSet<NodeState>,
        after: Option<&NodeName>,
        size: usize,
    ) -> (Vec<NodeLine<'_>>, Option<NodeName>) {
        let names: BTreeSet<&NodeName> = self.sessions.keys().chain(self.bans.keys()).collect();
        let mut lines: Vec<NodeLine<'_>> = names
            .into_iter()
            .filter(|name| after.is_none_or(|after| *name > after))
            .map(|name| self.node_line(name))
            .filter(|line| {
                states.is_empty() || line.state().is_some_and(|state| states.contains(&state))
            })
            .take(size + 1)
            .collect();
        let next = (lines.len() > size).then(|| {
            lines.truncate(size);
            lines.last().map(|line| line.node.clone())
        });
        let outside = self.keys_outside(&lines);
        for line in &mut lines {
            line.keys_outside = outside.get(line.node).copied().unwrap_or(0);
        }
        (lines, next.flatten())
    }

    fn node_line<'a>(&'a self, node: &'a NodeName) -> NodeLine<'a> {
        NodeLine {
            node,
            session: self.sessions.get(node),
            ban: self.bans.get(node),
            live_leases: self.live_on(node).len(),
            keys_outside: 0,
        }
    }

    /// Of how many principals each of the nodes was given a key that is not pruned.
    fn keys_outside(&self, lines: &[NodeLine<'_>]) -> HashMap<NodeName, usize> {
        let asked: BTreeSet<&NodeName> = lines.iter().map(|line| line.node).collect();
        let mut outside = HashMap::new();
        for known in self.principals.values() {
            let given = known.keysets.values().flat_map(|held| &held.delivered_to);
            let nodes: BTreeSet<&NodeName> =
                given.map(|(node, _)| node).filter(|node| asked.contains(node)).collect();
            for node in nodes {
                *outside.entry(node.clone()).or_insert(0) += 1;
            }
        }
        outside
    }
}
