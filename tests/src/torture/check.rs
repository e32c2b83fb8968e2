//! Whether the KDC, the store and the mounted volumes say the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use krb_broker::krb5::keytab::{self, KeytabEntry};
use krb_proto::v1::{
    GetStatusRequest, Lease, LeaseState, ListLeasesRequest, ListPrincipalsRequest, Principal,
};

use crate::{
    realm::{Realm, RealmError},
    world::{TSFOO, World, WorldError, api::Api, node::Node, pods::Pod},
};

/// A pod's volume as its kubelet and the operators see it.
#[derive(Clone, Copy)]
pub struct Volume<'a> {
    /// Where the pod is.
    pub node: &'a Node,
    /// The pod; one of TSFOO's.
    pub pod: &'a Pod,
    /// What is to be there.
    pub has: Has,
}

/// What a volume is to have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Has {
    /// Nothing: it is not mounted, or no longer.
    Nothing,
    /// A live lease and its files: its mount has succeeded.
    Lease,
    /// Nothing but a mount: an operator took the lease away. An agent that was fenced after
    /// that has asked for another.
    MayBeRevoked,
}

impl Has {
    fn fits(self, live: &[LeaseState]) -> bool {
        match self {
            Self::Nothing => live.is_empty(),
            Self::Lease => *live == [LeaseState::Active],
            Self::MayBeRevoked => matches!(live, [] | [LeaseState::Active]),
        }
    }
}

/// What is not as it must be.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Acknowledged leases that are gone, or without their files.
    pub lost: Vec<String>,
    /// What the KDC, the store and a keytab say differently.
    pub differences: Vec<String>,
}

/// A principal's keys by kvno: of each the enctype's number, and the key itself.
type Keysets = BTreeMap<u32, BTreeSet<(i32, Vec<u8>)>>;
/// Keys by principal.
type KeysOf = BTreeMap<String, Keysets>;

