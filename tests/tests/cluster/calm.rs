//! Pods that must notice nothing of what a story does around them.

use std::error::Error;

use serde_json::Value;

use crate::{
    field::Field,
    pod::Pod,
    stolen::{Stolen, principals},
    story::Told,
};

/// What some pods have, and what must not change.
pub struct Calm<'a> {
    field: &'a Field<'a>,
    /// The pods.
    pub pods: Vec<Pod<'a>>,
    before: Vec<Value>,
    losses: usize,
}

impl<'a> Calm<'a> {
    /// These pods are served now.
    pub fn of(field: &'a Field<'a>, pods: Vec<Pod<'a>>) -> Result<Self, Box<dyn Error>> {
        let before = pods.iter().map(Pod::lease).collect::<Result<_, _>>()?;
        Ok(Self { field, pods, before, losses: losses(field) })
    }

    /// Each has the lease and the keys that it had, its files are where they were and good, and
    /// nobody was revoked or taken for dead. Works while the API server is away.
    pub fn holds(&self) -> Told {
        for (pod, before) in self.pods.iter().zip(&self.before) {
            let now = pod.lease()?;
            assert_eq!(now["state"], "LEASE_STATE_ACTIVE", "{now}");
            assert_eq!(now["leaseId"], before["leaseId"]);
            assert_eq!(principals(&now)?, principals(before)?, "{} was rekeyed", pod.name);
        }
        // one look at the KDC for each account: its pods have the same keys
        for pod in &self.pods {
            pod.keytab_on_node()?;
        }
        let keytab = Stolen::from(self.field, self.pods.first().ok_or("no pods")?)?;
        assert_eq!(keytab.still_good()?, keytab.all(), "the pods have useless keys");
        assert_eq!(losses(self.field), self.losses, "something was revoked or taken for dead");
        Ok(())
    }

    /// They still authenticate, and go.
    pub fn ends(&self) -> Told {
        self.pods.iter().try_for_each(Pod::authenticates)?;
        self.pods.iter().try_for_each(Pod::end)
    }
}

/// How many lines of the audit log tell of something that was taken away.
fn losses(field: &Field<'_>) -> usize {
    let events = ["session.lost", "session.fenced", "lease.revoking"];
    events.iter().map(|event| field.audited(event).len()).sum()
}
