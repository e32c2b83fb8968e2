//! Reviews of tokens, remembered and bounded.
//!
//! A token is remembered by its SHA-256: one that was accepted for the configured span, one that
//! was refused for a few seconds, and none beyond its own end. The same token that comes in many
//! calls at once is reviewed once. Reviews under way are bounded, apart for tokens that were
//! accepted before and for those that nobody has seen: a flood of invented ones takes no place
//! from a known agent. An outage is never remembered.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use krb_proto::{PodUid, Secret};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, watch};

use super::{NodeTokens, Proved, Refusal, TokenError};
use crate::clock::{Boottime, Clock, Now};

/// How long a refusal is remembered.
const REFUSED_FOR: Duration = Duration::from_secs(5);
/// How long it is remembered whether anybody answers.
const ANSWERS_FOR: Duration = Duration::from_secs(5);
/// How long one review may take.
const WITHIN: Duration = Duration::from_secs(10);
/// How long it may wait for its turn.
const TURN_WITHIN: Duration = Duration::from_secs(2);
/// Reviews at once of tokens that were accepted before, and of others.
const AT_ONCE: (usize, usize) = (32, 16);
/// Tokens under review or waiting for it, beyond which no stranger is let in.
const MOST_UNDER_WAY: usize = 1_024;
/// Tokens that are remembered of each kind: accepted, refused.
const MOST_REMEMBERED: (usize, usize) = (32_768, 4_096);

/// Tokens that are remembered of one agent's pod: the one before, the one now, and some more.
/// Its node's root can have any number made.
const MOST_OF_A_POD: usize = 4;

type Hash = [u8; 32];
type Outcome = Result<Proved, TokenError>;

/// Reviews in front of `inner`. Clones are the same.
#[derive(Clone)]
pub struct Reviews(Arc<Shared>);

struct Shared {
    inner: Arc<dyn NodeTokens>,
    clock: Arc<dyn Clock>,
    cache: Duration,
    known: Semaphore,
    strangers: Semaphore,
    state: Mutex<State>,
    answers: tokio::sync::Mutex<Option<(Boottime, bool)>>,
}

#[derive(Default)]
struct State {
    accepted: HashMap<Hash, (Proved, Boottime)>,
    refused: HashMap<Hash, (TokenError, Boottime)>,
    under_way: HashMap<Hash, watch::Receiver<Option<Outcome>>>,
}

impl Reviews {
    /// Remembers what `inner` accepts for `cache`.
    pub fn new(inner: Arc<dyn NodeTokens>, clock: Arc<dyn Clock>, cache: Duration) -> Self {
        Self(Arc::new(Shared {
            inner,
            clock,
            cache,
            known: Semaphore::new(AT_ONCE.0),
            strangers: Semaphore::new(AT_ONCE.1),
            state: Mutex::default(),
            answers: tokio::sync::Mutex::default(),
        }))
    }
}

#[async_trait]
impl NodeTokens for Reviews {
    async fn review(&self, token: &Secret) -> Outcome {
        let hash: Hash = Sha256::digest(token.expose()).into();
        let mut under_way = match self.0.join(hash, token) {
            Step::Known(outcome) => return outcome,
            Step::Wait(receiver) => receiver,
        };
        let done = under_way.wait_for(Option::is_some).await;
        let ended = || Err(TokenError::unavailable("the review ended early"));
        done.map_or_else(|_| ended(), |outcome| outcome.clone().unwrap_or_else(ended))
    }

    async fn answers(&self) -> bool {
        let mut known = self.0.answers.lock().await; // who asks meanwhile waits for this answer
        let now = self.0.clock.now().boot;
        if let Some((_, answers)) = known.filter(|(at, _)| now.since(*at) < ANSWERS_FOR) {
            return answers;
        }
        let answers = tokio::time::timeout(WITHIN, self.0.inner.answers()).await.unwrap_or(false);
        *known = Some((now, answers));
        answers
    }
}

/// What follows for a token that comes.
enum Step {
    Known(Outcome),
    Wait(watch::Receiver<Option<Outcome>>),
}

