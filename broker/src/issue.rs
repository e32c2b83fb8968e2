//! Granting a pod what its volume asks for, and taking it back.
//!
//! The order makes a crash harmless: the decision, the lease, its keys, the record that they
//! leave, the reply. Whatever the outcome, the audit log has a line before the caller has an
//! answer.

mod error;

use std::{sync::Arc, time::Duration};

use krb_proto::{
    Generation, LeaseId, NodeName, PodRef, PodUid, Principal, Realm, VolumeName, reason::Reason, v1,
};
use tokio::time::Instant;

use crate::{
    audit::{self, Actor, Event, Record},
    clock::{Entropy, Now},
    entitlement::{AccountMode, Denial, Grant, GrantedTicket, policy::Policy},
    kdc::gate::Class,
    keys::walker::{WalkError, Walker},
    krb5::ccache::Credential,
    lease::{Holder, HolderKey, Lease, share::SharedTicket},
    ledger::{
        Ledger,
        book::{Book, Lines},
        sessions::NotServed,
    },
    material::{self, Keys},
    pods::{Place, Pod, PodSource, Sighting},
    session::{KeyHash, pace::NodePace},
    store::committer::CommitError,
    tickets::Tickets,
};
pub use error::{IssueError, NotIssued, Slow};

/// What a node asks for: which pod, and which of its volumes. Nothing else is believed.
#[derive(Clone, Debug)]
pub struct Request {
    /// The calling node.
    pub node: NodeName,
    /// The key that it proved to have: a banned one gets nothing under any name.
    pub key: Option<KeyHash>,
    /// The generation that the node carries.
    pub generation: Generation,
    /// The pod's uid.
    pub pod: PodUid,
    /// Where the node says that the pod is: only a hint of where to look.
    pub hint: Option<Place>,
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
    /// The longest life of the tickets of a role account whose keys the broker makes.
    pub ticket_life: Duration,
    /// How long an issue may take.
    pub within: Duration,
    /// How many new leases and deliveries anew a node may have.
    pub pace: NodePace,
}

impl Issuer {
    /// Grants the volume its lease, or says who refused. Both are in the audit log.
    ///
    /// # Errors
    /// When a rule is missing, or something that is needed can't be had now.
    pub async fn issue(&self, request: &Request) -> Result<Issued, NotIssued> {
        let deadline = Instant::now() + self.within;
        let mut seen = None;
        let outcome =
            in_time(deadline, Slow::Records, self.try_issue(request, deadline, &mut seen));
        match outcome.await.and_then(|issued| issued) {
            Ok(issued) => Ok(issued),
            Err(error) => {
                let recorded = self.book.audit_denial(refusal(request, &error)).await;
                let error = recorded.err().map_or(error, IssueError::from);
                Err(NotIssued { error, pod: seen })
            }
        }
    }

    /// Decides as for an issue, for the node that the pod is bound to unless another is named.
    /// Nothing is granted or recorded.
    ///
    /// # Errors
    /// The first rule that is missing, or why the pod can't be looked up.
    pub async fn explain(
        &self,
        node: Option<NodeName>,
        pod: &PodUid,
        volume: &VolumeName,
    ) -> Result<Grant, IssueError> {
        let mut seen = self.sight(pod, None).await?;
        seen.finished |= self.book.read(|ledger| ledger.is_finished(pod));
        let node = node.unwrap_or_else(|| seen.node.clone());
        let grant = self.policy.decide(&seen, &node, volume)?;
        self.book.read(|ledger| {
            ledger
                .check_pin(&seen.pod.namespace, &seen.namespace_uid)
                .map_err(|pin| namespace_changed(&seen, &pin.uid))?;
            ledger.check_principals(&grant, self.book.now().wall)
        })?;
        Ok(grant)
    }

    /// `seen` is the pod, once it is known to be bound to the calling node.
    async fn try_issue(
        &self,
        request: &Request,
        deadline: Instant,
        seen: &mut Option<PodRef>,
    ) -> Result<Issued, IssueError> {
        self.check_session(request)?;
        // Trying again for a lease that waits for its keys writes nothing, and is free. All else
        // is paced before the cluster is asked: no node may have it asked for others' pods all day.
        let waits = self.book.read(|ledger| ledger.is_pending_for(&key_of_holder(request)));
        if !waits {
            self.keep_pace(request, self.book.now())?;
        }
        let pod = self.confirm(request).await?; // it runs where the caller is
        *seen = Some(&pod).filter(|pod| pod.node == request.node).map(|pod| pod.pod.clone());
        let grant = self.policy.decide(&pod, &request.node, &request.volume)?;
        let at_hand = self.tickets.at_hand(&grant.tickets, &request.node);
        let id = match self.admit(request, &pod, &grant, at_hand).await? {
            Admission::Delivered(delivery) => return self.issued(*delivery), // one round was enough
            Admission::Pending(id) => id, // before any key is made
        };
        let services = grant.principals.iter().map(|granted| &granted.principal);
        for principal in services.chain(managed_accounts(&grant)) {
            in_time(deadline, Slow::Keys, self.walker.ensure(principal))
                .await?
                .map_err(|source| IssueError::Keys { principal: principal.clone(), source })?;
        }
        let tickets = self.fetch_tickets(&grant.tickets, &request.node, &id);
        let tickets = in_time(deadline, Slow::Tickets, tickets).await??;
        let delivery = self
            .book
            .commit(|ledger, lines, now| {
                if waits && ledger.is_active(&id) {
                    self.keep_pace(request, now)?; // another call has got it meanwhile
                }
                deliver(ledger, lines, request, &id, tickets)
            })
            .await??; // before it leaves
        self.issued(delivery)
    }

