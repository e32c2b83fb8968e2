//! Nodes that an operator has banned, by name and by key, until an operator unbans them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use krb_proto::NodeName;

use super::{Ledger, Touched};
use crate::session::KeyHash;

/// The most keys of one ban: whoever is banned can't make it grow without an end.
const MAX_KEYS: usize = 16;

/// A ban.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ban {
    /// The keys that the node attached with, or tried to: refused under any name.
    pub keys: BTreeSet<KeyHash>,
    /// Who banned it.
    pub by: String,
    /// Why, in the operator's words.
    pub reason: String,
    /// When.
    pub at: SystemTime,
}

impl Ledger {
    /// All bans, by node.
    pub fn bans(&self) -> &BTreeMap<NodeName, Ban> {
        &self.bans
    }

    /// The ban of a node's name, or else the one that names its key.
    pub fn ban_on(&self, node: &NodeName, key: Option<KeyHash>) -> Option<(&NodeName, &Ban)> {
        let named = self.bans.get_key_value(node);
        named.or_else(|| {
            let key = key?;
            self.bans.iter().find(|(_, ban)| ban.keys.contains(&key))
        })
    }

    /// Bans the node, which need never have attached. A ban that is there keeps its keys.
    pub fn ban(&mut self, node: &NodeName, by: &str, reason: &str, now: SystemTime) {
        let mut keys = self.bans.remove(node).map(|ban| ban.keys).unwrap_or_default();
        keys.extend(self.sessions.get(node).and_then(|session| session.key));
        let ban = Ban { keys, by: by.to_owned(), reason: reason.to_owned(), at: now };
        self.bans.insert(node.clone(), ban);
        self.touched.insert(Touched::Ban(node.clone()));
    }

    /// Ends the ban of the node, if there is one.
    pub fn unban(&mut self, node: &NodeName) -> Option<Ban> {
        let ban = self.bans.remove(node)?;
        self.touched.insert(Touched::Ban(node.clone()));
        Some(ban)
    }

    /// A banned node came with this key: it is banned under any name from now on.
    pub(super) fn ban_key(&mut self, node: &NodeName, key: KeyHash) {
        if let Some(ban) = self.bans.get_mut(node)
            && ban.keys.len() < MAX_KEYS
            && ban.keys.insert(key)
        {
            self.touched.insert(Touched::Ban(node.clone()));
        }
    }

    /// The nodes that attached with a key that the node attached with, itself included where it
    /// ever attached: who is banned with it.
    pub fn with_its_key(&self, node: &NodeName) -> Vec<NodeName> {
        let Some(own) = self.sessions.get(node) else { return Vec::new() };
        let same = |name: &&NodeName| {
            *name == node || (own.key.is_some() && self.sessions[*name].key == own.key)
        };
        let mut nodes: Vec<NodeName> = self.sessions.keys().filter(same).cloned().collect();
        nodes.sort();
        nodes
    }
}
