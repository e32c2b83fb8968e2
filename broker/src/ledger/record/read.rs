//! From the store to the ledger, at each start.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Display,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use krb_proto::{Generation, Kvno, PodRef, Principal};
use prost::Message;

use super::{SEALED_IN, lease_id, wire};
use crate::{
    clock::{Now, from_unix_millis},
    entitlement::{AccountMode, GrantedTicket, Sharing},
    kdc::Attributes,
    keys::{
        Held, ManagedPrincipal, Phase, Recipient,
        due::{Debt, Kind},
        standing::{Off, Standing, SwitchedOff},
    },
    krb5::key::{Enctype, Key, Keyset},
    lease::{End, FileOwner, Holder, Lease, LeaseState},
    ledger::{Account, Ledger, Pin, bans::Ban},
    session::{Cause, KeyHash, LastLoss, Session, SessionState},
    store::seal::{Context, Sealer},
};

/// A record that can't be read. The broker does not start without it: leaving it out could
/// forget a holder.
#[derive(Debug, thiserror::Error)]
#[error("the stored record {key}: {problem}")]
pub struct Unreadable {
    /// The record's key, printable.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
}

type Read<T> = Result<T, String>;

/// The ledger of these records, which come in the order of their keys or any other.
///
/// # Errors
/// When a record can't be read.
pub fn read(
    cluster: Arc<str>,
    records: &[(Vec<u8>, Vec<u8>)],
    sealer: &Sealer,
    now: Now,
) -> Result<Ledger, Unreadable> {
    let mut ledger = Ledger::new(cluster);
    // Principals first, then their keysets, then who was given them.
    for kinds in [b"PSANFRB".as_slice(), b"K", b"DL"] {
        for (key, value) in records {
            let Some((kind, name)) = key.split_first() else { continue };
            if kinds.contains(kind) {
                one(&mut ledger, *kind, name, value, sealer, now).map_err(|problem| {
                    Unreadable {
                        key: String::from_utf8_lossy(key).escape_debug().collect(),
                        problem,
                    }
                })?;
            }
        }
    }
    Ok(ledger)
}

fn one(
    ledger: &mut Ledger,
    kind: u8,
    name: &[u8],
    value: &[u8],
    sealer: &Sealer,
    now: Now,
) -> Read<()> {
    match kind {
        b'P' => ledger.insert_principal(principal(name, value)?),
        b'K' => keyset(ledger, name, value, sealer)?,
        b'D' => delivered(ledger, name)?,
        b'L' => ledger.insert(lease(name, value)?),
        b'S' => ledger.insert_session(session(name, value, now)?),
        b'A' => {
            let stored: wire::Account = decode(value)?;
            let latest_endtime = stored.latest_endtime.map(from_unix_millis);
            ledger.accounts.insert(parse(name)?, Account { latest_endtime });
        }
        b'N' => {
            let stored: wire::Pin = decode(value)?;
            let pin = Pin {
                uid: stored.uid,
                pinned_at: from_unix_millis(stored.pinned_at),
                accepted_by: stored.accepted_by,
            };
            ledger.pins.insert(parse(name)?, pin);
        }
        b'B' => drop(ledger.bans.insert(parse(name)?, ban(value)?)),
        b'R' => ledger.recovery = Some(String::from_utf8_lossy(value).into_owned()),
        _ => {
            let stored: wire::Finished = decode(value)?;
            ledger.finished.insert(parse(name)?, from_unix_millis(stored.at));
        }
    }
    Ok(())
}

fn principal(name: &[u8], value: &[u8]) -> Read<ManagedPrincipal> {
    let stored: wire::Principal = decode(value)?;
    let max_life = Duration::from_millis(stored.max_life_millis);
    let attributes = if stored.role_account {
        Attributes::role_account(max_life)
    } else {
        Attributes::service(max_life, stored.client)
    };
    let made_at = from_unix_millis(stored.made_at);
    let owner = parsed(&stored.owner)?;
    let mut managed =
        ManagedPrincipal::new(parse(name)?, owner, stored.shared, attributes, made_at);
    managed.high_water = Kvno(stored.high_water);
    managed.pruned =
        stored.pruned.iter().map(|(kvno, at)| (Kvno(*kvno), from_unix_millis(*at))).collect();
    // one that was ever given a number was made, before that was stored
    managed.ours = stored.ours || managed.high_water >= Kvno::FIRST;
    managed.of_pod = stored.of_pod;
    managed.standing = standing(stored.standing)?;
    managed.switched_off = stored.switched_off.map(switched_off).transpose()?;
    managed.debt = stored.debt.map_or_else(|| Ok(Debt::default()), |stored| debt(&stored))?;
    managed.replaced_at = stored.replaced_at.map(from_unix_millis);
    managed.given_up_at = stored.given_up_at.map(from_unix_millis);
    managed.idle_since = stored.idle_since.map(from_unix_millis);
    Ok(managed)
}

