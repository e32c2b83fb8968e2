//! From the ledger to the store.

use prost::Message;

use super::{SEALED_IN, wire};
use crate::{
    clock::unix_millis,
    entitlement::{AccountMode, Sharing},
    keys::{Held, ManagedPrincipal, Phase},
    krb5::key::Key,
    lease::{End, Lease, LeaseState},
    ledger::{Ledger, Touched},
    session::SessionState,
    store::seal::{Context, Sealer},
};

/// The value of what was touched; `None` when it is no more.
pub fn value(ledger: &Ledger, touched: &Touched, sealer: &Sealer) -> Option<Vec<u8>> {
    match touched {
        Touched::Lease(id) => ledger.leases.get(id).map(|lease| of_lease(lease).encode_to_vec()),
        Touched::Session(node) => ledger.sessions.get(node).map(|session| {
            let session = wire::Session {
                generation: session.generation.0,
                boot_id: session.boot_id.clone(),
                state: session_state(session.state),
                last_heard: unix_millis(session.stored_wall),
            };
            session.encode_to_vec()
        }),
        Touched::Principal(name) => {
            ledger.principals.get(name).map(|managed| of_principal(managed).encode_to_vec())
        }
        Touched::Keyset(name, kvno) => {
            let managed = ledger.principals.get(name)?;
            let held = managed.keysets.get(kvno)?;
            Some(of_keyset(managed, held, sealer).encode_to_vec())
        }
        Touched::Delivered(name, kvno, recipient) => {
            let held = ledger.principals.get(name)?.keysets.get(kvno)?;
            held.delivered_to.contains(recipient).then(Vec::new)
        }
        Touched::Account(login) => ledger.accounts.get(login).map(|account| {
            let latest_endtime = account.latest_endtime.map(unix_millis);
            wire::Account { latest_endtime }.encode_to_vec()
        }),
        Touched::Pin(namespace) => ledger.pins.get(namespace).map(|pin| {
            let pin = wire::Pin {
                uid: pin.uid.clone(),
                pinned_at: unix_millis(pin.pinned_at),
                accepted_by: pin.accepted_by.clone(),
            };
            pin.encode_to_vec()
        }),
        Touched::Finished(uid) => ledger
            .finished
            .get(uid)
            .map(|at| wire::Finished { at: unix_millis(*at) }.encode_to_vec()),
        Touched::Recovery => ledger.recovery.as_ref().map(|why| why.clone().into_bytes()),
    }
}

fn of_lease(lease: &Lease) -> wire::Lease {
    let pod = &lease.holder.pod;
    wire::Lease {
        node: lease.holder.node.to_string(),
        cluster: pod.cluster.to_string(),
        namespace: pod.namespace.to_string(),
        pod: pod.name.to_string(),
        pod_uid: pod.uid.to_string(),
        volume: lease.holder.volume.to_string(),
        generation: lease.generation.0,
        account: lease.owner.account.to_string(),
        uid: lease.owner.uid,
        gid: lease.owner.gid,
        keytab_gid: lease.owner.keytab_gid,
        principals: lease.principals.iter().map(ToString::to_string).collect(),
        tickets: lease
            .tickets
            .iter()
            .map(|ticket| wire::Ticket {
                login: ticket.login.to_string(),
                client: ticket.client.to_string(),
                managed: ticket.mode == AccountMode::Managed,
                sharing: sharing(ticket.sharing),
            })
            .collect(),
        state: lease_state(lease.state),
        reason: lease.reason.clone(),
        acquired_at: unix_millis(lease.acquired_at),
        end: lease.end.as_ref().map(of_end),
    }
}

fn of_end(end: &End) -> wire::End {
    let numbers = |kvnos: &Vec<krb_proto::Kvno>| wire::Kvnos {
        kvnos: kvnos.iter().map(|kvno| kvno.0).collect(),
    };
    wire::End {
        at: unix_millis(end.at),
        kvnos: end.kvnos.iter().map(|(name, kvnos)| (name.to_string(), numbers(kvnos))).collect(),
        ticket_endtime: end.ticket_endtime.map(unix_millis),
    }
}

fn of_principal(managed: &ManagedPrincipal) -> wire::Principal {
    let millis = managed.attributes.max_life.as_millis();
    wire::Principal {
        owner: managed.owner.to_string(),
        shared: managed.shared,
        max_life_millis: u64::try_from(millis).unwrap_or(u64::MAX),
        client: managed.attributes.client,
        role_account: managed.attributes.is_role_account(),
        made_at: unix_millis(managed.made_at),
        high_water: managed.high_water.0,
        pruned: managed.pruned.iter().map(|(kvno, at)| (kvno.0, unix_millis(*at))).collect(),
    }
}

fn of_keyset(managed: &ManagedPrincipal, held: &Held, sealer: &Sealer) -> wire::Keyset {
    let seal = |key: &Key| {
        let context = Context {
            principal: &managed.principal,
            kvno: held.keyset.kvno,
            enctype: key.enctype(),
            record_type: SEALED_IN,
        };
        let sealed = sealer.seal(&context, key.contents());
        wire::Key { enctype: key.enctype().number(), sealed }
    };
    wire::Keyset {
        keys: held.keyset.keys.iter().map(seal).collect(),
        made_at: unix_millis(held.keyset.made_at),
        phase: phase(held.phase),
        since: unix_millis(held.since),
    }
}

fn sharing(sharing: Sharing) -> u32 {
    match sharing {
        Sharing::Principal => 0,
        Sharing::Node => 1,
        Sharing::Pod => 2,
    }
}

fn lease_state(state: LeaseState) -> u32 {
    match state {
        LeaseState::Pending => 1,
        LeaseState::Active => 2,
        LeaseState::Released => 3,
        LeaseState::Expired => 4,
        LeaseState::Revoking => 5,
        LeaseState::Revoked => 6,
    }
}

fn session_state(state: SessionState) -> u32 {
    match state {
        SessionState::Attached => 1,
        SessionState::Silent => 2,
        SessionState::Lost => 3,
        SessionState::Left => 4,
    }
}

fn phase(phase: Phase) -> u32 {
    match phase {
        Phase::Pending => 1,
        Phase::Distributing => 2,
        Phase::Activating => 3,
        Phase::Current => 4,
        Phase::Retiring => 5,
        Phase::Dropping => 6,
    }
}
