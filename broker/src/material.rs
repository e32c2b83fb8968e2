//! What a holder's volume holds, and its way there.
//!
//! The one rule of this module: a key or a ticket leaves only after the round that records
//! it is durable. Keys are taken from the ledger under the same lock under which
//! `delivered_to` is recorded, so that no key can slip in between.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use krb_proto::{Kvno, LeaseId, Principal, Realm, timestamp, v1};
use sha2::{Digest, Sha256};

use crate::{
    entitlement::GrantedTicket,
    krb5::{
        ccache::{self, Credential},
        keytab::{self, KeytabEntry, UnfitEntries},
    },
    lease::{Ended, Lease, share::SharedTicket},
    ledger::{Ledger, book::Book, sessions::NotServed},
    session::{StreamId, hub::Hub},
    store::committer::CommitError,
    tickets::Tickets,
};

/// The keys of one keytab, taken out under the ledger's lock.
#[derive(Clone, Debug)]
pub struct Keys(Vec<KeytabEntry>);

/// Records that the lease's node gets what its keytab holds now, and takes the keys out.
/// The material may leave once the round is durable.
///
/// # Errors
/// When the lease has ended.
pub fn take_keys(ledger: &mut Ledger, lease: &LeaseId) -> Result<(Lease, Keys), Ended> {
    let lease = ledger.deliver(lease)?;
    let keys = keys_of(ledger, &lease);
    Ok((lease, keys))
}

fn keys_of(ledger: &Ledger, lease: &Lease) -> Keys {
    let mut entries = Vec::new();
    for managed in lease.principals.iter().filter_map(|name| ledger.principal(name)) {
        for held in managed.delivered() {
            entries.extend(KeytabEntry::of_keyset(&managed.principal, &held.keyset));
        }
    }
    Keys(entries)
}

impl Keys {
    /// The keytab, where there is one.
    ///
    /// # Errors
    /// When the keys can't stand in one keytab.
    pub fn keytab(&self) -> Result<Option<v1::Keytab>, UnfitEntries> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let contents = keytab::write(&self.0)?;
        let mut principals: BTreeMap<&Principal, Vec<u32>> = BTreeMap::new();
        for entry in &self.0 {
            let kvnos = principals.entry(&entry.principal).or_default();
            if kvnos.last() != Some(&entry.kvno.0) {
                kvnos.push(entry.kvno.0);
            }
        }
        Ok(Some(v1::Keytab {
            digest: Sha256::digest(contents.expose()).to_vec(),
            contents: contents.expose().to_vec(),
            principals: principals
                .into_iter()
                .map(|(name, kvnos)| v1::PrincipalKeys { principal: name.to_string(), kvnos })
                .collect(),
        }))
    }
}

/// The ccache of one ticket.
pub fn ticket(credential: &Credential, default_realm: &Realm) -> v1::Ticket {
    let contents = ccache::write(&credential.client, &[credential]);
    v1::Ticket {
        user: credential.client.primary().to_owned(),
        realm: credential.client.realm().to_string(),
        default_realm: credential.client.realm() == default_realm,
        contents: contents.expose().to_vec(),
        endtime: Some(timestamp(credential.endtime)),
    }
}

/// Sends new material to live leases.
#[derive(Clone)]
pub struct Pusher {
    book: Book,
    hub: Arc<Hub>,
    tickets: Arc<Tickets>,
    default_realm: Realm,
}

impl Pusher {
    /// A way to the nodes.
    pub fn new(book: Book, hub: Arc<Hub>, tickets: Arc<Tickets>, default_realm: Realm) -> Self {
        Self { book, hub, tickets, default_realm }
    }

