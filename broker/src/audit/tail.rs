//! The end of a log's file, read when the log is opened: where the chain goes on, and
//! whether it is the chain that the store knows.

use std::{fs::File, io::Cursor, os::unix::fs::FileExt, path::Path};

use super::{
    AuditError,
    chain::{ChainKey, Found, Head},
    verify::Walk,
};

/// How far from its end a log is read at first, in bytes.
const SPAN: u64 = 1024 * 1024;

/// The longest first line that is looked at.
const FIRST: usize = 64 * 1024;

/// How a file ends.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// The number of the file's first line; none in an empty one.
    pub first: Option<u64>,
    /// The last line that can be read.
    pub last: Option<Head>,
    /// Bytes in the file.
    pub length: u64,
    /// Whether something without a newline follows the last line or is it.
    pub torn: bool,
    /// The number that a torn line may have had, where that is not the last line's.
    pub burnt: u64,
    /// What is wrong with what was read of the chain.
    pub broken: Option<String>,
}

impl Tail {
    /// Reads back from the end, as far as the line `known` lies.
    pub fn read(path: &Path, file: &File, key: &ChainKey, known: Head) -> Result<Self, AuditError> {
        let io = |source| AuditError::Io { operation: "reading", path: path.to_owned(), source };
        let length = file.metadata().map_err(io)?.len();
        if length == 0 {
            return Ok(Self::default());
        }
        let mut first = vec![0; FIRST.min(usize::try_from(length).unwrap_or(FIRST))];
        file.read_exact_at(&mut first, 0).map_err(io)?;
        let first = first.split(|byte| *byte == b'\n').find_map(Found::read);
        let first = first.map(|found| found.head.seq);
        let mut span = SPAN;
        loop {
            let from = length.saturating_sub(span);
            let mut bytes = vec![0; usize::try_from(length - from).unwrap_or(0)];
            file.read_exact_at(&mut bytes, from).map_err(io)?;
            let (tail, begins) = Self::of(&bytes, from == 0, key, known).map_err(io)?;
            if from == 0 || known.seq == 0 || begins.is_some_and(|begins| begins <= known.seq) {
                if tail.last.is_none() && (from > 0 || bytes.contains(&b'\n')) {
                    let bytes = bytes.len() as u64;
                    return Err(AuditError::Foreign { path: path.to_owned(), bytes });
                }
                return Ok(Self { first: first.or(begins), length, ..tail });
            }
            span = span.saturating_mul(8);
        }
    }

    /// The end of these bytes, and the number of the first line in them.
    fn of(
        bytes: &[u8],
        whole: bool,
        key: &ChainKey,
        known: Head,
    ) -> std::io::Result<(Self, Option<u64>)> {
        let mut walk = if whole { Walk::new(key.clone()) } else { Walk::resuming(key.clone()) };
        walk.expect(known, "which the store knows");
        let cut =
            if whole { 0 } else { bytes.iter().position(|b| *b == b'\n').map_or(0, |n| n + 1) };
        let report = walk.file("the log", Cursor::new(&bytes[cut..]))?;
        let last = walk.at().filter(|_| report.lines > 0);
        let torn = walk.torn();
        let mut broken = report.breaks.first().map(ToString::to_string);
        // what is before the first line read here was not looked at, and what is behind the
        // last is told by its number
        let within = report.first.is_some_and(|first| first <= known.seq)
            && last.is_some_and(|last| last.seq >= known.seq);
        if within && broken.is_none() && torn.is_none() {
            broken = walk.finish().first().map(ToString::to_string);
        }
        let tail = Self {
            first: None,
            last,
            length: 0,
            torn: torn.is_some(),
            burnt: u64::from(torn == Some(false)),
            broken,
        };
        Ok((tail, report.first))
    }
}
