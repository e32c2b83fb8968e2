//! What the broker delivers, checked as it comes in.
//!
//! Below this module nothing is taken from a message: names are path parts, owners are
//! real ids, digests have been compared, and key material is in [`Secret`]s. The material
//! itself stays opaque: the agent knows nothing of Kerberos.

use std::collections::BTreeSet;

use krb_proto::{Kvno, LeaseId, Principal, Realm, Secret, text, v1};
use prost_types::Timestamp;
use sha2::{Digest as _, Sha256};

use crate::place::Place;

/// SHA-256 of a keytab file.
pub type Digest = [u8; 32];

/// A principal, and the key version numbers of it in a keytab, ascending.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PrincipalKvnos {
    /// The principal.
    pub principal: Principal,
    /// Its numbers.
    pub kvnos: Vec<Kvno>,
}

impl From<&PrincipalKvnos> for v1::PrincipalKeys {
    fn from(keys: &PrincipalKvnos) -> Self {
        let kvnos = keys.kvnos.iter().map(|kvno| kvno.0).collect();
        Self { principal: keys.principal.to_string(), kvnos }
    }
}

/// Whose the files of a volume are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Owner {
    /// The login of the role account, a path part: the name of its files.
    pub user: String,
    /// The pod's user; never 0.
    pub uid: u32,
    /// The account's group.
    pub gid: u32,
    /// The group that may read the keytab, if one may.
    pub keytab_gid: Option<u32>,
}

/// A keytab as it lies on the volume.
#[derive(Debug)]
pub struct KeytabFile {
    /// File format 0x0502.
    pub contents: Secret,
    /// What is in it.
    pub principals: Vec<PrincipalKvnos>,
    /// SHA-256 of the contents.
    pub digest: Digest,
}

/// A ccache as it lies on the volume.
#[derive(Debug)]
pub struct TicketFile {
    /// Login part of the client, a path part: the file's name.
    pub user: String,
    /// The client's realm.
    pub realm: Realm,
    /// Whether that is the configured default realm.
    pub default_realm: bool,
    /// FILE ccache, version 4. None in a push: the file that is there stays.
    pub contents: Option<Secret>,
    /// When the ticket ends.
    pub endtime: Option<Timestamp>,
}

/// Everything on a volume that changes while it is mounted.
#[derive(Debug)]
pub struct Contents {
    /// Absent when the pod asked for no service.
    pub keytab: Option<KeytabFile>,
    /// One for each account and realm.
    pub tickets: Vec<TicketFile>,
}

/// What one Issue granted.
#[derive(Debug)]
pub struct Issued {
    /// The lease.
    pub lease: LeaseId,
    /// Whose the files are.
    pub owner: Owner,
    /// The files.
    pub contents: Contents,
    /// krb5.conf.
    pub profile: Vec<u8>,
}

