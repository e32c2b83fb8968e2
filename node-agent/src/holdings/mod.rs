//! What this node holds, and what must happen to it. Pure: no I/O, no clock.
//!
//! - A volume is *held* (a lease's material is on it), *wanted* (it is mounted, its material
//!   is to be emptied and asked for anew) or *ended* (to be emptied, then forgotten).
//! - What is to be emptied is marked first and emptied after, so that an agent that dies
//!   between the two does it when it starts again.
//! - An Issue that was under way while its volume changed is spoiled: its answer is thrown
//!   away and asked for again, so that old material never lands on top of new.
//! - A volume that was filled before it was mounted is *coming* until the driver has put it in
//!   its place or has gone: till then it can be neither emptied nor given what is pushed, and
//!   both wait.
//! - Nothing is held past `serve_until`; no reply of the broker, no serving.

mod asks;
mod record;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    time::Duration,
};

use krb_proto::{Generation, LeaseId, v1};

use self::asks::Asks;
pub use self::{
    asks::Ask,
    record::{Filling, Held, PushTo, Record, VolumeState},
};
use crate::{clock::Boottime, material::Contents, place::Place};

/// The longest that a later `serve_until` goes unrecorded, whatever the heartbeat.
const MAX_UNRECORDED: Duration = Duration::from_secs(60);

/// Everything that this node holds.
#[derive(Debug, Default)]
pub struct Holdings {
    record: Record,
    recorded_until: Option<Boottime>,
    asks: Asks,
    /// The volumes that are filled and not in their places yet. Not for the journal: an agent
    /// that starts again has hung up on the driver, and looks what is mounted.
    coming: BTreeMap<Place, Filling>,
    changes: u64,
}

impl Holdings {
    /// Goes on from a journal. What the journal says is held, though nothing says until when,
    /// is held no longer.
    pub fn resume(record: Record) -> Self {
        let recorded_until = record.serve_until;
        let mut holdings = Self { record, recorded_until, ..Self::default() };
        if recorded_until.is_none() {
            holdings.want_all();
        }
        holdings
    }

    /// What the journal is to keep, and a number that grows with each change of it.
    pub fn record(&self) -> (&Record, u64) {
        (&self.record, self.changes)
    }

    /// The first message of a session, but for who says it.
    pub fn inventory(&self) -> Vec<v1::InventoryItem> {
        let item = |held: &Held| v1::InventoryItem {
            lease_id: held.lease.to_string(),
            principals: held.principals.iter().map(Into::into).collect(),
            keytab_digest: held.digest.map(Vec::from).unwrap_or_default(),
        };
        self.held().map(|(_, held)| item(held)).collect()
    }

    /// The generation last received.
    pub fn generation(&self) -> Option<Generation> {
        self.record.generation
    }

    /// Whether there is nothing to come back for: no volume, none to come, no release to tell.
    pub fn is_empty(&self) -> bool {
        let nothing_comes = !self.asks.any_before(self.asks.next());
        self.record.volumes.is_empty() && self.record.releases.is_empty() && nothing_comes
    }

    /// How many volumes there are, held or wanted.
    pub fn volumes(&self) -> usize {
        self.record.volumes.len()
    }

    /// Until when what is held may be served.
    pub fn serve_until(&self) -> Option<Boottime> {
        self.record.serve_until
    }

    /// The session is attached.
    pub fn welcomed(&mut self, generation: Generation, max_until: Duration, now: Boottime) {
        self.record.generation = Some(generation);
        self.recorded_until = None; // so that it is recorded now
        self.replied(max_until, now);
    }

    /// The broker has answered: what is held may be served for `max_until` from now.
    pub fn replied(&mut self, max_until: Duration, now: Boottime) {
        let until = now + max_until;
        self.record.serve_until = Some(until);
        // An earlier end than the true one in the journal is safe; one a heartbeat is waste.
        let step = (max_until / 10).min(MAX_UNRECORDED);
        let soon = self.recorded_until.is_some_and(|at| at <= until && until.since(at) < step);
        if !soon {
            self.recorded_until = Some(until);
            self.changes += 1;
        }
    }

