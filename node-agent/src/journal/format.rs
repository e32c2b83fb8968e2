//! The journal's JSON, and back.

use std::{collections::BTreeMap, time::Duration};

use krb_proto::{Generation, Kvno};
use serde::{Deserialize, Serialize};

use crate::{
    clock::Boottime,
    holdings::{Held, Record, VolumeState},
    material::{Owner, PrincipalKvnos},
    place::Place,
};

/// The format's number. Another one is not understood, and the journal counts as corrupt.
const VERSION: u32 = 1;

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    boot_id: String,
    generation: Option<u64>,
    /// Milliseconds on the boottime clock.
    serve_until: Option<u64>,
    volumes: Vec<Volume>,
    releases: Vec<Release>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Volume {
    pod: String,
    volume: String,
    state: State,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum State {
    Held(Lease),
    Wanted,
    Ended,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Lease {
    lease: String,
    user: String,
    uid: u32,
    gid: u32,
    keytab_gid: Option<u32>,
    principals: BTreeMap<String, Vec<u32>>,
    keytab_digest: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Release {
    lease: String,
    pod: String,
    volume: String,
}

/// Why a text is no journal.
#[derive(Debug, thiserror::Error)]
pub enum NotAJournal {
    /// It is no JSON, or not of this shape.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A field's text is not what it should be.
    #[error("{0} is malformed")]
    Field(&'static str),
}

/// The text of a record.
pub fn text(boot_id: &str, record: &Record) -> Vec<u8> {
    let volumes = record.volumes.iter().map(|(place, state)| Volume {
        pod: place.pod.to_string(),
        volume: place.volume.to_string(),
        state: match state {
            VolumeState::Held(held) => State::Held(lease(held)),
            // Whether it has been emptied is not remembered: emptying twice harms nobody.
            VolumeState::Wanted { .. } => State::Wanted,
            VolumeState::Ended => State::Ended,
        },
    });
    let releases = record.releases.iter().map(|(lease, place)| Release {
        lease: lease.to_string(),
        pod: place.pod.to_string(),
        volume: place.volume.to_string(),
    });
    let millis = |at: Boottime| u64::try_from(at.0.as_millis()).unwrap_or(u64::MAX);
    let file = File {
        version: VERSION,
        boot_id: boot_id.to_owned(),
        generation: record.generation.map(|generation| generation.0),
        serve_until: record.serve_until.map(millis),
        volumes: volumes.collect(),
        releases: releases.collect(),
    };
    serde_json::to_vec(&file).expect("texts and numbers become JSON")
}

fn lease(held: &Held) -> Lease {
    let kvnos = |keys: &PrincipalKvnos| keys.kvnos.iter().map(|kvno| kvno.0).collect();
    Lease {
        lease: held.lease.to_string(),
        user: held.owner.user.clone(),
        uid: held.owner.uid,
        gid: held.owner.gid,
        keytab_gid: held.owner.keytab_gid,
        principals: held.principals.iter().map(|k| (k.principal.to_string(), kvnos(k))).collect(),
        keytab_digest: held.digest.map(|digest| hex(&digest)),
    }
}

/// The boot and the record of a text.
pub fn parse(text: &[u8]) -> Result<(String, Record), NotAJournal> {
    let file: File = serde_json::from_slice(text)?;
    if file.version != VERSION {
        return Err(NotAJournal::Field("version"));
    }
    let mut record = Record {
        generation: file.generation.map(Generation),
        serve_until: file.serve_until.map(|millis| Boottime(Duration::from_millis(millis))),
        ..Record::default()
    };
    for volume in file.volumes {
        let state = match volume.state {
            State::Held(lease) => VolumeState::Held(held(lease)?),
            State::Wanted => VolumeState::Wanted { emptied: false },
            State::Ended => VolumeState::Ended,
        };
        record.volumes.insert(place(&volume.pod, &volume.volume)?, state);
    }
    for release in file.releases {
        let lease = release.lease.parse().map_err(|_| NotAJournal::Field("lease"))?;
        record.releases.insert(lease, place(&release.pod, &release.volume)?);
    }
    Ok((file.boot_id, record))
}

fn held(lease: Lease) -> Result<Held, NotAJournal> {
    if !krb_proto::text::is_path_part(&lease.user) || lease.uid == 0 {
        return Err(NotAJournal::Field("user"));
    }
    let digest = lease.keytab_digest.map(|text| unhex(&text)).transpose()?;
    let principals = lease.principals.into_iter().map(|(name, kvnos)| {
        let principal = name.parse().map_err(|_| NotAJournal::Field("principals"))?;
        Ok(PrincipalKvnos { principal, kvnos: kvnos.into_iter().map(Kvno).collect() })
    });
    Ok(Held {
        lease: lease.lease.parse().map_err(|_| NotAJournal::Field("lease"))?,
        owner: Owner {
            user: lease.user,
            uid: lease.uid,
            gid: lease.gid,
            keytab_gid: lease.keytab_gid,
        },
        principals: principals.collect::<Result<_, NotAJournal>>()?,
        digest,
    })
}

fn place(pod: &str, volume: &str) -> Result<Place, NotAJournal> {
    Place::new(pod, volume).map_err(|_| NotAJournal::Field("pod or volume"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Result<[u8; 32], NotAJournal> {
    let malformed = || NotAJournal::Field("keytab_digest");
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let bytes: Vec<u8> = digits
        .ok_or_else(malformed)?
        .chunks(2)
        .map(|pair| pair.iter().fold(0, |b, d| b << 4 | d))
        .collect();
    if text.len() == 64 { bytes.try_into().map_err(|_| malformed()) } else { Err(malformed()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = r#"{"version":1,"boot_id":"b","generation":3,"serve_until":1500,"volumes":[{"pod":"uid-1","volume":"krb","state":{"held":{"lease":"01010101010101010101010101010101","user":"tsfoo","uid":1234,"gid":1111,"keytab_gid":null,"principals":{"HTTP/web@R":[2,3]},"keytab_digest":"0202020202020202020202020202020202020202020202020202020202020202"}}},{"pod":"uid-2","volume":"krb","state":"wanted"},{"pod":"uid-3","volume":"krb","state":"ended"}],"releases":[{"lease":"04040404040404040404040404040404","pod":"uid-4","volume":"krb"}]}"#;

    #[test]
    fn the_format_does_not_change_unnoticed() {
        let (boot, record) = parse(GOLDEN.as_bytes()).unwrap();
        assert_eq!(boot, "b");
        assert_eq!(record.volumes.len(), 3);
        assert_eq!(String::from_utf8(text(&boot, &record)).unwrap(), GOLDEN);
    }

    #[test]
    fn what_could_not_have_been_written_is_refused() {
        for (from, to) in [
            ("\"version\":1", "\"version\":2"),
            ("uid-1", "../x"),
            ("tsfoo", "../x"),
            ("0202", "02"),
            ("0202", "é0"),
            ("HTTP/web@R", "HTTP/web"),
            ("0404", "zz04"),
            ("\"gid\"", "\"gidd\""),
        ] {
            let bad = GOLDEN.replace(from, to);
            assert_ne!(bad, GOLDEN);
            assert!(parse(bad.as_bytes()).is_err(), "{from} -> {to}");
        }
    }
}
