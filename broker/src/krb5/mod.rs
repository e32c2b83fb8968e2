//! Kerberos on the wire and in files (RFC 4120, 3961, 3962, 8009).
//!
//! - [`key`]: enctypes, keys, keysets. - [`crypto`]: what the enctypes do.
//! - [`messages`]: the only user of `kerberos_asn1`, behind a fence that no input gets past.
//! - [`exchange`]: the AS and TGS exchanges and every check of their replies.
//! - [`transport`]: one request to one KDC, UDP then TCP.
//! - [`keytab`], [`ccache`]: the files that pods read.
//!
//! Nothing here knows of leases, gates or configuration.

pub mod ccache;
pub mod crypto;
pub mod exchange;
pub mod key;
pub mod keytab;
pub mod messages;
pub mod transport;
