//! `NodeAdminService`: who is there, who is given up, and who may not come back.

use std::{collections::BTreeSet, sync::Arc};

use krb_proto::{
    NodeName,
    reason::Reason,
    timestamp,
    v1::{self, node_admin_service_server::NodeAdminService},
};
use tonic::{Code, Request, Response, Status};

use super::{
    authorize::caller,
    errors::{invalid, status},
    revocation,
};
use crate::{
    audit::{Event, Record},
    clock::Now,
    ledger::{
        bans::Ban,
        nodes::{NodeLine, NodeState},
    },
    session::{
        SessionState, Times, Witness,
        aftermath::Aftermath,
        eviction::{EvictError, Eviction},
        witness::Witnesses,
    },
};

/// The most nodes of a page, and how many there are where nothing is said.
const PAGE: (u32, u32) = (1_000, 100);
/// The most nodes that one call names.
const MAX_NAMES: usize = 10_000;

/// Serves operators, and viewers that see everything.
#[derive(Clone)]
pub struct NodeAdminApi {
    /// What follows a loss, and the ledger.
    pub aftermath: Aftermath,
    /// Who says whether a silent node works.
    pub witnesses: Arc<dyn Witnesses>,
    /// The spans of a session.
    pub times: Times,
}

#[tonic::async_trait]
impl NodeAdminService for NodeAdminApi {
    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        let caller = caller(&request)?;
        if caller.visible().is_some() {
            let message = "a viewer that is bound to namespaces may not see nodes";
            let line = Record::new(Event::CallDenied, caller.actor());
            let line = line.reason(Reason::RoleNotAllowed).rule("ListNodes").detail(message);
            self.aftermath.book.audit(line).await?;
            let message = message.to_owned();
            return Err(status(Code::PermissionDenied, Reason::RoleNotAllowed, message));
        }
        let asked = request.into_inner();
        let states = states(&asked.states)?;
        let after = match asked.page_token.as_str() {
            "" => None,
            token => Some(node("page_token", token)?),
        };
        let size = if asked.page_size == 0 { PAGE.1 } else { asked.page_size.min(PAGE.0) };
        let now = self.aftermath.book.now();
        let reply = self.aftermath.book.read(|ledger| {
            let (nodes, next) = ledger.list_nodes(&states, after.as_ref(), size as usize);
            v1::ListNodesResponse {
                nodes: nodes.iter().map(|line| self.written(line, now)).collect(),
                next_page_token: next.map(|node| node.to_string()).unwrap_or_default(),
            }
        });
        Ok(Response::new(reply))
    }

    async fn evict_node(
        &self,
        request: Request<v1::EvictNodeRequest>,
    ) -> Result<Response<v1::EvictNodeResponse>, Status> {
        let actor = caller(&request)?.actor();
        let asked = request.into_inner();
        let node = node("node", &asked.node)?;
        let reason = revocation::reason(&asked.reason, asked.dry_run)?;
        let ahead = asked.drop_oldest_retiring;
        let eviction = Eviction { node, ban: asked.ban, ahead, reason, actor };
        let (book, rules) = (&self.aftermath.book, self.aftermath.walker.rules());
        let now = book.now();
        let hit = if asked.dry_run {
            book.read(|ledger| eviction.plan(ledger, now.wall, rules))?
        } else {
            self.aftermath.evict(&eviction).await?
        };
        let plan = book.read(|ledger| revocation::written(ledger, &hit.plan, now));
        let nodes = hit.nodes.iter().map(ToString::to_string).collect();
        Ok(Response::new(v1::EvictNodeResponse { nodes, plan: Some(plan) }))
    }

    async fn unban_node(
        &self,
        request: Request<v1::UnbanNodeRequest>,
    ) -> Result<Response<v1::UnbanNodeResponse>, Status> {
        let actor = caller(&request)?.actor();
        let node = node("node", &request.into_inner().node)?;
        match self.aftermath.unban(&node, actor).await? {
            Some(ban) => Ok(Response::new(v1::UnbanNodeResponse { ban: Some(written_ban(&ban)) })),
            None => Err(status(Code::NotFound, Reason::NotFound, "no such ban".to_owned())),
        }
    }

    async fn release_brake(
        &self,
        request: Request<v1::ReleaseBrakeRequest>,
    ) -> Result<Response<v1::ReleaseBrakeResponse>, Status> {
        let actor = caller(&request)?.actor();
        let asked = request.into_inner();
        if asked.all != asked.nodes.is_empty() || asked.nodes.len() > MAX_NAMES {
            return Err(invalid("nodes", "names at most 10,000, or `all` says that it is all"));
        }
        let named: Vec<NodeName> =
            asked.nodes.iter().map(|name| node("nodes", name)).collect::<Result<_, _>>()?;
        let released = self
            .aftermath
            .book
            .commit_essential(|ledger, lines, _| {
                let released = ledger.release_brake((!asked.all).then_some(&named));
                for node in &released.nodes {
                    lines.push(Record::new(Event::BrakeReleased, actor.clone()).node(node));
                }
                if asked.all {
                    let what = format!("{} nodes, {} pods", released.nodes.len(), released.pods);
                    lines.push(Record::new(Event::BrakeReleased, actor).detail(&what));
                }
                released
            })
            .await?;
        Ok(Response::new(v1::ReleaseBrakeResponse {
            nodes: released.nodes.iter().map(ToString::to_string).collect(),
            pods: u32::try_from(released.pods).unwrap_or(u32::MAX),
        }))
    }
}

