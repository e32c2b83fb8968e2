//! A GSSAPI exchange between two pods, by the samples of MIT's own packages: what a web server
//! and its client do below HTTP.

use std::{
    fs,
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use super::{
    screen::Screen,
    stage::{HOST, Stage, expect, succeeded},
};
use crate::world::{WorldError, wait_for};

/// What the client sends.
const MESSAGE: &str = "hello, web";

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
    let (at_server, at_client) = (&stage.pod(server).name, &stage.pod(client).name);

    screen.command_in(at_server, &format!("{serve} &"))?;
    let mut listening = Server::start(stage.inside(server, &format!("exec timeout 20 {serve}")))?;
    wait_for("gss-server to listen", || {
        (listening.has_ended() || is_listening(port)).then_some(())
    })?;
    screen.command_in(at_client, &ask)?;
    let output = stage.inside(client, &format!("exec timeout 20 {ask}")).output()?;
    let served = listening.output();
    screen.output(excerpt(&succeeded(&ask, &output)?))?;
    let served = succeeded(&serve, &served?)?;
    screen.command_in(at_server, "fg")?;
    screen.output(excerpt(&served))?;

    let account = format!("tsfoo@{}", stage.world.realm.name());
    let known = served.contains(&account) && served.contains(MESSAGE);
    expect(known, "the server to know its client")?;
    screen.seen(&format!(
        "the server knows that {account} asks; both sides have proved who they are."
    ))
}

/// What a sample prints, without its tables of flags, names, numbers and attributes.
fn excerpt(printed: &str) -> String {
    let told = ["Sending", "\"", "Signature", "Accepted", "Received"];
    let is_told = |line: &&str| told.iter().any(|start| line.starts_with(start));
    let lines: Vec<&str> = printed.lines().filter(is_told).collect();
    let left_out = printed.lines().filter(|line| !line.is_empty()).count() - lines.len();
    format!(
        "{}\n(and {left_out} lines of flags, object identifiers and attributes)",
        lines.join("\n")
    )
}

/// A server that ends with the step.
struct Server(Option<Child>);

impl Server {
    fn start(mut command: Command) -> Result<Self, WorldError> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(Self(Some(command.spawn()?)))
    }

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
