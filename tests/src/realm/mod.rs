//! A throw-away MIT realm of real daemons, for tests and the demo.
//!
//! Everything lies in a private temporary directory: databases, stashes, profiles, keytabs and
//! logs. The daemons listen on a loopback address that no other realm uses. Passwords and keys
//! are random. Nothing is written outside the directory, nothing outlives the [`Realm`]: its
//! daemons die with it, and with this process even when that is killed.
//!
//! The first KDC and kadmind share the primary database. Each further KDC has a copy of its own,
//! as a replica does: it is stale until [`Realm::propagate`].

pub(crate) mod daemon;
mod files;
mod log;
pub mod packages;
mod servers;
mod stray;
mod tool;

use std::{
    collections::BTreeMap,
    fmt, fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

pub use log::KdcRequests;
use servers::{Life, Servers};
pub use stray::Stray;
pub use tool::Tool;

/// The broker's principal, without its realm.
pub const ADMIN: &str = "krb-broker/admin";
/// The policy that the broker's principals carry.
pub const POLICY: &str = "krb-broker";

/// The file that says that a kept realm has all that it needs.
const COMPLETE: &str = "complete";

/// What a realm is to be like.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name.
    pub name: String,
    /// Where its daemons listen; a random address of 127/8 unless given.
    pub address: Option<IpAddr>,
    /// How many KDCs: the first is the primary, the others are replicas.
    pub kdcs: usize,
    /// The longest life of tickets, as in kdc.conf.
    pub max_life: String,
    /// The longest life of renewable tickets, as in kdc.conf.
    pub max_renewable_life: String,
    /// The difference of clocks that its KDCs and clients tolerate, in seconds.
    pub clock_skew: u32,
    /// The enctypes that principals get keys of when kadmin makes them.
    pub enctypes: Vec<String>,
    /// The services that the broker has an ACL line for.
    pub services: Vec<String>,
    /// The role accounts that the broker has an ACL line for, to keep their keys itself.
    pub managed: Vec<String>,
    /// Lines of kadm5.acl in place of all those.
    pub acl: Option<Vec<String>>,
    /// The `minlife` of the policy `krb-broker`, as kadmin reads it; `None` for no such policy.
    pub policy_minlife: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        Self {
            name: "TEST.EXAMPLE.COM".to_owned(),
            address: None,
            kdcs: 1,
            max_life: "10h".to_owned(),
            max_renewable_life: "7d".to_owned(),
            clock_skew: 300,
            enctypes: words(&["aes256-cts-hmac-sha1-96", "aes128-cts-hmac-sha1-96"]),
            services: words(&["HTTP", "nfs", "tsfoo", "tsbar"]),
            managed: words(&["tsmanaged"]),
            acl: None,
            policy_minlife: Some("3650d".to_owned()),
        }
    }
}

/// A running realm. Dropping it kills its daemons and removes its files.
///
/// All its calls block; none takes longer than a few hundred milliseconds.
#[derive(Debug)]
pub struct Realm {
    options: Options,
    // before `dir`: the daemons go first
    servers: Servers,
    dir: PathBuf,
    /// Removes the directory; a realm that is kept has none.
    _temporary: Option<tempfile::TempDir>,
}

impl Realm {
    /// A realm with one KDC and kadmind.
    ///
    /// # Errors
    /// When the packages are not there, or a daemon or tool fails.
    pub fn start() -> Result<Self, RealmError> {
        Self::with_options(Options::default())
    }