    /// What leaves, once the record of it is durable.
    fn issued(&self, delivery: Delivery) -> Result<Issued, IssueError> {
        let Delivery { lease, keys, tickets } = delivery;
        // A walk that asks its holders asks this one too.
        for principal in &lease.principals {
            let asks =
                |ledger: &Ledger| ledger.principal(principal).is_some_and(|p| p.asks_holders());
            if self.book.read(asks) {
                self.walker.kick(principal);
            }
        }
        let written = |t: &(_, Arc<Credential>)| material::ticket(&t.1, &self.default_realm);
        let tickets = tickets.iter().map(written).collect();
        let keytab = keys.keytab().map_err(|source| IssueError::Keytab { source })?;
        Ok(Issued { lease, material: v1::Material { keytab, tickets } })
    }

    /// Every delivery has its lines in the audit log: no node may fill it.
    fn keep_pace(&self, request: &Request, now: Now) -> Result<(), IssueError> {
        let node = &request.node;
        self.pace
            .take(node, now)
            .map_err(|retry_after| IssueError::TooFast { node: node.clone(), retry_after })
    }

    fn check_session(&self, request: &Request) -> Result<(), IssueError> {
        self.book
            .read(|ledger| match ledger.ban_on(&request.node, request.key) {
                Some(_) => Err(NotServed::Banned),
                None => ledger.check_issue(&request.node, request.generation),
            })
            .map_err(|source| IssueError::Node { node: request.node.clone(), source })
    }

    /// Looks the pod up: it is there, on the calling node, and was never seen finished.
    async fn confirm(&self, request: &Request) -> Result<Pod, IssueError> {
        let mut pod = self.sight(&request.pod, request.hint.as_ref()).await?;
        if pod.node == request.node && pod.finished {
            let finished = |ledger: &mut Ledger, _: &mut Lines, now: Now| {
                ledger.pod_finished(&request.pod, now.wall);
            };
            self.book.commit_essential(finished).await?;
        }
        pod.finished |= self.book.read(|ledger| ledger.is_finished(&request.pod));
        Ok(pod)
    }

    async fn sight(&self, uid: &PodUid, hint: Option<&Place>) -> Result<Pod, IssueError> {
        let sighting = self.pods.look(uid, hint).await;
        let sighting = sighting.map_err(|source| IssueError::Pods { pod: uid.clone(), source })?;
        match sighting {
            Sighting::Here(pod) => Ok(*pod),
            Sighting::Gone => Err(Denial::pod_unknown("no pod has this uid").into()),
            Sighting::Missing => Err(Denial::pod_unknown("the pod is missing now").into()),
            Sighting::Unstamped { what } => {
                Err(Denial::pod_unknown(format!("the pod object has no {what}")).into())
            }
        }
    }

    /// Binds the namespace, takes the principals up, and records the lease: one round. Where
    /// the keys are made and the tickets at hand, the same round records that they leave.
    async fn admit(
        &self,
        request: &Request,
        pod: &Pod,
        grant: &Grant,
        at_hand: Option<Vec<Fetched>>,
    ) -> Result<Admission, IssueError> {
        let mut bits = [0; 16];
        self.entropy.fill(&mut bits);
        let holder = holder(request, pod);
        self.book
            .commit(|ledger, lines, now| {
                // A node that was given up while its pod was looked up gets no lease.
                ledger
                    .check_issue(&request.node, request.generation)
                    .map_err(|source| IssueError::Node { node: request.node.clone(), source })?;
                let namespace = &pod.pod.namespace;
                ledger
                    .check_pin(namespace, &pod.namespace_uid)
                    .map_err(|pin| namespace_changed(pod, &pin.uid))?;
                let id = LeaseId::from_random(bits);
                let generation = request.generation;
                let admitted = ledger.admit(id, holder, generation, grant, now.wall)?;
                ledger.take_up(grant, self.service_max_life, now.wall);
                ledger.take_up_accounts(grant, self.ticket_life, now.wall);
                if ledger.pin(namespace, &pod.namespace_uid, now.wall) {
                    let line = Record::new(Event::NamespacePinned, Actor::Broker);
                    lines.push(line.namespace(namespace).detail(&pod.namespace_uid));
                }
                let ended = admitted.superseded.and_then(|old| ledger.lease(&old));
                let actor = || Actor::Node(request.node.clone());
                lines.extend(ended.map(|old| audit::of_lease(Event::LeaseReleased, actor(), old)));
                match at_hand.filter(|_| ledger.is_ready(grant)) {
                    Some(tickets) => deliver(ledger, lines, request, &admitted.lease, tickets)
                        .map(|delivery| Admission::Delivered(Box::new(delivery))),
                    None => Ok(Admission::Pending(admitted.lease)),
                }
            })
            .await?
    }

