//! The store: it has what was flushed. Rounds queue, one flush takes all that wait, and a crash
//! keeps whole rounds from the front of the queue, some of which nobody was told of.

use std::collections::{BTreeMap, VecDeque};

use krb_broker::{lease::LeaseState, ledger::Touched, store::committer::Round};
use krb_proto::{Generation, Kvno, LeaseId, NodeName, Principal};

use super::{realm::KeyPrint, sim::SlotId};

/// A key that is taken out of the ledger for a node.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Of which principal.
    pub principal: Principal,
    /// Its number.
    pub kvno: Kvno,
    /// For which node.
    pub node: NodeName,
}

/// A lease as a round leaves it.
#[derive(Clone, Debug)]
pub struct LeaseNote {
    /// Which.
    pub lease: LeaseId,
    /// On which node.
    pub node: NodeName,
    /// What it is now.
    pub state: LeaseState,
    /// What it names.
    pub principals: Vec<Principal>,
}

/// What the model knows of a round besides its bytes.
#[derive(Clone, Debug, Default)]
pub struct Note {
    /// Keys that leave once it is flushed.
    pub taken: Vec<Taken>,
    /// Nodes whose generation it fences.
    pub fenced: Vec<NodeName>,
    /// Numbers that it lets go to the KDC.
    pub activating: Vec<(Principal, Kvno)>,
    /// Leases that it changes.
    pub leases: Vec<LeaseNote>,
    /// Keysets that it stores.
    pub keysets: Vec<(Principal, Kvno, KeyPrint)>,
}

/// A round that waits for its flush.
#[derive(Debug)]
pub struct Queued {
    /// Its records.
    pub round: Round,
    /// What it means.
    pub note: Note,
    /// Who waits for it.
    pub slot: SlotId,
}

/// What is on the disk, and what is on its way there.
#[derive(Debug, Default)]
pub struct Disk {
    /// What was flushed.
    pub records: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What was not.
    pub queue: VecDeque<Queued>,
    /// Whether a flush is under way.
    pub flushing: bool,
}

impl Disk {
    /// Writes the first round that waits.
    pub fn write_one(&mut self) -> Option<Queued> {
        let mut queued = self.queue.pop_front()?;
        for (key, value) in std::mem::take(&mut queued.round.puts) {
            self.records.insert(key, value);
        }
        for key in &queued.round.deletes {
            self.records.remove(key);
        }
        Some(queued)
    }

    /// Whether it is on record that the node of this generation was given the number.
    pub fn knows_delivery(
        &self,
        principal: &Principal,
        kvno: Kvno,
        node: &NodeName,
        generation: Generation,
    ) -> bool {
        let recipient = (node.clone(), generation);
        self.records.contains_key(&Touched::Delivered(principal.clone(), kvno, recipient).key())
    }

    /// Whether the store has the keyset.
    pub fn has_keyset(&self, principal: &Principal, kvno: Kvno) -> bool {
        self.records.contains_key(&Touched::Keyset(principal.clone(), kvno).key())
    }
}

impl Disk {
    /// Whether it is on record that the node was given the number, in any generation.
    pub fn knows_node(&self, principal: &Principal, kvno: Kvno, node: &NodeName) -> bool {
        let least = self.delivery(principal, kvno, &node.clone(), Generation(0));
        let prefix = least.len() - node.as_str().len() - 8;
        let with_prefix = |key: &[u8]| key.get(..prefix) == least.get(..prefix);
        self.records
            .range(least[..prefix].to_vec()..)
            .take_while(|(key, _)| with_prefix(key))
            .any(|(key, _)| key.get(prefix + 8..) == Some(node.as_str().as_bytes()))
    }

    fn delivery(&self, p: &Principal, kvno: Kvno, node: &NodeName, g: Generation) -> Vec<u8> {
        Touched::Delivered(p.clone(), kvno, (node.clone(), g)).key()
    }
}