    /// A realm of these options.
    ///
    /// # Errors
    /// As for [`Realm::start`].
    pub fn with_options(options: Options) -> Result<Self, RealmError> {
        let temporary = tempfile::Builder::new()
            .prefix("realm-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()
            .map_err(|error| RealmError::new("making the realm's directory", error))?;
        let dir = temporary.path().to_owned();
        let mut realm = Self {
            servers: Servers::prepare(&options, &dir, Life::Passing)?,
            options,
            dir,
            _temporary: Some(temporary),
        };
        realm.populate()?;
        realm.servers.start_all()?;
        Ok(realm)
    }

    /// A realm whose files stay in `dir`, a directory of its own, and that goes on from there when
    /// it is started again with the same options. Its first KDC has port 88, kadmind 749; a
    /// replica's port is 1000 more than that of the KDC before it.
    ///
    /// # Errors
    /// As for [`Realm::start`]; also when `options` give no address.
    pub fn kept(options: Options, dir: &Path) -> Result<Self, RealmError> {
        let is_new = !dir.join(COMPLETE).exists();
        let failed = |error| RealmError::new("making the realm's directory", error);
        if is_new {
            // what a run left that was cut short is no realm
            let _ = fs::remove_dir_all(dir);
            fs::create_dir(dir).map_err(failed)?;
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        }
        let life = if is_new { Life::Kept } else { Life::Again };
        let servers = Servers::prepare(&options, dir, life)?;
        let mut realm = Self { servers, options, dir: dir.to_owned(), _temporary: None };
        if is_new {
            realm.populate()?;
            fs::write(dir.join(COMPLETE), "").map_err(failed)?;
        }
        realm.servers.start_all()?;
        Ok(realm)
    }

    /// Makes the policy, the broker's principal and its keytab, and the replicas' databases.
    fn populate(&self) -> Result<(), RealmError> {
        let keytab = self.admin_keytab();
        let mut script = String::new();
        let mut policy = "";
        if let Some(minlife) = &self.options.policy_minlife {
            policy = " -policy krb-broker";
            script += &format!("addpol -minlife {minlife} {POLICY}\n");
        }
        script += &format!("addprinc -randkey{policy} {ADMIN}\n");
        script += &format!("ktadd -q -k {} {ADMIN}\n", keytab.display());
        self.servers.kadmin_local(&[] as &[&str], &script)?;
        if !keytab.exists() {
            return Err(RealmError::new("making the realm", "kadmin.local made no admin keytab"));
        }
        self.propagate()
    }

    /// The realm's name.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// The realm's directory, 0700. Tests may put files there.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The primary KDC, UDP and TCP.
    pub fn kdc_addr(&self) -> SocketAddr {
        self.servers.kdc_addrs()[0]
    }

    /// All KDCs, the primary first.
    pub fn kdc_addrs(&self) -> Vec<SocketAddr> {
        self.servers.kdc_addrs()
    }

    /// kadmind.
    pub fn kadmin_addr(&self) -> SocketAddr {
        self.servers.kadmin_addr()
    }

    /// krb5.conf for clients.
    pub fn profile_path(&self) -> PathBuf {
        self.servers.client_profile()
    }

    /// krb5.conf for a client that asks the KDC of this number and no other.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn profile_of_kdc(&self, index: usize) -> Result<PathBuf, RealmError> {
        let path = self.dir.join(format!("krb5-kdc{index}.conf"));
        self.servers.write_profile(&path, self.kdc_addrs()[index])?;
        Ok(path)
    }

    /// A KDC beside the realm's own, with a copy of the database as it is now.
    ///
    /// # Errors
    /// When the database can't be copied, or the daemon does not start.
    pub fn stray_kdc(&self) -> Result<Stray, RealmError> {
        Stray::start(&self.servers, &self.dir)
    }

    /// The broker's principal, with its realm.
    pub fn admin_principal(&self) -> String {
        format!("{ADMIN}@{}", self.name())
    }

    /// The keytab of the broker's principal.
    pub fn admin_keytab(&self) -> PathBuf {
        self.dir.join("krb-broker.keytab")
    }

    /// Makes a role account as an administrator would: preauthentication required, no tickets
    /// to it, a random key. Returns its keytab.
    ///
    /// # Errors
    /// When kadmin.local refuses.
    pub fn add_role_account(&self, login: &str) -> Result<PathBuf, RealmError> {
        let keytab = self.dir.join(format!("{login}.keytab"));
        self.kadmin_local(&["addprinc", "-randkey", "+requires_preauth", "-allow_svr", login])?;
        self.ktadd(login, &keytab)?;
        Ok(keytab)
    }

    /// Gives `principal` new random keys and appends them to `keytab`.
    ///
    /// # Errors
    /// When kadmin.local refuses.
    pub fn ktadd(&self, principal: &str, keytab: &Path) -> Result<(), RealmError> {
        let path = keytab.display().to_string();
        self.kadmin_local(&["ktadd", "-q", "-k", &path, principal]).map(drop)
    }

    /// Runs one command in kadmin.local on the primary database; what it printed.
    ///
    /// # Errors
    /// When the command fails.
    pub fn kadmin_local<S: AsRef<str>>(&self, command: &[S]) -> Result<String, RealmError> {
        self.servers.kadmin_local(command, "")
    }

