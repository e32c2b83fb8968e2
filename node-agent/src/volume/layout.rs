//! Which files a volume has: names, bytes, modes, owners. Pure.
//!
//! ```text
//! tickets/<user>        0600  the pod's user    libkrb5 appends service tickets to it
//! tickets/@REALM/<user> 0600  the pod's user    accounts of other realms
//! tickets/@DEFAULT      link to .               one spelling for every realm
//! keytabs/<user>        0400  the pod's user    0440 with a group that may read it
//! conf/krb5.conf        0644  root
//! conf/lease.json       0644  root              nothing secret
//! ```

use std::{borrow::Cow, collections::BTreeSet};

use krb_proto::LeaseId;
use serde::Serialize;

use crate::material::{Contents, Issued, Owner};

/// The link that leads from `tickets/@DEFAULT/<user>` to `tickets/<user>`.
pub const DEFAULT_LINK: &str = "@DEFAULT";

/// One file of a volume.
#[derive(Debug)]
pub struct File<'a> {
    /// One of the four directories.
    pub directory: &'static str,
    /// A directory below it, `@REALM`.
    pub below: Option<String>,
    /// Its name, a path part.
    pub name: Cow<'a, str>,
    /// What is in it. Never copied: it may be secret. None: what is there stays.
    pub bytes: Option<Cow<'a, [u8]>>,
    /// Permission bits.
    pub mode: u32,
    /// Owner and group; root when absent.
    pub owner: Option<(u32, u32)>,
}

impl File<'_> {
    /// Its path in the volume.
    pub fn path(&self) -> String {
        match &self.below {
            Some(below) => format!("{}/{below}/{}", self.directory, self.name),
            None => format!("{}/{}", self.directory, self.name),
        }
    }
}

/// Every file of a fresh volume, in the order in which they are written.
pub fn of_issue(issued: &Issued) -> Vec<File<'_>> {
    let mut files = of_contents(issued.lease, &issued.owner, &issued.contents);
    files.insert(0, conf("krb5.conf", Cow::Borrowed(&issued.profile)));
    files
}

/// The files that new material replaces. What says that it is there, lease.json, comes last.
pub fn of_contents<'a>(lease: LeaseId, owner: &'a Owner, contents: &'a Contents) -> Vec<File<'a>> {
    let mut files = Vec::with_capacity(contents.tickets.len() + 2);
    if let Some(keytab) = &contents.keytab {
        files.push(File {
            directory: "keytabs",
            below: None,
            name: Cow::Borrowed(&owner.user),
            bytes: Some(Cow::Borrowed(keytab.contents.expose())),
            mode: if owner.keytab_gid.is_some() { 0o440 } else { 0o400 },
            owner: Some((owner.uid, owner.keytab_gid.unwrap_or(owner.gid))),
        });
    }
    files.extend(contents.tickets.iter().map(|ticket| File {
        directory: "tickets",
        below: (!ticket.default_realm).then(|| format!("@{}", ticket.realm)),
        name: Cow::Borrowed(&ticket.user),
        bytes: ticket.contents.as_ref().map(|contents| Cow::Borrowed(contents.expose())),
        mode: 0o600,
        owner: Some((owner.uid, owner.gid)),
    }));
    files.push(conf("lease.json", Cow::Owned(lease_note(lease, contents))));
    files
}

/// The paths that may stay in `tickets` and `keytabs` once `files` are in place.
pub fn kept(files: &[File<'_>]) -> BTreeSet<String> {
    files.iter().map(File::path).chain([format!("tickets/{DEFAULT_LINK}")]).collect()
}

fn conf<'a>(name: &'a str, bytes: Cow<'a, [u8]>) -> File<'a> {
    let name = Cow::Borrowed(name);
    File { directory: "conf", below: None, name, bytes: Some(bytes), mode: 0o644, owner: None }
}

/// lease.json: what the pod holds and until when.
fn lease_note(lease: LeaseId, contents: &Contents) -> Vec<u8> {
    #[derive(Serialize)]
    struct Note {
        lease: String,
        principals: Vec<Keys>,
        tickets: Vec<Ticket>,
    }
    #[derive(Serialize)]
    struct Keys {
        principal: String,
        kvnos: Vec<u32>,
    }
    #[derive(Serialize)]
    struct Ticket {
        principal: String,
        endtime: Option<String>,
    }
    let principals = contents.principals().into_iter().map(|keys| Keys {
        principal: keys.principal.to_string(),
        kvnos: keys.kvnos.iter().map(|kvno| kvno.0).collect(),
    });
    let tickets = contents.tickets.iter().map(|ticket| Ticket {
        principal: format!("{}@{}", ticket.user, ticket.realm),
        endtime: ticket.endtime.as_ref().map(ToString::to_string),
    });
    let note = Note {
        lease: lease.to_string(),
        principals: principals.collect(),
        tickets: tickets.collect(),
    };
    let mut json = serde_json::to_vec_pretty(&note).expect("texts and numbers become JSON");
    json.push(b'\n');
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        material::tests::{answer, ticket},
        place::Place,
    };

    fn issued(change: impl FnOnce(&mut krb_proto::v1::IssueResponse)) -> Issued {
        let place = Place::new("uid-1", "krb").unwrap();
        let mut answer = answer(&place, 0xab);
        change(&mut answer);
        Issued::check(answer, &place).unwrap()
    }

    type Summary = (String, u32, Option<(u32, u32)>);

    fn summary(issued: &Issued) -> Vec<Summary> {
        of_issue(issued).iter().map(|f| (f.path(), f.mode, f.owner)).collect()
    }

    #[test]
    fn a_volume_has_exactly_the_files_of_the_design() {
        let issued = issued(|a| {
            let tickets = &mut a.material.as_mut().unwrap().tickets;
            tickets.push(ticket("tsbatch", "OTHER.EXAMPLE.COM", false, b"c"));
        });
        assert_eq!(
            summary(&issued),
            [
                ("conf/krb5.conf".to_owned(), 0o644, None),
                ("keytabs/tsfoo".to_owned(), 0o400, Some((1234, 1111))),
                ("tickets/tsfoo".to_owned(), 0o600, Some((1234, 1111))),
                ("tickets/@OTHER.EXAMPLE.COM/tsbatch".to_owned(), 0o600, Some((1234, 1111))),
                ("conf/lease.json".to_owned(), 0o644, None),
            ]
        );
    }

    #[test]
    fn a_group_that_may_read_the_keytab_gets_it_and_nothing_more() {
        let issued = issued(|a| a.keytab_gid = Some(2000));
        let summary = summary(&issued);
        assert!(summary.contains(&("keytabs/tsfoo".to_owned(), 0o440, Some((1234, 2000)))));
        assert!(summary.contains(&("tickets/tsfoo".to_owned(), 0o600, Some((1234, 1111)))));
    }

    #[test]
    fn lease_json_says_what_is_held_and_holds_no_key() {
        let issued = issued(|_| ());
        let files = of_issue(&issued);
        let note = std::str::from_utf8(files.last().unwrap().bytes.as_ref().unwrap()).unwrap();
        assert_eq!(
            note,
            r#"{
  "lease": "abababababababababababababababab",
  "principals": [
    {
      "principal": "HTTP/web.tsfoo.svc.cluster.local@EXAMPLE.COM",
      "kvnos": [
        2
      ]
    }
  ],
  "tickets": [
    {
      "principal": "tsfoo@EXAMPLE.COM",
      "endtime": "2023-11-14T22:13:20Z"
    }
  ]
}
"#
        );
    }
}
