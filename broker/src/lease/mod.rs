//! Leases: which pod holds which names, on which node, until when.
//!
//! A lease is durable before its keys leave the broker, and stays until they are
//! worthless, so the store always knows at least as many holders as exist.
//!
//! This module decides; it does not act. It reads no clock, opens no socket and knows
//! nothing of Kubernetes.
//!
//! What always holds: an ended lease never lives again; a holder has at most one live
//! lease; `Revoked` comes only after `Revoking`.

pub mod share;

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use krb_proto::{Generation, Kvno, LeaseId, NodeName, PodRef, PodUid, Principal, VolumeName};

use crate::entitlement::{GrantedTicket, Login};

/// The right of a holder to named material until its end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lease {
    /// Its id.
    pub id: LeaseId,
    /// Who has it.
    pub holder: Holder,
    /// The generation of the node's session that it was issued on.
    pub generation: Generation,
    /// The role account that the pod runs as, and the owner of its files.
    pub owner: FileOwner,
    /// Principals in the holder's keytab, ascending.
    pub principals: Vec<Principal>,
    /// Accounts whose tickets the holder has, ascending.
    pub tickets: Vec<GrantedTicket>,
    /// Where it is in its life.
    pub state: LeaseState,
    /// Why it ended, or what it waits for.
    pub reason: String,
    /// When it was first issued.
    pub acquired_at: SystemTime,
    /// What was outside when it ended.
    pub end: Option<End>,
}

/// Who has a lease: one volume of one pod on one node.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Holder {
    /// The node that the pod is bound to.
    pub node: NodeName,
    /// The pod.
    pub pod: PodRef,
    /// The volume of the pod's spec.
    pub volume: VolumeName,
}

impl Holder {
    /// What tells one holder from another: names are not in it.
    pub fn key(&self) -> HolderKey {
        HolderKey {
            node: self.node.clone(),
            pod: self.pod.uid.clone(),
            volume: self.volume.clone(),
        }
    }
}

/// The identity of a holder.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct HolderKey {
    /// The node.
    pub node: NodeName,
    /// The pod's uid.
    pub pod: PodUid,
    /// The volume.
    pub volume: VolumeName,
}

/// Whose files they are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FileOwner {
    /// The role account.
    pub account: Login,
    /// Its uid.
    pub uid: u32,
    /// Its gid.
    pub gid: u32,
    /// The group that may read the keytab.
    pub keytab_gid: Option<u32>,
}

/// Where a lease is in its life.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum LeaseState {
    /// Recorded; nothing has left the broker for it.
    Pending,
    /// The holder has its material.
    Active,
    /// Ended by the holder, or because its pod is gone.
    Released,
    /// Ended by its own hard end.
    Expired,
    /// Its keys are being replaced.
    Revoking,
    /// Its keys have been replaced at every KDC.
    Revoked,
}

impl LeaseState {
    /// Whether the holder may have material under it.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Pending | Self::Active)
    }
}

/// What a lease had outside when it ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct End {
    /// When it ended.
    pub at: SystemTime,
    /// The key numbers its node had been given of each principal.
    pub kvnos: BTreeMap<Principal, Vec<Kvno>>,
    /// The latest endtime of any ticket it may have had.
    pub ticket_endtime: Option<SystemTime>,
}

/// Kerberos counts whole seconds, and the last one counts as a whole.
const LAST_SECOND: Duration = Duration::from_secs(1);

/// Until when a ticket with this end may be accepted, where `clock_skew` is tolerated.
///
/// libkrb5 compares seconds without their fractions: one that is refused from 10:00:04 on is
/// accepted at 10:00:03.9, although its end and the skew add up to 10:00:03.
pub fn accepted_until(endtime: SystemTime, clock_skew: Duration) -> SystemTime {
    endtime + clock_skew + LAST_SECOND
}

/// Until when something that was handed out can still be misused.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Exposure {
    /// Nothing was handed out.
    Nothing,
    /// Never later than this.
    Until(SystemTime),
    /// No end is known yet.
    Open,
}

