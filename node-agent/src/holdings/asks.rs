//! The Issues that are under way, and what happens meanwhile that spoils their answers.

use std::collections::{BTreeMap, BTreeSet};

use krb_proto::LeaseId;

use crate::place::Place;

/// One Issue that is under way.
#[derive(Debug)]
pub struct Ask {
    number: u64,
    place: Place,
}

impl Ask {
    /// The volume that it is for.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Its number; no other ask of this agent has it.
    pub fn number(&self) -> u64 {
        self.number
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Asks {
    next: u64,
    /// The open asks, and whether each is spoiled.
    open: BTreeMap<u64, (Place, bool)>,
    /// Leases that ended while asks were open: an answer that names one came too late.
    /// A lease's id is never used again, so that the set may be kept as long as that.
    ended: BTreeSet<LeaseId>,
}

impl Asks {
    /// An ask begins.
    pub fn begin(&mut self, place: &Place) -> Ask {
        let number = self.next;
        self.next += 1;
        self.open.insert(number, (place.clone(), false));
        Ask { number, place: place.clone() }
    }

    /// The ask is over.
    pub fn end(&mut self, ask: &Ask) {
        self.open.remove(&ask.number);
        if self.open.is_empty() {
            self.ended.clear();
        }
    }

    /// Whether the ask's answer, this lease, may be used.
    pub fn is_good(&self, ask: &Ask, lease: LeaseId) -> bool {
        self.open.get(&ask.number).is_some_and(|(_, spoiled)| !spoiled)
            && !self.ended.contains(&lease)
    }

    /// Something newer has happened to the place.
    pub fn spoil(&mut self, place: &Place) {
        for (at, spoiled) in self.open.values_mut() {
            *spoiled |= at == place;
        }
    }

    /// Something newer has happened to all.
    pub fn spoil_all(&mut self) {
        self.open.values_mut().for_each(|(_, spoiled)| *spoiled = true);
    }

    /// The lease has ended.
    pub fn lease_ended(&mut self, lease: LeaseId) {
        if !self.open.is_empty() {
            self.ended.insert(lease);
        }
    }

    /// The number that the next ask will have.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Whether an ask is open that began before number `next` was given.
    pub fn any_before(&self, next: u64) -> bool {
        self.open.keys().next().is_some_and(|first| *first < next)
    }
}
