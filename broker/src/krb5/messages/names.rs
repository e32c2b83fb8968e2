//! Names and times, between our types and those of the wire.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kerberos_asn1::{KerberosTime, PrincipalName};
use krb_proto::{Principal, text};

/// NT-PRINCIPAL.
const NT_PRINCIPAL: i32 = 1;

/// NT-SRV-INST: `krbtgt`.
const NT_SRV_INST: i32 = 2;

/// A name as a message has it: any strings at all. It can only be compared and shown.
#[derive(Clone, Eq, PartialEq)]
pub struct Name {
    components: Vec<String>,
    realm: String,
}

impl Name {
    /// Whether it is exactly that principal. The name type says nothing (RFC 4120 6.2), case
    /// does.
    pub fn is(&self, principal: &Principal) -> bool {
        self.realm == principal.realm().as_str() && self.components == principal.components()
    }

    pub(super) fn new(realm: String, name: PrincipalName) -> Self {
        Self { components: name.name_string, realm }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.components.join("/");
        write!(f, "{}@{}", text::shown(&name), text::shown(&self.realm))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

pub(super) fn principal_name(principal: &Principal) -> PrincipalName {
    let krbtgt = principal.primary() == "krbtgt";
    PrincipalName {
        name_type: if krbtgt { NT_SRV_INST } else { NT_PRINCIPAL },
        name_string: principal.components().to_vec(),
    }
}

/// Whole seconds, as Kerberos writes times.
pub(super) fn kerberos_time(at: SystemTime) -> KerberosTime {
    let mut time = KerberosTime::default();
    time.time.time = at.into();
    time
}

/// A time read from a message. The fence lets years 0 to 9999 pass.
pub(super) fn system_time(time: &KerberosTime) -> SystemTime {
    let seconds = time.timestamp();
    let span = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { UNIX_EPOCH - span } else { UNIX_EPOCH + span }
}
