//! Processes as kubelet runs them: started, read to their end, waited for.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{Failure, stopwatch::Stopwatch};

/// A program and all it is given. It inherits no variable.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Call {
    /// Its path.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its environment.
    pub environment: Vec<(String, String)>,
    /// What its output must contain.
    pub says: String,
}

impl Call {
    /// A program with no environment but a path.
    pub fn new(program: &Path, arguments: &[&str], says: &str) -> Self {
        Self {
            program: program.to_owned(),
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            environment: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            says: says.to_owned(),
        }
    }

    /// The same call that `command` would make.
    pub fn of(command: &Command, says: &str) -> Self {
        let text = |value: &std::ffi::OsStr| value.to_string_lossy().into_owned();
        let variables = command.get_envs();
        Self {
            program: command.get_program().into(),
            arguments: command.get_args().map(text).collect(),
            environment: variables.filter_map(|(name, v)| Some((text(name), text(v?)))).collect(),
            says: says.to_owned(),
        }
    }

    /// Runs it to its end; how long that took.
    ///
    /// # Errors
    /// When it can't be started, fails, or does not say what it must.
    pub fn timed(&self) -> Result<Duration, Failure> {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear();
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let watch = Stopwatch::start();
        let output = command.output();
        let span = watch.elapsed();
        let program = self.program.display();
        let output = output.map_err(|error| format!("starting {program}: {error}"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        if output.status.success() && said.contains(&self.says) {
            return Ok(span);
        }
        let complained = String::from_utf8_lossy(&output.stderr);
        Err(format!("{program} {:?}: {}: {said}{complained}", self.arguments, output.status).into())
    }
}
