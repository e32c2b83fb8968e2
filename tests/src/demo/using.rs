//! The steps of a good day: what a pod finds, what it does with it, and who can see that.

use super::{
    exchange,
    screen::Screen,
    stage::{DOOMED, SURVIVOR, Stage, expect, succeeded},
};
use crate::world::WorldError;

/// The files, as the container sees them.
pub fn files(screen: &mut Screen, stage: &Stage) -> Result<(), WorldError> {
    screen.step(
        "What the container finds",
        "As the pod's own user: files of its own in directories of root's, so nobody in the pod can swap one.",
    )?;
    stage.show(screen, DOOMED, "id -u")?;
    stage.show(screen, DOOMED, "cd /var/spool && ls -ln tickets keytabs")?;
    stage.show(screen, DOOMED, "env | grep ^KRB5 | sort").map(drop)
}

/// MIT's own tools read the files.
pub fn klist(screen: &mut Screen, stage: &Stage) -> Result<(), WorldError> {
    screen.step(
        "MIT's klist reads them",
        "No wrapper, no library of ours: any Kerberos program finds its files through the environment.",
    )?;
    let ticket = stage.show(screen, DOOMED, "klist")?;
    expect(ticket.contains("Default principal: tsfoo@"), "the ticket of the account")?;
    let keytab = stage.show(screen, DOOMED, "klist -k -e")?;
    expect(keytab.contains(&stage.principal()), "a keytab of the service")?;
    screen.seen("tickets live 20 s here (4 h in a cluster) and are renewed by the broker in time.")
}

/// The first exchange.
pub fn exchange(screen: &mut Screen, stage: &Stage) -> Result<(), WorldError> {
    screen.step(
        "The pods authenticate each other",
        "web-0 serves with its mounted keytab, web-1 asks with its mounted ticket: GSSAPI samples of MIT's.",
    )?;
    exchange::run(screen, stage, DOOMED, SURVIVOR)
}

/// Who holds what, as any gRPC client can see it.
pub fn leases(screen: &mut Screen, stage: &Stage) -> Result<(), WorldError> {
    screen.step(
        "The operator asks who holds what",
        "With Python's stock gRPC client, which learns the API from the broker (reflection), as grpcurl does.",
    )?;
    let columns = "state,node,pod,keytab,exposed-until";
    screen.command(&format!("leases.py --cert operator.crt ... list --columns {columns}"))?;
    let output = stage.python("operator", &["list", "--columns", columns])?;
    let table = succeeded("leases.py list", &output)?;
    screen.output(&table)?;
    expect(table.contains("2 leases"), "two leases")?;
    screen.seen("kvno 2 is the key's number. `open`: the key is in use, so there is no end of what it can do yet.")
}

/// Shows the leases again, without the services.
pub fn again(screen: &mut Screen, stage: &Stage) -> Result<(), WorldError> {
    let columns = "state,pod,keytab,exposed-until";
    screen.command(&format!("leases.py ... list --columns {columns} | tail -n 4"))?;
    let output = stage.python("operator", &["list", "--columns", columns])?;
    let text = succeeded("leases.py list", &output)?;
    let lines: Vec<&str> = text.lines().collect();
    screen.output(lines[lines.len().saturating_sub(4)..].join("\n"))
}

/// A node is told nothing.
pub fn refused(screen: &mut Screen, stage: &Stage) -> Result<(), WorldError> {
    screen.step(
        "A node asks the same",
        "The same with the certificate of node-a: a node that is taken over learns nothing about the others.",
    )?;
    screen.command("leases.py --cert node-a.crt ... call krb.broker.v1.LeaseService/ListLeases")?;
    let call = ["call", "krb.broker.v1.LeaseService/ListLeases"];
    let output = stage.python("node-node-a", &call)?;
    screen.output(&output.stderr)?;
    let said = String::from_utf8_lossy(&output.stderr);
    expect(!output.status.success() && said.contains("PERMISSION_DENIED"), "the call to be denied")
}
