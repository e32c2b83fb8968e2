//! Choices that a seed decides.

use std::time::Duration;

use krb_broker::clock::{Entropy as _, SeededEntropy};

/// A stream of choices. What the programs make of the time between them is not in it: the same
/// seed asks for the same, and need not meet the same.
#[derive(Debug)]
pub(super) struct Chance(SeededEntropy);

impl Chance {
    /// The stream of this seed and number.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        // far apart: a stream takes one step a byte
        Self(SeededEntropy::new(seed ^ (stream + 1).wrapping_mul(0x1234_5678_9abc_def1)))
    }

    /// A number below `limit`, which is not 0.
    pub(super) fn below(&self, limit: usize) -> usize {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        u32::from_be_bytes(bytes) as usize % limit
    }

    /// Whether something that happens `percent` times in a hundred does.
    pub(super) fn happens(&self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// A span from `least` milliseconds up to less than `limit`.
    pub(super) fn span(&self, least: usize, limit: usize) -> Duration {
        Duration::from_millis((least + self.below(limit - least)) as u64)
    }
}
