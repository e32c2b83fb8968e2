//! The audit log on real disks that fill up, and in the hands of somebody who edits it.

mod disk;
mod forged;

use std::process::Command;

use krb_proto::v1;
use krb_tests::world::{World, WorldError, api::Api, programs::program};

type Story = Result<(), Box<dyn std::error::Error>>;

/// What the broker says of its audit log.
async fn status(api: &Api) -> Result<v1::AuditStatus, Box<dyn std::error::Error>> {
    let status = api.status().get_status(v1::GetStatusRequest {}).await?.into_inner();
    Ok(status.audit.ok_or("the status has no audit log")?)
}

/// Runs `krb-broker audit verify` with the world's configuration: what it prints, and whether
/// the chain holds.
fn verify(world: &World, more: &[&str]) -> Result<(String, bool), WorldError> {
    let mut command = Command::new(program("krb-broker")?);
    command.args(["audit", "verify", "--config"]).arg(world.broker.config()).args(more);
    let output = command.output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((String::from_utf8_lossy(&said).into_owned(), output.status.success()))
}