/// What is wrong with a message of the broker.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the broker's answer can't be used: {0}")]
pub struct Unusable(pub &'static str);

impl Issued {
    /// Checks the answer to an Issue for `place`.
    ///
    /// # Errors
    /// A field is malformed, or the answer is for another volume.
    pub fn check(answer: v1::IssueResponse, place: &Place) -> Result<Self, Unusable> {
        let contents = Contents::check(answer.material)?; // first: it takes the secrets over
        if contents.tickets.iter().any(|ticket| ticket.contents.is_none()) {
            return Err(Unusable("one of its tickets is empty"));
        }
        let pod = answer.pod.ok_or(Unusable("it names no pod"))?;
        if pod.uid != place.pod.as_str() || answer.volume != place.volume.as_str() {
            return Err(Unusable("it is for another volume"));
        }
        let lease = answer.lease_id.parse().map_err(|_| Unusable("its lease id is malformed"))?;
        let owner = Owner {
            user: file_name(answer.user)?,
            uid: answer.uid,
            gid: answer.gid,
            keytab_gid: answer.keytab_gid,
        };
        // chown takes u32::MAX as "leave it"; a pod never runs as root with a role account.
        let ids = [Some(owner.uid), Some(owner.gid), owner.keytab_gid];
        if owner.uid == 0 || ids.contains(&Some(u32::MAX)) {
            return Err(Unusable("its owner is no ordinary user"));
        }
        Ok(Self { lease, owner, contents, profile: answer.profile })
    }
}

impl Contents {
    /// Checks the material of an Issue or a Push.
    ///
    /// # Errors
    /// It is absent, a name is malformed or used twice, or a digest does not fit.
    pub fn check(material: Option<v1::Material>) -> Result<Self, Unusable> {
        let material = material.ok_or(Unusable("it has no material"))?;
        // All the secrets are taken over before the first check can fail, so that all are wiped.
        let keytab = material.keytab.map(|mut keytab| {
            let contents = Secret::new(std::mem::take(&mut keytab.contents));
            (contents, keytab)
        });
        let tickets: Vec<_> = material
            .tickets
            .into_iter()
            .map(|mut ticket| (Secret::new(std::mem::take(&mut ticket.contents)), ticket))
            .collect();

        let keytab = keytab.map(|(contents, rest)| check_keytab(contents, rest)).transpose()?;
        let tickets = tickets
            .into_iter()
            .map(|(contents, rest)| check_ticket(contents, rest))
            .collect::<Result<Vec<_>, _>>()?;
        let mut files = BTreeSet::new();
        if !tickets.iter().all(|t| files.insert((&t.user, (!t.default_realm).then_some(&t.realm))))
        {
            return Err(Unusable("two of its tickets are for one file"));
        }
        Ok(Self { keytab, tickets })
    }

    /// What the keytab holds; nothing without one.
    pub fn principals(&self) -> Vec<PrincipalKvnos> {
        self.keytab.as_ref().map(|keytab| keytab.principals.clone()).unwrap_or_default()
    }

    /// The keytab's digest.
    pub fn digest(&self) -> Option<Digest> {
        self.keytab.as_ref().map(|keytab| keytab.digest)
    }
}

fn check_keytab(contents: Secret, rest: v1::Keytab) -> Result<KeytabFile, Unusable> {
    let digest: Digest = Sha256::digest(contents.expose()).into();
    if rest.digest != digest {
        return Err(Unusable("its keytab is not what its digest says"));
    }
    let principals = rest
        .principals
        .into_iter()
        .map(|keys| {
            let principal = keys
                .principal
                .parse()
                .map_err(|_| Unusable("a principal of its keytab is malformed"))?;
            Ok(PrincipalKvnos { principal, kvnos: keys.kvnos.into_iter().map(Kvno).collect() })
        })
        .collect::<Result<_, Unusable>>()?;
    Ok(KeytabFile { contents, principals, digest })
}

fn check_ticket(contents: Secret, rest: v1::Ticket) -> Result<TicketFile, Unusable> {
    let realm: Realm =
        rest.realm.parse().map_err(|_| Unusable("the realm of a ticket is malformed"))?;
    if !rest.default_realm && realm.as_str() == "DEFAULT" {
        return Err(Unusable("the realm of a ticket is DEFAULT"));
    }
    Ok(TicketFile {
        user: file_name(rest.user)?,
        realm,
        default_realm: rest.default_realm,
        contents: (!contents.expose().is_empty()).then_some(contents),
        endtime: rest.endtime,
    })
}

fn file_name(name: String) -> Result<String, Unusable> {
    if text::is_path_part(&name) { Ok(name) } else { Err(Unusable("a login is no file's name")) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An answer with a keytab and a ticket, as the broker gives it.
    pub fn answer(place: &Place, lease: u8) -> v1::IssueResponse {
        v1::IssueResponse {
            lease_id: LeaseId::from_random([lease; 16]).to_string(),
            pod: Some(v1::PodRef { uid: place.pod.to_string(), ..v1::PodRef::default() }),
            volume: place.volume.to_string(),
            user: "tsfoo".to_owned(),
            uid: 1234,
            gid: 1111,
            keytab_gid: None,
            material: Some(material(b"keytab-2", &[2], b"ccache-1")),
            profile: b"[libdefaults]\n".to_vec(),
        }
    }

    /// Material of one principal and one ticket.
    pub fn material(keytab: &[u8], kvnos: &[u32], ccache: &[u8]) -> v1::Material {
        v1::Material {
            keytab: Some(v1::Keytab {
                contents: keytab.to_vec(),
                principals: vec![v1::PrincipalKeys {
                    principal: "HTTP/web.tsfoo.svc.cluster.local@EXAMPLE.COM".to_owned(),
                    kvnos: kvnos.to_vec(),
                }],
                digest: Sha256::digest(keytab).to_vec(),
            }),
            tickets: vec![ticket("tsfoo", "EXAMPLE.COM", true, ccache)],
        }
    }

    /// A ticket of one account.
    pub fn ticket(user: &str, realm: &str, default_realm: bool, ccache: &[u8]) -> v1::Ticket {
        v1::Ticket {
            user: user.to_owned(),
            realm: realm.to_owned(),
            default_realm,
            contents: ccache.to_vec(),
            endtime: Some(Timestamp { seconds: 1_700_000_000, nanos: 0 }),
        }
    }

    fn place() -> Place {
        Place::new("uid-1", "krb").unwrap()
    }

    #[test]
    fn a_good_answer_is_taken_over() {
        let issued = Issued::check(answer(&place(), 7), &place()).unwrap();
        assert_eq!(issued.owner.uid, 1234);
        assert_eq!(issued.contents.principals()[0].kvnos, [Kvno(2)]);
        assert_eq!(issued.contents.tickets[0].contents.as_ref().unwrap().expose(), b"ccache-1");
    }

    #[test]
    fn an_answer_that_could_write_elsewhere_or_as_somebody_else_is_refused() {
        type Change = fn(&mut v1::IssueResponse);
        let changes: [(&str, Change); 13] = [
            ("no material", |a| a.material = None),
            ("no pod", |a| a.pod = None),
            ("other pod", |a| a.pod.as_mut().unwrap().uid = "uid-2".to_owned()),
            ("other volume", |a| a.volume = "v2".to_owned()),
            ("lease", |a| a.lease_id = "x".to_owned()),
            ("user climbs", |a| a.user = "../x".to_owned()),
            ("root", |a| a.uid = 0),
            ("uid -1", |a| a.uid = u32::MAX),
            ("gid -1", |a| a.gid = u32::MAX),
            ("keytab gid -1", |a| a.keytab_gid = Some(u32::MAX)),
            ("ticket climbs", |a| a.material.as_mut().unwrap().tickets[0].user = "..".to_owned()),
            ("digest", |a| {
                a.material.as_mut().unwrap().keytab.as_mut().unwrap().contents.push(0);
            }),
            ("two for one file", |a| {
                let tickets = &mut a.material.as_mut().unwrap().tickets;
                tickets.push(tickets[0].clone());
            }),
        ];
        for (what, change) in changes {
            let mut bad = answer(&place(), 7);
            change(&mut bad);
            assert!(Issued::check(bad, &place()).is_err(), "{what}");
        }
    }

    #[test]
    fn a_foreign_realm_named_like_the_link_is_refused() {
        let mut material = material(b"k", &[2], b"c");
        material.tickets.push(ticket("tsfoo", "DEFAULT", false, b"c"));
        assert!(Contents::check(Some(material)).is_err());
    }
}
