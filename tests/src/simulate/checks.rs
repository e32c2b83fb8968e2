//! What must never be, looked for after every event.

use krb_broker::lease::{Exposure, LeaseState};
use krb_proto::{LeaseId, NodeName, Principal};

use super::{node::Volume, plan::Millis, realm::KeyPrint, world::World};

impl World {
    /// Whatever can be wrong at any moment.
    pub fn check_everything(&mut self) {
        self.check_generations();
        self.check_revoked();
        self.check_exposure();
    }

    /// No lease is Active on a generation that was fenced.
    fn check_generations(&mut self) {
        let Some(broker) = &self.broker else { return };
        let stale = broker.ledger.leases().find(|lease| {
            let session = broker.ledger.session(&lease.holder.node);
            lease.state == LeaseState::Active
                && session.is_some_and(|session| session.generation != lease.generation)
        });
        if let Some(lease) = stale {
            let (id, node) = (lease.id, lease.holder.node.clone());
            self.violate(format!("{id} is Active on a generation of {node} that was fenced"));
        }
    }

    /// No KDC uses a key that the node of a Revoked lease had.
    fn check_revoked(&mut self) {
        let revoked = self
            .truth
            .ended_with
            .iter()
            .filter(|(id, _)| self.truth.leases.get(id) == Some(&LeaseState::Revoked));
        let mut used = revoked.flat_map(|(id, (node, had))| {
            had.iter().flat_map(move |(principal, kvnos)| {
                kvnos.iter().map(move |kvno| (id, node, principal, *kvno))
            })
        });
        let found = used.find(|(_, _, principal, kvno)| self.realm.any_uses(principal, *kvno));
        if let Some((id, node, principal, kvno)) = found {
            let text = format!(
                "{id} is Revoked, and a KDC still uses kvno {kvno} of {principal} that {node} had"
            );
            self.violate(text);
        }
    }

    /// No lease's `exposed_until` is earlier than the last use of what its node had.
    fn check_exposure(&mut self) {
        let Some(broker) = &self.broker else { return };
        let skew = self.plan.rules.times.clock_skew;
        let mut early = None;
        for (id, (node, had)) in &self.truth.ended_with {
            let Some(lease) = broker.ledger.lease(id).filter(|lease| !lease.is_live()) else {
                continue;
            };
            let said = match broker.ledger.exposure(lease, skew) {
                Exposure::Open => continue,
                Exposure::Until(until) => Self::millis_of(until),
                Exposure::Nothing => 0,
            };
            let Some(left) = self.truth.left.get(node) else { continue };
            let truly = had
                .iter()
                .filter_map(|(principal, kvnos)| {
                    let left = left.get(principal)?;
                    let outside = kvnos.intersection(left);
                    outside.map(|kvno| self.misused_until(principal, *kvno)).max()
                })
                .max()
                .unwrap_or(0);
            if truly > said {
                early = Some((*id, node.clone(), said, truly));
                break;
            }
        }
        if let Some((id, node, said, truly)) = early {
            self.violate(format!(
                "exposed_until of {id} on {node} is {} ms and what it had can be misused until \
                 {truly} ms at least",
                said
            ));
        }
    }

    /// Until when at least a key can be misused by whoever has it, as far as is known now.
    fn misused_until(&self, principal: &Principal, kvno: krb_proto::Kvno) -> Millis {
        let life = self.plan.max_life.as_millis() as Millis;
        let tickets = self.truth.tickets.get(principal).and_then(|all| all.get(&kvno));
        let as_client = match tickets {
            None => 0,
            Some(None) => self.now + life,
            Some(Some(until)) => *until,
        };
        let accepts = |(_, lease, volume): (_, &LeaseId, &Volume)| {
            let keys = volume.keytab.get(principal);
            keys.is_some_and(|keys| keys.contains_key(&kvno))
                && self.truth.leases.get(lease) == Some(&LeaseState::Active)
        };
        let forged = if self.honest_volumes().any(accepts) { self.now } else { 0 };
        as_client.max(forged)
    }

    /// Every holder can open every ticket that there can be.
    pub fn check_holders(&mut self, principal: &Principal) {
        let holders: Vec<(NodeName, LeaseId)> = self
            .honest_volumes()
            .filter(|(_, _, volume)| {
                let pod = self.pods.get(&volume.pod);
                pod.is_some_and(|pod| pod.services.contains(principal))
            })
            .map(|(node, lease, _)| (node.name.clone(), *lease))
            .collect();
        for (node, lease) in holders {
            self.check_holder_of(&node, &lease, principal);
        }
    }

