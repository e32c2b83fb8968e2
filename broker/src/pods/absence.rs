//! What is remembered of pods from one look to the next: since when they are away, where
//! they were, and that they have finished.
//!
//! A uid once seen finished stays finished. A uid is gone for sure when it has been away
//! for the whole time that is asked for, by the boottime clock, at every look in between.

use std::{collections::HashMap, time::Duration};

use krb_proto::PodUid;

use super::world::{Place, World};
use crate::clock::Boottime;

/// The most uids of which it is remembered since when they are away.
const MAX_AWAY: usize = 200_000;

/// How long a pod that is away is remembered at least.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// What is remembered.
#[derive(Debug, Default)]
pub struct Memory {
    away: HashMap<PodUid, Boottime>,
    places: HashMap<PodUid, Place>,
    finished: HashMap<PodUid, Boottime>,
}

impl Memory {
    /// Takes over a world that differs from the last one. `hidden` says of a uid that it
    /// may be in a file that can't be read.
    pub fn update(&mut self, world: &World, now: Boottime, hidden: impl Fn(&PodUid) -> bool) {
        let long_away = |since: &Boottime| now.since(*since) >= REMEMBERED;
        self.places.retain(|uid, _| !self.away.get(uid).is_some_and(long_away));
        self.away.retain(|uid, since| !world.has(uid) && !long_away(since) && !hidden(uid));
        for uid in self.places.keys().filter(|uid| !world.has(uid) && !hidden(uid)) {
            self.away.entry(uid.clone()).or_insert(now);
        }
        self.finished.retain(|uid, _| world.has(uid) || self.places.contains_key(uid));
        for (uid, place) in world.places() {
            self.places.insert(uid.clone(), place.clone());
        }
    }

    /// How long the pod has been away by now; `None` when that can't be remembered.
    pub fn away_for(&mut self, uid: &PodUid, now: Boottime) -> Option<Duration> {
        if self.away.len() >= MAX_AWAY && !self.away.contains_key(uid) {
            return None;
        }
        let since = *self.away.entry(uid.clone()).or_insert(now);
        Some(now.since(since))
    }

    /// The pod may be there: being away starts anew.
    pub fn may_be_there(&mut self, uid: &PodUid) {
        self.away.remove(uid);
    }

    /// Whether another pod is where this one was.
    pub fn is_replaced(&self, uid: &PodUid, world: &World) -> bool {
        self.places.get(uid).is_some_and(|place| world.is_taken(place))
    }

    /// Since when the pod is finished, if it is, or once was.
    pub fn finished_since(
        &mut self,
        uid: &PodUid,
        finished: bool,
        now: Boottime,
    ) -> Option<Boottime> {
        if finished {
            self.finished.entry(uid.clone()).or_insert(now);
        }
        self.finished.get(uid).copied()
    }
}
