//! One run of a program with a time limit and a readable failure.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use super::ClusterError;

/// How long a program may take when nothing else is said.
const LIMIT: Duration = Duration::from_secs(60);
/// How much of what a failed program said is repeated.
const SAID: usize = 4_000;

/// A program, its arguments and its limit. It reads nothing.
#[derive(Debug)]
pub(super) struct Run {
    program: OsString,
    arguments: Vec<OsString>,
    variables: Vec<(String, OsString)>,
    limit: Duration,
}

impl Run {
    pub(super) fn new(program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref().to_owned();
        Self { program, arguments: Vec::new(), variables: Vec::new(), limit: LIMIT }
    }

    pub(super) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub(super) fn args<A: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = A>) -> Self {
        arguments.into_iter().fold(self, Self::arg)
    }

    pub(super) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.variables.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    pub(super) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs it to its end; what it printed.
    ///
    /// # Errors
    /// When it can't be run, takes too long, or ends with anything but 0: with what it said.
    pub(super) fn run(self) -> Result<String, ClusterError> {
        let name = self.name();
        let output = self.output()?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(printed);
        }
        let said = printed + &String::from_utf8_lossy(&output.stderr);
        let detail = format!("{}: {}", output.status, tail(&said));
        Err(ClusterError::new(format!("running {name}"), detail))
    }

    /// Runs it to its end; its outcome, whatever it is.
    ///
    /// # Errors
    /// When it can't be run.
    pub(super) fn output(self) -> Result<Output, ClusterError> {
        // `timeout` ends a program that hangs, with what it started in its process group
        let mut command = Command::new("timeout");
        command.args(["--kill-after=10", &self.limit.as_secs().to_string()]);
        command.arg(&self.program).args(&self.arguments).envs(self.variables.iter().cloned());
        command.stdin(Stdio::null());
        command
            .output()
            .map_err(|error| ClusterError::new(format!("running {}", self.name()), error))
    }

    /// The program's name and its first two arguments: enough to know it by.
    fn name(&self) -> String {
        let program = Path::new(&self.program).file_name().unwrap_or(&self.program);
        let words = std::iter::once(program).chain(self.arguments.iter().map(AsRef::as_ref));
        let words: Vec<_> = words.take(3).map(OsStr::to_string_lossy).collect();
        words.join(" ")
    }
}

/// The end of a text, on a character's border.
fn tail(text: &str) -> &str {
    let text = text.trim_end();
    let mut start = text.len().saturating_sub(SAID);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}