    /// The generation has passed: everything goes, and the pods are to be served anew.
    pub fn fenced(&mut self) {
        self.record.generation = None;
        self.record.serve_until = None;
        self.want_all();
        self.asks.spoil_all();
    }

    /// Ends the serving if its time has passed. Tells whether anything was held.
    pub fn expired(&mut self, now: Boottime) -> bool {
        if self.record.serve_until.is_none_or(|until| now < until) {
            return false;
        }
        let held = self.held().next().is_some();
        self.record.serve_until = None;
        self.want_all();
        self.asks.spoil_all();
        held
    }

    /// A lease ended at the broker. With `again`, its volume's pod is to be served anew.
    /// Tells whether anything is to be emptied.
    pub fn lease_ended(&mut self, lease: LeaseId, again: bool) -> bool {
        self.asks.lease_ended(lease);
        let Some(place) = self.place_of(lease) else { return false };
        let state = if again { VolumeState::Wanted { emptied: false } } else { VolumeState::Ended };
        self.record.volumes.insert(place, state);
        self.changes += 1;
        true
    }

    /// A mounted volume of which nothing is known: it is emptied and asked for.
    pub fn found(&mut self, place: Place) {
        let wanted = VolumeState::Wanted { emptied: false };
        if let Entry::Vacant(vacant) = self.record.volumes.entry(place) {
            vacant.insert(wanted);
            self.changes += 1;
        }
    }

    /// The volume is being taken off, or is gone: its lease is to be released.
    pub fn forget(&mut self, place: &Place) {
        self.asks.spoil(place);
        self.coming.remove(place);
        if let Some(state) = self.record.volumes.remove(place) {
            self.changes += 1;
            if let VolumeState::Held(held) = state {
                self.release(held.lease, place);
            }
        }
    }

    /// A lease that was granted and can't be used here.
    pub fn unused(&mut self, lease: LeaseId, place: &Place) {
        if self.place_of(lease).is_none() {
            self.release(lease, place);
        }
    }

    /// A lease was granted for the place and could not be written: it is not used, and an
    /// older lease whose files it may have replaced in part ends too, and is asked for anew.
    pub fn unwritten(&mut self, place: &Place, lease: LeaseId) {
        if self.holds(place, lease) {
            return;
        }
        if let Some(state @ VolumeState::Held(_)) = self.record.volumes.get_mut(place) {
            *state = VolumeState::Wanted { emptied: false };
        }
        self.release(lease, place);
    }

    fn release(&mut self, lease: LeaseId, place: &Place) {
        self.asks.lease_ended(lease); // another answer with the same lease came too late
        self.record.releases.insert(lease, place.clone());
        self.changes += 1;
    }

    /// The broker knows of the release.
    pub fn released(&mut self, lease: LeaseId) {
        if self.record.releases.remove(&lease).is_some() {
            self.changes += 1;
        }
    }

    /// The releases that the broker does not know of.
    pub fn releases(&self) -> Vec<LeaseId> {
        self.record.releases.keys().copied().collect()
    }

    /// The releases that must be told before the place may be asked for again: else the
    /// answer could be the very lease that is about to end.
    pub fn releases_of(&self, place: &Place) -> Vec<LeaseId> {
        let of_place = self.record.releases.iter().filter(|(_, at)| *at == place);
        of_place.map(|(lease, _)| *lease).collect()
    }

    /// The volumes whose material must go.
    pub fn to_empty(&self) -> Vec<Place> {
        let places = self.record.volumes.keys();
        places.filter(|place| self.must_be_emptied(place)).cloned().collect()
    }

    /// Whether this volume's material must go.
    pub fn must_be_emptied(&self, place: &Place) -> bool {
        let state = self.record.volumes.get(place);
        let must =
            matches!(state, Some(VolumeState::Wanted { emptied: false } | VolumeState::Ended));
        must && !self.coming.contains_key(place)
    }

    /// The volume is empty now.
    pub fn emptied(&mut self, place: &Place) {
        match self.record.volumes.get_mut(place) {
            Some(VolumeState::Ended) => {
                self.record.volumes.remove(place);
            }
            Some(VolumeState::Wanted { emptied }) => *emptied = true,
            _ => return,
        }
        self.changes += 1;
    }

