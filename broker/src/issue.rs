//! Granting a pod what its volume asks for, and taking it back.
//!
//! The order makes a crash harmless: the decision, the lease, its keys, the record that they
//! leave, the reply. Whatever the outcome, the audit log has a line before the caller has an
//! answer.

use std::{fmt, sync::Arc, time::Duration};

use krb_proto::{
    Generation, LeaseId, NodeName, PodUid, Principal, Realm, VolumeName, reason::Reason, v1,
};
use tokio::time::Instant;

use crate::{
    audit::{self, Actor, Event, Record},
    clock::Entropy,
    entitlement::{Denial, Grant, GrantedTicket, policy::Policy},
    kdc::KdcError,
    keys::walker::{WalkError, Walker},
    krb5::{ccache::Credential, keytab::UnfitEntries},
    lease::{Ended, Holder, Lease},
    ledger::{book::Book, sessions::NotServed},
    material::{self, Keys},
    pods::{Pod, PodSource, PodsUnavailable, Sighting},
    store::committer::CommitError,
    tickets::{TicketError, Tickets},
};

/// What a node asks for: which pod, and which of its volumes. Nothing else is believed.
#[derive(Clone, Debug)]
pub struct Request {
    /// The calling node.
    pub node: NodeName,
    /// The generation that the node carries.
    pub generation: Generation,
    /// The pod's uid.
    pub pod: PodUid,
    /// The volume of its spec.
    pub volume: VolumeName,
}

/// What leaves the broker for it.
#[derive(Debug)]
pub struct Issued {
    /// The lease, Active.
    pub lease: Lease,
    /// Its keytab and tickets.
    pub material: v1::Material,
}

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The node is not served now.
    #[error("node {node} is not served")]
    Node {
        /// Which.
        node: NodeName,
        /// Why.
        source: NotServed,
    },
    /// The source of pods can't be read.
    #[error("looking up pod {pod}")]
    Pods {
        /// Which.
        pod: PodUid,
        /// Why.
        source: PodsUnavailable,
    },
    /// A rule is missing.
    #[error("{denial}")]
    Denied {
        /// Which.
        denial: Denial,
    },
    /// The keys can't be had now.
    #[error("the keys of {principal}")]
    Keys {
        /// Whose.
        principal: Principal,
        /// Why.
        source: WalkError,
    },
    /// A ticket can't be had now.
    #[error("the ticket of {client}")]
    Ticket {
        /// Whose.
        client: Principal,
        /// Why.
        source: TicketError,
    },
    /// It took longer than a mount may.
    #[error("{slow} took longer than leases.issue_within")]
    TooLate {
        /// What it waited for.
        slow: Slow,
    },
    /// The keys can't stand in one keytab.
    #[error("the keytab")]
    Keytab {
        /// Why.
        source: UnfitEntries,
    },
    /// The lease ended while its keys were made.
    #[error("the lease ended meanwhile")]
    Ended {
        /// How.
        source: Ended,
    },
    /// The store or the audit log can't be written.
    #[error("recording the lease")]
    Store {
        /// Why.
        source: CommitError,
    },
}

/// What an issue was waiting for when its time was over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Slow {
    /// kadmin, for keys.
    Keys,
    /// A KDC, for tickets.
    Tickets,
    /// The broker's own records.
    Records,
}

impl fmt::Display for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keys => "making keys at kadmin",
            Self::Tickets => "getting tickets from the KDC",
            Self::Records => "recording the lease",
        })
    }
}

impl From<CommitError> for IssueError {
    fn from(source: CommitError) -> Self {
        Self::Store { source }
    }
}

impl From<Denial> for IssueError {
    fn from(denial: Denial) -> Self {
        Self::Denied { denial }
    }
}

/// Issues and releases leases.
pub struct Issuer {
    /// The ledger.
    pub book: Book,
    /// Where pods are looked up.
    pub pods: Arc<dyn PodSource>,
    /// Who may have what.
    pub policy: Arc<Policy>,
    /// Makes keys.
    pub walker: Walker,
    /// Gets tickets.
    pub tickets: Arc<Tickets>,
    /// What lease ids are drawn from.
    pub entropy: Arc<dyn Entropy>,
    /// The realm whose tickets lie in `tickets/` itself.
    pub default_realm: Realm,
    /// The longest life of the tickets of a service.
    pub service_max_life: Duration,
    /// How long an issue may take.
    pub within: Duration,
}

impl Issuer {
    /// Grants the volume its lease, or says who refused. Both are in the audit log.
    ///
    /// # Errors
    /// When a rule is missing, or something that is needed can't be had now.
    pub async fn issue(&self, request: &Request) -> Result<Issued, IssueError> {
        let deadline = Instant::now() + self.within;
        let outcome = in_time(deadline, Slow::Records, self.try_issue(request, deadline));
        let outcome = outcome.await.and_then(|issued| issued);
        if let Err(error) = &outcome {
            self.book.audit(refusal(request, error)).await?;
        }
        outcome
    }