    /// Brings every replica up to date.
    ///
    /// # Errors
    /// When the database can't be dumped or loaded.
    pub fn propagate(&self) -> Result<(), RealmError> {
        self.servers.propagate()
    }

    /// A tool of the packages, with the realm's client profile.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn tool(&self, name: &str) -> Result<Tool, RealmError> {
        Tool::new(name, &self.profile_path())
    }

    /// Ends the primary KDC.
    pub fn stop_kdc(&mut self) {
        self.servers.stop_kdc(0);
    }

    /// Starts the primary KDC where it was.
    ///
    /// # Errors
    /// When it does not listen again.
    pub fn start_kdc(&mut self) -> Result<(), RealmError> {
        self.servers.start_kdc(0)
    }

    /// Ends the KDC of that number; 0 is the primary.
    pub fn stop_kdc_at(&mut self, index: usize) {
        self.servers.stop_kdc(index);
    }

    /// Starts the KDC of that number where it was.
    ///
    /// # Errors
    /// When it does not listen again.
    pub fn start_kdc_at(&mut self, index: usize) -> Result<(), RealmError> {
        self.servers.start_kdc(index)
    }

    /// Holds the primary KDC (SIGSTOP): it still accepts connections and answers nothing.
    pub fn pause_kdc(&self) {
        self.servers.pause_kdc(0, true);
    }

    /// Lets the primary KDC go on (SIGCONT).
    pub fn resume_kdc(&self) {
        self.servers.pause_kdc(0, false);
    }

    /// Ends kadmind.
    pub fn stop_kadmind(&mut self) {
        self.servers.stop_kadmind();
    }

    /// Starts kadmind where it was; it reads the ACL anew.
    ///
    /// # Errors
    /// When it does not listen again.
    pub fn start_kadmind(&mut self) -> Result<(), RealmError> {
        self.servers.start_kadmind()
    }

    /// Holds kadmind (SIGSTOP).
    pub fn pause_kadmind(&self) {
        self.servers.pause_kadmind(true);
    }

    /// Lets kadmind go on (SIGCONT).
    pub fn resume_kadmind(&self) {
        self.servers.pause_kadmind(false);
    }

    /// Replaces the lines of kadm5.acl; in force after kadmind's next start.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn write_acl<S: AsRef<str>>(&self, lines: &[S]) -> Result<(), RealmError> {
        let text: String = lines.iter().map(|line| format!("{}\n", line.as_ref())).collect();
        self.servers.write_acl(&text)
    }

    /// What the primary KDC was asked so far.
    pub fn kdc_requests(&self) -> KdcRequests {
        self.kdc_requests_at(0)
    }

    /// How many requests the primary KDC answered in each second in which there were any, oldest
    /// first.
    pub fn kdc_seconds(&self) -> Vec<u64> {
        log::kdc_seconds(&self.servers.kdc_log(0))
    }

    /// The same of kadmind.
    pub fn kadmin_seconds(&self) -> Vec<u64> {
        log::kadmin_seconds(&self.servers.kadmind_log())
    }

    /// What the KDC of that number was asked so far.
    pub fn kdc_requests_at(&self, index: usize) -> KdcRequests {
        KdcRequests::read(&self.servers.kdc_log(index))
    }

    /// How many TGTs the primary KDC issued by AS exchanges to the principal `login` so far.
    pub fn tgts_issued_to(&self, login: &str) -> u64 {
        let client = format!("{login}@{}", self.name());
        log::tgts_issued_to(&self.servers.kdc_log(0), &client)
    }

    /// What kadmind was asked so far, by operation (`kadm5_setkey_principal4`, ...).
    pub fn kadmin_requests(&self) -> BTreeMap<String, u64> {
        log::kadmin_requests(&self.servers.kadmind_log())
    }

    /// The process ids of all daemons that run.
    pub fn pids(&self) -> Vec<u32> {
        self.servers.pids()
    }
}

/// Why the realm could not do what a test asked.
#[derive(Clone, Debug)]
pub struct RealmError {
    tried: String,
    detail: String,
}

impl fmt::Display for RealmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.tried, self.detail)
    }
}

impl std::error::Error for RealmError {}

impl RealmError {
    fn new(tried: impl Into<String>, detail: impl fmt::Display) -> Self {
        Self { tried: tried.into(), detail: detail.to_string() }
    }
}
