//! How much one node may ask of the broker in a span of time.
//!
//! Every attach and every delivery costs lines in the audit log, and every acknowledgement some
//! work under the ledger's lock: no node, and nobody who has its key, may use these up for
//! all others. The rates are far above what an honest agent needs. Nothing is stored: a
//! restart of the broker begins anew.
//!
//! It always holds that in any span a node gets at most the burst and one more for each
//! `every` of the span.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use krb_proto::NodeName;

use crate::clock::{Boottime, Now};

/// A rate: so many at once, and one more after each span.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// How many at once.
    pub burst: u32,
    /// After how long there is one more.
    pub every: Duration,
}

/// Of attaches. An agent attaches when it starts, and when the broker or the way to it was
/// away.
pub const ATTACHES: Rate = Rate { burst: 20, every: Duration::from_secs(3) };

/// Of new leases and deliveries anew. A kubelet that restarts mounts hundreds of volumes again.
pub const ISSUES: Rate = Rate { burst: 1_000, every: Duration::from_millis(20) };

/// Of acknowledgements: one for each push, and as many pushes as wait for one node.
pub const ACKNOWLEDGEMENTS: Rate = Rate { burst: 4_096, every: Duration::from_millis(10) };

/// One rate, held for each node by itself.
#[derive(Debug)]
pub struct NodePace {
    rate: Rate,
    used: Mutex<Used>,
}

/// When each node has all of its burst again. A node that has it now need not be remembered.
#[derive(Debug, Default)]
struct Used {
    whole_at: HashMap<NodeName, Boottime>,
    swept: Boottime,
}

impl NodePace {
    /// A pace of which nobody has used anything.
    pub fn new(rate: Rate) -> Self {
        Self { rate, used: Mutex::default() }
    }

    /// Takes one for the node.
    ///
    /// # Errors
    /// When there is none: after how long there is one again. Asking costs nothing.
    pub fn take(&self, node: &NodeName, now: Now) -> Result<(), Duration> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = self.rate.every * self.rate.burst;
        if now.boot.since(used.swept) >= whole {
            used.whole_at.retain(|_, at| *at > now.boot);
            used.swept = now.boot;
        }
        let before = used.whole_at.get(node).map_or(now.boot, |at| (*at).max(now.boot));
        let after = before + self.rate.every;
        match after.since(now.boot).checked_sub(whole) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                used.whole_at.insert(node.clone(), after);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, TestClock};

    const RATE: Rate = Rate { burst: 3, every: Duration::from_secs(2) };

    fn node(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    /// How many of `tries` at this instant are let through.
    fn passed(pace: &NodePace, name: &str, tries: usize, clock: &TestClock) -> usize {
        (0..tries).filter(|_| pace.take(&node(name), clock.now()).is_ok()).count()
    }

    #[test]
    fn a_node_gets_its_burst_and_then_one_after_each_span() {
        let (pace, clock) = (NodePace::new(RATE), TestClock::default());
        assert_eq!(passed(&pace, "node-a", 10, &clock), 3);
        let mut later = 0;
        for _ in 0..60 {
            clock.advance(Duration::from_secs(1));
            later += passed(&pace, "node-a", 10, &clock);
        }
        assert_eq!(later, 30, "asking in vain costs nothing");
        clock.advance(Duration::from_secs(3_600));
        assert_eq!(passed(&pace, "node-a", 10, &clock), 3, "a long rest is worth one burst");
    }

    #[test]
    fn who_waits_as_told_is_let_through() {
        let (pace, clock) = (NodePace::new(RATE), TestClock::default());
        passed(&pace, "node-a", 3, &clock);
        clock.advance(Duration::from_millis(500));
        let wait = pace.take(&node("node-a"), clock.now()).unwrap_err();
        assert_eq!(wait, Duration::from_millis(1_500));
        clock.advance(wait);
        assert_eq!(pace.take(&node("node-a"), clock.now()), Ok(()));
    }

    #[test]
    fn a_greedy_node_takes_nothing_from_another() {
        let (pace, clock) = (NodePace::new(RATE), TestClock::default());
        assert_eq!(passed(&pace, "node-a", 1_000, &clock), 3);
        assert_eq!(passed(&pace, "node-b", 3, &clock), 3);
    }

    #[test]
    fn nodes_that_rest_are_forgotten() {
        let (pace, clock) = (NodePace::new(RATE), TestClock::default());
        for n in 0..100 {
            passed(&pace, &format!("node-{n}"), 3, &clock);
        }
        clock.advance(Duration::from_secs(6));
        passed(&pace, "node-a", 1, &clock);
        assert_eq!(pace.used.lock().unwrap().whole_at.len(), 1);
    }
}