    async fn fetch_tickets(
        &self,
        granted: &[GrantedTicket],
        node: &NodeName,
        lease: &LeaseId,
    ) -> Result<Vec<Fetched>, IssueError> {
        let mut tickets = Vec::new();
        for account in granted {
            let ticket = self
                .tickets
                .ticket(&SharedTicket::of(account, node, lease), Class::PodStart)
                .await
                .map_err(|source| IssueError::Ticket { client: account.client.clone(), source })?;
            tickets.push((account.clone(), ticket));
        }
        Ok(tickets)
    }

    /// Ends the lease for its holder. Only the node that has it may; an ended or unknown
    /// lease is no error.
    ///
    /// # Errors
    /// When the record can't be made durable.
    pub async fn release(&self, node: &NodeName, id: &LeaseId) -> Result<(), CommitError> {
        self.book
            .commit_essential(|ledger, lines, now| {
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

/// The key of the holder that asks.
fn key_of_holder(request: &Request) -> HolderKey {
    let Request { node, pod, volume, .. } = request;
    HolderKey { node: node.clone(), pod: pod.clone(), volume: volume.clone() }
}

fn holder(request: &Request, pod: &Pod) -> Holder {
    Holder { node: request.node.clone(), pod: pod.pod.clone(), volume: request.volume.clone() }
}

/// The principals of the accounts whose keys the broker makes, to get their tickets with.
fn managed_accounts(grant: &Grant) -> impl Iterator<Item = &Principal> {
    let managed = grant.tickets.iter().filter(|account| account.mode == AccountMode::Managed);
    managed.map(|account| &account.client)
}

/// Waits for `work` until `deadline`; `slow` is what it waits for.
async fn in_time<T>(
    deadline: Instant,
    slow: Slow,
    work: impl Future<Output = T>,
) -> Result<T, IssueError> {
    tokio::time::timeout_at(deadline, work).await.map_err(|_| IssueError::TooLate { slow })
}

/// A ticket, and whose it is.
type Fetched = (GrantedTicket, Arc<Credential>);

/// What is about to leave.
struct Delivery {
    lease: Lease,
    keys: Keys,
    tickets: Vec<Fetched>,
}

/// A lease that is recorded.
enum Admission {
    /// Its keys or tickets have to be got first.
    Pending(LeaseId),
    /// What it names leaves at once.
    Delivered(Box<Delivery>),
}

/// Records what leaves, and that it was granted. The session is asked again, since making
/// keys takes its time.
fn deliver(
    ledger: &mut Ledger,
    lines: &mut Lines,
    request: &Request,
    id: &LeaseId,
    tickets: Vec<Fetched>,
) -> Result<Delivery, IssueError> {
    ledger
        .check_issue(&request.node, request.generation)
        .map_err(|source| IssueError::Node { node: request.node.clone(), source })?;
    must_be_ready(ledger, id)?;
    let again = ledger.is_active(id);
    for (account, ticket) in &tickets {
        ledger.ticket_leaves(&account.login, ticket.endtime);
    }
    let (lease, keys) =
        material::take_keys(ledger, id).map_err(|source| IssueError::Ended { source })?;
    let event = if again { Event::LeaseReissued } else { Event::LeaseGranted };
    let actor = Actor::Node(request.node.clone());
    lines.push(audit::of_lease(event, actor.clone(), &lease));
    for principal in &lease.principals {
        let kvnos = ledger.principal(principal).map(|known| known.delivered_kvnos());
        let line = Record::new(Event::KeyDelivered, actor.clone()).lease(*id);
        lines.push(line.principal(principal).kvnos(kvnos.unwrap_or_default()));
    }
    for (account, ticket) in &tickets {
        let line = Record::new(Event::TicketDelivered, actor.clone()).lease(*id);
        lines.push(line.principal(&account.client).endtime(ticket.endtime));
    }
    Ok(Delivery { lease, keys, tickets })
}

/// A lease never goes out with less than it names: a key of it may have been taken away while
/// it waited for another.
fn must_be_ready(ledger: &Ledger, id: &LeaseId) -> Result<(), IssueError> {
    let ready = |name: &&Principal| ledger.principal(name).is_some_and(|known| known.is_ready());
    let mut names = ledger.lease(id).into_iter().flat_map(|lease| &lease.principals);
    match names.find(|name| !ready(name)) {
        None => Ok(()),
        Some(name) => {
            let (principal, source) =
                (name.clone(), WalkError::NotReady { principal: name.clone() });
            Err(IssueError::Keys { principal, source })
        }
    }
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
