//! The cluster's API server, behind the seams that the rest of the broker asks by.
//!
//! - [`client`]: how it is reached, and as whom.
//! - [`tokens`]: which node an agent's token proves.
//!
//! Everything here is an adapter: what a decision needs is turned into the types of the seam
//! ([`crate::pods`], [`crate::session::witness`]) at this border. The API server is believed in
//! what it says of the cluster's objects, and in nothing else.

pub mod client;
pub mod tokens;
