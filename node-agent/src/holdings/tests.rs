//! Orders of events that a node could see, drawn at random.

use std::collections::{BTreeMap, BTreeSet};

use krb_proto::LeaseId;
use proptest::prelude::*;

use super::*;
use crate::material::{self, Issued};

const SECOND: Duration = Duration::from_secs(1);

fn place(number: u8) -> Place {
    Place::new(&format!("uid-{number}"), "krb").unwrap()
}

fn lease(number: u8) -> LeaseId {
    LeaseId::from_random([number; 16])
}

fn issued(at: u8, number: u8) -> Issued {
    Issued::check(material::tests::answer(&place(at), number), &place(at)).unwrap()
}

/// What can happen, on three volumes.
#[derive(Clone, Debug)]
enum Event {
    Ask(u8),
    /// The oldest open ask of the volume is answered, perhaps with the lease of another.
    Answer(u8, u8),
    /// The same, on a volume that is not mounted yet.
    AnswerDetached(u8),
    /// The driver puts such a volume in its place, or has died.
    HangUp(u8, bool),
    Push(u8),
    Wipe(u8, bool),
    Fence,
    Welcome,
    Reply,
    Pass(u8),
    Forget(u8),
    EmptyAll,
    TellReleases,
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    let at = || 0u8..3;
    prop_oneof![
        4 => at().prop_map(Event::Ask),
        6 => (at(), 0u8..2).prop_map(|(at, fresh)| Event::Answer(at, fresh)),
        4 => at().prop_map(Event::AnswerDetached),
        4 => (at(), any::<bool>()).prop_map(|(at, put)| Event::HangUp(at, put)),
        2 => at().prop_map(Event::Push),
        2 => (at(), any::<bool>()).prop_map(|(at, again)| Event::Wipe(at, again)),
        1 => Just(Event::Fence),
        2 => Just(Event::Welcome),
        2 => Just(Event::Reply),
        2 => (0u8..20).prop_map(Event::Pass),
        2 => at().prop_map(Event::Forget),
        3 => Just(Event::EmptyAll),
        2 => Just(Event::TellReleases),
        1 => Just(Event::Restart),
    ]
}

/// The holdings, beside what really lies on the volumes.
#[derive(Default)]
struct World {
    holdings: Holdings,
    now: Boottime,
    asks: Vec<(Ask, LeaseId)>,
    /// The lease whose files are on a volume.
    disk: BTreeMap<Place, LeaseId>,
    /// What is filled and not in its place yet.
    coming: BTreeMap<Place, (Filling, LeaseId)>,
    ended: BTreeSet<LeaseId>,
    live: BTreeMap<Place, LeaseId>,
    leases: u8,
}

impl World {
    fn happen(&mut self, event: Event) {
        match event {
            Event::Ask(at) => self.ask(at),
            Event::Answer(at, lost) => self.answer(at, lost == 1, false),
            Event::AnswerDetached(at) => self.answer(at, false, true),
            Event::HangUp(at, put) => self.hang_up(at, put),
            Event::Push(at) => self.push(at),
            Event::Wipe(at, again) => {
                if let Some(lease) = self.live.remove(&place(at)) {
                    self.ended.insert(lease);
                    self.holdings.lease_ended(lease, again);
                }
            }
            Event::Fence => {
                self.ended.extend(std::mem::take(&mut self.live).into_values());
                self.holdings.fenced();
            }
            Event::Welcome => self.holdings.welcomed(Generation(1), SECOND * 10, self.now),
            Event::Reply => self.holdings.replied(SECOND * 10, self.now),
            Event::Pass(seconds) => {
                self.now = self.now + SECOND * seconds.into();
                self.holdings.expired(self.now);
            }
            Event::Forget(at) => {
                self.disk.remove(&place(at)); // the driver empties it first
                self.coming.remove(&place(at)); // and a mount in progress gives up
                self.holdings.forget(&place(at));
            }
            Event::EmptyAll => {
                for place in self.holdings.to_empty() {
                    self.disk.remove(&place);
                    self.holdings.emptied(&place);
                }
            }
            Event::TellReleases => {
                for lease in self.holdings.releases() {
                    self.tell_release(lease);
                }
            }
            Event::Restart => {
                self.asks.clear();
                self.holdings = Holdings::resume(self.holdings.record().0.clone());
                for place in std::mem::take(&mut self.coming).into_keys() {
                    self.holdings.forget(&place); // not mounted; its driver gives it up
                }
                self.holdings.expired(self.now);
                for place in self.disk.keys() {
                    self.holdings.found(place.clone());
                }
            }
        }
    }

    fn tell_release(&mut self, lease: LeaseId) {
        self.live.retain(|_, live| *live != lease);
        self.ended.insert(lease);
        self.holdings.released(lease);
    }