    async fn try_issue(&self, request: &Request, deadline: Instant) -> Result<Issued, IssueError> {
        self.check_session(request)?;
        let pod = self.confirm(request).await?; // it runs where the caller is
        let grant = self.policy.decide(&pod, &request.node, &request.volume)?;
        let id = self.admit(request, &pod, &grant).await?; // before any key is made
        for granted in &grant.principals {
            let principal = &granted.principal;
            in_time(deadline, Slow::Keys, self.walker.ensure(principal))
                .await?
                .map_err(|source| IssueError::Keys { principal: principal.clone(), source })?;
        }
        let tickets = self.fetch_tickets(&grant.tickets);
        let tickets = in_time(deadline, Slow::Tickets, tickets).await??;
        let (lease, keys) = self.deliver(request, &id, &tickets).await?; // before it leaves
        let tickets =
            tickets.iter().map(|(_, t)| material::ticket(t, &self.default_realm)).collect();
        let keytab = keys.keytab().map_err(|source| IssueError::Keytab { source })?;
        Ok(Issued { lease, material: v1::Material { keytab, tickets } })
    }

    fn check_session(&self, request: &Request) -> Result<(), IssueError> {
        self.book
            .read(|ledger| ledger.check_session(&request.node, request.generation))
            .map_err(|source| IssueError::Node { node: request.node.clone(), source })
    }

    /// Looks the pod up: it is there, on the calling node, and was never seen finished.
    async fn confirm(&self, request: &Request) -> Result<Pod, IssueError> {
        let sighting = self.pods.look(&request.pod).await;
        let sighting =
            sighting.map_err(|source| IssueError::Pods { pod: request.pod.clone(), source })?;
        let mut pod = match sighting {
            Sighting::Here(pod) => *pod,
            Sighting::Gone => return Err(Denial::pod_unknown("no pod has this uid").into()),
            Sighting::Missing => return Err(Denial::pod_unknown("the pod is missing now").into()),
            Sighting::Unstamped { what } => {
                return Err(Denial::pod_unknown(format!("the pod object has no {what}")).into());
            }
        };
        if pod.node == request.node && pod.finished {
            self.book.commit(|ledger, _, now| ledger.pod_finished(&request.pod, now.wall)).await?;
        }
        pod.finished |= self.book.read(|ledger| ledger.is_finished(&request.pod));
        Ok(pod)
    }

    /// Binds the namespace, takes the principals up, and records the lease: one round.
    async fn admit(
        &self,
        request: &Request,
        pod: &Pod,
        grant: &Grant,
    ) -> Result<LeaseId, IssueError> {
        let mut bits = [0; 16];
        self.entropy.fill(&mut bits);
        let holder = Holder {
            node: request.node.clone(),
            pod: pod.pod.clone(),
            volume: request.volume.clone(),
        };
        let admitted = self
            .book
            .commit(|ledger, lines, now| {
                let namespace = &pod.pod.namespace;
                ledger
                    .check_pin(namespace, &pod.namespace_uid)
                    .map_err(|pin| namespace_changed(pod, &pin.uid))?;
                let id = LeaseId::from_random(bits);
                let generation = request.generation;
                let admitted = ledger.admit(id, holder, generation, grant, now.wall)?;
                ledger.take_up(grant, self.service_max_life, now.wall);
                if ledger.pin(namespace, &pod.namespace_uid, now.wall) {
                    let line = Record::new(Event::NamespacePinned, Actor::Broker);
                    lines.push(line.namespace(namespace).detail(&pod.namespace_uid));
                }
                let ended = admitted.superseded.and_then(|old| ledger.lease(&old));
                let actor = || Actor::Node(request.node.clone());
                lines.extend(ended.map(|old| audit::of_lease(Event::LeaseReleased, actor(), old)));
                Ok::<_, Denial>(admitted.lease)
            })
            .await??;
        Ok(admitted)
    }

    async fn fetch_tickets(
        &self,
        granted: &[GrantedTicket],
    ) -> Result<Vec<(GrantedTicket, Arc<Credential>)>, IssueError> {
        let mut tickets = Vec::new();
        for account in granted {
            let ticket = self
                .tickets
                .ticket(account)
                .await
                .map_err(|source| IssueError::Ticket { client: account.client.clone(), source })?;
            tickets.push((account.clone(), ticket));
        }
        Ok(tickets)
    }

