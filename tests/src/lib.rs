//! Runs krb-broker on real parts.

pub mod adapters;
pub mod realm;
pub mod world;
