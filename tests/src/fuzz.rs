//! A fuzzer for what reads untrusted bytes: the fence around Kerberos messages, and keytabs.
//!
//! It starts from real replies (`tests/corpus`), changes them at random from a seed, and holds
//! the parsers to this:
//! - no input makes them panic, not even where a panic would be caught;
//! - every real reply is read, unchanged;
//! - nothing is read that is not well-formed by an independent walk of its lengths.
//!
//! `picky-krb` reads the same bytes. Where the two disagree on a changed input, that is counted
//! and no fault: both are stricter than the other somewhere.

mod corpus;
mod mutate;
mod oracle;

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use krb_broker::clock::{Clock, SystemClock};

pub use corpus::{CorpusError, Kind, Sample};
use mutate::Mutator;

/// How much to do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// At most so many inputs.
    pub cases: u64,
    /// Decides all changes: the same seed, the same inputs.
    pub seed: u64,
    /// At most so long.
    pub time: Duration,
}

/// What a run found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Inputs that were tried.
    pub cases: u64,
    /// The seed they came from.
    pub seed: u64,
    /// Panics, caught by the fence or not.
    pub panics: u64,
    /// Changed inputs that were still read.
    pub read: u64,
    /// Those that only the broker reads.
    pub only_ours: u64,
    /// Those that only `picky-krb` reads.
    pub only_theirs: u64,
    /// What went against a property, the first few.
    pub violations: Vec<String>,
    /// How often something did.
    pub violation_count: u64,
}

impl Report {
    /// Whether every property held.
    pub fn is_clean(&self) -> bool {
        self.panics == 0 && self.violation_count == 0
    }

    fn violation(&mut self, what: &str, sample: &Sample, bytes: &[u8]) {
        self.violation_count += 1;
        if self.violations.len() < 10 {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            self.violations.push(format!("{}: {what}: {hex}", sample.name));
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for violation in &self.violations {
            writeln!(f, "fuzz: {violation}")?;
        }
        writeln!(
            f,
            "fuzz: still read={} only the broker={} only picky-krb={}",
            self.read, self.only_ours, self.only_theirs
        )?;
        let Self { cases, seed, panics, violation_count, .. } = self;
        write!(f, "fuzz: cases={cases} seed={seed} panics={panics} violations={violation_count}")
    }
}

/// Panics inside the broker's parsers, counted by a hook that [`count_panics`] sets.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// Whether the broker's parsers are running, and not the oracle's.
static OURS: AtomicBool = AtomicBool::new(false);

/// Makes the process count panics in place of printing them. Without it only those that no
/// fence caught are seen.
pub fn count_panics() {
    std::panic::set_hook(Box::new(|_| {
        if OURS.load(Ordering::SeqCst) {
            PANICS.fetch_add(1, Ordering::SeqCst);
        }
    }));
}

/// Fuzzes from the samples of a directory.
///
/// # Errors
/// When there are none, or one is named after no message.
pub fn run(corpus: &Path, limits: Limits) -> Result<Report, CorpusError> {
    let samples = corpus::load(corpus)?;
    let before = PANICS.load(Ordering::SeqCst);
    let mut report = Report { seed: limits.seed, ..Report::default() };
    for sample in &samples {
        check_unchanged(sample, &mut report);
    }
    let mut mutator = Mutator::new(limits.seed, &samples);
    let end = SystemClock.now().boot + limits.time;
    while report.cases < limits.cases
        && (!report.cases.is_multiple_of(256) || SystemClock.now().boot < end)
    {
        report.cases += 1;
        let (sample, bytes) = mutator.next_input();
        check_changed(sample, &bytes, &mut report);
    }
    let hooked = PANICS.load(Ordering::SeqCst) - before;
    report.panics = report.panics.max(hooked);
    Ok(report)
}

fn check_unchanged(sample: &Sample, report: &mut Report) {
    if !ours(sample.kind, &sample.bytes, report) {
        report.violation("a real reply is refused", sample, &sample.bytes);
    }
}

fn check_changed(sample: &Sample, bytes: &[u8], report: &mut Report) {
    let (we, they) = (ours(sample.kind, bytes, report), oracle::reads(sample.kind, bytes));
    report.read += u64::from(we);
    report.only_ours += u64::from(we && !they);
    report.only_theirs += u64::from(they && !we);
    if we && sample.kind != Kind::Keytab && !oracle::is_well_formed(bytes) {
        report.violation("something malformed is read", sample, bytes);
    }
}

/// Whether the broker reads these bytes. A panic counts, also one that its fence caught.
fn ours(kind: Kind, bytes: &[u8], report: &mut Report) -> bool {
    OURS.store(true, Ordering::SeqCst);
    let read = catch_unwind(AssertUnwindSafe(|| kind.read(bytes)));
    OURS.store(false, Ordering::SeqCst);
    let panicked = !matches!(read, Ok(Ok(()) | Err(corpus::Refused { panicked: false })));
    report.panics += u64::from(panicked);
    matches!(read, Ok(Ok(())))
}

#[cfg(test)]
mod tests;
