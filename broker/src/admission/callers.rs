//! Who may ask the webhook: the API server, as far as it can be told from others.
//!
//! What the webhook refuses tells of the entitlements of the namespace that is asked about.
//! The API server asks only about the namespace that its own caller may make pods in; anybody
//! else who could ask would learn of all. Two things tell it from others: a client certificate,
//! and a text at the end of the path, which only who may read the webhook's configurations knows.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use krb_proto::Secret;
use subtle::ConstantTimeEq as _;

use crate::clock::Boottime;

/// The shortest text, in characters.
const SHORTEST: usize = 20;

/// The longest, in bytes.
const LONGEST: usize = 200;

/// How long strangers are counted before they are logged again.
const QUIET: Duration = Duration::from_secs(10);

/// What callers must show.
#[derive(Debug, Default)]
pub struct Callers {
    certificate: bool,
    path_end: Option<Secret>,
    strangers: Mutex<Strangers>,
}

#[derive(Debug, Default)]
struct Strangers {
    said_at: Option<Boottime>,
    since: u64,
}

/// The file with the end of the path can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CallersError {
    /// It can't be read.
    #[error("reading {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds something else.
    #[error("{} holds no 20 to 200 of A-Z a-z 0-9 _ -, and no other text", path.display())]
    Unfit {
        /// Which.
        path: PathBuf,
    },
}

impl Callers {
    /// Callers show a certificate, if so, and the text in the file, if there is one.
    ///
    /// # Errors
    /// When the file can't be used.
    pub fn new(certificate: bool, path_end: Option<&Path>) -> Result<Self, CallersError> {
        let path_end = path_end.map(read).transpose()?;
        Ok(Self { certificate, path_end, strangers: Mutex::default() })
    }

    /// Whether a caller that showed this much is answered.
    pub fn may_ask(&self, certificate: bool, path_end: Option<&str>) -> bool {
        let said = path_end.unwrap_or_default().as_bytes();
        let knows = match &self.path_end {
            Some(wanted) => bool::from(wanted.expose().ct_eq(said)),
            None => path_end.is_none(),
        };
        knows && (certificate || !self.certificate)
    }

    /// Counts one that was not answered; how many there were, when it is time to say so.
    pub fn count_stranger(&self, now: Boottime) -> Option<u64> {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        strangers.since += 1;
        if strangers.said_at.is_some_and(|at| now.since(at) < QUIET) {
            return None;
        }
        strangers.said_at = Some(now);
        Some(std::mem::take(&mut strangers.since))
    }
}

fn read(path: &Path) -> Result<Secret, CallersError> {
    let failed = |source| CallersError::Read { path: path.to_owned(), source };
    let text = Secret::new(fs::read(path).map_err(failed)?);
    let trimmed = text.expose().trim_ascii();
    let fits = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if (SHORTEST..=LONGEST).contains(&trimmed.len()) && trimmed.iter().all(fits) {
        Ok(Secret::new(trimmed.to_vec()))
    } else {
        Err(CallersError::Unfit { path: path.to_owned() })
    }
}
