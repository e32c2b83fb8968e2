//! A container image made of files of this machine.

use std::path::{Path, PathBuf};

/// Busybox, some programs with the libraries they need, and perhaps what to run.
#[derive(Clone, Debug)]
pub struct Image {
    name: String,
    files: Vec<String>,
    entry: Option<String>,
}

impl Image {
    /// The image `localhost/<name>:1`.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), files: Vec::new(), entry: None }
    }

    /// Adds a program, as `destination`.
    pub fn file(mut self, source: &Path, destination: &str) -> Self {
        self.files.push(format!("{}={destination}", source.display()));
        self
    }

    /// What a container of it runs.
    pub fn entry(mut self, program: &str) -> Self {
        self.entry = Some(program.to_owned());
        self
    }

    /// What a pod calls it.
    pub fn reference(&self) -> String {
        format!("localhost/{}:1", self.name)
    }

    pub(super) fn file_name(&self) -> PathBuf {
        format!("{}.tar", self.name).into()
    }

    /// What `mkimage.py` is given after the archive's path.
    pub(super) fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![self.reference()];
        if let Some(entry) = &self.entry {
            arguments.extend(["--entry".to_owned(), entry.clone()]);
        }
        arguments.extend(self.files.iter().cloned());
        arguments
    }
}
