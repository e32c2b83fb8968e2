//! Credential caches: the file that holds a pod's tickets (FILE ccache, version 4).
//!
//! Nothing but the default principal and the credentials is written: no header fields, no
//! configuration entries, no addresses. libkrb5 appends what it fetches itself.

use std::time::SystemTime;

use krb_proto::{Principal, Secret};

use super::key::Key;
use crate::clock::unix_seconds;

/// The version, and the length of a header with no fields.
const HEADER: [u8; 4] = [5, 4, 0, 0];

/// NT-PRINCIPAL.
const NT_PRINCIPAL: u32 = 1;

/// NT-SRV-INST: `krbtgt`.
const NT_SRV_INST: u32 = 2;

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

/// The bytes of a credential cache, whose default principal is `default`.
pub fn write(default: &Principal, credentials: &[&Credential]) -> Secret {
    let size: usize = credentials.iter().map(|credential| credential_size(credential)).sum();
    // All of it is reserved beforehand: a vector that grows leaves copies of keys behind.
    let mut file = Vec::with_capacity(HEADER.len() + principal_size(default) + size);
    file.extend_from_slice(&HEADER);
    write_principal(&mut file, default);
    for credential in credentials {
        write_credential(&mut file, credential);
    }
    Secret::new(file)
}

fn principal_size(principal: &Principal) -> usize {
    let components = principal.components();
    let names: usize = components.iter().map(|component| 4 + component.len()).sum();
    4 + 4 + 4 + principal.realm().as_str().len() + names
}

fn credential_size(credential: &Credential) -> usize {
    let names = principal_size(&credential.client) + principal_size(&credential.server);
    let key = 2 + 4 + credential.session_key.contents().len();
    let (times, session, flags, lists) = (16, 1, 4, 8);
    names + key + times + session + flags + lists + 4 + credential.ticket.len() + 4
}

fn write_principal(file: &mut Vec<u8>, principal: &Principal) {
    let krbtgt = principal.primary() == "krbtgt";
    let name_type = if krbtgt { NT_SRV_INST } else { NT_PRINCIPAL };
    file.extend_from_slice(&name_type.to_be_bytes());
    file.extend_from_slice(&count(principal.components().len()));
    write_counted(file, principal.realm().as_str().as_bytes());
    for component in principal.components() {
        write_counted(file, component.as_bytes());
    }
}

fn write_credential(file: &mut Vec<u8>, credential: &Credential) {
    write_principal(file, &credential.client);
    write_principal(file, &credential.server);
    let enctype = credential.session_key.enctype().number();
    let enctype = u16::try_from(enctype).expect("it is 17 to 20");
    file.extend_from_slice(&enctype.to_be_bytes());
    write_counted(file, credential.session_key.contents().expose());
    for time in [credential.authtime, credential.starttime, credential.endtime] {
        file.extend_from_slice(&seconds(Some(time)));
    }
    file.extend_from_slice(&seconds(credential.renew_till));
    file.push(0); // not encrypted in a session key of another ticket
    file.extend_from_slice(&credential.flags.to_be_bytes());
    file.extend_from_slice(&[0; 8]); // no addresses, no authorization data
    write_counted(file, &credential.ticket);
    file.extend_from_slice(&[0; 4]); // no second ticket
}

fn write_counted(file: &mut Vec<u8>, bytes: &[u8]) {
    file.extend_from_slice(&count(bytes.len()));
    file.extend_from_slice(bytes);
}

/// A message is at most 256 KiB and a name 512 bytes: every count fits.
fn count(count: usize) -> [u8; 4] {
    u32::try_from(count).expect("a ticket is short").to_be_bytes()
}

/// Seconds since 1970 in 32 bits, zero for no time; later than 2106 is 2106.
fn seconds(at: Option<SystemTime>) -> [u8; 4] {
    let seconds = at.map_or(0, unix_seconds);
    u32::try_from(seconds).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests;