    /// Records what leaves, and that it was granted: one round, and the session is asked
    /// again, since making keys takes its time.
    async fn deliver(
        &self,
        request: &Request,
        id: &LeaseId,
        tickets: &[(GrantedTicket, Arc<Credential>)],
    ) -> Result<(Lease, Keys), IssueError> {
        self.book
            .commit(|ledger, lines, _| {
                ledger
                    .check_session(&request.node, request.generation)
                    .map_err(|source| IssueError::Node { node: request.node.clone(), source })?;
                let again = ledger.is_active(id);
                for (account, ticket) in tickets {
                    ledger.ticket_leaves(&account.login, ticket.endtime);
                }
                let (lease, keys) = material::take_keys(ledger, id)
                    .map_err(|source| IssueError::Ended { source })?;
                let event = if again { Event::LeaseReissued } else { Event::LeaseGranted };
                let actor = Actor::Node(request.node.clone());
                lines.push(audit::of_lease(event, actor.clone(), &lease));
                for principal in &lease.principals {
                    let kvnos = ledger.principal(principal).map(|p| p.delivered_kvnos());
                    let line = Record::new(Event::KeyDelivered, actor.clone()).lease(*id);
                    lines.push(line.principal(principal).kvnos(kvnos.unwrap_or_default()));
                }
                for (account, ticket) in tickets {
                    let line = Record::new(Event::TicketDelivered, actor.clone()).lease(*id);
                    lines.push(line.principal(&account.client).endtime(ticket.endtime));
                }
                Ok((lease, keys))
            })
            .await?
    }

    /// Ends the lease for its holder. Only the node that has it may; an ended or unknown
    /// lease is no error.
    ///
    /// # Errors
    /// When the record can't be made durable.
    pub async fn release(&self, node: &NodeName, id: &LeaseId) -> Result<(), CommitError> {
        self.book
            .commit(|ledger, lines, now| {
                let own = ledger.lease(id).is_some_and(|lease| &lease.holder.node == node);
                if own && ledger.release(id, "released by its node", now.wall) {
                    let actor = Actor::Node(node.clone());
                    lines.extend(
                        ledger.lease(id).map(|l| audit::of_lease(Event::LeaseReleased, actor, l)),
                    );
                }
            })
            .await
    }
}

/// Waits for `work` until `deadline`; `slow` is what it waits for.
async fn in_time<T>(
    deadline: Instant,
    slow: Slow,
    work: impl Future<Output = T>,
) -> Result<T, IssueError> {
    tokio::time::timeout_at(deadline, work).await.map_err(|_| IssueError::TooLate { slow })
}

/// The audit line of an issue that did not happen.
fn refusal(request: &Request, error: &IssueError) -> Record {
    let record = Record::new(Event::LeaseDenied, Actor::Node(request.node.clone()))
        .node(&request.node)
        .generation(request.generation)
        .pod_uid(&request.pod)
        .volume(&request.volume)
        .reason(error.reason());
    match error {
        IssueError::Denied { denial } => record.rule(&denial.rule).detail(&denial.message),
        other => record.outcome(audit::Outcome::Failed).detail(&audit::chain(other)),
    }
}

fn namespace_changed(pod: &Pod, pinned: &str) -> Denial {
    let namespace = &pod.pod.namespace;
    Denial::with_rule(
        Reason::NamespaceChanged,
        format!(
            "the namespace {namespace} was made anew; an operator must accept it \
             (NamespaceService.AcceptNamespace)"
        ),
        format!("{namespace} is bound to the uid {pinned} and now has {}", pod.namespace_uid),
    )
}

impl IssueError {
    /// The stable reason, for the caller and the audit log.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Node { source: NotServed::Fenced, .. } => Reason::Fenced,
            Self::Node { source: NotServed::NotAttached, .. } | Self::Ended { .. } => {
                Reason::NotAttached
            }
            Self::Pods { .. } => Reason::PodsUnavailable,
            Self::Denied { denial } => denial.reason,
            Self::Keys { source: WalkError::Kdc { source, .. }, .. } => of_kdc(source),
            Self::Keys {
                source: WalkError::Numbers { .. } | WalkError::Recovery { .. }, ..
            } => Reason::KeysNotReady,
            Self::Keys { source: WalkError::Store { .. }, .. } | Self::Store { .. } => {
                Reason::StoreFailed
            }
            Self::Ticket { source: TicketError::Keys { .. }, .. } => Reason::AccountKeyMissing,
            Self::Ticket { source: TicketError::Kdc { source, .. }, .. } => of_kdc(source),
            Self::Keytab { .. } => Reason::Internal,
            Self::TooLate { slow: Slow::Keys, .. } => Reason::KadminUnavailable,
            Self::TooLate { slow: Slow::Tickets, .. } => Reason::KdcUnavailable,
            Self::TooLate { slow: Slow::Records, .. } => Reason::StoreFailed,
        }
    }
}

fn of_kdc(error: &KdcError) -> Reason {
    match error {
        KdcError::Unavailable { server, .. } if server.starts_with("kadmin") => {
            Reason::KadminUnavailable
        }
        KdcError::Unavailable { .. } => Reason::KdcUnavailable,
        KdcError::GateFull { .. } => Reason::GateFull,
        KdcError::Denied { .. } => Reason::KadminDenied,
        KdcError::NotManaged { .. } | KdcError::NotRecorded { .. } => Reason::PrincipalNotManaged,
        KdcError::KeyRejected { .. } => Reason::AccountKeyRejected,
        KdcError::Refused { .. } => Reason::AccountDisabled,
        KdcError::Unknown { .. } | KdcError::KvnoInTheWay { .. } | KdcError::Failed { .. } => {
            Reason::KdcFailed
        }
    }
}
