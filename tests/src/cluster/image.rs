//! A container image made of files of this machine.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Busybox, some programs with the libraries they need, and perhaps what to run.
///
/// Its tag tells two images of one name apart when a file was built anew, so that a Deployment
/// that is applied with it rolls.
#[derive(Clone, Debug)]
pub struct Image {
    name: String,
    files: Vec<(PathBuf, String)>,
    entry: Option<String>,
}

impl Image {
    /// An image called `localhost/<name>`.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), files: Vec::new(), entry: None }
    }

    /// Adds a file, as `destination`; a program brings its libraries.
    pub fn file(mut self, source: &Path, destination: &str) -> Self {
        self.files.push((source.to_owned(), destination.to_owned()));
        self
    }

    /// What a container of it runs.
    pub fn entry(mut self, program: &str) -> Self {
        self.entry = Some(program.to_owned());
        self
    }

    /// What a pod calls it.
    pub fn reference(&self) -> String {
        format!("{}:{}", self.repository(), self.tag())
    }

    /// What a pod calls it, without the tag.
    pub fn repository(&self) -> String {
        format!("localhost/{}", self.name)
    }

    /// Its tag: of the files' sizes and times.
    pub fn tag(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.entry.hash(&mut hasher);
        for (source, destination) in &self.files {
            destination.hash(&mut hasher);
            if let Ok(file) = fs::metadata(source) {
                (file.len(), file.mtime(), file.mtime_nsec()).hash(&mut hasher);
            }
        }
        format!("{:016x}", hasher.finish())
    }

    pub(super) fn file_name(&self) -> PathBuf {
        format!("{}-{}.tar", self.name, self.tag()).into()
    }

    /// Whether a file of this name is another version of this image.
    pub(super) fn is_version(&self, file_name: &str) -> bool {
        let tag = file_name.strip_prefix(&format!("{}-", self.name));
        tag.and_then(|tag| tag.strip_suffix(".tar")).is_some_and(|tag| tag.len() == 16)
    }

    /// What `mkimage.py` is given after the archive's path.
    pub(super) fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![self.reference()];
        if let Some(entry) = &self.entry {
            arguments.extend(["--entry".to_owned(), entry.clone()]);
        }
        let files = self.files.iter();
        arguments.extend(files.map(|(source, to)| format!("{}={to}", source.display())));
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_another_tag_when_a_file_changed() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let image = Image::new("krb-tools").file(file.path(), "/usr/bin/klist");
        let before = image.tag();
        assert_eq!(image.tag(), before);
        fs::write(file.path(), "more").expect("writing");
        assert_ne!(image.tag(), before);
        assert!(image.is_version(&format!("krb-tools-{before}.tar")));
        assert!(!image.is_version(&format!("krb-tools-more-{before}.tar")));
    }
}