/// Looks whether everything is at rest: what is mounted has a live lease, nothing else has, and
/// no key is on its way. Says what it waits for.
///
/// # Errors
/// When the broker does not answer.
pub async fn unrest(api: &Api, volumes: &[Volume<'_>]) -> Result<Option<String>, tonic::Status> {
    let leases = live_leases(api).await?;
    for Volume { pod, has, .. } in volumes {
        let of_pod = leases.iter().filter(|lease| is_of(lease, pod));
        let states: Vec<LeaseState> = of_pod.map(Lease::state).collect();
        if !has.fits(&states) {
            return Ok(Some(format!("{}: {has:?}, and its leases are {states:?}", pod.name)));
        }
    }
    let status = api.status().get_status(GetStatusRequest {}).await?.into_inner();
    let walk = status.walks.first();
    Ok(walk.map(|walk| format!("{}: {}, {}", walk.principal, walk.phase, walk.waits_for)))
}

/// Compares everything. To be asked when there is no [`unrest`], or no end of it.
///
/// # Errors
/// When the broker does not answer, or the KDC's keys can't be read.
pub async fn compare(world: &World, volumes: &[Volume<'_>]) -> Result<Findings, WorldError> {
    let api = world.operator().await?;
    let leases = live_leases(&api).await.map_err(|e| WorldError::new("listing leases", e))?;
    let at_kdc = keys_at_kdc(&world.realm)?;
    let mut findings = Findings::default();
    for volume in volumes {
        let is_active = |lease: &&Lease| lease.state() == LeaseState::Active;
        match (leases.iter().filter(is_active).find(|lease| is_of(lease, volume.pod)), volume.has) {
            (Some(lease), Has::Lease | Has::MayBeRevoked) => {
                findings.of_volume(volume, lease, &at_kdc);
            }
            (None, Has::Lease) => {
                findings.lost.push(format!("{} has no live lease", volume.pod.name));
            }
            (_, Has::Nothing | Has::MayBeRevoked) => findings.of_leftovers(volume),
        }
    }
    findings.of_principals(&principals(&api).await?, &at_kdc);
    Ok(findings)
}

impl Findings {
    /// Adds what others found.
    pub(super) fn add(&mut self, more: Self) {
        self.lost.extend(more.lost);
        self.differences.extend(more.differences);
    }

    /// What has no lease has no keys.
    fn of_leftovers(&mut self, volume: &Volume<'_>) {
        let Volume { node, pod, .. } = volume;
        for place in ["keytabs", "tickets"] {
            if node.read(pod, &format!("{place}/{}", TSFOO.login)).is_some() {
                self.differences.push(format!("{} has {place} without a lease", pod.name));
            }
        }
    }

    /// What the store takes for a principal's key is the KDC's, and neither knows others.
    fn of_principals(&mut self, in_store: &[Principal], at_kdc: &KeysOf) {
        for known in in_store {
            let newest = known.keysets.last().map(|keys| (keys.kvno, keys.phase.as_str()));
            let at_kdc = at_kdc.get(&known.principal).and_then(|sets| sets.last_key_value());
            let at_kdc = at_kdc.map(|(kvno, _)| (*kvno, "Current"));
            if newest != at_kdc {
                let what = format!("the store has {newest:?}, the KDC {at_kdc:?}");
                self.differences.push(format!("{}: {what}", known.principal));
            }
        }
        let is_known = |name: &&String| in_store.iter().any(|known| known.principal == **name);
        for name in at_kdc.keys().filter(|name| !is_known(name)) {
            self.differences.push(format!("{name}: the KDC has it, the store does not"));
        }
    }

    fn of_volume(&mut self, volume: &Volume<'_>, lease: &Lease, at_kdc: &KeysOf) {
        let Volume { node, pod, .. } = volume;
        let read = |dir: &str| node.read(pod, &format!("{dir}/{}", TSFOO.login));
        if read("tickets").is_none_or(|ticket| ticket.is_empty()) {
            self.lost.push(format!("{} has no ticket", pod.name));
        }
        let Ok(keytab) = keytab::read(&read("keytabs").unwrap_or_default()) else {
            self.lost.push(format!("{} has no keytab", pod.name));
            return;
        };
        let mounted = keys_of(&keytab.entries);
        let names = lease.keytab.iter().map(|keys| &keys.principal);
        if !names.collect::<BTreeSet<_>>().into_iter().eq(mounted.keys()) {
            let what = "the lease and the keytab name different principals";
            self.differences.push(format!("{}: {what}", pod.name));
        }
        for (principal, sets) in &mounted {
            let in_store = lease.keytab.iter().find(|keys| keys.principal == *principal);
            let in_store = in_store.map(|keys| keys.kvnos.as_slice()).unwrap_or_default();
            if let Some(what) = difference(sets, in_store, at_kdc.get(principal)) {
                self.differences.push(format!("{}: {principal}: {what}", pod.name));
            }
        }
    }
}

/// How a principal's keys in a keytab differ from the numbers in the store and from the KDC's.
fn difference(mounted: &Keysets, in_store: &[u32], at_kdc: Option<&Keysets>) -> Option<String> {
    let kvnos: Vec<u32> = mounted.keys().copied().collect();
    if kvnos != in_store {
        return Some(format!("kvnos {kvnos:?} in the keytab, {in_store:?} in the store"));
    }
    let at_kdc = at_kdc.and_then(|sets| sets.last_key_value());
    let newest = mounted.last_key_value();
    let numbers = [newest, at_kdc].map(|set| set.map(|(kvno, _)| kvno));
    (newest != at_kdc).then(|| {
        format!("the newest key of the keytab is not the KDC's; their kvnos are {numbers:?}")
    })
}

fn is_of(lease: &Lease, pod: &Pod) -> bool {
    lease.pod.as_ref().is_some_and(|its| its.uid == pod.uid)
}

async fn principals(api: &Api) -> Result<Vec<Principal>, WorldError> {
    let request = ListPrincipalsRequest { page_size: 1_000, ..Default::default() };
    let listed = api.principals().list_principals(request).await;
    Ok(listed.map_err(|e| WorldError::new("listing principals", e))?.into_inner().principals)
}

async fn live_leases(api: &Api) -> Result<Vec<Lease>, tonic::Status> {
    let live = [LeaseState::Pending, LeaseState::Active, LeaseState::Revoking];
    let states = live.map(i32::from).to_vec();
    api.list(ListLeasesRequest { states, page_size: 1_000, ..Default::default() }).await
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
