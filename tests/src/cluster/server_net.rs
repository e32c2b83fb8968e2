//! The network namespace of what the cluster's pods and nodes talk to.
//!
//! It is plugged into the cluster's bridge with the address [`ADDRESS`], which nodes and pods reach.
//! A process lives in it by being started in it: see [`command`].

use std::{net::Ipv4Addr, path::Path, process::Command};

use super::{ClusterError, command::Run};

/// Its name.
pub(super) const NAME: &str = "kc-srv";
/// The addresses of Services.
const SERVICES: &str = "10.96.0.0/24";
/// Its address on the machines' network.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 199, 0, 100);

/// Makes it. The cluster must be up.
pub(super) fn create() -> Result<(), ClusterError> {
    ip(&["netns", "add", NAME])?;
    ip(&[
        "link", "add", "kcs0", "netns", "kc-cp", "type", "veth", "peer", "name", "eth0", "netns",
        NAME,
    ])?;
    inside("kc-cp", &["link", "set", "kcs0", "master", "br0", "up"])?;
    // the API server calls webhooks by their Services: a packet needs a way before it is rewritten
    inside("kc-cp", &["route", "replace", SERVICES, "dev", "br0"])?;
    inside(NAME, &["link", "set", "lo", "up"])?;
    inside(NAME, &["address", "add", &format!("{ADDRESS}/24"), "dev", "eth0"])?;
    inside(NAME, &["link", "set", "eth0", "up"])?;
    inside(NAME, &["route", "add", "default", "via", "10.199.0.1"])?;
    // Services' addresses are led to pods only where the kernel has some way for them at first
    inside("kc-cp", &["route", "replace", "default", "dev", "br0"])
}

/// Removes it, if it is there.
pub(super) fn remove() {
    if exists(NAME) {
        // what is left is in the way of the next run, which says so
        let _ = ip(&["netns", "delete", NAME]);
    }
}

/// Whether there is a namespace of that name.
pub(super) fn exists(name: &str) -> bool {
    Path::new("/run/netns").join(name).exists()
}

/// `program` in this namespace. It ends when the thread that starts it does.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{NAME}"));
    command.args(["setpriv", "--pdeathsig", "KILL", "--"]).arg(program);
    command
}

fn ip(arguments: &[&str]) -> Result<(), ClusterError> {
    Run::new("ip").args(arguments).run().map(drop)
}

/// `ip` in a namespace. (`ip -n` would do, but `ip netns exec` loses the cgroup mounts.)
fn inside(name: &str, arguments: &[&str]) -> Result<(), ClusterError> {
    ip(&[&["-n", name], arguments].concat())
}
