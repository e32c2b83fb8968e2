//! Taking leases away by an operator's word.
//!
//! [`plan`] says what a revocation would hit, whom it would touch besides, and until when what
//! was handed out stays usable; [`Revoker`] does it. Both go by the same function, so that a dry
//! run and the act can differ only by what happened between them.
//!
//! A wipe that is sent to the agents is a courtesy. What revokes is the replacement of the keys,
//! which the walks do; nothing here waits for it.

use std::{collections::BTreeSet, fmt, sync::Arc};

use krb_proto::{Kvno, LeaseId, Namespace, NodeName, PodUid, Principal};

use crate::{
    audit::{self, Actor, Event, Record},
    keys::{standing::Off, walker::Walker},
    lease::Lease,
    ledger::{
        Ledger,
        book::Book,
        query::LeaseFilter,
        revoking::{Hit, How},
    },
    material::Pusher,
    notices::{Notice, Notices},
    store::committer::CommitError,
    tickets::Tickets,
};

pub mod plan;

pub use plan::Plan;

/// Whose leases are taken away.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Target {
    /// This lease.
    Lease(LeaseId),
    /// All of the pod.
    Pod(PodUid),
    /// All of pods in the namespace.
    Namespace(Namespace),
    /// All of pods on the node, and whatever else the node was given.
    Node(NodeName),
    /// All that name the principal, in a keytab or as a ticket's client.
    Principal(Principal),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lease(id) => write!(f, "lease {id}"),
            Self::Pod(uid) => write!(f, "pod {uid}"),
            Self::Namespace(name) => write!(f, "namespace {name}"),
            Self::Node(name) => write!(f, "node {name}"),
            Self::Principal(name) => write!(f, "principal {name}"),
        }
    }
}

impl Target {
    /// The live leases that it means.
    pub fn leases(&self, ledger: &Ledger) -> Vec<LeaseId> {
        let mut filter = LeaseFilter::default();
        match self {
            Self::Lease(id) => {
                return ledger
                    .lease(id)
                    .filter(|l| l.is_live())
                    .map(|l| l.id)
                    .into_iter()
                    .collect();
            }
            Self::Pod(uid) => return ledger.live_of_pod(uid),
            Self::Node(node) => return ledger.live_on(node),
            Self::Namespace(namespace) => filter.namespace = Some(namespace.clone()),
            Self::Principal(principal) => filter.principal = Some(principal.clone()),
        }
        let meant = |lease: &&Lease| lease.is_live() && filter.fits(lease);
        ledger.leases().filter(meant).map(|lease| lease.id).collect()
    }

    /// Principals whose numbers it burns besides those that its leases name.
    pub fn principals(&self, ledger: &Ledger) -> BTreeSet<Principal> {
        match self {
            Self::Node(node) => ledger.principals_given_to(node),
            Self::Principal(name) => {
                ledger.principal(name).map(|_| name.clone()).into_iter().collect()
            }
            _ => BTreeSet::new(),
        }
    }
}

/// A revocation as an operator asks for it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Revocation {
    /// Whose leases.
    pub target: Target,
    /// What becomes of the keys.
    pub how: How,
    /// Whether the replacements go before their time, by dropping the oldest retiring keys.
    pub ahead: bool,
    /// Who asks.
    pub by: Actor,
    /// Why, in the operator's words.
    pub reason: String,
}

/// Takes leases away.
#[derive(Clone)]
pub struct Revoker {
    /// The ledger.
    pub book: Book,
    /// The way to the nodes.
    pub pusher: Pusher,
    /// Forgets tickets.
    pub tickets: Arc<Tickets>,
    /// Replaces keys.
    pub walker: Walker,
    /// Tells the owners of pods.
    pub notices: Arc<dyn Notices>,
}

impl Revoker {
    /// What the revocation would do now. Nothing changes.
    pub fn plan(&self, asked: &Revocation) -> Plan {
        let now = self.book.now().wall;
        self.book.read(|ledger| plan::of(ledger, asked, now, self.walker.rules()))
    }

    /// Does it. What is to be replaced is stored when this returns; replacing it takes its time.
    ///
    /// # Errors
    /// When it can't be recorded: nothing has happened then.
    pub async fn revoke(&self, asked: &Revocation) -> Result<Plan, CommitError> {
        // A caller that goes away must not leave it half done.
        let (revoker, asked) = (self.clone(), asked.clone());
        let done = tokio::spawn(async move { revoker.act(&asked).await });
        done.await.unwrap_or(Err(CommitError::Closed))
    }

    async fn act(&self, asked: &Revocation) -> Result<Plan, CommitError> {
        let rules = self.walker.rules();
        let (plan, hit) =
            self.book
                .commit_essential(|ledger, lines, now| {
                    let plan = plan::of(ledger, asked, now.wall, rules);
                    let detail = format!("{} ({:?}): {}", asked.target, asked.how, asked.reason);
                    let line = Record::new(Event::RevocationAsked, asked.by.clone());
                    lines.push(line.detail(&detail));
                    let hit = revoke(ledger, asked, now.wall);
                    let lease = |id| ledger.lease(id);
                    lines.extend(hit.leases.iter().filter_map(lease).map(|lease| {
                        audit::of_lease(Event::LeaseRevoking, asked.by.clone(), lease)
                    }));
                    lines.extend(
                        hit.revoked.iter().filter_map(lease).map(|lease| {
                            audit::of_lease(Event::LeaseRevoked, Actor::Broker, lease)
                        }),
                    );
                    (plan, hit)
                })
                .await?;
        let ended: Vec<Lease> = self
            .book
            .read(|ledger| hit.leases.iter().filter_map(|id| ledger.lease(id).cloned()).collect());
        for lease in &ended {
            self.tickets.forget_for(lease);
            self.pusher.wipe(lease, "REVOKED");
            self.notices.tell(Notice::revoked(lease, "an operator asked for it"));
        }
        hit.principals.iter().for_each(|principal| self.walker.kick(principal));
        Ok(plan)
    }
}

/// Records the revocation: leases end, and what they had is burnt.
fn revoke(ledger: &mut Ledger, asked: &Revocation, now: std::time::SystemTime) -> Hit {
    let leases = asked.target.leases(ledger);
    let besides = asked.target.principals(ledger);
    let reason = format!("revoked by {}: {}", asked.by, asked.reason);
    let given: Vec<(Principal, Kvno)> = plan::given(ledger, asked);
    let mut hit = ledger.revoke(&leases, &reason, now);
    for (principal, kvno) in &given {
        ledger.burn_through(principal, *kvno);
        if asked.how == How::Now {
            ledger.be_abrupt(principal, *kvno, now);
        }
    }
    hit.principals.extend(besides);
    for principal in &hit.principals {
        if asked.how == How::Disable {
            ledger.switch_off(principal, Off::Disabled, Some(asked.by.to_string()), now);
        }
        if asked.ahead {
            ledger.go_ahead(principal);
        }
    }
    hit
}
