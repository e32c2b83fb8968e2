//! Walks the chain over files, in their order, and says where it is broken.
//!
//! It believes nothing but what the MACs prove. After a break it goes on from what the
//! line there says of itself, so that one edited line is one break and what follows is
//! still checked. What the broker itself has noted in the chain, a line torn by a crash and
//! lines that were being written when the log failed, is a note and no break.
//!
//! It reads; it repairs nothing. [`command`] is `krb-broker audit verify`.

pub mod command;

use std::{
    collections::HashMap,
    fmt,
    io::{self, BufRead, Read},
};

use super::{
    Event,
    chain::{ChainKey, Found, Head, Mac},
};

/// The longest line that is read, in bytes; ours are far shorter.
const LONGEST: u64 = 256 * 1024;

/// Where the chain is broken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Break {
    /// A line whose number is right and whose MAC is not: it was changed, or a line before
    /// it was and both carry on as if nothing had happened.
    Edited {
        /// Which line of the file, from 1.
        line: u64,
        /// Its number.
        seq: u64,
    },
    /// Lines between two numbers are not there.
    Missing {
        /// Which line of the file, from 1.
        line: u64,
        /// The number of the line before.
        after: u64,
        /// The number that was found.
        found: u64,
        /// Whether the broker has noted it itself.
        noted: bool,
    },
    /// A line that belongs before the one it follows, or stands here a second time.
    Reordered {
        /// Which line of the file, from 1.
        line: u64,
        /// Its number.
        seq: u64,
        /// The number of the line before.
        after: u64,
    },
    /// Bytes that are no line of the log.
    Unreadable {
        /// Which line of the file, from 1.
        line: u64,
    },
    /// The file ends within a line.
    Torn {
        /// Which file.
        file: String,
        /// Which line of the file, from 1.
        line: u64,
    },
    /// A file before others holds no line: the broker leaves none empty.
    Empty {
        /// Which file.
        file: String,
    },
    /// The file does not begin with a line that names the end of the file before.
    NoBeginning {
        /// Which line of the file, from 1.
        line: u64,
    },
    /// The file was written under another master key.
    Foreign {
        /// Which line of the file, from 1.
        line: u64,
        /// The key's id.
        key: String,
    },
    /// The chain does not come to a place that it had come to.
    NotReached {
        /// The place.
        head: Head,
        /// How it is known.
        whose: String,
    },
    /// Another line stands at a place that is known.
    Replaced {
        /// The place.
        head: Head,
        /// What stands there.
        found: Head,
        /// How it is known.
        whose: String,
    },
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Edited { line, seq } => write!(f, "line {line} (seq {seq}) was edited"),
            Self::Missing { line, after, found, noted } => {
                write!(
                    f,
                    "before line {line}: what lay between seq {after} and {found} is missing"
                )?;
                f.write_str(if *noted { ", as the broker noted" } else { "" })
            }
            Self::Reordered { line, seq, after } => {
                write!(f, "line {line} (seq {seq}) is out of order: it follows seq {after}")
            }
            Self::Unreadable { line } => write!(f, "line {line} is no audit line"),
            Self::Torn { file, line } => {
                write!(f, "{file} ends within its line {line}: it is torn")
            }
            Self::Empty { file } => write!(f, "{file} holds no line and others follow it"),
            Self::NoBeginning { line } => {
                write!(
                    f,
                    "line {line} does not name the end of the file before: the file's beginning is missing"
                )
            }
            Self::Foreign { line, key } => {
                write!(f, "line {line} was written under the master key {key}, not this one")
            }
            Self::NotReached { head, whose } => {
                write!(f, "the chain does not reach seq {} ({head}), {whose}: it was cut", head.seq)
            }
            Self::Replaced { head, found, whose } => {
                write!(
                    f,
                    "seq {} is {}, but {whose} is {}: it is another chain",
                    head.seq, found.mac, head.mac
                )
            }
        }
    }
}

/// What was found in one file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FileReport {
    /// What it is called.
    pub name: String,
    /// Lines of the chain in it.
    pub lines: u64,
    /// The number of the first.
    pub first: Option<u64>,
    /// The number of the last.
    pub last: Option<u64>,
    /// Where the chain is broken.
    pub breaks: Vec<Break>,
    /// What is odd and no break.
    pub notes: Vec<String>,
}

