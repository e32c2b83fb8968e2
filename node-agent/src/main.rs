//! The `krb-node-agent` command.

fn main() {}
