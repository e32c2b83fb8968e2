//! Changes to real replies, all decided by a seed.

use krb_broker::clock::{Entropy, SeededEntropy};

use super::corpus::Sample;

/// The most changes to one input.
const MAX_CHANGES: usize = 4;

/// Bytes that mean something in DER: tags, lengths, classes.
const TELLING: [u8; 24] = [
    0x00, 0x01, 0x02, 0x03, 0x04, 0x18, 0x1b, 0x1f, 0x30, 0x31, 0x60, 0x7e, 0x7f, 0x80, 0x81, 0x82,
    0x84, 0xa0, 0xa1, 0xa3, 0xbf, 0xc0, 0xfe, 0xff,
];

/// Makes inputs.
pub(super) struct Mutator<'a> {
    samples: &'a [Sample],
    random: SeededEntropy,
}

impl<'a> Mutator<'a> {
    pub(super) fn new(seed: u64, samples: &'a [Sample]) -> Self {
        Self { samples, random: SeededEntropy::new(seed) }
    }

    /// A sample with one to four changes.
    pub(super) fn next_input(&mut self) -> (&'a Sample, Vec<u8>) {
        let sample = &self.samples[self.below(self.samples.len())];
        let mut bytes = sample.bytes.clone();
        for _ in 0..=self.below(MAX_CHANGES) {
            self.change(&mut bytes);
        }
        (sample, bytes)
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            bytes.push(self.byte());
        }
        let at = self.below(bytes.len());
        match self.below(10) {
            0 => bytes[at] ^= 1 << self.below(8),
            1 => bytes[at] = self.byte(),
            2 => bytes[at] = TELLING[self.below(TELLING.len())],
            3 => bytes[at] = bytes[at].wrapping_add(1),
            4 => bytes[at] = bytes[at].wrapping_sub(1),
            5 => bytes.truncate(at),
            6 => bytes.insert(at, self.byte()),
            7 => drop(bytes.drain(at..(at + 1 + self.below(8)).min(bytes.len()))),
            8 => self.splice(bytes, at),
            _ => self.resize_element(bytes),
        }
    }

    /// Puts a piece of any sample in.
    fn splice(&mut self, bytes: &mut Vec<u8>, at: usize) {
        let donor = &self.samples[self.below(self.samples.len())].bytes;
        let from = self.below(donor.len());
        let to = (from + 1 + self.below(40)).min(donor.len());
        let until = (at + self.below(to - from + 1)).min(bytes.len());
        bytes.splice(at..until, donor[from..to].iter().copied());
    }

    /// Takes a byte from, or gives one to, the content of an element, and sets the lengths of
    /// it and of all around it right: what is inside is wrong, the structure is not.
    fn resize_element(&mut self, bytes: &mut Vec<u8>) {
        let lengths = path_to_some_element(bytes, self.below(bytes.len()));
        let Some(&(innermost, content)) = lengths.last() else { return };
        let grow = self.below(2) == 0;
        let short = lengths.iter().all(|(at, _)| (1..0x7f).contains(&bytes[*at]));
        if !short || content > bytes.len() || (!grow && bytes[innermost] == 0) {
            return;
        }
        if grow {
            let byte = self.byte();
            bytes.insert(content, byte);
        } else if content < bytes.len() {
            bytes.remove(content);
        }
        for (at, _) in lengths {
            bytes[at] = if grow { bytes[at] + 1 } else { bytes[at] - 1 };
        }
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.random.fill(&mut byte);
        byte[0]
    }

    /// A number below `limit`, which is not zero.
    fn below(&mut self, limit: usize) -> usize {
        let mut bytes = [0; 4];
        self.random.fill(&mut bytes);
        u32::from_be_bytes(bytes) as usize % limit
    }
}

/// Where the lengths of the elements around byte `target` stand and their contents begin,
/// outermost first.
fn path_to_some_element(bytes: &[u8], target: usize) -> Vec<(usize, usize)> {
    let mut path = Vec::new();
    let (mut at, mut end) = (0, bytes.len());
    while at + 2 <= end {
        let Some((header, length)) = header(&bytes[at..end]) else { break };
        let (content, after) = (at + header, at + header + length);
        if after > end {
            break;
        }
        if target >= after {
            at = after;
            continue;
        }
        path.push((at + 1, content));
        if bytes[at] & 0x20 == 0 {
            break;
        }
        (at, end) = (content, after);
    }
    path
}

/// Bytes of tag and length, and the length.
pub(super) fn header(bytes: &[u8]) -> Option<(usize, usize)> {
    let first = usize::from(*bytes.get(1)?);
    if first < 0x80 {
        return Some((2, first));
    }
    let count = first - 0x80;
    let digits = bytes.get(2..2 + count).filter(|_| (1..=4).contains(&count))?;
    Some((2 + count, digits.iter().fold(0, |length, digit| length * 256 + usize::from(*digit))))
}
