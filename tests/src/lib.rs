//! Runs krb-broker on real parts.

pub mod realm;
