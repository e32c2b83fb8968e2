//! Runs krb-broker on real parts.

pub mod adapters;
pub mod cluster;
pub mod fuzz;
pub mod realm;
pub mod world;
