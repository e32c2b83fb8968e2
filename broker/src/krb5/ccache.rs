//! Credential caches: the file that holds a pod's tickets (FILE ccache, version 4).

use std::time::SystemTime;

use krb_proto::Principal;

use super::key::Key;

/// A ticket with its session key: one entry of a credential cache.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Whose ticket it is.
    pub client: Principal,
    /// For which service.
    pub server: Principal,
    /// Shared by the client and the server of the ticket.
    pub session_key: Key,
    /// When the client proved who it is.
    pub authtime: SystemTime,
    /// From when the ticket is good.
    pub starttime: SystemTime,
    /// Until when.
    pub endtime: SystemTime,
    /// Until when it can be renewed; `None` for a ticket that can't be.
    pub renew_till: Option<SystemTime>,
    /// TicketFlags (RFC 4120 5.3), bit 0 the most significant.
    pub flags: u32,
    /// The ticket, DER.
    pub ticket: Vec<u8>,
}
