//! The brake: when too much seems to vanish at once, it is more likely that the broker is wrong
//! than that so many nodes have died, and nothing is revoked by itself.
//!
//! Every automatic loss counts: sessions that fell silent, deleted Nodes, pods that are gone.
//! What operators do, and the end of `lease_ttl`, neither counts nor waits.
//!
//! What always holds: while the brake is off, what was lost by itself in any window is at most
//! the configured share of the most there was in the last hour (or under the minimum); while it
//! is on, sessions pass one by one, evenly, at most so many an hour. This module is pure.

use std::{collections::VecDeque, str::FromStr, time::Duration};

use crate::clock::Boottime;

const HOUR: Duration = Duration::from_secs(3600);

/// When the brake is on, and what passes it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// More than this share of what there was.
    pub share: Share,
    /// And at least this many sessions...
    pub sessions: u32,
    /// ... or this many pods.
    pub pods: u32,
    /// Lost within this span.
    pub window: Duration,
    /// How many sessions an hour are lost all the same while it is on; 0: none.
    pub passes_per_hour: u32,
    /// How long the count must have been back before it lets go: as long as a node that lives may
    /// take to be heard of again, or the last of those that return would be lost.
    pub settle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            share: Share { parts: 1, of: 3 },
            sessions: 3,
            pods: 50,
            window: Duration::from_secs(600),
            passes_per_hour: 2,
            settle: Duration::from_secs(40),
        }
    }
}

/// A share, written `1/3`: exact, so that 3 of 9 are not more than a third.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Share {
    parts: u32,
    of: u32,
}

impl Share {
    fn is_exceeded_by(self, count: u32, most: u32) -> bool {
        u64::from(count) * u64::from(self.of) > u64::from(most) * u64::from(self.parts)
    }
}

impl FromStr for Share {
    type Err = InvalidShare;

    fn from_str(text: &str) -> Result<Self, InvalidShare> {
        let (parts, of) = text.split_once('/').ok_or(InvalidShare)?;
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| InvalidShare);
        let share = Self { parts: number(parts)?, of: number(of)? };
        if share.parts == 0 || share.parts > share.of { Err(InvalidShare) } else { Ok(share) }
    }
}

/// The text is no share.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("is not a share such as 1/3")]
pub struct InvalidShare;

/// How many sessions there are, and how many of them are to be lost now.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Sessions {
    /// Those that are not lost and have not left.
    pub all: u32,
    /// Those whose time is up.
    pub due: u32,
    /// Those whose time is running: they count, so that nodes that were cut off at one instant
    /// are judged together although their last heartbeats came one after another.
    pub coming: u32,
}

/// The brake of one broker.
#[derive(Debug, Default)]
pub struct Brake {
    limits: Limits,
    sessions: Gauge,
    /// Looked at less often than sessions.
    pods: Gauge,
    /// Since when it is on, or when it last let one pass.
    pass_from: Option<Boottime>,
}

/// What is counted of one kind.
#[derive(Debug, Default)]
struct Gauge {
    /// Falling numbers, each the most there was from its time until the next one's.
    most: VecDeque<(Boottime, u32)>,
    lost: VecDeque<(Boottime, u32)>,
    /// Why the brake is on.
    over: Option<String>,
    /// Since when the count is back.
    back_since: Option<Boottime>,
}

impl Gauge {
    fn note(&mut self, now: Boottime, count: u32) {
        while self.most.back().is_some_and(|(_, fewer)| *fewer < count) {
            self.most.pop_back();
        }
        if self.most.back().is_none_or(|(_, last)| *last != count) {
            self.most.push_back((now, count));
        }
        while self.most.get(1).is_some_and(|(until, _)| now.since(*until) > HOUR) {
            self.most.pop_front();
        }
    }

    /// It is over for this reason, or no longer; that counts once it has settled.
    fn turn(&mut self, now: Boottime, over: Option<String>, settle: Duration) {
        if over.is_some() {
            (self.over, self.back_since) = (over, None);
        } else if self.over.is_some() {
            let since = *self.back_since.get_or_insert(now);
            if now.since(since) >= settle {
                (self.over, self.back_since) = (None, None);
            }
        }
    }

    fn most(&self) -> u32 {
        self.most.front().map_or(0, |(_, count)| *count)
    }

    fn lose(&mut self, now: Boottime, count: u32) {
        if count > 0 {
            self.lost.push_back((now, count));
        }
    }

    fn lost(&mut self, now: Boottime, window: Duration) -> u32 {
        while self.lost.front().is_some_and(|(at, _)| now.since(*at) >= window) {
            self.lost.pop_front();
        }
        self.lost.iter().map(|(_, count)| count).sum()
    }
}

impl Brake {
    /// A brake that has seen nothing yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Why automatic revocation pauses; `None` while it does not.
    pub fn why(&self) -> Option<String> {
        match (&self.sessions.over, &self.pods.over) {
            (None, None) => None,
            (Some(why), None) | (None, Some(why)) => Some(why.clone()),
            (Some(sessions), Some(pods)) => Some(format!("{sessions}; {pods}")),
        }
    }

    /// Whether automatic revocation pauses.
    pub fn is_on(&self) -> bool {
        self.sessions.over.is_some() || self.pods.over.is_some()
    }

    /// A session that was lost by itself before the broker started, read back from the store.
    pub fn remember_loss(&mut self, at: Boottime) {
        let later = self.sessions.lost.partition_point(|(known, _)| *known <= at);
        self.sessions.lost.insert(later, (at, 1));
    }

    /// How many of the sessions whose time is up are lost now; the others wait.
    pub fn sessions(&mut self, now: Boottime, seen: Sessions) -> u32 {
        let lost = self.sessions.lost(now, self.limits.window);
        // What was lost in the window was there in the last hour: after a start nothing else
        // knows of it.
        self.sessions.note(now, seen.all.saturating_add(lost));
        let most = self.sessions.most();
        let count = lost.saturating_add(seen.due).saturating_add(seen.coming);
        let over = seen.due > 0
            && count >= self.limits.sessions
            && self.limits.share.is_exceeded_by(count, most);
        let why = over.then(|| format!("{count} of {most} nodes vanish at once"));
        self.sessions.turn(now, why, self.limits.settle);
        let passing = if self.is_on() { self.passes(now).min(seen.due) } else { seen.due };
        self.sessions.lose(now, passing);
        passing
    }

    /// Whether these pods, which are gone, are released now; else they wait.
    pub fn pods(&mut self, now: Boottime, all: u32, gone: u32) -> bool {
        let lost = self.pods.lost(now, self.limits.window);
        self.pods.note(now, all.saturating_add(lost));
        let most = self.pods.most();
        let count = lost.saturating_add(gone);
        let over =
            gone > 0 && count >= self.limits.pods && self.limits.share.is_exceeded_by(count, most);
        let why = over.then(|| format!("{count} of {most} pods vanish at once"));
        self.pods.turn(now, why, self.limits.settle);
        let pass = !self.is_on();
        if pass {
            self.pods.lose(now, gone);
        }
        pass
    }

    /// How many sessions may pass although the brake is on: one each time that its share of an
    /// hour is over.
    fn passes(&mut self, now: Boottime) -> u32 {
        let from = *self.pass_from.get_or_insert(now);
        if self.limits.passes_per_hour == 0 || now.since(from) < HOUR / self.limits.passes_per_hour
        {
            return 0;
        }
        self.pass_from = Some(now);
        1
    }
}

#[cfg(test)]
mod tests;
