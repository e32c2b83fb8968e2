//! Measuring spans, and what many of them say.

use std::{
    fmt,
    time::{Duration, Instant},
};

/// A running measurement.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    #[expect(clippy::disallowed_methods, reason = "a bench measures the time that passes")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// What has passed since.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// Measured spans of one kind.
#[derive(Clone, Debug, Default)]
pub struct Spans(Vec<Duration>);

impl Spans {
    /// None yet.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds one.
    pub fn push(&mut self, span: Duration) {
        self.0.push(span);
    }

    /// The smallest span that at least `share` (0 to 1) of them do not exceed, in
    /// milliseconds; 0 of none.
    pub fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() as f64 * share).ceil().max(1.0) as usize;
        sorted.get(rank - 1).or(sorted.last()).map_or(0.0, |span| span.as_secs_f64() * 1e3)
    }

    /// The median, in milliseconds.
    pub fn p50(&self) -> f64 {
        self.quantile(0.5)
    }

    /// What 99 of 100 do not exceed, in milliseconds.
    pub fn p99(&self) -> f64 {
        self.quantile(0.99)
    }
}

impl Extend<Duration> for Spans {
    fn extend<T: IntoIterator<Item = Duration>>(&mut self, spans: T) {
        self.0.extend(spans);
    }
}

impl FromIterator<Duration> for Spans {
    fn from_iter<T: IntoIterator<Item = Duration>>(spans: T) -> Self {
        Self(spans.into_iter().collect())
    }
}

impl fmt::Display for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:.2} ms, p99 {:.2} ms ({} runs)", self.p50(), self.p99(), self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_spans_that_were_measured() {
        let spans: Spans = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!((spans.p50(), spans.p99(), spans.quantile(1.0)), (50.0, 99.0, 100.0));
        assert_eq!(spans.quantile(0.0), 1.0);
        assert_eq!(Spans::default().p99(), 0.0);
    }
}
