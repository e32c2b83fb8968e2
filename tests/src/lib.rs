//! Runs krb-broker on real parts.

pub mod fuzz;
pub mod realm;
