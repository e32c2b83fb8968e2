//! From the ledger to the store.

use prost::Message;

use super::{SEALED_IN, wire};
use crate::{
    clock::unix_millis,
    entitlement::{AccountMode, Sharing},
    keys::{
        Held, ManagedPrincipal, Phase,
        due::{Debt, Kind},
        standing::{Off, Standing},
    },
    krb5::key::Key,
    lease::{End, Lease, LeaseState},
    ledger::{Ledger, Touched},
    session::{Cause, Session, SessionState},
    store::seal::{Context, Sealer},
};

/// The value of what was touched; `None` when it is no more.
pub fn value(ledger: &Ledger, touched: &Touched, sealer: &Sealer) -> Option<Vec<u8>> {
    match touched {
        Touched::Lease(id) => ledger.leases.get(id).map(|lease| of_lease(lease).encode_to_vec()),
        Touched::Session(node) => {
            ledger.sessions.get(node).map(|session| of_session(session).encode_to_vec())
        }
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
        Touched::Ban(node) => ledger.bans.get(node).map(|ban| {
            let ban = wire::Ban {
                keys: ban.keys.iter().map(|key| key.0.to_vec()).collect(),
                by: ban.by.clone(),
                reason: ban.reason.clone(),
                at: unix_millis(ban.at),
            };
            ban.encode_to_vec()
        }),
        Touched::Recovery => ledger.recovery.as_ref().map(|why| why.clone().into_bytes()),
    }
}

fn of_session(session: &Session) -> wire::Session {
    let loss = session.last_loss.as_ref();
    let (lost_cause, lost_by) = loss.map(|loss| cause(&loss.cause)).unwrap_or_default();
    wire::Session {
        generation: session.generation.0,
        boot_id: session.boot_id.clone(),
        state: session_state(session.state),
        last_heard: unix_millis(session.stored_wall),
        lost_at: loss.map(|loss| unix_millis(loss.at)),
        lost_cause,
        lost_by,
        key: session.key.map(|key| key.0.to_vec()).unwrap_or_default(),
        node_uid: session.node_uid.clone().unwrap_or_default(),
    }
}

fn cause(cause: &Cause) -> (u32, String) {
    match cause {
        Cause::Silence => (1, String::new()),
        Cause::NodeDeleted => (2, String::new()),
        Cause::LeaseTtl => (3, String::new()),
        Cause::Evicted { by } => (4, by.clone()),
        Cause::Banned { by } => (5, by.clone()),
        Cause::StoreWentBack => (6, String::new()),
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
        ours: managed.ours,
        of_pod: managed.of_pod,
        standing: standing(managed.standing),
        switched_off: managed.switched_off.as_ref().map(|switched| wire::SwitchedOff {
            how: off(switched.how),
            by: switched.by.clone(),
            since: unix_millis(switched.since),
        }),
        debt: (!managed.debt.is_none()).then(|| of_debt(&managed.debt)),
        replaced_at: managed.replaced_at.map(unix_millis),
        given_up_at: managed.given_up_at.map(unix_millis),
        idle_since: managed.idle_since.map(unix_millis),
    }
}

fn of_debt(debt: &Debt) -> wire::Debt {
    wire::Debt {
        asked: match debt.asked {
            None => 0,
            Some(Kind::Scheduled) => 1,
            Some(Kind::Revocation) => 2,
            Some(Kind::Emergency) => 3,
        },
        burnt_through: debt.burnt_through.map(|kvno| kvno.0),
        abrupt: debt.abrupt,
        ahead: debt.ahead,
    }
}

fn standing(standing: Standing) -> u32 {
    match standing {
        Standing::InUse => 0,
        Standing::Leaving(how) => off(how),
        Standing::Off(how) => 2 + off(how),
    }
}

fn off(how: Off) -> u32 {
    match how {
        Off::Disabled => 1,
        Off::Deleted => 2,
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
        retired_at: held.retired_at.map(unix_millis),
        missed: held.missed,
        lagging: held.lagging.iter().cloned().collect(),
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
