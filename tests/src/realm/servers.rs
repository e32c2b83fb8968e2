//! The daemons of a realm and the files that each needs.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use rustix::process::Signal;

use super::{Options, RealmError, Tool, daemon::Daemon, files, packages};

/// One KDC: its directory, its address, its process while it runs.
#[derive(Debug)]
struct KdcServer {
    dir: PathBuf,
    address: SocketAddr,
    daemon: Option<Daemon>,
}

impl KdcServer {
    fn profile(&self) -> PathBuf {
        self.dir.join("kdc.conf")
    }
}

/// How long the files of a realm live.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Life {
    /// As long as the realm: each has ports that nobody else uses.
    Passing,
    /// They are made to be used again, with the same ports.
    Kept,
    /// They are there: nothing is made anew.
    Again,
}

impl Life {
    /// A port of `address` for one daemon: `fixed` where it must be the same the next time.
    fn port(self, address: IpAddr, fixed: u16) -> Result<SocketAddr, RealmError> {
        match self {
            Self::Passing => free_port(address),
            Self::Kept | Self::Again => Ok(SocketAddr::new(address, fixed)),
        }
    }
}

/// All daemons of a realm. The first KDC is the primary; kadmind works on its database.
#[derive(Debug)]
pub(super) struct Servers {
    options: Options,
    client_profile: PathBuf,
    kdcs: Vec<KdcServer>,
    kadmind_address: SocketAddr,
    kpasswd: SocketAddr,
    kadmind: Option<Daemon>,
}

impl Servers {
    /// Chooses addresses, writes all files and makes the primary database; starts nothing.
    pub(super) fn prepare(options: &Options, dir: &Path, life: Life) -> Result<Self, RealmError> {
        let address = options.address.unwrap_or_else(random_loopback);
        let mut servers = Self {
            options: options.clone(),
            client_profile: dir.join("krb5.conf"),
            kdcs: Vec::new(),
            kadmind_address: life.port(address, 749)?,
            kpasswd: life.port(address, 464)?,
            kadmind: None,
        };
        for index in 0..options.kdcs.max(1) {
            let port = u16::try_from(88 + 1_000 * index).unwrap_or(u16::MAX);
            let address = life.port(address, port)?;
            let dir = dir.join(format!("kdc{index}"));
            servers.kdcs.push(KdcServer { dir, address, daemon: None });
        }
        if life != Life::Again {
            servers.make()?;
        }
        Ok(servers)
    }

    /// Writes all files, and makes the primary database.
    fn make(&self) -> Result<(), RealmError> {
        let plugins = packages::plugins()?;
        for kdc in &self.kdcs {
            make_dir(&kdc.dir)?;
            let at = files::KdcProfile {
                dir: &kdc.dir,
                kdc: kdc.address,
                kadmind: self.kadmind_address,
                kpasswd: self.kpasswd,
                plugins: &plugins,
            };
            write(&kdc.profile(), &files::kdc_profile(&self.options, &at))?;
        }
        let (addresses, kadmind) = (self.kdc_addrs(), self.kadmind_address);
        let profile =
            files::client_profile(&self.options, &addresses, kadmind, self.kpasswd, &plugins);
        write(&self.client_profile, &profile)?;
        self.write_acl(&files::acl(&self.options))?;
        let password = random_hex();
        self.at(0, "kdb5_util")?.args(["create", "-s", "-P", &password]).run().map(drop)
    }

    pub(super) fn kdc_addrs(&self) -> Vec<SocketAddr> {
        self.kdcs.iter().map(|kdc| kdc.address).collect()
    }

    pub(super) fn kadmin_addr(&self) -> SocketAddr {
        self.kadmind_address
    }

    pub(super) fn client_profile(&self) -> PathBuf {
        self.client_profile.clone()
    }

    pub(super) fn kdc_log(&self, index: usize) -> PathBuf {
        self.kdcs[index].dir.join("kdc.log")
    }

    pub(super) fn kadmind_log(&self) -> PathBuf {
        self.kdcs[0].dir.join("kadmind.log")
    }

    pub(super) fn write_acl(&self, text: &str) -> Result<(), RealmError> {
        write(&self.kdcs[0].dir.join("kadm5.acl"), text)
    }

    /// Runs kadmin.local on the primary database: one command in `args`, or lines of `input`.
    pub(super) fn kadmin_local<S: AsRef<str>>(
        &self,
        args: &[S],
        input: &str,
    ) -> Result<String, RealmError> {
        let args = args.iter().map(AsRef::as_ref);
        self.at(0, "kadmin.local")?.args(args).input(input).run()
    }

    /// Copies the primary database, its stash included, to every replica.
    pub(super) fn propagate(&self) -> Result<(), RealmError> {
        let Some((primary, replicas)) = self.kdcs.split_first() else { return Ok(()) };
        if replicas.is_empty() {
            return Ok(());
        }
        let dump = self.dump()?;
        for (index, replica) in (1..).zip(replicas) {
            fs::copy(primary.dir.join("stash"), replica.dir.join("stash"))
                .map_err(|error| RealmError::new("copying the stash", error))?;
            self.at(index, "kdb5_util")?.args([Path::new("load"), &dump]).run()?;
        }
        Ok(())
    }

