//! Generates the messages from `proto/`, without protoc.

use std::{env, path::PathBuf};

use prost::Message;

const BROKER: [&str; 8] = [
    "krb/broker/v1/types.proto",
    "krb/broker/v1/node.proto",
    "krb/broker/v1/revocation.proto",
    "krb/broker/v1/lease.proto",
    "krb/broker/v1/principal.proto",
    "krb/broker/v1/namespace.proto",
    "krb/broker/v1/node_admin.proto",
    "krb/broker/v1/status.proto",
];
const AGENT: [&str; 1] = ["krb/agent/v1/driver.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    prost_build::Config::new().compile_fds(protox::compile(AGENT, ["proto"])?)?;

    if env::var_os("CARGO_FEATURE_GRPC").is_some() {
        let broker = protox::compile(BROKER, ["proto"])?;
        std::fs::write(out.join("broker.bin"), broker.encode_to_vec())?;
        // Messages with key material print nothing of it: their Debug is written by hand.
        let mut prost = prost_build::Config::new();
        prost.skip_debug([".krb.broker.v1.Keytab", ".krb.broker.v1.Ticket"]);
        tonic_prost_build::configure().compile_fds_with_config(broker, prost)?;
    }
    Ok(())
}