/// A walk over the chain.
#[derive(Debug)]
pub struct Walk {
    key: ChainKey,
    /// Where it is; nowhere before the first line.
    at: Option<Head>,
    /// Whether the first line is believed: the walk begins in the middle of a file.
    resuming: bool,
    /// Lines of this file and the one before, by number.
    seen: HashMap<u64, Mac>,
    seen_before: HashMap<u64, Mac>,
    /// Bytes that were no line, which the next line may explain.
    unread: Option<u64>,
    /// The line within which the file before ended, and whether it was whole but for its
    /// newline.
    torn: Option<Torn>,
    /// A file that held no line.
    empty: Option<String>,
    expected: Vec<Expected>,
}

#[derive(Clone, Debug)]
struct Torn {
    file: String,
    line: u64,
    counted: bool,
}

#[derive(Debug)]
struct Expected {
    head: Head,
    whose: String,
    met: bool,
}

impl Walk {
    /// A walk that begins with a file.
    pub fn new(key: ChainKey) -> Self {
        Self {
            key,
            at: None,
            resuming: false,
            seen: HashMap::new(),
            seen_before: HashMap::new(),
            unread: None,
            torn: None,
            empty: None,
            expected: Vec::new(),
        }
    }

    /// A walk that begins in the middle of a file: its first line is believed.
    pub(super) fn resuming(key: ChainKey) -> Self {
        Self { resuming: true, ..Self::new(key) }
    }

    /// The chain must come by here; `whose` says how that is known.
    pub fn expect(&mut self, head: Head, whose: &str) {
        let met = head == Head::default();
        self.expected.push(Expected { head, whose: whose.to_owned(), met });
    }

    /// The last line, as far as is known.
    pub fn at(&self) -> Option<Head> {
        self.at
    }

    /// Whether the last file ended within a line, and whether that line counts all the
    /// same since it lacks only its newline.
    pub(super) fn torn(&self) -> Option<bool> {
        self.torn.as_ref().map(|torn| torn.counted)
    }