fn switched_off(stored: wire::SwitchedOff) -> Read<SwitchedOff> {
    let since = from_unix_millis(stored.since);
    Ok(SwitchedOff { how: off(stored.how)?, by: stored.by, since })
}

fn debt(stored: &wire::Debt) -> Read<Debt> {
    let asked = match stored.asked {
        0 => None,
        1 => Some(Kind::Scheduled),
        2 => Some(Kind::Revocation),
        3 => Some(Kind::Emergency),
        other => return Err(format!("the kind of walk {other} is not known")),
    };
    let burnt_through = stored.burnt_through.map(Kvno);
    Ok(Debt { asked, burnt_through, abrupt: stored.abrupt, ahead: stored.ahead })
}

fn standing(number: u32) -> Read<Standing> {
    Ok(match number {
        0 => Standing::InUse,
        1 | 2 => Standing::Leaving(off(number)?),
        _ => Standing::Off(off(number - 2)?),
    })
}

fn off(number: u32) -> Read<Off> {
    match number {
        1 => Ok(Off::Disabled),
        2 => Ok(Off::Deleted),
        _ => Err(format!("the way to be switched off {number} is not known")),
    }
}

fn keyset(ledger: &mut Ledger, name: &[u8], value: &[u8], sealer: &Sealer) -> Read<()> {
    let (principal, rest) = split(name)?;
    let kvno = Kvno(number(rest)?);
    let stored: wire::Keyset = decode(value)?;
    let keys = stored
        .keys
        .iter()
        .map(|key| open(&principal, kvno, key, sealer))
        .collect::<Read<Vec<Key>>>()?;
    let held = Held {
        keyset: Keyset { kvno, keys, made_at: from_unix_millis(stored.made_at) },
        phase: phase(stored.phase)?,
        since: from_unix_millis(stored.since),
        retired_at: stored.retired_at.map(from_unix_millis),
        missed: stored.missed,
        delivered_to: BTreeSet::new(),
        lagging: stored.lagging.into_iter().collect(),
    };
    let managed = ledger.principal_mut(&principal).ok_or("its principal has no record")?;
    managed.seen_at_kdc(kvno);
    managed.keysets.insert(kvno, held);
    Ok(())
}

fn open(principal: &Principal, kvno: Kvno, key: &wire::Key, sealer: &Sealer) -> Read<Key> {
    let enctype = Enctype::from_number(key.enctype)
        .ok_or_else(|| format!("the enctype {} is not known", key.enctype))?;
    let context = Context { principal, kvno, enctype, record_type: SEALED_IN };
    let contents = sealer.open(&context, &key.sealed).map_err(|e| e.to_string())?;
    Key::new(enctype, contents).map_err(|e| e.to_string())
}

fn delivered(ledger: &mut Ledger, name: &[u8]) -> Read<()> {
    let (principal, rest) = split(name)?;
    let (kvno, rest) = rest.split_at_checked(4).ok_or("its key is too short")?;
    let (generation, node) = rest.split_at_checked(8).ok_or("its key is too short")?;
    let generation = generation.iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
    let recipient: Recipient = (parse(node)?, Generation(generation));
    let kvno = Kvno(number(kvno)?);
    let managed = ledger.principal_mut(&principal).ok_or("its principal has no record")?;
    let held = managed.keysets.get_mut(&kvno).ok_or("its keyset has no record")?;
    held.delivered_to.insert(recipient);
    Ok(())
}

fn lease(name: &[u8], value: &[u8]) -> Read<Lease> {
    let stored: wire::Lease = decode(value)?;
    let pod = PodRef {
        cluster: stored.cluster.as_str().into(),
        namespace: parsed(&stored.namespace)?,
        name: parsed(&stored.pod)?,
        uid: parsed(&stored.pod_uid)?,
    };
    let holder = Holder { node: parsed(&stored.node)?, pod, volume: parsed(&stored.volume)? };
    let owner = FileOwner {
        account: parsed(&stored.account)?,
        uid: stored.uid,
        gid: stored.gid,
        keytab_gid: stored.keytab_gid,
    };
    let ticket = |ticket: &wire::Ticket| -> Read<GrantedTicket> {
        let mode = if ticket.managed { AccountMode::Managed } else { AccountMode::Keytab };
        let (login, client) = (parsed(&ticket.login)?, parsed(&ticket.client)?);
        Ok(GrantedTicket { login, client, mode, sharing: sharing(ticket.sharing)? })
    };
    Ok(Lease {
        id: lease_id(name).ok_or("its key is no lease id")?,
        holder,
        generation: Generation(stored.generation),
        owner,
        principals: stored.principals.iter().map(|name| parsed(name)).collect::<Read<_>>()?,
        tickets: stored.tickets.iter().map(ticket).collect::<Read<_>>()?,
        state: lease_state(stored.state)?,
        reason: stored.reason,
        acquired_at: from_unix_millis(stored.acquired_at),
        end: stored.end.as_ref().map(end).transpose()?,
    })
}

