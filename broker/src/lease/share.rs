//! Which leases share one ticket of an account.
//!
//! One ticket for all pods of an account is what a KDC can bear. An account may ask for one a
//! node, so that what leaks with a node is known to be that node's, or for one a pod. A lease
//! keeps the terms that it was granted under.

use krb_proto::{LeaseId, NodeName};

use super::Lease;
use crate::entitlement::{GrantedTicket, Sharing};

/// Who has the same ticket.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Share {
    /// All pods of the account.
    All,
    /// Those of one node.
    Node(NodeName),
    /// One lease alone.
    Lease(LeaseId),
}

/// One ticket of an account, and who shares it.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SharedTicket {
    /// The account, and the terms of its tickets.
    pub account: GrantedTicket,
    /// Who has the same one.
    pub share: Share,
}

impl SharedTicket {
    /// The ticket that a lease on `node` has of the account.
    pub fn of(account: &GrantedTicket, node: &NodeName, lease: &LeaseId) -> Self {
        let share = match account.sharing {
            Sharing::Principal => Share::All,
            Sharing::Node => Share::Node(node.clone()),
            Sharing::Pod => Share::Lease(*lease),
        };
        Self { account: account.clone(), share }
    }

    /// The same, where it can be told before there is a lease: not of one that no other has.
    pub fn before_lease(account: &GrantedTicket, node: &NodeName) -> Option<Self> {
        let share = match account.sharing {
            Sharing::Principal => Share::All,
            Sharing::Node => Share::Node(node.clone()),
            Sharing::Pod => return None,
        };
        Some(Self { account: account.clone(), share })
    }
}

impl Lease {
    /// The tickets that the holder has, each with who has the same.
    pub fn shared_tickets(&self) -> impl Iterator<Item = SharedTicket> + '_ {
        self.tickets.iter().map(|account| SharedTicket::of(account, &self.holder.node, &self.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{entitlement::AccountMode, lease::tests::lease};

    fn account(sharing: Sharing) -> GrantedTicket {
        let client = "tsfoo@EXAMPLE.COM".parse().unwrap();
        let mode = AccountMode::Keytab;
        GrantedTicket { login: "tsfoo".parse().unwrap(), client, mode, sharing }
    }

    fn shared(id: u8, node: &str, sharing: Sharing) -> SharedTicket {
        let mut lease = lease(id);
        lease.holder.node = node.parse().unwrap();
        lease.tickets = vec![account(sharing)];
        lease.shared_tickets().next().unwrap()
    }

    #[test]
    fn leases_have_the_same_ticket_as_far_as_their_account_says() {
        for (sharing, same_node, other_node) in [
            (Sharing::Principal, true, true),
            (Sharing::Node, true, false),
            (Sharing::Pod, false, false),
        ] {
            let first = shared(1, "node-a", sharing);
            assert_eq!(first == shared(2, "node-a", sharing), same_node, "{sharing:?}");
            assert_eq!(first == shared(3, "node-b", sharing), other_node, "{sharing:?}");
            assert_eq!(first, shared(1, "node-a", sharing));
        }
    }

    #[test]
    fn what_others_have_too_is_known_before_there_is_a_lease() {
        let node = "node-a".parse().unwrap();
        for sharing in [Sharing::Principal, Sharing::Node] {
            let before = SharedTicket::before_lease(&account(sharing), &node);
            assert_eq!(before, Some(shared(1, "node-a", sharing)));
        }
        assert_eq!(SharedTicket::before_lease(&account(Sharing::Pod), &node), None);
    }
}
