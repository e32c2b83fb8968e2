//! What goes between the broker and its nodes.

use std::{collections::BTreeMap, rc::Rc};

use krb_proto::{Generation, Kvno, LeaseId, Principal};

use super::{node::PodNo, plan::Millis, realm::KeyPrint};

/// The keys of a keytab; what its digest would be taken of.
pub type Keytab = Rc<BTreeMap<Principal, BTreeMap<Kvno, KeyPrint>>>;

/// A connection of an agent; no two are alike.
pub type Conn = u64;

/// What an agent says.
#[derive(Clone, Debug)]
pub enum ToBroker {
    /// The first message of a stream.
    Hello {
        /// The stream's connection.
        conn: Conn,
        /// Of the machine.
        boot: u64,
        /// Of the agent.
        instance: u64,
        /// The last it got.
        generation: Option<Generation>,
        /// What it says that it has.
        inventory: Vec<(LeaseId, Keytab)>,
    },
    /// It has stored what was pushed.
    Ack {
        /// On which stream.
        conn: Conn,
        /// Its generation.
        generation: Generation,
        /// Which lease.
        lease: LeaseId,
        /// What it stored.
        keytab: Keytab,
    },
    /// It goes.
    Goodbye {
        /// Which stream ends.
        conn: Conn,
        /// Whether it says that it holds nothing.
        empty: bool,
    },
    /// The connection is closed.
    Closed {
        /// Which.
        conn: Conn,
    },
    /// It asks for a pod.
    Issue {
        /// The number of its ask.
        ask: u64,
        /// Its generation.
        generation: Generation,
        /// For which pod.
        pod: PodNo,
    },
    /// It ends a lease.
    Release {
        /// Which.
        lease: LeaseId,
    },
}

/// What the broker says.
#[derive(Clone, Debug)]
pub enum ToAgent {
    /// The stream is attached.
    Welcome {
        /// Which.
        conn: Conn,
        /// The node's generation.
        generation: Generation,
        /// How long it may serve.
        serve_for: Millis,
    },
    /// Its generation has passed.
    Fenced {
        /// On which connection.
        conn: Conn,
    },
    /// Too many agents.
    Wait {
        /// On which connection.
        conn: Conn,
    },
    /// New material.
    Push {
        /// On which connection.
        conn: Conn,
        /// Of which lease.
        lease: LeaseId,
        /// All of it.
        keytab: Keytab,
    },
    /// A lease has ended.
    Wipe {
        /// On which connection.
        conn: Conn,
        /// Which.
        lease: LeaseId,
        /// Whether the broker does not know it, and its pod is to ask again.
        again: bool,
    },
    /// The connection ends.
    Cut {
        /// Which.
        conn: Conn,
    },
    /// The answer to an ask.
    Issued {
        /// Its number.
        ask: u64,
        /// Its pod.
        pod: PodNo,
        /// The lease.
        lease: LeaseId,
        /// All of its material.
        keytab: Keytab,
    },
    /// The answer to an ask that got nothing.
    Refused {
        /// Its number.
        ask: u64,
    },
    /// A release is known.
    Released {
        /// Of which lease.
        lease: LeaseId,
    },
}

impl ToAgent {
    /// The stream that it comes on; `None` for the answer to a call of its own.
    pub fn conn(&self) -> Option<Conn> {
        match self {
            Self::Welcome { conn, .. }
            | Self::Fenced { conn }
            | Self::Wait { conn }
            | Self::Push { conn, .. }
            | Self::Wipe { conn, .. }
            | Self::Cut { conn } => Some(*conn),
            Self::Issued { .. } | Self::Refused { .. } | Self::Released { .. } => None,
        }
    }
}