    /// The volumes that are to be issued again.
    pub fn wanted(&self) -> Vec<Place> {
        self.in_state(|s| matches!(s, VolumeState::Wanted { emptied: true }))
    }

    /// An Issue for the place begins. [`Self::ask_done`] must follow, whatever comes of it.
    pub fn ask(&mut self, place: &Place) -> Ask {
        self.asks.begin(place)
    }

    /// Whether the answer to the ask, this lease, may still be written.
    pub fn may_fill(&self, ask: &Ask, lease: LeaseId) -> bool {
        self.asks.is_good(ask, lease) && !self.record.releases.contains_key(&lease)
    }

    /// The answer is on the volume, which is in its place or `coming`. None when it came too
    /// late: the volume must be emptied.
    pub fn filled(&mut self, ask: &Ask, held: Held, coming: bool) -> Option<Filling> {
        if !self.may_fill(ask, held.lease) {
            return None;
        }
        let (place, filling) = (ask.place().clone(), Filling(ask.number()));
        if coming {
            self.coming.insert(place.clone(), filling);
        } else {
            self.coming.remove(&place);
        }
        self.record.volumes.insert(place, VolumeState::Held(held));
        self.changes += 1;
        Some(filling)
    }

    /// The driver has hung up after this filling, and the volume is `there` now or will never
    /// be. A filling that is not the last one tells nothing any more.
    pub fn arrived(&mut self, place: &Place, filling: Filling, there: bool) {
        if self.coming.get(place) != Some(&filling) {
            return;
        }
        self.coming.remove(place);
        if !there {
            self.forget(place);
        }
    }

    /// The ask is over.
    pub fn ask_done(&mut self, ask: &Ask) {
        self.asks.end(ask);
    }

    /// A number after all asks of now: see [`Self::push_to`].
    pub fn asks_until_now(&self) -> u64 {
        self.asks.next()
    }

    /// Where a push for the lease goes that came when `asks_until_now` was `arrived`.
    pub fn push_to(&self, lease: LeaseId, arrived: u64) -> PushTo {
        match self.held().find(|(_, held)| held.lease == lease) {
            Some((place, _)) if self.coming.contains_key(place) => PushTo::Later,
            Some((place, held)) => PushTo::Volume(place.clone(), held.owner.clone()),
            None if self.asks.any_before(arrived) => PushTo::Later,
            None => PushTo::Nowhere,
        }
    }

    /// Pushed material is on the volume. False when the lease is no longer there.
    pub fn pushed(&mut self, place: &Place, lease: LeaseId, contents: &Contents) -> bool {
        let Some(VolumeState::Held(held)) = self.record.volumes.get_mut(place) else {
            return false;
        };
        if held.lease != lease {
            return false;
        }
        held.principals = contents.principals();
        held.digest = contents.digest();
        self.asks.spoil(place); // an answer that is under way is older
        self.changes += 1;
        true
    }

    /// Whether the lease's material is on the volume, as far as is known.
    pub fn holds(&self, place: &Place, lease: LeaseId) -> bool {
        self.held().any(|(at, held)| at == place && held.lease == lease)
    }

    /// Every volume there is.
    pub fn places(&self) -> BTreeSet<Place> {
        self.record.volumes.keys().cloned().collect()
    }

    fn held(&self) -> impl Iterator<Item = (&Place, &Held)> {
        self.record.volumes.iter().filter_map(|(place, state)| match state {
            VolumeState::Held(held) => Some((place, held)),
            _ => None,
        })
    }

    fn place_of(&self, lease: LeaseId) -> Option<Place> {
        self.held().find(|(_, held)| held.lease == lease).map(|(place, _)| place.clone())
    }

    fn in_state(&self, is: impl Fn(&VolumeState) -> bool) -> Vec<Place> {
        let matching = self.record.volumes.iter().filter(|(_, state)| is(state));
        matching.map(|(place, _)| place.clone()).collect()
    }

    fn want_all(&mut self) {
        for state in self.record.volumes.values_mut() {
            if matches!(state, VolumeState::Held(_)) {
                *state = VolumeState::Wanted { emptied: false };
            }
        }
        self.changes += 1;
    }
}