    /// The primary database as it is now, as a file.
    fn dump(&self) -> Result<PathBuf, RealmError> {
        let dump = self.kdcs[0].dir.join("dump");
        self.at(0, "kdb5_util")?.args([Path::new("dump"), &dump]).run()?;
        Ok(dump)
    }

    /// Writes a client profile that names this KDC alone.
    pub(super) fn write_profile(&self, path: &Path, kdc: SocketAddr) -> Result<(), RealmError> {
        let (kadmind, kpasswd) = (self.kadmind_address, self.kpasswd);
        let plugins = packages::plugins()?;
        let text = files::client_profile(&self.options, &[kdc], kadmind, kpasswd, &plugins);
        write(path, &text)
    }

    /// Starts another KDC in `dir`, with a copy of the primary database as it is now, and writes
    /// a client profile that names it alone.
    pub(super) fn start_copy(&self, dir: &Path, profile: &Path) -> Result<Daemon, RealmError> {
        make_dir(dir)?;
        let kdc = free_port(self.kadmind_address.ip())?;
        let at = files::KdcProfile {
            dir,
            kdc,
            kadmind: self.kadmind_address,
            kpasswd: self.kpasswd,
            plugins: &packages::plugins()?,
        };
        let kdc_profile = dir.join("kdc.conf");
        write(&kdc_profile, &files::kdc_profile(&self.options, &at))?;
        self.write_profile(profile, kdc)?;
        fs::copy(self.kdcs[0].dir.join("stash"), dir.join("stash"))
            .map_err(|error| RealmError::new("copying the stash", error))?;
        let tool = |name| {
            let tool = Tool::new(name, profile)?;
            Ok(tool.env("KRB5_KDC_PROFILE", &kdc_profile).args(["-r", &self.options.name]))
        };
        tool("kdb5_util")?.args([Path::new("load"), &self.dump()?]).run()?;
        Daemon::start(tool("krb5kdc")?.args(["-n"]).into_command(), kdc)
    }

    pub(super) fn start_all(&mut self) -> Result<(), RealmError> {
        for index in 0..self.kdcs.len() {
            self.start_kdc(index)?;
        }
        self.start_kadmind()
    }

    pub(super) fn start_kdc(&mut self, index: usize) -> Result<(), RealmError> {
        self.stop_kdc(index);
        let command = self.at(index, "krb5kdc")?.args(["-n"]).into_command();
        let kdc = &mut self.kdcs[index];
        kdc.daemon = Some(Daemon::start(command, kdc.address)?);
        Ok(())
    }

    pub(super) fn stop_kdc(&mut self, index: usize) {
        if let Some(daemon) = self.kdcs[index].daemon.take() {
            daemon.stop();
        }
    }

    pub(super) fn pause_kdc(&self, index: usize, held: bool) {
        hold(self.kdcs[index].daemon.as_ref(), held);
    }

    pub(super) fn start_kadmind(&mut self) -> Result<(), RealmError> {
        self.stop_kadmind();
        let command = self.at(0, "kadmind")?.args(["-nofork"]).into_command();
        self.kadmind = Some(Daemon::start(command, self.kadmind_address)?);
        Ok(())
    }

    pub(super) fn stop_kadmind(&mut self) {
        if let Some(daemon) = self.kadmind.take() {
            daemon.stop();
        }
    }

    pub(super) fn pause_kadmind(&self, held: bool) {
        hold(self.kadmind.as_ref(), held);
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        let daemons = self.kdcs.iter().map(|kdc| kdc.daemon.as_ref());
        daemons.chain([self.kadmind.as_ref()]).flatten().map(Daemon::pid).collect()
    }

    /// A tool or daemon that works on the database of the KDC of that number.
    fn at(&self, index: usize, name: &str) -> Result<Tool, RealmError> {
        let tool = Tool::new(name, &self.client_profile)?;
        Ok(tool
            .env("KRB5_KDC_PROFILE", self.kdcs[index].profile())
            .args(["-r", &self.options.name]))
    }
}

fn hold(daemon: Option<&Daemon>, held: bool) {
    if let Some(daemon) = daemon {
        daemon.signal(if held { Signal::STOP } else { Signal::CONT });
    }
}

/// An address of 127/8 that, out of 16 million, no other realm on this machine has.
fn random_loopback() -> IpAddr {
    let mut bytes = [0; 3];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    let [a, b, c] = bytes;
    // neither 127.0.0.1, which others use, nor an address that ends like a network's
    IpAddr::V4(Ipv4Addr::new(127, a.max(1), b, c.clamp(1, 254)))
}

/// A port of `address` that is free now, for TCP and, on an address of one's own, for UDP.
fn free_port(address: IpAddr) -> Result<SocketAddr, RealmError> {
    TcpListener::bind((address, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|error| RealmError::new(format!("finding a free port of {address}"), error))
}

/// A password of 32 hexadecimal digits.
fn random_hex() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn make_dir(path: &Path) -> Result<(), RealmError> {
    fs::create_dir(path).map_err(|error| RealmError::new("making a KDC's directory", error))
}

fn write(path: &Path, text: &str) -> Result<(), RealmError> {
    let tried = || format!("writing {}", path.display());
    fs::write(path, text).map_err(|error| RealmError::new(tried(), error))
}
