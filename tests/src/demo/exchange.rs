//! A GSSAPI exchange between two pods, by the samples of MIT's own packages: what a web server
//! and its client do below HTTP.

use std::{
    fs,
    net::TcpListener,
    process::{Child, Stdio},
};

use super::{
    screen::Screen,
    stage::{HOST, Stage, expect, succeeded},
};
use crate::world::{WorldError, wait_for};

/// What the client sends.
const MESSAGE: &str = "hello from one pod to another";

/// Has the pod of `client` authenticate itself to the pod of `server` and send a message,
/// sealed. The server has nothing but its mounted keytab, the client nothing but its mounted
/// ticket.
pub fn run(
    screen: &mut Screen,
    stage: &Stage,
    server: &str,
    client: &str,
) -> Result<(), WorldError> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let serve = format!("gss-server -port {port} -once HTTP@{HOST}");
    let ask = format!("gss-client -port {port} localhost HTTP@{HOST} \"{MESSAGE}\"");
    let in_pod = |script: &str, node| format!("{script}   # in pod {}", stage.pod(node).name);

    screen.command(&in_pod(&format!("{serve} &"), server))?;
    let mut listening = stage.inside(server, &format!("exec timeout 20 {serve}"));
    let listening = listening.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut listening = Server(Some(listening.spawn()?));
    wait_for("gss-server to listen", || {
        (listening.has_ended() || is_listening(port)).then_some(())
    })?;

    screen.command(&in_pod(&ask, client))?;
    let output = stage.inside(client, &format!("exec timeout 20 {ask}")).output()?;
    let served = listening.output()?;
    let both = format!("{}\n", String::from_utf8_lossy(&served.stderr));
    screen.output(
        succeeded(&ask, &output)
            .map_err(|e| WorldError::new("gss-client", format!("{e}\n{both}")))?,
    )?;
    let served = succeeded(&serve, &served)?;
    screen.command(&in_pod("fg", server))?;
    screen.output(&served)?;
    let account = format!("tsfoo@{}", stage.world.realm.name());
    expect(served.contains(&account) && served.contains(MESSAGE), "the server to know its client")?;
    screen.seen(&format!(
        "the server knows who asks: {account}; both sides have proved who they are."
    ))
}

/// A server that ends with the step.
struct Server(Option<Child>);

impl Server {
    fn has_ended(&mut self) -> bool {
        self.0.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }

    fn output(mut self) -> Result<std::process::Output, WorldError> {
        let child =
            self.0.take().ok_or_else(|| WorldError::new("gss-server", "was not started"))?;
        Ok(child.wait_with_output()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Whether a socket listens on this port, from the kernel's table: a connection would be taken
/// for the client.
fn is_listening(port: u16) -> bool {
    const LISTEN: &str = "0A";
    let local = format!(":{port:04X}");
    let tables =
        ["/proc/net/tcp", "/proc/net/tcp6"].map(|at| fs::read_to_string(at).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines()).any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|at| at.ends_with(&local)) && fields.nth(1) == Some(LISTEN)
    })
}
