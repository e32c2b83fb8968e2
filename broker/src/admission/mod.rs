//! From annotations to an immutable spec: before a pod exists, its ask is checked as far as
//! it can be and copied into the options of a volume, which cannot change afterwards.
//!
//! - [`inject`]: the pure function; the webhook and `krb-broker inject` call it.
//! - [`command`]: `krb-broker inject` and `krb-broker acl`.
//! - [`run`]: the webhook, `krb-broker admission`, a program without key, store or KDC.
//! - [`mutate`] and [`validate`]: its two pure decisions, on what [`review`] reads; a
//!   [`refusal`] is what the person who applies a pod is told.
//! - [`callers`]: who may ask it.
//! - [`server`], `connections`, [`serving`]: requests, connections and the certificate, each
//!   bounded; [`self_made`] is a certificate that the replicas make themselves.
//!
//! Nothing here gives authority: the broker decides again, from its own copy of the spec.

mod ask;
pub mod callers;
pub mod command;
mod connections;
pub mod inject;
pub mod mutate;
pub mod refusal;
pub mod review;
pub mod run;
pub mod self_made;
pub mod server;
pub mod serving;
#[cfg(test)]
mod tests;
pub mod validate;
mod volume;