impl Shared {
    /// What is known of the token; or else its review, begun unless it is under way.
    fn join(self: &Arc<Self>, hash: Hash, token: &Secret) -> Step {
        let now = self.clock.now();
        let mut state = self.state();
        if let Some(outcome) = state.remembered(&hash, now, self.cache) {
            return Step::Known(outcome);
        }
        if let Some(receiver) = state.under_way.get(&hash) {
            return Step::Wait(receiver.clone());
        }
        let known = state.accepted.contains_key(&hash);
        if !known && state.under_way.len() >= MOST_UNDER_WAY {
            return Step::Known(Err(TokenError::Busy));
        }
        let (done, receiver) = watch::channel(None);
        state.under_way.insert(hash, receiver.clone());
        // A task of its own: whoever asked first may go away while others wait. It ends in time.
        let (shared, token) = (self.clone(), token.clone());
        tokio::spawn(async move {
            let outcome = shared.ask(&token, known).await;
            let now = shared.clock.now();
            let mut state = shared.state();
            state.remember(hash, &outcome, now);
            state.under_way.remove(&hash);
            let _ = done.send(Some(outcome)); // all who waited may be gone
        });
        Step::Wait(receiver)
    }

    async fn ask(&self, token: &Secret, known: bool) -> Outcome {
        let lane = if known { &self.known } else { &self.strangers };
        let turn = tokio::time::timeout(TURN_WITHIN, lane.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(TokenError::Busy) };
        let review = tokio::time::timeout(WITHIN, self.inner.review(token)).await;
        review.unwrap_or_else(|_| Err(TokenError::unavailable("the API server takes too long")))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remembered(&self, hash: &Hash, now: Now, cache: Duration) -> Option<Outcome> {
        if let Some((proved, at)) = self.accepted.get(hash) {
            if proved.expires <= now.wall {
                let detail = format!("the token of {}'s agent", proved.node);
                return Some(Err(TokenError::refused(Refusal::Expired, detail)));
            }
            return (now.boot.since(*at) < cache).then(|| Ok(proved.clone()));
        }
        let (error, at) = self.refused.get(hash)?;
        (now.boot.since(*at) < REFUSED_FOR).then(|| Err(error.clone()))
    }

    /// Makes room for one more token of this pod.
    fn forget_oldest_of(&mut self, pod: &PodUid, new: &Hash) {
        let same = self.accepted.iter().filter(|(hash, (of, _))| of.pod == *pod && *hash != new);
        let mut ages: Vec<_> = same.map(|(hash, (_, at))| (*at, *hash)).collect();
        ages.sort_unstable();
        let too_many = (ages.len() + 1).saturating_sub(MOST_OF_A_POD);
        for (_, hash) in ages.into_iter().take(too_many) {
            self.accepted.remove(&hash);
        }
    }

    fn remember(&mut self, hash: Hash, outcome: &Outcome, now: Now) {
        match outcome {
            Ok(proved) => {
                if self.accepted.len() >= MOST_REMEMBERED.0 {
                    self.accepted.retain(|_, (proved, _)| proved.expires > now.wall);
                }
                self.forget_oldest_of(&proved.pod, &hash);
                if self.accepted.len() < MOST_REMEMBERED.0 || self.accepted.contains_key(&hash) {
                    self.accepted.insert(hash, (proved.clone(), now.boot));
                }
                self.refused.remove(&hash);
            }
            Err(error @ TokenError::Refused { .. }) => {
                self.accepted.remove(&hash);
                if self.refused.len() >= MOST_REMEMBERED.1 {
                    self.refused.retain(|_, (_, at)| now.boot.since(*at) < REFUSED_FOR);
                }
                if self.refused.len() < MOST_REMEMBERED.1 {
                    self.refused.insert(hash, (error.clone(), now.boot));
                }
            }
            Err(TokenError::Unavailable { .. } | TokenError::Busy) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::FakeTokens, *};
    use crate::clock::TestClock;

    const MINUTE: Duration = Duration::from_secs(60);
    const SECOND: Duration = Duration::from_secs(1);

    struct World {
        fake: Arc<FakeTokens>,
        clock: Arc<TestClock>,
        reviews: Reviews,
    }

    fn world() -> World {
        let (fake, clock) = (Arc::new(FakeTokens::default()), Arc::new(TestClock::default()));
        let reviews = Reviews::new(fake.clone(), clock.clone(), MINUTE);
        let expires = clock.now().wall + 10 * MINUTE;
        let (node, pod) = ("node-a".parse().unwrap(), "p".parse().unwrap());
        fake.know("good", Proved { node, node_uid: "n".to_owned(), pod, expires });
        World { fake, clock, reviews }
    }

    impl World {
        async fn review(&self, token: &str) -> Outcome {
            self.reviews.review(&Secret::new(token.as_bytes().to_vec())).await
        }
    }

    fn why(outcome: &Outcome) -> Option<Refusal> {
        match outcome {
            Err(TokenError::Refused { why, .. }) => Some(*why),
            _ => None,
        }
    }

    #[tokio::test]
    async fn a_token_is_reviewed_once_in_its_span_and_a_refusal_is_forgotten_soon() {
        let world = world();
        for _ in 0..3 {
            assert_eq!(world.review("good").await.unwrap().node.as_str(), "node-a");
            assert_eq!(why(&world.review("bad").await), Some(Refusal::NotValid));
        }
        assert_eq!(world.fake.asked(), 2);
        world.clock.advance(6 * SECOND);
        let _ = (world.review("good").await, world.review("bad").await);
        assert_eq!(world.fake.asked(), 3, "only the refusal was forgotten");
        world.clock.advance(MINUTE);
        world.fake.forget("good");
        assert_eq!(why(&world.review("good").await), Some(Refusal::NotValid));
    }

    #[tokio::test]
    async fn one_review_answers_all_who_ask_at_once() {
        let world = world();
        let all = (0..50).map(|_| world.review("good"));
        let all: Vec<Outcome> = futures::future::join_all(all).await;
        assert!(all.iter().all(Result::is_ok));
        assert_eq!(world.fake.asked(), 1);
    }

    #[tokio::test]
    async fn who_asked_first_and_goes_away_leaves_nobody_waiting() {
        let world = world();
        drop(tokio::time::timeout(Duration::ZERO, world.review("good")).await);
        assert!(world.review("good").await.is_ok());
        assert!(world.reviews.0.state().under_way.is_empty());
    }

    #[tokio::test]
    async fn a_remembered_token_ends_with_its_own_end() {
        let world = world();
        world.review("good").await.unwrap();
        world.clock.advance(10 * MINUTE);
        assert_eq!(why(&world.review("good").await), Some(Refusal::Expired));
        assert_eq!(world.fake.asked(), 1);
    }

    #[tokio::test]
    async fn a_node_that_has_many_tokens_made_takes_only_its_own_places() {
        let world = world();
        let proved = world.review("good").await.unwrap();
        for number in 0..20 {
            world.clock.advance(SECOND / 10);
            let name = format!("another {number}");
            world.fake.know(&name, proved.clone());
            world.review(&name).await.unwrap();
        }
        assert_eq!(world.reviews.0.state().accepted.len(), MOST_OF_A_POD);
        let asked = world.fake.asked();
        world.review("another 19").await.unwrap();
        assert_eq!(world.fake.asked(), asked, "the newest is among them");
    }

    #[tokio::test]
    async fn an_outage_is_told_as_such_and_not_remembered() {
        let world = world();
        world.review("good").await.unwrap();
        world.fake.set_down(true);
        assert!(world.review("good").await.is_ok(), "it was reviewed a moment ago");
        assert!(matches!(world.review("new").await, Err(TokenError::Unavailable { .. })));
        assert!(!world.reviews.answers().await);
        world.fake.set_down(false);
        assert_eq!(why(&world.review("new").await), Some(Refusal::NotValid));
        assert!(!world.reviews.answers().await, "asked a moment ago");
        world.clock.advance(ANSWERS_FOR);
        assert!(world.reviews.answers().await);
    }

    /// Tokens whose reviews never end.
    struct Hanging(Arc<FakeTokens>);

    #[async_trait]
    impl NodeTokens for Hanging {
        async fn review(&self, token: &Secret) -> Outcome {
            match self.0.review(token).await {
                Err(_) => std::future::pending().await,
                good => good,
            }
        }

        async fn answers(&self) -> bool {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_invented_tokens_is_bounded_and_takes_no_place_from_known_agents() {
        let World { fake, clock, .. } = world();
        let reviews = Reviews::new(Arc::new(Hanging(fake.clone())), clock.clone(), MINUTE);
        let ask = async |token: String| reviews.review(&Secret::new(token.into_bytes())).await;
        ask("good".to_owned()).await.unwrap();
        clock.advance(MINUTE); // it must be reviewed anew
        let flood: Vec<_> = (0..3_000)
            .map(|n| {
                let reviews = reviews.clone();
                tokio::spawn(async move {
                    reviews.review(&Secret::new(format!("invented {n}").into_bytes())).await
                })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(ask("good".to_owned()).await.is_ok());
        assert_eq!(fake.asked(), 2 + AT_ONCE.1);
        let mut busy = 0;
        for outcome in flood {
            busy += usize::from(outcome.await.unwrap() == Err(TokenError::Busy));
        }
        assert!(busy >= 3_000 - 2 * AT_ONCE.1, "{busy}");
        assert!(reviews.0.state().under_way.is_empty());
        assert!(!reviews.answers().await, "whoever does not answer in time is away");
    }
}