    /// Walks one file.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn file(&mut self, name: &str, mut from: impl BufRead) -> io::Result<FileReport> {
        let mut report = FileReport { name: name.to_owned(), ..FileReport::default() };
        self.seen_before = std::mem::take(&mut self.seen);
        report.breaks.extend(self.empty.take().map(|file| Break::Empty { file }));
        let mut bytes = Vec::new();
        for line in 1.. {
            bytes.clear();
            from.by_ref().take(LONGEST).read_until(b'\n', &mut bytes)?;
            let Some(last) = bytes.last() else { break };
            if *last == b'\n' {
                bytes.pop();
                self.line(&mut report, line, &bytes);
            } else if bytes.len() as u64 == LONGEST {
                self.unreadable(&mut report, line);
            } else {
                let before = report.lines;
                if Found::read(&bytes).is_some() {
                    self.line(&mut report, line, &bytes);
                }
                self.open_torn(&mut report);
                let counted = report.lines > before;
                self.torn = Some(Torn { file: name.to_owned(), line, counted });
            }
        }
        self.explain_unread(&mut report, None);
        if report.lines == 0 && self.torn.is_none() {
            self.empty = Some(name.to_owned());
        }
        Ok(report)
    }

    /// What is wrong at the end, and the places that were not reached.
    pub fn finish(self) -> Vec<Break> {
        let torn = self.torn.map(|Torn { file, line, .. }| Break::Torn { file, line });
        let missed = self.expected.into_iter().filter(|expected| !expected.met);
        let missed = missed.map(|Expected { head, whose, .. }| Break::NotReached { head, whose });
        torn.into_iter().chain(missed).collect()
    }

    fn line(&mut self, report: &mut FileReport, line: u64, bytes: &[u8]) {
        let Some(found) = Found::read(bytes) else { return self.unreadable(report, line) };
        if report.lines == 0 {
            self.begin(report, line, &found);
        }
        let at = match self.at {
            Some(at) => at,
            None if self.resuming => {
                self.resuming = false;
                return self.step(report, &found);
            }
            None => Head { seq: found.head.seq.saturating_sub(1), ..Head::default() },
        };
        let signed = self.key.sign(at.mac, found.text) == found.head.mac;
        let note = signed.then_some(found.event.as_str());
        self.explain_unread(report, note);
        if !signed || found.head.seq <= at.seq {
            report.breaks.push(self.broken(line, at, &found));
        }
        self.step(report, &found);
    }

    /// The first line of a file names the end of the file before.
    fn begin(&mut self, report: &mut FileReport, line: u64, found: &Found<'_>) {
        let Some(previous) = found.previous else {
            if self.at.is_none() && !self.resuming {
                report.breaks.push(Break::NoBeginning { line });
            }
            return self.open_torn(report);
        };
        self.resuming = false;
        match self.at {
            None if previous.seq > 0 => {
                report.notes.push(format!(
                    "begins after seq {}: earlier files were not given",
                    previous.seq
                ));
            }
            Some(at) if previous != at => {
                let known = self.seen_before.get(&previous.seq) == Some(&previous.mac);
                if known {
                    // the chain goes on from there, so the broker gave up what follows it
                    report.notes.push(format!(
                        "the file before ends in lines after seq {} that never counted: the log could not be written then",
                        previous.seq
                    ));
                    self.torn = None;
                } else if previous.seq > at.seq {
                    report.breaks.push(Break::Missing {
                        line,
                        after: at.seq,
                        found: found.head.seq,
                        noted: false,
                    });
                } else {
                    report.breaks.push(Break::Reordered {
                        line,
                        seq: found.head.seq,
                        after: at.seq,
                    });
                }
            }
            Some(_) if self.torn.as_ref().is_some_and(|torn| !torn.counted) => {
                report.notes.push(
                    "the file before ends in a torn line: the log could not be written then"
                        .to_owned(),
                );
                self.torn = None;
            }
            _ => {}
        }
        self.open_torn(report);
        self.meet(report, previous);
        self.at = Some(previous);
    }

    /// A torn end that nothing explains.
    fn open_torn(&mut self, report: &mut FileReport) {
        if let Some(Torn { file, line, .. }) = self.torn.take() {
            report.breaks.push(Break::Torn { file, line });
        }
    }

    fn unreadable(&mut self, report: &mut FileReport, line: u64) {
        self.explain_unread(report, None);
        self.unread = Some(line);
    }

    /// Bytes that were no line are a note where the next line says that a crash left them.
    fn explain_unread(&mut self, report: &mut FileReport, next: Option<&str>) {
        let Some(line) = self.unread.take() else { return };
        if next == Some(Event::RecoveryAuditTorn.as_str()) {
            report.notes.push(format!("line {line} was torn by a crash, as the broker noted"));
        } else {
            report.breaks.push(Break::Unreadable { line });
        }
    }

    fn broken(&self, line: u64, at: Head, found: &Found<'_>) -> Break {
        let seq = found.head.seq;
        if let Some(key) = found.key.as_ref().filter(|key| **key != self.key.id().to_string()) {
            return Break::Foreign { line, key: key.clone() };
        }
        if seq <= at.seq {
            Break::Reordered { line, seq, after: at.seq }
        } else if seq > at.seq + 1 {
            Break::Missing { line, after: at.seq, found: seq, noted: false }
        } else {
            Break::Edited { line, seq }
        }
    }

    fn step(&mut self, report: &mut FileReport, found: &Found<'_>) {
        if found.event == Event::RecoveryAuditShort.as_str()
            && let Some(Break::Missing { noted, found: at, .. }) = report.breaks.last_mut()
            && *at == found.head.seq
        {
            *noted = true;
        }
        self.at = Some(found.head);
        self.seen.insert(found.head.seq, found.head.mac);
        self.meet(report, found.head);
        report.lines += 1;
        report.first = report.first.or(Some(found.head.seq));
        report.last = Some(found.head.seq);
    }

    fn meet(&mut self, report: &mut FileReport, found: Head) {
        for expected in &mut self.expected {
            if expected.head.is_met_by(found) {
                expected.met = true;
            } else if expected.head.seq == found.seq && !expected.met {
                expected.met = true; // said once
                let (head, whose) = (expected.head, expected.whose.clone());
                report.breaks.push(Break::Replaced { head, found, whose });
            }
        }
    }
}

#[cfg(test)]
mod tests;