impl NodeAdminApi {
    fn written(&self, line: &NodeLine<'_>, now: Now) -> v1::Node {
        let session = line.session;
        let alerts = session.into_iter().flat_map(|session| &session.alerts);
        let loss = session.and_then(|session| session.last_loss.as_ref());
        let there = session.filter(|session| session.is_there());
        v1::Node {
            name: line.node.to_string(),
            state: line.state().map_or(v1::NodeState::Unspecified, state).into(),
            generation: session.map(|session| session.generation.0).unwrap_or_default(),
            last_heard: session.map(|session| timestamp(session.last_heard_wall)),
            max_until: there.map(|session| timestamp(session.max_until(&self.times))),
            live_leases: line.live_leases as u64,
            keys_outside: line.keys_outside as u64,
            witness: witness(self.witnesses.of(line.node, now)).into(),
            alerts: alerts.map(ToString::to_string).collect(),
            braked: session.is_some_and(|session| session.braked),
            ban: line.ban.map(written_ban),
            lost_at: loss.map(|loss| timestamp(loss.at)),
            lost_because: loss.map(|loss| loss.cause.to_string()).unwrap_or_default(),
        }
    }
}

impl From<EvictError> for Status {
    fn from(error: EvictError) -> Self {
        match error {
            EvictError::Unknown(_) => status(Code::NotFound, Reason::NotFound, error.to_string()),
            EvictError::Store(error) => error.into(),
        }
    }
}

fn written_ban(ban: &Ban) -> v1::Ban {
    v1::Ban {
        by: ban.by.clone(),
        reason: ban.reason.clone(),
        at: Some(timestamp(ban.at)),
        keys: ban.keys.iter().map(ToString::to_string).collect(),
    }
}

fn node(field: &str, name: &str) -> Result<NodeName, Status> {
    name.parse().map_err(|error| invalid(field, error))
}

const STATES: [(NodeState, v1::NodeState); 5] = [
    (NodeState::Session(SessionState::Attached), v1::NodeState::Attached),
    (NodeState::Session(SessionState::Silent), v1::NodeState::Silent),
    (NodeState::Session(SessionState::Lost), v1::NodeState::Lost),
    (NodeState::Session(SessionState::Left), v1::NodeState::Left),
    (NodeState::Banned, v1::NodeState::Banned),
];

fn state(state: NodeState) -> v1::NodeState {
    let same = STATES.iter().find(|(ours, _)| *ours == state);
    same.map_or(v1::NodeState::Unspecified, |(_, written)| *written)
}

fn states(numbers: &[i32]) -> Result<BTreeSet<NodeState>, Status> {
    let named = |number: &i32| {
        let known = STATES.iter().find(|(_, written)| *written as i32 == *number);
        known.map(|(ours, _)| *ours).ok_or_else(|| invalid("states", "names no state of a node"))
    };
    numbers.iter().map(named).collect()
}

fn witness(witness: Witness) -> v1::NodeWitness {
    match witness {
        Witness::NotApplicable => v1::NodeWitness::NotApplicable,
        Witness::NodeReady => v1::NodeWitness::Ready,
        Witness::NodeNotReady => v1::NodeWitness::NotReady,
        Witness::NodeGone => v1::NodeWitness::Gone,
        Witness::Unknown => v1::NodeWitness::Unknown,
    }
}
