//! The steps of a good day: what a pod finds, what it does with it, and who can see that.

use super::{
    exchange,
    screen::Screen,
    stage::{DOOMED, SURVIVOR, Stage, expect, succeeded},
};
use crate::world::WorldError;

/// The columns of the table that fit the screen.
const COLUMNS: &str = "state,node,pod,keytab,exposed-until";

/// The files, as the container sees them.
pub fn files(screen: &mut Screen, stage: &Stage) -> Result<(), WorldError> {
    screen.step(
        "What the container finds",
        "As the pod's own user, in a mount namespace like the container's. The keytab is its user's alone and can't \
         be written; the directories are root's, so nobody in the pod can swap a file.",
    )?;
    stage.show(screen, DOOMED, "id -u")?;
    stage.show(screen, DOOMED, "cd /var/spool && ls -ln tickets keytabs")?;
    stage.show(screen, DOOMED, "env | grep ^KRB5 | sort").map(drop)
}

/// MIT's own tools read the files.
pub fn klist(screen: &mut Screen, stage: &Stage) -> Result<(), WorldError> {
    screen.step(
        "MIT's klist reads them",
        "No wrapper and no library of ours: any Kerberos program finds its files through the environment.",
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
        "web-0 serves with its mounted keytab, web-1 asks with its mounted ticket: MIT's GSSAPI samples, unchanged.",
    )?;
    exchange::run(screen, stage, DOOMED, SURVIVOR)
}

/// Who holds what, as any gRPC client can see it.
pub fn leases(screen: &mut Screen, stage: &Stage) -> Result<(), WorldError> {
    screen.step(
        "The operator asks who holds what",
        "With Python's stock gRPC client, which learns the API from the broker itself (reflection), as grpcurl does.",
    )?;
    let table = list(screen, stage)?;
    expect(table.contains("2 leases"), "two leases")?;
    screen.seen("kvno 2 is the key's number. `open`: the key is in use, so there is no end of what it can do yet.")
}

/// Shows the services and the leases.
pub fn list(screen: &mut Screen, stage: &Stage) -> Result<String, WorldError> {
    screen.command(&format!("leases.py --cert operator.crt ... list --columns {COLUMNS}"))?;
    let output = stage.python("operator", &["list", "--columns", COLUMNS])?;
    let text = succeeded("leases.py list", &output)?;
    screen.output(&text)?;
    Ok(text)
}

/// A node is told nothing.
pub fn refused(screen: &mut Screen, stage: &Stage) -> Result<(), WorldError> {
    screen.step(
        "A node asks the same",
        "The same call with the certificate of node-a: a node that is taken over learns nothing about the others.",
    )?;
    screen.command("leases.py --cert node-a.crt ... call krb.broker.v1.LeaseService/ListLeases")?;
    let call = ["call", "krb.broker.v1.LeaseService/ListLeases"];
    let output = stage.python("node-node-a", &call)?;
    screen.output(&output.stderr)?;
    let said = String::from_utf8_lossy(&output.stderr);
    expect(!output.status.success() && said.contains("PERMISSION_DENIED"), "the call to be denied")
}
