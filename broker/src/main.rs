//! The `krb-broker` command.

fn main() {}
