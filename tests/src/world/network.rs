//! A network of the nodes' own, whose cables can be pulled.
//!
//! A switch in a network namespace of its own joins the broker's side, an address of this
//! machine that nothing else has, and each node, which is then a network namespace too. A
//! cable that is pulled drops everything in both directions, and says so to nobody.
//!
//! All of it lives in namespaces without names, that only processes keep: it ends with the
//! [`Network`] and its nodes, and with this process even when that is killed.

use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
};

use super::{WorldError, wait_for};
use crate::realm::daemon;

/// A switch and the broker's side of it.
#[derive(Debug)]
pub struct Network {
    /// The process that keeps the switch's namespace.
    switch: Child,
    /// `a` and `b` of `10.a.b.0/24`.
    subnet: [u8; 2],
    ports: AtomicU8,
}

impl Network {
    /// A network without nodes.
    ///
    /// # Errors
    /// Without root, or where the kernel has no bridges.
    pub fn new() -> Result<Self, WorldError> {
        let subnet = free_subnet()?;
        let network = Self { switch: namespace()?, subnet, ports: AtomicU8::new(0) };
        let (pid, broker) = (network.switch.id(), network.address(1));
        let [a, b] = subnet;
        // 15 bytes is the longest name of an interface
        let ours = format!("krb-{a}-{b}");
        ip(None, &format!("link add {ours} type veth peer name broker netns {pid}"))?;
        ip(
            Some(pid),
            "link add switch type bridge\nlink set switch up\nlink set broker master switch up",
        )?;
        ip(None, &format!("address add {broker}/24 dev {ours}\nlink set {ours} up"))?;
        Ok(network)
    }

    /// Where a broker can listen: a free port of the address that nodes reach.
    ///
    /// # Errors
    /// When no port is free.
    pub fn listen(&self) -> Result<SocketAddr, WorldError> {
        let address = IpAddr::V4(self.address(1));
        Ok(TcpListener::bind((address, 0))?.local_addr()?)
    }

    /// Plugs the network namespace of this process into the switch, as its only interface.
    ///
    /// # Errors
    /// When there are 250 already, or the kernel refuses.
    pub fn plug(&self, pid: u32) -> Result<Cable, WorldError> {
        let number = self.ports.fetch_add(1, Ordering::Relaxed);
        let cable = Cable { switch: self.switch.id(), port: format!("port{number}") };
        let address =
            number.checked_add(2).filter(|last| *last < 255).map(|last| self.address(last));
        let address =
            address.ok_or_else(|| WorldError::new("plugging in a node", "the switch is full"))?;
        let port = &cable.port;
        ip(
            Some(cable.switch),
            &format!(
                "link add {port} type veth peer name eth0 netns {pid}\nlink set {port} master switch up"
            ),
        )?;
        ip(
            Some(pid),
            &format!("link set lo up\naddress add {address}/24 dev eth0\nlink set eth0 up"),
        )?;
        Ok(cable)
    }

    fn address(&self, last: u8) -> Ipv4Addr {
        let [a, b] = self.subnet;
        Ipv4Addr::new(10, a, b, last)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.switch.kill();
        let _ = self.switch.wait();
    }
}

/// What joins one node to the switch.
#[derive(Debug)]
pub struct Cable {
    switch: u32,
    port: String,
}

impl Cable {
    /// Pulls it: nothing arrives any more, on either side.
    ///
    /// # Errors
    /// When the switch is gone.
    pub fn pull(&self) -> Result<(), WorldError> {
        ip(Some(self.switch), &format!("link set {} down", self.port))
    }

    /// Joins what was pulled.
    ///
    /// # Errors
    /// When the switch is gone.
    pub fn join(&self) -> Result<(), WorldError> {
        ip(Some(self.switch), &format!("link set {} up", self.port))
    }
}

/// A process in a network namespace of its own.
fn namespace() -> Result<Child, WorldError> {
    let mut command = Command::new("unshare");
    command.args(["--net", "sleep", "infinity"]).env("PATH", "/usr/bin:/bin");
    let child = daemon::spawn(daemon::with_death_signal(&command));
    let child = child.map_err(|e| WorldError::new("making a network", e))?;
    let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    wait_for("a network namespace", || {
        (of(&child.id().to_string())? != of("self")?).then_some(())
    })?;
    Ok(child)
}

/// Two numbers for which this machine has no route to `10.a.b.0/24` but its default one.
fn free_subnet() -> Result<[u8; 2], WorldError> {
    const TRIES: usize = 50;
    for _ in 0..TRIES {
        let mut random = [0; 2];
        getrandom::fill(&mut random).map_err(|e| WorldError::new("choosing a network", e))?;
        // 200 to 249: where nobody begins to number
        let [a, b] = [200 + random[0] % 50, random[1]];
        let output = Command::new("ip")
            .args(["-4", "route", "show", &format!("10.{a}.{b}.0/24")])
            .output()?;
        if output.status.success() && output.stdout.is_empty() {
            return Ok([a, b]);
        }
    }
    Err(WorldError::new("choosing a network", "each one tried is in use"))
}

/// Runs these lines of `ip`, in the network namespace of a process or in ours.
fn ip(of: Option<u32>, lines: &str) -> Result<(), WorldError> {
    let mut command = match of {
        Some(pid) => {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net=/proc/{pid}/ns/net")).args(["--", "ip"]);
            command
        }
        None => Command::new("ip"),
    };
    command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(lines.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(WorldError::new(format!("ip {lines:?}"), said))
}