    /// As the broker grants: the live lease of the place, or a new one.
    fn ask(&mut self, at: u8) {
        for lease in self.holdings.releases_of(&place(at)) {
            self.tell_release(lease);
        }
        let fresh = lease(self.leases);
        let granted = *self.live.entry(place(at)).or_insert(fresh);
        if granted == fresh {
            self.leases = self.leases.wrapping_add(1);
        }
        self.asks.push((self.holdings.ask(&place(at)), granted));
    }

    /// A volume has been filled.
    fn put(&mut self, at: u8, filling: Filling, lease: LeaseId, coming: bool) {
        let before = self.coming.remove(&place(at));
        if coming {
            self.coming.insert(place(at), (filling, lease));
        } else {
            self.disk.insert(place(at), lease);
        }
        if let Some((earlier, _)) = before {
            self.holdings.arrived(&place(at), earlier, false); // its driver was killed
            assert!(self.holdings.holds(&place(at), lease), "an earlier filling takes nothing");
        }
    }

    fn hang_up(&mut self, at: u8, put: bool) {
        if let Some((filling, lease)) = self.coming.remove(&place(at)) {
            if put {
                self.disk.insert(place(at), lease);
            }
            self.holdings.arrived(&place(at), filling, put);
        }
    }

    fn answer(&mut self, at: u8, lost: bool, detached: bool) {
        let Some(found) = self.asks.iter().position(|(ask, _)| *ask.place() == place(at)) else {
            return;
        };
        let (ask, granted) = self.asks.remove(found);
        if !lost && self.holdings.may_fill(&ask, granted) {
            let held = Held::from(&issued(at, granted.as_bytes()[0]));
            let coming = detached && !self.disk.contains_key(&place(at));
            let filled = self.holdings.filled(&ask, held, coming);
            self.put(at, filled.expect("nothing happened in between"), granted, coming);
        } else if !lost {
            self.holdings.unused(granted, &place(at));
        }
        self.holdings.ask_done(&ask);
    }

    fn push(&mut self, at: u8) {
        let Some(lease) = self.live.get(&place(at)).copied() else { return };
        let now = self.holdings.asks_until_now();
        if let PushTo::Volume(to, _) = self.holdings.push_to(lease, now) {
            assert_eq!(to, place(at), "a push lands on its own volume");
            assert!(!self.coming.contains_key(&to), "and not before it is in its place");
            let contents = issued(at, 0).contents;
            assert!(self.holdings.pushed(&to, lease, &contents));
            for (ask, granted) in self.asks.iter().filter(|(ask, _)| *ask.place() == to) {
                assert!(!self.holdings.may_fill(ask, *granted), "an older answer comes too late");
            }
        }
    }

    fn check(&self) {
        let record = self.holdings.record().0;
        for (place, lease) in &self.disk {
            let known = self.holdings.holds(place, *lease) || self.holdings.must_be_emptied(place);
            assert!(known, "what lies on {place} is neither held nor to be emptied");
        }
        for place in self.holdings.to_empty() {
            assert!(!self.coming.contains_key(&place), "{place} is not there to be emptied");
        }
        for (place, held) in self.holdings.held() {
            let somewhere = self.disk.contains_key(place) || self.coming.contains_key(place);
            assert!(somewhere, "{place} is held and nowhere");
            assert!(!self.ended.contains(&held.lease), "{place} holds a lease that has ended");
            assert!(!record.releases.contains_key(&held.lease), "{place} is released and held");
        }
        if record.serve_until.is_some_and(|until| until <= self.now) {
            assert_eq!(self.holdings.inventory().len(), 0, "served past the end");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_events_leaves_material_that_nobody_answers_for(
        events in proptest::collection::vec(event(), 1..60),
    ) {
        let mut world = World::default();
        for event in events {
            // The session's answers come in time, or the end of serving does.
            world.happen(event);
            world.check();
        }
    }
}

#[test]
fn a_heartbeat_does_not_change_the_journal_each_time() {
    let mut holdings = Holdings::default();
    let mut now = Boottime::default();
    holdings.welcomed(Generation(1), SECOND * 86_400, now);
    let before = holdings.record().1;
    for _ in 0..60 {
        now = now + SECOND * 10;
        holdings.replied(SECOND * 86_400, now);
    }
    let written = holdings.record().1 - before;
    assert!((9..=10).contains(&written), "{written}: once a minute");
}

#[test]
fn a_shorter_end_is_recorded_at_once() {
    let mut holdings = Holdings::default();
    holdings.welcomed(Generation(1), SECOND * 86_400, Boottime::default());
    let before = holdings.record().1;
    holdings.replied(SECOND * 60, Boottime::default());
    assert_eq!(holdings.record().1, before + 1);
}

#[test]
fn a_journal_that_names_no_end_serves_nothing() {
    let volumes = [(place(1), VolumeState::Held(Held::from(&issued(1, 1))))].into();
    let holdings = Holdings::resume(Record { volumes, ..Record::default() });
    assert_eq!(holdings.to_empty(), [place(1)]);
}
