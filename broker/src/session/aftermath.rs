//! What follows a loss, once it is durable: the node is told, and so are the owners of its pods,
//! tickets are forgotten, and the walks of what it held begin.

use std::sync::Arc;

use krb_proto::{reason::Reason, v1};

use super::{Cause, hub::Hub};
use crate::{
    keys::walker::Walker,
    ledger::{book::Book, sessions::Loss},
    notices::{Notice, Notices},
    tickets::Tickets,
};

/// Does what follows. Clones are the same.
#[derive(Clone)]
pub struct Aftermath {
    /// The ledger.
    pub book: Book,
    /// Which stream a node can be reached by.
    pub hub: Arc<Hub>,
    /// Replaces keys.
    pub walker: Walker,
    /// Forgets tickets.
    pub tickets: Arc<Tickets>,
    /// Tells the owners of pods.
    pub notices: Arc<dyn Notices>,
}

impl Aftermath {
    /// What follows this loss.
    pub fn follow(&self, loss: &Loss) {
        tracing::warn!(
            node = %loss.node,
            leases = loss.leases.len(),
            cause = %loss.cause,
            "a node is lost"
        );
        let reason = match loss.cause {
            Cause::Banned { .. } => Reason::Banned,
            _ => Reason::Fenced,
        };
        self.tell(loss, reason);
        self.book.read(|ledger| {
            for lease in loss.leases.iter().filter_map(|id| ledger.lease(id)) {
                self.tickets.forget_for(lease);
                self.notices.tell(Notice::revoked(lease, why(&loss.cause)));
            }
        });
        loss.principals.iter().for_each(|principal| self.walker.kick(principal));
    }

    /// Whoever is still there wipes all it has.
    fn tell(&self, loss: &Loss, reason: Reason) {
        let generation = loss.fenced.next().0;
        let fenced = v1::Fenced { generation, reason: reason.as_str().to_owned() };
        self.hub.send(&loss.node, v1::sync_response::Event::Fenced(fenced));
        self.hub.cut(&loss.node);
    }
}

/// What the owner of a pod is told of the loss: no operator's name.
fn why(cause: &Cause) -> &'static str {
    match cause {
        Cause::Silence | Cause::LeaseTtl => "its node has been silent for too long",
        Cause::NodeDeleted => "its node was deleted",
        Cause::Evicted { .. } | Cause::Banned { .. } => "an operator took its node out",
        Cause::StoreWentBack => "the broker's store came up with less than was committed",
    }
}