fn end(stored: &wire::End) -> Read<End> {
    let numbers = |kvnos: &wire::Kvnos| kvnos.kvnos.iter().map(|kvno| Kvno(*kvno)).collect();
    let one = |(name, kvnos): (&String, &wire::Kvnos)| -> Read<(Principal, Vec<Kvno>)> {
        Ok((parsed(name)?, numbers(kvnos)))
    };
    Ok(End {
        at: from_unix_millis(stored.at),
        kvnos: stored.kvnos.iter().map(one).collect::<Read<BTreeMap<_, _>>>()?,
        ticket_endtime: stored.ticket_endtime.map(from_unix_millis),
    })
}

/// A session as it comes up: whoever was there has a whole new grace, and no stream.
fn session(name: &[u8], value: &[u8], now: Now) -> Read<Session> {
    let stored: wire::Session = decode(value)?;
    let heard: SystemTime = from_unix_millis(stored.last_heard);
    Ok(Session {
        node: parse(name)?,
        generation: Generation(stored.generation),
        boot_id: stored.boot_id.clone(),
        instance: String::new(),
        state: session_state(stored.state)?,
        last_heard: now.boot,
        last_heard_wall: heard,
        stored_wall: heard,
        stream: None,
        changes: VecDeque::new(),
        key: if stored.key.is_empty() { None } else { Some(key_hash(&stored.key)?) },
        node_uid: Some(stored.node_uid.clone()).filter(|uid| !uid.is_empty()),
        replaced: false,
        last_loss: stored.lost_at.map(|at| last_loss(at, &stored)).transpose()?,
        alerts: BTreeSet::new(),
        braked: false,
        brake_released: false,
    })
}

fn last_loss(at: u64, stored: &wire::Session) -> Read<LastLoss> {
    let by = || stored.lost_by.clone();
    let cause = match stored.lost_cause {
        1 => Cause::Silence,
        2 => Cause::NodeDeleted,
        3 => Cause::LeaseTtl,
        4 => Cause::Evicted { by: by() },
        5 => Cause::Banned { by: by() },
        6 => Cause::StoreWentBack,
        other => return Err(format!("the cause {other} of a loss is not known")),
    };
    Ok(LastLoss { at: from_unix_millis(at), cause })
}

fn ban(value: &[u8]) -> Read<Ban> {
    let stored: wire::Ban = decode(value)?;
    let keys = stored.keys.iter().map(|key| key_hash(key)).collect::<Read<_>>()?;
    Ok(Ban { keys, by: stored.by, reason: stored.reason, at: from_unix_millis(stored.at) })
}

fn key_hash(bytes: &[u8]) -> Read<KeyHash> {
    bytes.try_into().map(KeyHash).map_err(|_| "the hash of a key is not 32 bytes".to_owned())
}

fn decode<M: Message + Default>(value: &[u8]) -> Read<M> {
    M::decode(value).map_err(|e| e.to_string())
}

fn parse<T: FromStr<Err: Display>>(name: &[u8]) -> Read<T> {
    parsed(std::str::from_utf8(name).map_err(|e| e.to_string())?)
}

fn parsed<T: FromStr<Err: Display>>(name: &str) -> Read<T> {
    name.parse().map_err(|e: T::Err| format!("a name {e}"))
}

fn split(name: &[u8]) -> Read<(Principal, &[u8])> {
    let zero = name.iter().position(|byte| *byte == 0).ok_or("its key has no number")?;
    Ok((parse(&name[..zero])?, &name[zero + 1..]))
}

fn number(bytes: &[u8]) -> Read<u32> {
    let bytes: [u8; 4] = bytes.try_into().map_err(|_| "its key has no kvno")?;
    Ok(u32::from_be_bytes(bytes))
}

fn sharing(sharing: u32) -> Read<Sharing> {
    Ok(match sharing {
        0 => Sharing::Principal,
        1 => Sharing::Node,
        2 => Sharing::Pod,
        _ => return Err(format!("the sharing {sharing} is not known")),
    })
}

fn lease_state(state: u32) -> Read<LeaseState> {
    Ok(match state {
        1 => LeaseState::Pending,
        2 => LeaseState::Active,
        3 => LeaseState::Released,
        4 => LeaseState::Expired,
        5 => LeaseState::Revoking,
        6 => LeaseState::Revoked,
        _ => return Err(format!("the lease state {state} is not known")),
    })
}

fn session_state(state: u32) -> Read<SessionState> {
    Ok(match state {
        1 => SessionState::Attached,
        2 => SessionState::Silent,
        3 => SessionState::Lost,
        4 => SessionState::Left,
        _ => return Err(format!("the session state {state} is not known")),
    })
}

fn phase(phase: u32) -> Read<Phase> {
    Ok(match phase {
        1 => Phase::Pending,
        2 => Phase::Distributing,
        3 => Phase::Activating,
        4 => Phase::Current,
        5 => Phase::Retiring,
        6 => Phase::Dropping,
        _ => return Err(format!("the phase {phase} is not known")),
    })
}
