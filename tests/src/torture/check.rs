//! Whether the KDC, the store and the mounted volumes say the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use krb_broker::krb5::keytab::{self, KeytabEntry};
use krb_proto::v1::{GetStatusRequest, Lease, LeaseState, ListLeasesRequest};

use super::place::{Place, Slot};
use crate::{
    realm::{Realm, RealmError},
    world::{TSFOO, World, WorldError, api::Api, node::Node},
};

/// What is not as it must be.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Acknowledged leases that are gone, or without their files.
    pub lost: Vec<String>,
    /// What the KDC, the store and a keytab say differently.
    pub differences: Vec<String>,
}

/// A key as it is compared: its principal, kvno, enctype, and the key itself.
type KeysOf = BTreeMap<String, BTreeMap<u32, BTreeSet<(i32, Vec<u8>)>>>;

/// Looks whether everything is at rest: what is mounted has a live lease, nothing else has, and
/// no key is on its way. Says what it waits for.
pub(super) async fn unrest(api: &Api, places: &[&Place]) -> Result<Option<String>, tonic::Status> {
    let leases = live_leases(api).await?;
    let slots = || places.iter().flat_map(|place| &place.slots);
    for slot in slots() {
        let states = states_of(&leases, slot);
        let expected: &[LeaseState] = if slot.is_mounted { &[LeaseState::Active] } else { &[] };
        if states != expected {
            let mounted = if slot.is_mounted { "is mounted" } else { "is not mounted" };
            return Ok(Some(format!("{} {mounted}, its leases are {states:?}", slot.pod.name)));
        }
    }
    let status = api.status().get_status(GetStatusRequest {}).await?.into_inner();
    let walk = status.walks.first();
    Ok(walk.map(|walk| format!("{}: {}, {}", walk.principal, walk.phase, walk.waits_for)))
}

/// Compares everything. To be asked when there is no [`unrest`], or no end of it.
pub(super) async fn compare(world: &World, places: &[&Place]) -> Result<Findings, WorldError> {
    let api = world.operator().await?;
    let leases = live_leases(&api).await.map_err(|e| WorldError::new("listing leases", e))?;
    let at_kdc = keys_at_kdc(&world.realm)?;
    let mut findings = Findings::default();
    for place in places {
        for slot in place.slots.iter().filter(|slot| slot.is_mounted) {
            let active = leases.iter().find(|lease| {
                lease.pod.as_ref().is_some_and(|pod| pod.uid == slot.pod.uid)
                    && lease.state() == LeaseState::Active
            });
            match active {
                Some(lease) => findings.of_volume(&place.node, slot, lease, &at_kdc),
                None => findings.lost.push(format!("{} has no live lease", slot.pod.name)),
            }
        }
    }
    Ok(findings)
}

impl Findings {
    /// Adds what others found.
    pub(super) fn add(&mut self, more: Self) {
        self.lost.extend(more.lost);
        self.differences.extend(more.differences);
    }

    fn of_volume(&mut self, node: &Node, slot: &Slot, lease: &Lease, at_kdc: &KeysOf) {
        let pod = &slot.pod;
        let ticket = format!("tickets/{}", TSFOO.login);
        if node.read(pod, &ticket).is_none_or(|ticket| ticket.is_empty()) {
            self.lost.push(format!("{} has no ticket", pod.name));
        }
        let file = node.read(pod, &format!("keytabs/{}", TSFOO.login)).unwrap_or_default();
        let Ok(keytab) = keytab::read(&file) else {
            self.lost.push(format!("{} has no keytab", pod.name));
            return;
        };
        let mounted = keys_of(&keytab.entries);
        for keys in &lease.keytab {
            let (principal, kvnos) = (&keys.principal, &keys.kvnos);
            let there = mounted.get(principal).cloned().unwrap_or_default();
            if !there.keys().eq(kvnos) {
                let in_file: Vec<_> = there.keys().collect();
                self.differ(
                    pod,
                    format!(
                        "{principal} has kvnos {kvnos:?} in the store and {in_file:?} in the keytab"
                    ),
                );
            }
            let (newest, kdc) = (there.last_key_value(), at_kdc.get(principal));
            let kdc = kdc.and_then(|sets| sets.last_key_value());
            if newest.is_none() || newest != kdc {
                let numbers = (kdc.map(|(kvno, _)| kvno), newest.map(|(kvno, _)| kvno));
                self.differ(pod, format!("{principal}: the KDC's key and the keytab's newest, kvnos {numbers:?}, are not the same"));
            }
        }
        if lease.keytab.len() != mounted.len() {
            self.differ(pod, "the lease and the keytab name different principals".to_owned());
        }
    }

    fn differ(&mut self, pod: &crate::world::pods::Pod, what: String) {
        self.differences.push(format!("{}: {what}", pod.name));
    }
}

async fn live_leases(api: &Api) -> Result<Vec<Lease>, tonic::Status> {
    let live = [LeaseState::Pending, LeaseState::Active, LeaseState::Revoking];
    let states = live.map(i32::from).to_vec();
    api.list(ListLeasesRequest { states, page_size: 1_000, ..Default::default() }).await
}

fn states_of(leases: &[Lease], slot: &Slot) -> Vec<LeaseState> {
    let of_slot = |lease: &&Lease| lease.pod.as_ref().is_some_and(|pod| pod.uid == slot.pod.uid);
    leases.iter().filter(of_slot).map(Lease::state).collect()
}

/// Every key of a service that the primary KDC has.
fn keys_at_kdc(realm: &Realm) -> Result<KeysOf, WorldError> {
    let wrong = |e: RealmError| WorldError::new("reading the KDC's keys", e);
    let mut principals = Vec::new();
    for service in ["HTTP/*", "nfs/*"] {
        let listed = realm.kadmin_local(&["listprincs", service]).map_err(wrong)?;
        principals.extend(listed.lines().filter(|line| line.contains('@')).map(str::to_owned));
    }
    let file = realm.dir().join("compared.keytab");
    let _ = fs::remove_file(&file);
    if principals.is_empty() {
        return Ok(KeysOf::new());
    }
    let place = file.display().to_string();
    let mut command = vec!["ktadd", "-q", "-norandkey", "-k", &place];
    command.extend(principals.iter().map(String::as_str));
    realm.kadmin_local(&command).map_err(wrong)?;
    let keytab = keytab::read(&fs::read(&file)?);
    let keytab = keytab.map_err(|e| WorldError::new("reading the KDC's keys", e))?;
    Ok(keys_of(&keytab.entries))
}

fn keys_of(entries: &[KeytabEntry]) -> KeysOf {
    let mut keys = KeysOf::new();
    for entry in entries {
        let sets = keys.entry(entry.principal.to_string()).or_default();
        let key = (entry.key.enctype().number(), entry.key.contents().expose().to_vec());
        sets.entry(entry.kvno.0).or_default().insert(key);
    }
    keys
}
