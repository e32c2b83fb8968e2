//! Entitlements from a directory of YAML files, checked whole.
//!
//! All that is wrong with all files is reported at once, and then nothing is taken over.
//! Names with a leading dot are passed over, so a mounted ConfigMap (`..data`) is read once.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::Read as _,
    path::Path,
    sync::Arc,
};

use krb_proto::Namespace;

use super::{Login, account::RoleAccount, across, problems::Problems};
use crate::yaml;

/// The longest file that is read, in bytes.
pub const MAX_FILE: u64 = 1024 * 1024;

/// The most files of the directory.
pub const MAX_FILES: usize = 10_000;

/// Who may have what. Never changes; a new reading makes a new one.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Entitlements {
    by_login: HashMap<Login, Arc<RoleAccount>>,
    by_namespace: HashMap<Namespace, Arc<RoleAccount>>,
}

impl Entitlements {
    /// Reads every `*.yaml` and `*.yml` file of `directory`.
    ///
    /// # Errors
    /// All that is wrong, as `file: field: message`.
    pub fn load(directory: &Path) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let mut texts = Vec::new();
        for name in file_names(directory, &mut problems) {
            let read = read_bounded(&directory.join(&name));
            match read {
                Ok(text) => texts.push((name, text)),
                Err(message) => problems.add_whole(&name, message),
            }
        }
        Self::check(texts, problems)
    }

    /// Reads texts that were read already, each with the name of its file.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn read<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, Problems> {
        let owned = files.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned()));
        Self::check(owned.collect(), Problems::default())
    }

    fn check(texts: Vec<(String, String)>, mut problems: Problems) -> Result<Self, Problems> {
        let mut read = Read { unreadable: !problems.is_empty(), ..Read::default() };
        for (name, text) in &texts {
            read.file(name, text, &mut problems);
        }
        // Accounts that can't be read are there all the same, if it can be said which.
        let logins = (!read.unreadable).then_some(&read.logins);
        across::check(&read.accounts, logins, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self::index(read.accounts.into_iter().map(|(_, account)| account)))
    }

    fn index(accounts: impl Iterator<Item = RoleAccount>) -> Self {
        let mut entitlements = Self::default();
        for account in accounts.map(Arc::new) {
            for namespace in &account.namespaces {
                entitlements.by_namespace.insert(namespace.clone(), account.clone());
            }
            entitlements.by_login.insert(account.login.clone(), account);
        }
        entitlements
    }

    /// The account of this login.
    pub fn account(&self, login: &Login) -> Option<&Arc<RoleAccount>> {
        self.by_login.get(login)
    }

    /// The account that the pods of this namespace run as.
    pub fn of_namespace(&self, namespace: &Namespace) -> Option<&Arc<RoleAccount>> {
        self.by_namespace.get(namespace)
    }

    /// All accounts, ordered by login.
    pub fn accounts(&self) -> Vec<&Arc<RoleAccount>> {
        let mut accounts: Vec<_> = self.by_login.values().collect();
        accounts.sort_by(|a, b| a.login.cmp(&b.login));
        accounts
    }
}

/// The names of the directory's files, ordered.
fn file_names(directory: &Path, problems: &mut Problems) -> Vec<String> {
    let place = directory.display().to_string();
    let entries = match fs::read_dir(directory).and_then(|entries| entries.collect()) {
        Ok(entries) => entries,
        Err(error) => {
            problems.add_whole(&place, format_args!("can't be listed: {error}"));
            Vec::<fs::DirEntry>::new()
        }
    };
    let mut names: Vec<String> = entries
        .iter()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && is_yaml(name))
        .collect();
    names.sort();
    if names.is_empty() && problems.is_empty() {
        problems.add_whole(&place, "has no *.yaml file");
    }
    if names.len() > MAX_FILES {
        problems.add_whole(&place, format_args!("has more than {MAX_FILES} files"));
        names.truncate(MAX_FILES);
    }
    names
}

fn is_yaml(name: &str) -> bool {
    name.ends_with(".yaml") || name.ends_with(".yml")
}

fn read_bounded(path: &Path) -> Result<String, String> {
    let metadata = fs::metadata(path).map_err(|error| format!("can't be read: {error}"))?;
    if !metadata.is_file() {
        return Err("is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|error| format!("can't be read: {error}"))?;
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("can't be read: {error}"))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("is longer than {MAX_FILE} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}

/// What was read so far.
#[derive(Default)]
struct Read {
    /// Each with its place: the file, and which of its documents.
    accounts: Vec<(String, RoleAccount)>,
    /// Logins that any document has, also one that is wrong elsewhere.
    logins: HashSet<String>,
    /// Whether there is a file of which nothing can be read.
    unreadable: bool,
}

impl Read {
    fn file(&mut self, name: &str, text: &str, problems: &mut Problems) {
        let documents = match yaml::documents(text) {
            Ok(documents) => documents,
            Err(error) => {
                self.unreadable = true;
                return problems.add_whole(name, error);
            }
        };
        let single = documents.len() == 1;
        for (index, document) in documents.into_iter().enumerate() {
            let place = if single { name.to_owned() } else { format!("{name}[{}]", index + 1) };
            self.logins.extend(document["unix_login"].as_str().map(str::to_owned));
            if let Some(account) = RoleAccount::read(document, &place, problems) {
                self.accounts.push((place, account));
            }
        }
    }
}
