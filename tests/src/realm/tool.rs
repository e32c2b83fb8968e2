//! One run of an MIT tool against a realm.

use std::{
    ffi::OsStr,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use super::{RealmError, packages};

/// A tool of the realm's packages with the realm's profile in its environment, and nothing
/// else: no variable of the caller's reaches it but `PATH`.
#[derive(Debug)]
pub struct Tool {
    name: String,
    command: Command,
    input: Vec<u8>,
}

impl Tool {
    /// `name` with the client profile `krb5_config`.
    ///
    /// # Errors
    /// When no package has such a program.
    pub fn new(name: &str, krb5_config: &Path) -> Result<Self, RealmError> {
        let mut command = Command::new(packages::bin(name)?);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C");
        command.env("KRB5_CONFIG", krb5_config);
        Ok(Self { name: name.to_owned(), command, input: Vec::new() })
    }

    /// Adds arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets a variable, such as `KRB5CCNAME`.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// What the tool reads.
    pub fn input(mut self, text: &str) -> Self {
        self.input = text.as_bytes().to_vec();
        self
    }

    /// The command itself, for a caller that wants to run it in its own way.
    pub fn into_command(self) -> Command {
        self.command
    }

    /// Runs it to its end; what it printed.
    ///
    /// # Errors
    /// When it can't be run, or ends with anything but 0: then with what it said.
    pub fn run(mut self) -> Result<String, RealmError> {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let failed = |detail: String| RealmError::new(format!("running {}", self.name), detail);
        let mut child = self.command.spawn().map_err(|error| failed(error.to_string()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // a tool that doesn't read its input is no failure
            let _ = stdin.write_all(&self.input);
        }
        let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            Ok(printed)
        } else {
            Err(failed(format!("{}: {printed}{said}", output.status)))
        }
    }
}
