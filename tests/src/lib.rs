//! Runs krb-broker on real parts.

pub mod adapters;
pub mod realm;
