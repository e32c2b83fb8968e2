//! The model of the realm: a primary that kadmin writes to, and a replica that lags.
//!
//! It does what it is told, like the real one: whether a number may be set is the broker's
//! business. A call that was sent is executed even if nobody waits for its answer any more.

use std::collections::BTreeMap;

use krb_broker::kdc::{Observation, Unsaid};
use krb_proto::{Kvno, Principal};

use super::plan::Millis;

/// What tells one key from another.
pub type KeyPrint = u64;

/// A principal as one KDC has it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Entry {
    /// Its newest key; `None` while it has none.
    pub key: Option<(Kvno, KeyPrint)>,
    /// Whether tickets are refused.
    pub disabled: bool,
}

/// What kadmin is asked to do.
#[derive(Clone, Debug)]
pub enum Call {
    /// How is it?
    Inspect,
    /// Make it, without a key.
    Create,
    /// Set its key.
    Activate(Kvno, KeyPrint),
    /// Refuse tickets, or not.
    SetDisabled(bool),
    /// Remove it.
    Delete,
}

/// What kadmin answered.
#[derive(Clone, Debug)]
pub enum Reply {
    /// It is so; `None`: it is not there.
    Is(Option<Entry>),
    /// Done.
    Done,
    /// It has a higher number.
    InTheWay(Kvno),
    /// It is not there.
    Unknown,
}

/// kadmin did not answer: what was asked may have been done.
#[derive(Clone, Copy, Debug)]
pub struct Away;

/// Both KDCs, by the place in [`Realm::kdcs`]: the primary first.
#[derive(Debug, Default)]
pub struct Realm {
    /// What each of them has.
    pub kdcs: [BTreeMap<Principal, Entry>; 2],
    /// Until when kadmin does not answer.
    pub away_until: Millis,
    /// Until when calls or answers get lost.
    pub lossy_until: Millis,
    /// Until when the replica gets no changes.
    pub held_until: Millis,
    /// Until when the replica does not answer.
    pub silent_until: Millis,
    /// The highest number ever set of each principal, and its key.
    pub highest: BTreeMap<Principal, (Kvno, KeyPrint)>,
}

impl Realm {
    /// What one KDC uses for tickets of the principal: nothing, where it has no key or may not.
    pub fn uses(&self, kdc: usize, principal: &Principal) -> Option<(Kvno, KeyPrint)> {
        let entry = self.kdcs[kdc].get(principal)?;
        entry.key.filter(|_| !entry.disabled)
    }

    /// Whether any KDC uses this number.
    pub fn any_uses(&self, principal: &Principal, kvno: Kvno) -> bool {
        (0..2).any(|kdc| self.uses(kdc, principal).is_some_and(|(used, _)| used == kvno))
    }

    /// Does what is asked, at the primary.
    pub fn execute(&mut self, principal: &Principal, call: &Call) -> Reply {
        let primary = &mut self.kdcs[0];
        match call {
            Call::Inspect => return Reply::Is(primary.get(principal).copied()),
            Call::Create => {
                primary.entry(principal.clone()).or_default();
            }
            Call::Activate(kvno, print) => {
                let Some(entry) = primary.get_mut(principal) else { return Reply::Unknown };
                if let Some((found, _)) = entry.key.filter(|(found, _)| found > kvno) {
                    return Reply::InTheWay(found);
                }
                entry.key = Some((*kvno, *print));
            }
            Call::SetDisabled(disabled) => match primary.get_mut(principal) {
                Some(entry) => entry.disabled = *disabled,
                None => return Reply::Unknown,
            },
            Call::Delete => drop(primary.remove(principal)),
        }
        Reply::Done
    }

    /// The replica has what the primary has now.
    pub fn propagate(&mut self) {
        self.kdcs[1] = self.kdcs[0].clone();
    }

    /// What a KDC says that it uses, asked for a ticket.
    pub fn observe(&self, kdc: usize, principal: &Principal, now: Millis) -> Observation {
        let kvno = if kdc == 1 && now < self.silent_until {
            Err(Unsaid::Absent("it does not answer".to_owned()))
        } else {
            match self.kdcs[kdc].get(principal) {
                Some(entry) if entry.disabled => Ok(None), // as MIT says of a disabled server
                Some(entry) => Ok(entry.key.map(|(kvno, _)| kvno)),
                None => Ok(None),
            }
        };
        Observation { kdc: format!("kdc{}", kdc + 1), kvno }
    }
}
