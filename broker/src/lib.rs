//! The broker: alone holds KDC access, issues keytabs and tickets as leases, and replaces
//! the keys that a dead node held.
//!
//! ```text
//!  api ──> use cases (issuing, syncing, keys::walker, tickets, session::watch)
//!              │                    │
//!              ▼                    ▼
//!   pure decisions               seams: kdc, store, pods, audit
//!   entitlement, lease,          (adapters: kdc::mit, store::sled, pods::file)
//!   session, keys, ledger
//! ```
//!
//! - [`entitlement`] decides what a pod may have: one pure function.
//! - [`ledger`] is the working set: leases, sessions, principals. It decides what a commit
//!   holds; it does no I/O and reads no clock.
//! - [`keys`] walks a principal from one key to the next without losing a holder.
//! - [`kdc`] is the way to the realm: every request passes [`kdc::gate`].
//! - [`krb5`] speaks Kerberos; `kerberos_asn1` stays inside its `messages` module.
//! - [`store`] keeps what must survive, sealed; one committer makes a round of records and
//!   audit lines durable at once.
//! - [`api`] turns requests into use cases and failures into codes.
//!
//! Only [`run`] names concrete adapters.

pub mod admission;
pub mod api;
pub mod audit;
pub mod clock;
pub mod config;
pub mod entitlement;
pub mod issue;
pub mod kdc;
pub mod keys;
pub mod krb5;
pub mod lease;
pub mod ledger;
pub mod material;
pub mod pods;
pub mod session;
pub mod store;
pub mod tickets;
pub mod yaml;
