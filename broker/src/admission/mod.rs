//! From annotations to an immutable spec: before a pod exists, its ask is checked as far as
//! it can be and copied into the options of a volume, which cannot change afterwards.
//!
//! - [`inject`]: the pure function; a webhook and `krb-broker inject` call it.
//! - [`command`]: `krb-broker inject` and `krb-broker acl`.
//!
//! Nothing here gives authority: the broker decides again, from its own copy of the spec.

mod ask;
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
