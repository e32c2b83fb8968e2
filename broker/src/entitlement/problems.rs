//! All that is wrong with a set of files, in one report.

use std::fmt;

/// Lines `place: field: message`. One that is returned as an error has at least one line.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Problems(Vec<String>);

impl Problems {
    /// Notes that `field` of the thing at `place` is wrong.
    pub fn add(&mut self, place: &str, field: &str, message: impl fmt::Display) {
        self.0.push(format!("{place}: {field}: {message}"));
    }

    /// Notes that the thing at `place` is wrong as a whole.
    pub fn add_whole(&mut self, place: &str, message: impl fmt::Display) {
        self.0.push(format!("{place}: {message}"));
    }

    /// The value, or nothing and a note.
    pub fn note<T, E: fmt::Display>(
        &mut self,
        place: &str,
        field: &str,
        result: Result<T, E>,
    ) -> Option<T> {
        result.map_err(|error| self.add(place, field, error)).ok()
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The lines, in the order in which they were found.
    pub fn lines(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Problems {}