impl Exposure {
    /// The later of both: what is open stays open.
    pub fn or_later(self, other: Self) -> Self {
        self.max(other)
    }
}

impl Lease {
    /// Whether the holder may have material under it.
    pub fn is_live(&self) -> bool {
        self.state.is_live()
    }

    /// Its material may leave the broker from now on.
    ///
    /// # Errors
    /// When it has ended meanwhile.
    pub fn activate(&mut self) -> Result<(), Ended> {
        if !self.is_live() {
            return Err(Ended { state: self.state });
        }
        self.state = LeaseState::Active;
        self.reason.clear();
        Ok(())
    }

    /// The holder, or the broker on its behalf, ends it. Ending an ended lease changes nothing.
    pub fn release(&mut self, reason: &str, end: End) -> bool {
        self.end_as(LeaseState::Released, reason, end)
    }

    /// Its node is lost: its keys are to be replaced.
    pub fn start_revoking(&mut self, reason: &str, end: End) -> bool {
        self.end_as(LeaseState::Revoking, reason, end)
    }

    /// Every key it had has been replaced. Only a lease that is being revoked can be revoked.
    pub fn revoked(&mut self, reason: &str) -> bool {
        if self.state != LeaseState::Revoking {
            return false;
        }
        self.state = LeaseState::Revoked;
        reason.clone_into(&mut self.reason);
        true
    }

    fn end_as(&mut self, state: LeaseState, reason: &str, end: End) -> bool {
        if !self.is_live() {
            return false;
        }
        self.state = state;
        reason.clone_into(&mut self.reason);
        self.end = Some(end);
        true
    }
}

/// The lease has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the lease has ended: {state:?}")]
pub struct Ended {
    /// How.
    pub state: LeaseState,
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    pub(crate) fn lease(id: u8) -> Lease {
        let pod = PodRef {
            cluster: "test".into(),
            namespace: "tsfoo".parse().unwrap(),
            name: format!("web-{id}").parse().unwrap(),
            uid: format!("uid-{id}").parse().unwrap(),
        };
        Lease {
            id: LeaseId::from_random([id; 16]),
            holder: Holder {
                node: "node-a".parse().unwrap(),
                pod,
                volume: "krb-credentials".parse().unwrap(),
            },
            generation: Generation(1),
            owner: FileOwner {
                account: "tsfoo".parse().unwrap(),
                uid: 1234,
                gid: 1111,
                keytab_gid: None,
            },
            principals: vec!["HTTP/web.tsfoo.svc.cluster.local@EXAMPLE.COM".parse().unwrap()],
            tickets: Vec::new(),
            state: LeaseState::Pending,
            reason: String::new(),
            acquired_at: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            end: None,
        }
    }

    fn end() -> End {
        End { at: UNIX_EPOCH, kvnos: BTreeMap::new(), ticket_endtime: None }
    }

    proptest! {
        #[test]
        fn an_ended_lease_never_lives_again(events in proptest::collection::vec(0_u8..4, 0..20)) {
            let mut lease = lease(1);
            let mut ended = false;
            for event in events {
                let before = lease.state;
                match event {
                    0 => { let _ = lease.activate(); },
                    1 => { lease.release("x", end()); },
                    2 => { lease.start_revoking("x", end()); },
                    _ => { lease.revoked("x"); },
                }
                if lease.state == LeaseState::Revoked {
                    prop_assert!(matches!(before, LeaseState::Revoking | LeaseState::Revoked));
                }
                ended |= !lease.is_live();
                prop_assert_eq!(ended, !lease.is_live());
                prop_assert_eq!(ended, lease.end.is_some());
            }
        }
    }

    #[test]
    fn what_is_open_stays_open() {
        let until = Exposure::Until(UNIX_EPOCH);
        assert_eq!(until.or_later(Exposure::Open), Exposure::Open);
        assert_eq!(until.or_later(Exposure::Nothing), until);
    }
}