    /// Pushes their whole material to these leases, recording first what leaves. Says which
    /// streams took it; the others get it when their node attaches.
    ///
    /// # Errors
    /// When the record can't be made durable: nothing has left then.
    pub async fn push(&self, leases: &[LeaseId]) -> Result<Vec<(LeaseId, StreamId)>, CommitError> {
        // A push has no line in the audit log, and goes to who has the lease already: it must
        // not wait for the log, or a full disk would keep replaced keys from their holders.
        let taken = self
            .book
            .commit_essential(|ledger, _, _| {
                let take = |id: &LeaseId| self.take(ledger, id);
                leases.iter().filter_map(take).collect::<Vec<_>>()
            })
            .await?;
        Ok(taken.into_iter().filter_map(|(lease, material)| self.send(&lease, material)).collect())
    }

    fn take(&self, ledger: &mut Ledger, id: &LeaseId) -> Option<(Lease, v1::Material)> {
        let node = &ledger.lease(id)?.holder.node;
        // what can't reach its node must not count as delivered to it
        ledger.session(node)?.stream?;
        // nor does a node get anything that is taken for dead, or is banned
        let generation = ledger.lease(id)?.generation;
        let refused = ledger.check_session(node, generation).err();
        let is_given_up =
            matches!(refused, Some(NotServed::Braked | NotServed::Banned | NotServed::Fenced));
        (!is_given_up).then_some(())?;
        // and what was not issued yet is issued with what there is then
        ledger.is_active(id).then_some(())?;
        let (lease, keys) = take_keys(ledger, id).ok()?;
        let mut tickets = Vec::new();
        for granted in &lease.tickets {
            let shared = SharedTicket::of(granted, &lease.holder.node, id);
            let kept = self.tickets.kept(&shared);
            if let Some(kept) = &kept {
                ledger.ticket_leaves(&granted.login, kept.endtime);
            }
            tickets.push(match kept {
                Some(kept) => ticket(&kept, &self.default_realm),
                None => self.unchanged(granted),
            });
        }
        let keytab = keys
            .keytab()
            .inspect_err(
                |error| tracing::error!(lease = %id, %error, "its keytab can't be written"),
            )
            .ok()?;
        Some((lease, v1::Material { keytab, tickets }))
    }

    fn send(&self, lease: &Lease, material: v1::Material) -> Option<(LeaseId, StreamId)> {
        let push = v1::Push {
            push_id: self.hub.new_push(),
            lease_id: lease.id.to_string(),
            material: Some(material),
        };
        let stream = self.hub.send(&lease.holder.node, v1::sync_response::Event::Push(push))?;
        Some((lease.id, stream))
    }

    /// A ticket that stays on the volume as it is.
    fn unchanged(&self, granted: &GrantedTicket) -> v1::Ticket {
        v1::Ticket {
            user: granted.client.primary().to_owned(),
            realm: granted.client.realm().to_string(),
            default_realm: granted.client.realm() == &self.default_realm,
            contents: Vec::new(),
            endtime: None,
        }
    }

    /// When the ticket that is kept was asked for.
    pub fn fetched_at(&self, ticket: &SharedTicket) -> Option<SystemTime> {
        self.tickets.fetched_at(ticket)
    }

    /// Tells the node of an ended lease to empty its volume.
    pub fn wipe(&self, lease: &Lease, reason: &str) {
        let wipe = v1::Wipe { lease_id: lease.id.to_string(), reason: reason.to_owned() };
        self.hub.send(&lease.holder.node, v1::sync_response::Event::Wipe(wipe));
    }
}

/// The digest of the keytab that the lease is to have now, empty where it has none, and the
/// key numbers in it.
pub fn wanted(ledger: &Ledger, lease: &LeaseId) -> Option<(Vec<u8>, Kvnos)> {
    let lease = ledger.lease(lease)?;
    let keytab = keys_of(ledger, lease).keytab().ok()?;
    let kvnos = |name: &Principal| {
        let known = ledger.principal(name)?;
        Some((name.clone(), known.delivered_kvnos().into_iter().collect()))
    };
    let digest = keytab.map(|keytab| keytab.digest).unwrap_or_default();
    Some((digest, lease.principals.iter().filter_map(kvnos).collect()))
}

/// The key numbers of each principal in a keytab.
pub type Kvnos = BTreeMap<Principal, BTreeSet<Kvno>>;
