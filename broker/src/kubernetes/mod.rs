//! The cluster's API server, behind the seams that the rest of the broker asks by.
//!
//! - [`client`]: how it is reached, and as whom.
//! - [`view`] keeps what matters of its pods, Services, namespaces and nodes ([`kept`], [`mirror`]);
//!   [`watching`] tells it of them. [`asking`] asks directly for what no watch has confirmed.
//! - [`source`] answers from these as a [`crate::pods::PodSource`], [`witness`] as
//!   [`crate::session::witness::Witnesses`].
//! - [`probe`] finds out whether the cluster keeps its nodes apart.
//! - [`events`]: notices to pods' owners.
//! - [`tokens`]: which node an agent's token proves.
//!
//! Everything here is an adapter: what a decision needs is turned into the types of the seam
//! ([`crate::pods`], [`crate::session::witness`]) at this border. The API server is believed in
//! what it says of the cluster's objects, and in nothing else.

mod absence;
pub mod asking;
pub mod client;
pub mod events;
pub mod kept;
pub mod mirror;
pub mod probe;
pub mod source;
pub mod tokens;
pub mod view;
pub mod watching;
pub mod witness;