    /// This holder can open every ticket that there can be.
    pub fn check_holder(&mut self, node: &NodeName, lease: &LeaseId) {
        let Some(volume) = self.nodes[node].agent.held.get(lease) else { return };
        let Some(pod) = self.pods.get(&volume.pod) else { return };
        for principal in pod.services.clone() {
            self.check_holder_of(node, lease, &principal);
        }
    }

    fn check_holder_of(&mut self, name: &NodeName, lease: &LeaseId, principal: &Principal) {
        let node = &self.nodes[name];
        let Some(volume) = node.agent.held.get(lease).filter(|_| node.honest()) else { return };
        let keys = volume.keytab.get(principal);
        let Some(tickets) = self.truth.tickets.get(principal) else { return };
        let now = self.now;
        let has = |kvno: &krb_proto::Kvno| keys.and_then(|keys| keys.get(kvno));
        let is_ours = |kvno: &krb_proto::Kvno, key: &KeyPrint| {
            self.truth.outside.get(&(principal.clone(), *kvno)).is_none_or(|print| print == key)
        };
        let lacking: Vec<krb_proto::Kvno> = tickets
            .iter()
            .filter(|(_, until)| until.is_none_or(|until| now < until))
            .filter(|(kvno, _)| !has(kvno).is_some_and(|key| is_ours(kvno, key)))
            .map(|(kvno, _)| *kvno)
            .collect();
        for kvno in lacking {
            match self.excuse(lease, principal, kvno) {
                Some(Excuse::Chosen) => self.counts.chosen += 1,
                Some(Excuse::OutOfReach) => self.counts.out_of_reach += 1,
                None => {
                    self.violate(format!(
                        "{lease} on {name} can't open a ticket to {principal} under kvno {kvno}"
                    ));
                }
            }
        }
    }

    fn excuse(
        &self,
        lease: &LeaseId,
        principal: &Principal,
        kvno: krb_proto::Kvno,
    ) -> Option<Excuse> {
        if self.truth.abrupt.get(principal).is_some_and(|through| kvno <= *through) {
            return Some(Excuse::Chosen);
        }
        if matches!(self.truth.leases.get(lease), Some(LeaseState::Revoking | LeaseState::Revoked))
        {
            return Some(Excuse::OutOfReach);
        }
        let without = (principal.clone(), kvno, *lease);
        self.truth.without.contains(&without).then_some(Excuse::OutOfReach)
    }

    /// After a crash the store knows of every key that had left.
    pub fn check_after_crash(&mut self) {
        let mut unknown = Vec::new();
        for (node, left) in &self.truth.left {
            for (principal, kvnos) in left {
                for kvno in kvnos {
                    if self.disk.has_keyset(principal, *kvno)
                        && !self.disk.knows_node(principal, *kvno, node)
                    {
                        unknown.push(format!(
                            "{node} has kvno {kvno} of {principal}, and the store that a crash \
                             left does not know it"
                        ));
                    }
                }
            }
        }
        unknown.into_iter().take(1).for_each(|what| self.violate(what));
    }

    /// What is no longer on record is in no keytab that counts, and at no KDC.
    pub fn check_pruned(&mut self) {
        let mut wrong = None;
        for (node, lease, volume) in self.honest_volumes() {
            if self.truth.leases.get(lease) != Some(&LeaseState::Active) {
                continue;
            }
            for (principal, keys) in volume.keytab.iter() {
                if let Some(kvno) = keys.keys().find(|k| !self.disk.has_keyset(principal, **k)) {
                    wrong = Some(format!(
                        "{lease} on {} has kvno {kvno} of {principal}, which was pruned",
                        node.name
                    ));
                }
            }
        }
        for principal in &self.services {
            for kdc in 0..2 {
                let used = self.realm.uses(kdc, principal);
                if let Some((kvno, _)) = used.filter(|(k, _)| !self.disk.has_keyset(principal, *k))
                {
                    wrong = Some(format!(
                        "kdc{} uses kvno {kvno} of {principal}, which the store does not have",
                        kdc + 1
                    ));
                }
            }
        }
        wrong.into_iter().for_each(|what| self.violate(what));
    }

    /// How long anything may go on after all is well again.
    pub fn settle_deadline(&self) -> Millis {
        self.plan.trouble + self.plan.settle_within
    }
}

/// Why a holder may be unable to open a ticket.
enum Excuse {
    /// An operator chose so, and was told.
    Chosen,
    /// It was out of reach for longer than a revocation waits, or given up.
    OutOfReach,
}
