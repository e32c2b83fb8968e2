//! Runs krb-broker on real parts.

pub mod adapters;
pub mod bench;
pub mod cluster;
pub mod demo;
pub mod fuzz;
pub mod handshakes;
pub mod kube_api;
pub mod realm;
pub mod simulate;
pub mod torture;
pub mod world;
