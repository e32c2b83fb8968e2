//! What the parts of krb-broker say to each other, and the words they share.
//!
//! - [`v1`]: the broker's gRPC API, `krb.broker.v1` (feature `grpc`).
//! - [`driver`]: what the flexvolume driver says to the node's agent, over a unix socket.
//! - [`principal`], [`node`], [`pod`], [`lease`], [`kvno`]: names that have been checked.
//!   Below the API and the command line nothing takes a principal as a string.
//! - [`secret`]: the type that holds key material.
//!
//! This crate is the leaf: it knows no other part, opens nothing, and does no I/O but
//! the framing in [`driver`].

pub mod driver;
pub mod kvno;
pub mod lease;
pub mod node;
pub mod pod;
pub mod principal;
pub mod reason;
pub mod secret;
pub mod text;

#[cfg(feature = "grpc")]
mod time;

/// The broker's API, generated from `proto/krb/broker/v1`.
#[cfg(feature = "grpc")]
#[allow(missing_docs, unused_qualifications, clippy::all)]
pub mod v1 {
    tonic::include_proto!("krb.broker.v1");

    /// The descriptors of the package, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/broker.bin"));
}

#[cfg(feature = "grpc")]
mod redacted;

#[cfg(feature = "grpc")]
pub use time::{duration, span, timestamp};

pub use kvno::Kvno;
pub use lease::LeaseId;
pub use node::{Generation, NodeName, NodeRef};
pub use pod::{Namespace, PodRef, PodUid, VolumeName};
pub use principal::{Principal, Realm};
pub use secret::Secret;
