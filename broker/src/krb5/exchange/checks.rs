//! What a reply must be before it is believed (RFC 4120 3.1.5, 3.3.4).

use std::time::{Duration, SystemTime};

use krb_proto::Principal;

use super::TicketOptions;
use crate::krb5::key::{Enctype, Key};
use crate::krb5::messages::{EncKdcReplyPart, KdcReply, Name};

/// TicketFlags (RFC 4120 5.3), bit 0 the most significant.
pub mod flags {
    /// May be sent on.
    pub const FORWARDABLE: u32 = 1 << 30;
    /// Was sent on.
    pub const FORWARDED: u32 = 1 << 29;
    /// May be used from other addresses.
    pub const PROXIABLE: u32 = 1 << 28;
    /// Is used from other addresses.
    pub const PROXY: u32 = 1 << 27;
    /// May be the source of a postdated ticket.
    pub const MAY_POSTDATE: u32 = 1 << 26;
    /// Is postdated.
    pub const POSTDATED: u32 = 1 << 25;
    /// Is not good before it is validated.
    pub const INVALID: u32 = 1 << 24;
    /// May be renewed.
    pub const RENEWABLE: u32 = 1 << 23;
    /// Came from an AS exchange.
    pub const INITIAL: u32 = 1 << 22;
    /// The client proved that it has its key before it got the ticket.
    pub const PRE_AUTHENT: u32 = 1 << 21;

    /// What is only there when it was asked for, and never asked for here or by options.
    pub(super) const NEVER_UNASKED: u32 = FORWARDABLE
        | FORWARDED
        | PROXIABLE
        | PROXY
        | MAY_POSTDATE
        | POSTDATED
        | INVALID
        | RENEWABLE;
}

/// A reply that does not answer the request: what was expected, and what came.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CheckError {
    /// Encrypted with a key of an enctype that was not asked for.
    #[error("it is encrypted with enctype {came}, asked were {asked:?}")]
    Enctype {
        /// In the request.
        asked: Vec<Enctype>,
        /// In the reply.
        came: i32,
    },
    /// Not encrypted with the key it should be: forged, or the key is another one.
    #[error("it does not decrypt with the {enctype} key")]
    Undecryptable {
        /// The enctype of that key.
        enctype: Enctype,
    },
    /// For another client.
    #[error("it is for the client {came}, not {asked}")]
    Client {
        /// In the request.
        asked: Principal,
        /// In the reply.
        came: Name,
    },
    /// For another server, by its encrypted part.
    #[error("it is for the server {came}, not {asked}")]
    Server {
        /// In the request.
        asked: Principal,
        /// In the reply.
        came: Name,
    },
    /// The ticket is for another server, by its own word.
    #[error("its ticket is for the server {came}, not {asked}")]
    TicketServer {
        /// In the request.
        asked: Principal,
        /// In the ticket.
        came: Name,
    },
    /// The answer to another request.
    #[error("it has the nonce {came}, not {asked}")]
    Nonce {
        /// In the request.
        asked: u32,
        /// In the reply.
        came: u32,
    },
    /// A session key of an enctype that was not asked for, or of a wrong length.
    #[error("its session key has enctype {came}, asked were {asked:?}")]
    SessionKey {
        /// In the request.
        asked: Vec<Enctype>,
        /// In the reply.
        came: i32,
    },
    /// The client proved itself at a time that is not now, or for a service ticket in the
    /// future.
    #[error("its authtime is {came:?}, now is {now:?}")]
    Authtime {
        /// The KDC's time, as far as it is known.
        now: SystemTime,
        /// In the reply.
        came: SystemTime,
    },
    /// It starts at a time that is not now.
    #[error("its starttime is {came:?}, now is {now:?}")]
    Starttime {
        /// The KDC's time, as far as it is known.
        now: SystemTime,
        /// In the reply.
        came: SystemTime,
    },
    /// It has ended already.
    #[error("its endtime is {came:?}, now is {now:?}")]
    Ended {
        /// The KDC's time, as far as it is known.
        now: SystemTime,
        /// In the reply.
        came: SystemTime,
    },
    /// It ends later than was asked for.
    #[error("its endtime is {came:?}, asked was {asked:?}")]
    Endtime {
        /// In the request.
        asked: SystemTime,
        /// In the reply.
        came: SystemTime,
    },
    /// It can be renewed for longer than was asked for, or though it was not asked for.
    #[error("its renew_till is {came:?}, asked was {asked:?}")]
    RenewTill {
        /// In the request.
        asked: Option<SystemTime>,
        /// In the reply.
        came: Option<SystemTime>,
    },
    /// Flags that were not asked for.
    #[error("it has the flags {came:#010x}, of which {unasked:#010x} were not asked for")]
    UnaskedFlags {
        /// Those that should not be.
        unasked: u32,
        /// In the reply.
        came: u32,
    },
    /// Flags that should be there.
    #[error("it has the flags {came:#010x}, without {missing:#010x}")]
    MissingFlags {
        /// Those that should be.
        missing: u32,
        /// In the reply.
        came: u32,
    },
    /// Good from some addresses only.
    #[error("its ticket is bound to addresses, none were asked for")]
    Addresses,
}

