//! `LeaseService`: who holds what.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use krb_proto::{
    LeaseId, PodRef,
    reason::Reason,
    timestamp,
    v1::{self, lease_service_server::LeaseService},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Request, Response, Status};

use super::{
    authorize::caller,
    errors::{invalid, status},
    revocation, watch,
};
use crate::{
    issue::{IssueError, Issuer},
    lease::{Exposure, Holder, Lease, LeaseState},
    ledger::{Ledger, book::Book, query::LeaseFilter},
    revocation::Revoker,
    session::Times,
};

/// The most leases of a page, and how many there are where nothing is said.
const PAGE: (u32, u32) = (1_000, 100);

/// Serves operators and viewers.
#[derive(Clone)]
pub struct LeaseApi {
    /// The ledger.
    pub book: Book,
    /// Takes leases away.
    pub revoker: Revoker,
    /// Decides dry.
    pub issuer: Arc<Issuer>,
    /// This run of the broker: tokens of another one are refused.
    pub run: Arc<str>,
    /// Where watchers run.
    pub tasks: TaskTracker,
    /// Ends them.
    pub stop: CancellationToken,
    /// The spans of a session.
    pub times: Times,
    /// The tolerated difference of clocks.
    pub clock_skew: Duration,
}

#[tonic::async_trait]
impl LeaseService for LeaseApi {
    async fn list_leases(
        &self,
        request: Request<v1::ListLeasesRequest>,
    ) -> Result<Response<v1::ListLeasesResponse>, Status> {
        let visible = caller(&request)?.visible();
        let asked = request.into_inner();
        let filter = LeaseFilter { visible, ..filter(&asked)? };
        let after: Option<LeaseId> = optional("page_token", &asked.page_token)?;
        let size = if asked.page_size == 0 { PAGE.1 } else { asked.page_size.min(PAGE.0) };
        let reply = self.book.read(|ledger| {
            let page = ledger.list(&filter, after, size as usize);
            v1::ListLeasesResponse {
                leases: page.leases.iter().map(|lease| self.written(ledger, lease)).collect(),
                next_page_token: page.next.map(|id| id.to_string()).unwrap_or_default(),
            }
        });
        Ok(Response::new(reply))
    }

    async fn get_lease(
        &self,
        request: Request<v1::GetLeaseRequest>,
    ) -> Result<Response<v1::Lease>, Status> {
        let filter = LeaseFilter { visible: caller(&request)?.visible(), ..LeaseFilter::default() };
        let id: LeaseId =
            request.into_inner().lease_id.parse().map_err(|e| invalid("lease_id", e))?;
        let found = self.book.read(|ledger| {
            let lease = ledger.lease(&id).filter(|lease| filter.may_see(lease))?;
            Some(self.written(ledger, lease))
        });
        let unknown = || status(Code::NotFound, Reason::NotFound, "no such lease".to_owned());
        found.map(Response::new).ok_or_else(unknown)
    }

    type WatchLeasesStream = Changes;

    async fn watch_leases(
        &self,
        request: Request<v1::WatchLeasesRequest>,
    ) -> Result<Response<Changes>, Status> {
        let visible = caller(&request)?.visible();
        let asked = request.into_inner();
        let filter = LeaseFilter {
            node: optional("node", &asked.node)?,
            namespace: optional("namespace", &asked.namespace)?,
            pod_uid: optional("pod_uid", &asked.pod_uid)?,
            principal: optional("principal", &asked.principal)?,
            visible,
            ..LeaseFilter::default()
        };
        let from = watch::resume(&asked.resume_token, &self.run, self.book.feed())?;
        let (told, changes) = tokio::sync::mpsc::channel(watch::QUEUE);
        let watcher = watch::Watcher { api: self.clone(), filter, from, told };
        let stop = self.stop.clone();
        self.tasks.spawn(async move { stop.run_until_cancelled(watcher.run()).await });
        Ok(Response::new(ReceiverStream::new(changes)))
    }

    async fn revoke_leases(
        &self,
        request: Request<v1::RevokeLeasesRequest>,
    ) -> Result<Response<v1::RevokeLeasesResponse>, Status> {
        let by = caller(&request)?.actor();
        let request = request.into_inner();
        let asked = revocation::asked(&request, by)?;
        let mut plan = self.revoker.plan(&asked);
        revocation::must_hit(&plan, &asked)?;
        if !request.dry_run {
            plan = self.revoker.revoke(&asked).await?;
        }
        let now = self.book.now();
        let plan = self.book.read(|ledger| revocation::written(ledger, &plan, now));
        Ok(Response::new(v1::RevokeLeasesResponse { plan: Some(plan) }))
    }

    async fn explain_access(
        &self,
        request: Request<v1::ExplainAccessRequest>,
    ) -> Result<Response<v1::ExplainAccessResponse>, Status> {
        let asked = request.into_inner();
        let node = optional("node", &asked.node)?;
        let pod = asked.pod_uid.parse().map_err(|e| invalid("pod_uid", e))?;
        let volume = asked.volume.parse().map_err(|e| invalid("volume", e))?;
        let explained = match self.issuer.explain(node, &pod, &volume).await {
            Ok(grant) => v1::ExplainAccessResponse {
                granted: true,
                account: grant.account.to_string(),
                principals: grant.principals.iter().map(|p| p.principal.to_string()).collect(),
                tickets: grant.tickets.iter().map(|t| t.client.to_string()).collect(),
                ..v1::ExplainAccessResponse::default()
            },
            Err(IssueError::Denied { denial }) => v1::ExplainAccessResponse {
                reason: denial.reason.to_string(),
                message: denial.message,
                rule: denial.rule,
                ..v1::ExplainAccessResponse::default()
            },
            Err(error) => return Err(Status::from(&error)),
        };
        Ok(Response::new(explained))
    }
}

