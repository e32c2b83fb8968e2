//! Connections that have shown nothing yet.
//!
//! Where nodes prove themselves by tokens anybody can finish a handshake. Such a connection must
//! make a call with a good token soon, or it ends; and when too many wait, the one that has waited
//! for the longest ends. An honest agent calls at once, so that idle ones keep nobody out.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

/// How long a connection may go without a call that proves itself.
const PROVEN_WITHIN: Duration = Duration::from_secs(20);
/// How many connections may be on probation.
const MOST: usize = 1_024;

/// All that are on probation. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Probations(Arc<Mutex<VecDeque<Waiting>>>);

/// One that waits, and how it is ended.
type Waiting = (Weak<Proven>, CancellationToken);

/// Whether a call has proved itself.
#[derive(Debug, Default)]
pub struct Proven(AtomicBool);

impl Proven {
    /// One has.
    pub fn note(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_noted(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// One connection's probation.
pub struct Probation {
    proven: Arc<Proven>,
    over: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Probations {
    /// A connection begins; the oldest of too many ends.
    pub fn begin(&self) -> Probation {
        let (proven, ended) = (Arc::new(Proven::default()), CancellationToken::new());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |proven: &Weak<Proven>| proven.upgrade().is_some_and(|p| !p.is_noted());
        all.retain(|(proven, _)| waits(proven));
        while all.len() >= MOST {
            if let Some((_, oldest)) = all.pop_front() {
                oldest.cancel();
            }
        }
        all.push_back((Arc::downgrade(&proven), ended.clone()));
        let over = async move {
            let _ended_or_not = tokio::time::timeout(PROVEN_WITHIN, ended.cancelled()).await;
        };
        Probation { proven, over: Box::pin(over) }
    }
}

impl Probation {
    /// Where a call that proves itself is noted.
    pub fn proven(&self) -> Arc<Proven> {
        self.proven.clone()
    }

    /// Ready when the probation is over.
    ///
    /// # Errors
    /// When no call has proved itself.
    pub fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.over.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        if self.proven.is_noted() {
            return Poll::Ready(Ok(()));
        }
        let why = "the connection showed neither a certificate nor a token in time";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn end(mut probation: Probation) -> io::Result<()> {
        std::future::poll_fn(|context| probation.poll_over(context)).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_proves_nothing_ends_and_one_that_does_goes_on() {
        let probations = Probations::default();
        let (idle, honest) = (probations.begin(), probations.begin());
        honest.proven().note();
        let begun = tokio::time::Instant::now();
        assert!(end(idle).await.is_err());
        assert_eq!(begun.elapsed(), PROVEN_WITHIN);
        assert!(end(honest).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_of_too_many_ends_at_once_and_none_that_has_proved_itself() {
        let probations = Probations::default();
        let honest = probations.begin();
        honest.proven().note();
        let idle: Vec<Probation> = (0..=MOST).map(|_| probations.begin()).collect();
        let begun = tokio::time::Instant::now();
        let mut idle = idle.into_iter();
        assert!(end(idle.next().expect("the oldest")).await.is_err());
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert!(end(idle.next().expect("the next")).await.is_err());
        assert_eq!(begun.elapsed(), PROVEN_WITHIN);
        assert!(end(honest).await.is_ok());
        drop(idle);
        drop(probations.begin());
        assert!(probations.0.lock().unwrap().len() <= 2, "what has gone is forgotten");
    }
}
