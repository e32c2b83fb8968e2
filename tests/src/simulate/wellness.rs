//! What must come right by itself after the last fault.

use std::time::Duration;

use krb_broker::{
    keys::{Held, Phase},
    lease::LeaseState,
};

use super::{history::lease_of, node::Kind, world::World};

/// How long any phase may last that waits for something else than tickets.
const PATIENCE: Duration = Duration::from_secs(900);

impl World {
    /// What is not as it should be in the end; `None` when all is well.
    pub fn what_is_not_well(&self) -> Option<String> {
        let broker = match &self.broker {
            Some(broker) => broker,
            None => return Some("the broker is not back".to_owned()),
        };
        let ledger = &broker.ledger;
        if let Some(lease) = ledger.leases().find(|l| l.state == LeaseState::Revoking) {
            let waits: Vec<String> = ledger
                .awaited(lease)
                .map(|p| format!("{p}: {}", ledger.waiting(p).unwrap_or("nothing")))
                .collect();
            return Some(format!("{} is still Revoking; {}", lease.id, waits.join("; ")));
        }
        self.what_is_wrong_with_keys()
            .or_else(|| self.what_is_wrong_with_pods())
            .or_else(|| self.what_the_dead_have())
    }

    fn what_is_wrong_with_keys(&self) -> Option<String> {
        let ledger = self.ledger();
        for principal in &self.services {
            let Some(known) = ledger.principal(principal) else { continue };
            let lies = ledger.active_with(principal).iter().any(|id| {
                let lease = ledger.lease(id);
                let node = lease.and_then(|lease| self.nodes.get(&lease.holder.node));
                node.is_none_or(|node| node.kind == Kind::Liar)
            });
            let kept = known.retirement(&self.plan.rules.times);
            let late = |held: &&Held| {
                let patience = match held.phase {
                    Phase::Current => return false,
                    Phase::Retiring => kept + PATIENCE,
                    Phase::Dropping if lies => return false,
                    _ => PATIENCE,
                };
                let age = self.broker_now().wall.duration_since(held.since);
                age.unwrap_or_default() > patience
            };
            if let Some(held) = known.keysets.values().find(late) {
                let waits = ledger.waiting(principal).unwrap_or("nothing");
                let (kvno, phase) = (held.keyset.kvno, held.phase);
                return Some(format!(
                    "kvno {kvno} of {principal} is {phase:?} and waits for {waits}"
                ));
            }
        }
        None
    }

    fn what_is_wrong_with_pods(&self) -> Option<String> {
        for (number, pod) in &self.pods {
            let node = &self.nodes[&pod.node];
            if !node.up || node.drained || !node.honest() {
                continue;
            }
            let Some(lease) = lease_of(self, &pod.node, *number) else {
                return Some(format!("pod {number} on {} has nothing", node.name));
            };
            for principal in &pod.services {
                for kdc in 0..2 {
                    let used = self.realm.uses(kdc, principal);
                    let keys = node.agent.held[&lease].keytab.get(principal);
                    let has = used.is_some_and(|(kvno, print)| {
                        keys.and_then(|keys| keys.get(&kvno)) == Some(&print)
                    });
                    if !has {
                        return Some(format!(
                            "pod {number} on {} has {keys:?} of {principal}, and kdc{} uses {used:?}",
                            node.name,
                            kdc + 1
                        ));
                    }
                }
            }
        }
        None
    }

    /// Keys of nodes that died or were given up are used nowhere.
    fn what_the_dead_have(&self) -> Option<String> {
        for (principal, kvnos) in &self.truth.burnt {
            if let Some(kvno) = kvnos.iter().find(|kvno| self.realm.any_uses(principal, **kvno)) {
                return Some(format!(
                    "kvno {kvno} of {principal} is in use, and a node that lost its right had it"
                ));
            }
        }
        for node in self.nodes.values().filter(|node| !node.up && !node.drained) {
            for (principal, keys) in &node.had {
                if let Some(kvno) = keys.keys().find(|kvno| self.realm.any_uses(principal, **kvno))
                {
                    return Some(format!(
                        "kvno {kvno} of {principal} is in use, and {}, which is dead, had it",
                        node.name
                    ));
                }
            }
        }
        None
    }
}