/// What a watcher is told.
type Changes = ReceiverStream<Result<v1::LeaseChange, Status>>;

impl LeaseApi {
    /// A lease as the API writes it.
    pub(super) fn written(&self, ledger: &Ledger, lease: &Lease) -> v1::Lease {
        let holder = &lease.holder;
        let max_until = ledger
            .session(&holder.node)
            .filter(|_| lease.is_live())
            .map(|session| timestamp(session.max_until(&self.times)));
        v1::Lease {
            lease_id: lease.id.to_string(),
            node: Some(node_ref(holder)),
            pod: Some(pod_ref(&holder.pod)),
            volume: holder.volume.to_string(),
            account: lease.owner.account.to_string(),
            keytab: keytab(ledger, lease),
            tickets: lease.tickets.iter().map(|ticket| ticket.client.to_string()).collect(),
            state: state(lease.state).into(),
            reason: ledger.reason(lease),
            acquired_at: Some(timestamp(lease.acquired_at)),
            max_until,
            ended_at: lease.end.as_ref().map(|end| timestamp(end.at)),
            exposure: exposure(ledger.exposure(lease, self.clock_skew)),
        }
    }
}

/// The kvnos that the holder has, or had when the lease ended.
fn keytab(ledger: &Ledger, lease: &Lease) -> Vec<v1::PrincipalKeys> {
    let kvnos = |principal: &krb_proto::Principal| match &lease.end {
        Some(end) => end.kvnos.get(principal).cloned().unwrap_or_default(),
        None => {
            let recipient = (lease.holder.node.clone(), lease.generation);
            let has = ledger.principal(principal).map(|known| {
                let mut given = known.kvnos_given(&recipient);
                given.retain(|kvno| known.keysets[kvno].phase.is_delivered());
                given
            });
            has.filter(|_| lease.state == LeaseState::Active).unwrap_or_default()
        }
    };
    let keys = |principal: &krb_proto::Principal| v1::PrincipalKeys {
        principal: principal.to_string(),
        kvnos: kvnos(principal).iter().map(|kvno| kvno.0).collect(),
    };
    lease.principals.iter().map(keys).collect()
}

fn exposure(exposure: Exposure) -> Option<v1::Exposure> {
    match exposure {
        Exposure::Nothing => None,
        Exposure::Open => Some(v1::Exposure { open: true, exposed_until: None }),
        Exposure::Until(until) => {
            Some(v1::Exposure { open: false, exposed_until: Some(timestamp(until)) })
        }
    }
}

/// A holder's node as the API writes it.
pub fn node_ref(holder: &Holder) -> v1::NodeRef {
    v1::NodeRef { cluster: holder.pod.cluster.to_string(), name: holder.node.to_string() }
}

/// A pod as the API writes it.
pub fn pod_ref(pod: &PodRef) -> v1::PodRef {
    v1::PodRef {
        cluster: pod.cluster.to_string(),
        namespace: pod.namespace.to_string(),
        name: pod.name.to_string(),
        uid: pod.uid.to_string(),
    }
}

fn filter(asked: &v1::ListLeasesRequest) -> Result<LeaseFilter, Status> {
    let mut states = BTreeSet::new();
    for number in &asked.states {
        let named = v1::LeaseState::try_from(*number).ok().and_then(from_state);
        states.insert(named.ok_or_else(|| invalid("states", "names no state of a lease"))?);
    }
    Ok(LeaseFilter {
        node: optional("node", &asked.node)?,
        namespace: optional("namespace", &asked.namespace)?,
        pod_uid: optional("pod_uid", &asked.pod_uid)?,
        pod_name: (!asked.pod_name.is_empty()).then(|| asked.pod_name.clone()),
        principal: optional("principal", &asked.principal)?,
        states,
        visible: None,
    })
}

/// A field that may be left empty.
pub(super) fn optional<T: std::str::FromStr<Err: std::fmt::Display>>(
    field: &str,
    text: &str,
) -> Result<Option<T>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error: T::Err| invalid(field, error))
}

const STATES: [(LeaseState, v1::LeaseState); 6] = [
    (LeaseState::Pending, v1::LeaseState::Pending),
    (LeaseState::Active, v1::LeaseState::Active),
    (LeaseState::Released, v1::LeaseState::Released),
    (LeaseState::Expired, v1::LeaseState::Expired),
    (LeaseState::Revoking, v1::LeaseState::Revoking),
    (LeaseState::Revoked, v1::LeaseState::Revoked),
];

fn state(state: LeaseState) -> v1::LeaseState {
    let same = STATES.iter().find(|(ours, _)| *ours == state);
    same.map_or(v1::LeaseState::Unspecified, |(_, written)| *written)
}

fn from_state(written: v1::LeaseState) -> Option<LeaseState> {
    STATES.iter().find(|(_, known)| *known == written).map(|(ours, _)| *ours)
}
