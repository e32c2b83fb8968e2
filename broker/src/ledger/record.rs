//! How the ledger's records are stored.
//!
//! One primary record each, keyed by a letter and what names it; indices are made anew at
//! each start. Values are protobuf messages (`wire`), so that a field can be added and an
//! older record still be read. Keys are sealed one by one, each for its own place.
//!
//! | key | record |
//! |---|---|
//! | `L` id | a lease |
//! | `S` node | a node's session |
//! | `P` principal | a principal, without its keys |
//! | `K` principal `\0` kvno | one keyset, its keys sealed |
//! | `D` principal `\0` kvno generation node | that this node was given this kvno |
//! | `A` login | a role account |
//! | `N` namespace | a namespace's pin |
//! | `F` uid | a pod that was seen finished |
//! | `B` node | a node's ban |
//! | `R` | that the broker is in recovery, and why |

use krb_proto::{LeaseId, Principal};

use super::{Ledger, Touched};
use crate::store::{committer::Round, seal::Sealer};

mod read;
mod wire;
mod write;

pub use read::{Unreadable, read};

impl Touched {
    /// The record's key in the store.
    pub fn key(&self) -> Vec<u8> {
        match self {
            Self::Lease(id) => keyed(b'L', id.as_bytes()),
            Self::Session(node) => keyed(b'S', node.as_str().as_bytes()),
            Self::Principal(principal) => keyed(b'P', principal.to_string().as_bytes()),
            Self::Keyset(principal, kvno) => of_principal(b'K', principal, &kvno.0.to_be_bytes()),
            Self::Delivered(principal, kvno, (node, generation)) => {
                let (kvno, generation) = (kvno.0.to_be_bytes(), generation.0.to_be_bytes());
                let node = node.as_str().as_bytes();
                of_principal(b'D', principal, &[kvno.as_slice(), &generation, node].concat())
            }
            Self::Account(login) => keyed(b'A', login.as_str().as_bytes()),
            Self::Pin(namespace) => keyed(b'N', namespace.as_str().as_bytes()),
            Self::Finished(uid) => keyed(b'F', uid.as_str().as_bytes()),
            Self::Ban(node) => keyed(b'B', node.as_str().as_bytes()),
            Self::Recovery => vec![b'R'],
        }
    }
}

fn keyed(kind: u8, name: &[u8]) -> Vec<u8> {
    [&[kind], name].concat()
}

fn of_principal(kind: u8, principal: &Principal, rest: &[u8]) -> Vec<u8> {
    [&[kind], principal.to_string().as_bytes(), b"\0", rest].concat()
}

impl Ledger {
    /// What was touched, as the store writes it.
    pub fn take_round(&mut self, sealer: &Sealer) -> Round {
        let mut round = Round::default();
        for touched in self.take_touched() {
            let key = touched.key();
            match write::value(self, &touched, sealer) {
                Some(value) => round.puts.push((key, value)),
                None => round.deletes.push(key),
            }
        }
        round
    }
}

/// The record type that a key is sealed for.
const SEALED_IN: &str = "keyset";

fn lease_id(bytes: &[u8]) -> Option<LeaseId> {
    bytes.try_into().ok().map(LeaseId::from_random)
}