/// What a request asked for, to hold its reply against.
pub(super) struct Expected<'a> {
    pub(super) client: &'a Principal,
    pub(super) server: &'a Principal,
    pub(super) nonce: u32,
    pub(super) enctypes: &'a [Enctype],
    pub(super) options: TicketOptions,
    pub(super) till: SystemTime,
    pub(super) rtime: Option<SystemTime>,
    /// The KDC's time, as far as it is known.
    pub(super) now: SystemTime,
    pub(super) clock_skew: Duration,
    /// Whether it is an AS-REP to a request with preauthentication.
    pub(super) initial: bool,
}

impl Expected<'_> {
    /// Checks what is readable without a key.
    pub(super) fn check_outside(&self, reply: &KdcReply) -> Result<(), CheckError> {
        if !reply.client.is(self.client) {
            let (asked, came) = (self.client.clone(), reply.client.clone());
            return Err(CheckError::Client { asked, came });
        }
        if !reply.ticket.server.is(self.server) {
            let (asked, came) = (self.server.clone(), reply.ticket.server.clone());
            return Err(CheckError::TicketServer { asked, came });
        }
        Ok(())
    }

    /// Checks the decrypted part; gives the session key.
    pub(super) fn check_inside(&self, part: &EncKdcReplyPart) -> Result<Key, CheckError> {
        if part.nonce != self.nonce {
            return Err(CheckError::Nonce { asked: self.nonce, came: part.nonce });
        }
        if !part.server.is(self.server) {
            let (asked, came) = (self.server.clone(), part.server.clone());
            return Err(CheckError::Server { asked, came });
        }
        if part.has_addresses {
            return Err(CheckError::Addresses);
        }
        self.check_start(part)?;
        self.check_end(part)?;
        self.check_flags(part)?;
        self.session_key(part)
    }

    fn session_key(&self, part: &EncKdcReplyPart) -> Result<Key, CheckError> {
        let came = part.session_key.enctype;
        let asked = self.enctypes.iter().find(|enctype| enctype.number() == came);
        asked
            .and_then(|asked| Key::new(*asked, part.session_key.contents.clone()).ok())
            .ok_or_else(|| CheckError::SessionKey { asked: self.enctypes.to_vec(), came })
    }

    fn check_start(&self, part: &EncKdcReplyPart) -> Result<(), CheckError> {
        let (now, came) = (self.now, part.authtime);
        let good = if self.initial { self.is_now(came) } else { came <= now + self.clock_skew };
        if !good {
            return Err(CheckError::Authtime { now, came });
        }
        let came = part.starttime.unwrap_or(part.authtime);
        if part.starttime.is_some() && !self.is_now(came) {
            return Err(CheckError::Starttime { now, came });
        }
        Ok(())
    }

    fn check_end(&self, part: &EncKdcReplyPart) -> Result<(), CheckError> {
        let (now, came) = (self.now, part.endtime);
        if came <= now || Some(came) <= part.starttime {
            return Err(CheckError::Ended { now, came });
        }
        if came > self.till {
            return Err(CheckError::Endtime { asked: self.till, came });
        }
        let (asked, came) = (self.rtime, part.renew_till);
        if came.is_some() && came > asked {
            return Err(CheckError::RenewTill { asked, came });
        }
        Ok(())
    }

    fn check_flags(&self, part: &EncKdcReplyPart) -> Result<(), CheckError> {
        let came = part.flags;
        let initial = if self.initial { 0 } else { flags::INITIAL };
        let unasked = came & (flags::NEVER_UNASKED | initial) & !self.options.bits();
        if unasked != 0 {
            return Err(CheckError::UnaskedFlags { unasked, came });
        }
        let wanted = if self.initial { flags::INITIAL | flags::PRE_AUTHENT } else { 0 };
        let missing = wanted & !came;
        if missing != 0 {
            return Err(CheckError::MissingFlags { missing, came });
        }
        Ok(())
    }

    fn is_now(&self, at: SystemTime) -> bool {
        let off = at.duration_since(self.now).unwrap_or_else(|before| before.duration());
        off <= self.clock_skew
    }
}
