//! `StatusService`: how the broker itself is.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::SystemTime};

use krb_proto::{
    Realm, duration, timestamp,
    v1::{self, status_service_server::StatusService},
};
use tonic::{Request, Response, Status};

use super::authorize::caller;
use crate::{
    audit::{AuditLog, Event, Record},
    entitlement::policy::Policy,
    kdc::{Health, gate::Gate},
    keys::walker::Walker,
    ledger::{Ledger, book::Book},
    session::SessionState,
    store::LeaseStore,
};

/// Serves operators and viewers.
#[derive(Clone)]
pub struct StatusApi {
    /// The ledger.
    pub book: Book,
    /// The store.
    pub store: Arc<dyn LeaseStore>,
    /// The audit log.
    pub audit: Arc<dyn AuditLog>,
    /// The file that it writes.
    pub audit_file: PathBuf,
    /// The gate.
    pub gate: Arc<Gate>,
    /// How the KDCs and kadmin answered lately.
    pub health: Arc<dyn Fn() -> Vec<Health> + Send + Sync>,
    /// The entitlements.
    pub policy: Arc<Policy>,
    /// The walks.
    pub walker: Walker,
    /// The realm.
    pub realm: Realm,
    /// When the broker started.
    pub started_at: SystemTime,
}

#[tonic::async_trait]
impl StatusService for StatusApi {
    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::Status>, Status> {
        // A viewer that is bound to namespaces learns nothing of other tenants' principals.
        let sees_walks = caller(&request)?.visible().is_none();
        let policy = self.policy.status();
        let (nodes, leases, walks, recovery, records, brake, clock_fault) =
            self.book.read(|ledger| {
                let walks = if sees_walks { self.walks(ledger) } else { Vec::new() };
                let recovery = ledger.recovery().unwrap_or_default().to_owned();
                let clock_fault = ledger.clock_fault().unwrap_or_default().to_owned();
                let brake = brake(ledger, sees_walks);
                let records = ledger.records();
                (nodes(ledger), leases(ledger), walks, recovery, records, brake, clock_fault)
            });
        let store = self.store.stats();
        Ok(Response::new(v1::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: Some(timestamp(self.started_at)),
            kdcs: self.kdcs(),
            lanes: self.lanes(),
            store: Some(v1::StoreStatus {
                records,
                sequence: store.sequence,
                last_snapshot: store.snapshot_time.map(timestamp),
                recovery,
            }),
            nodes: Some(nodes),
            leases,
            walks,
            entitlements: Some(v1::EntitlementStatus {
                accounts: u32::try_from(policy.accounts).unwrap_or(u32::MAX),
                loaded_at: Some(timestamp(policy.loaded_at)),
                problem: policy.problem.unwrap_or_default(),
            }),
            brake: Some(brake),
            clock_fault,
            audit: Some(self.audit()),
        }))
    }

    async fn finish_recovery(
        &self,
        request: Request<v1::FinishRecoveryRequest>,
    ) -> Result<Response<v1::FinishRecoveryResponse>, Status> {
        let actor = caller(&request)?.actor();
        self.book
            .commit(|ledger, lines, _| {
                if let Some(why) = ledger.recovery().map(str::to_owned) {
                    ledger.set_recovery(None);
                    ledger.replace_every_key();
                    lines.push(Record::new(Event::RecoveryDone, actor).detail(&why));
                }
            })
            .await?;
        self.walker.kick_all();
        Ok(Response::new(v1::FinishRecoveryResponse {}))
    }
}

impl StatusApi {
    fn kdcs(&self) -> Vec<v1::KdcStatus> {
        let written = |health: Health| v1::KdcStatus {
            realm: self.realm.to_string(),
            address: health.address,
            reachable: health.reachable,
            last_error: health.last_error.unwrap_or_default(),
            last_success: health.last_success.map(timestamp),
        };
        (self.health)().into_iter().map(written).collect()
    }

    fn audit(&self) -> v1::AuditStatus {
        let head = self.audit.head();
        let trouble = self.book.audit_trouble();
        let (kept, lost) = trouble.as_ref().map_or((0, 0), |trouble| (trouble.kept, trouble.lost));
        v1::AuditStatus {
            seq: head.seq,
            mac: head.mac.to_string(),
            file: self.audit_file.display().to_string(),
            lines_merged: self.book.merged_denials(),
            broken_since: trouble.as_ref().map(|trouble| timestamp(trouble.since)),
            problem: trouble.map(|trouble| trouble.why.to_string()).unwrap_or_default(),
            lines_kept: kept,
            lines_lost: lost,
        }
    }

    fn lanes(&self) -> Vec<v1::LaneStatus> {
        let written = |lane: crate::kdc::gate::LaneCounts| v1::LaneStatus {
            lane: lane.lane.name().to_owned(),
            cap_per_second: lane.caps.per_second.get(),
            max_in_flight: lane.caps.in_flight.get(),
            in_flight: lane.in_flight,
            passed: lane.passed_in_all(),
            refused: lane.refused,
        };
        self.gate.counts().into_iter().map(written).collect()
    }

    fn walks(&self, ledger: &Ledger) -> Vec<v1::WalkStatus> {
        let now = self.book.now().wall;
        let lines = ledger.walks(now, self.walker.rules());
        let written = |line: crate::ledger::query::WalkLine| v1::WalkStatus {
            principal: line.principal.to_string(),
            phase: line.phase,
            waits_for: line.waits_for,
            age: Some(duration(now.duration_since(line.since).unwrap_or_default())),
        };
        lines.into_iter().map(written).collect()
    }
}

fn nodes(ledger: &Ledger) -> v1::NodeCounts {
    let mut counts = v1::NodeCounts::default();
    for session in ledger.sessions() {
        match session.state {
            SessionState::Attached => counts.attached += 1,
            SessionState::Silent => counts.silent += 1,
            SessionState::Lost => counts.lost += 1,
            SessionState::Left => counts.left += 1,
        }
    }
    counts.banned = u32::try_from(ledger.bans().len()).unwrap_or(u32::MAX);
    counts
}

/// The brake; names of nodes are not for viewers that are bound to namespaces.
fn brake(ledger: &Ledger, sees_nodes: bool) -> v1::BrakeStatus {
    let braked = ledger.sessions().filter(|session| sees_nodes && session.braked);
    let mut nodes: Vec<String> = braked.map(|session| session.node.to_string()).collect();
    nodes.sort();
    v1::BrakeStatus {
        reason: ledger.braked().unwrap_or_default(),
        nodes,
        pods: u32::try_from(ledger.held_pods()).unwrap_or(u32::MAX),
    }
}

fn leases(ledger: &Ledger) -> Vec<v1::StateCount> {
    let mut counts = BTreeMap::new();
    for lease in ledger.leases() {
        *counts.entry(lease.state).or_insert(0) += 1;
    }
    let written = |(state, count)| v1::StateCount { state: format!("{state:?}"), count };
    counts.into_iter().map(written).collect()
}
