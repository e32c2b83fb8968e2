//! What a key is used for.

/// A key usage (RFC 4120 7.5.1): what is encrypted for one is noise to any other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Usage(u32);

impl Usage {
    /// 1: the timestamp of PA-ENC-TIMESTAMP, with the client's key.
    pub const PA_ENC_TIMESTAMP: Self = Self(1);
    /// 2: the encrypted part of a ticket, with the server's key.
    pub const TICKET: Self = Self(2);
    /// 3: the encrypted part of an AS-REP, with the client's key.
    pub const AS_REP: Self = Self(3);
    /// 6: the checksum of a TGS-REQ's body, with the session key.
    pub const TGS_REQ_CHECKSUM: Self = Self(6);
    /// 7: the authenticator of a TGS-REQ, with the session key.
    pub const TGS_REQ_AUTHENTICATOR: Self = Self(7);
    /// 8: the encrypted part of a TGS-REP, with the session key.
    pub const TGS_REP_SESSION_KEY: Self = Self(8);
    /// 9: the encrypted part of a TGS-REP, with the authenticator's subkey.
    pub const TGS_REP_SUBKEY: Self = Self(9);

    /// Any other usage.
    pub const fn other(number: u32) -> Self {
        Self(number)
    }

    /// The constant that a key of this usage and purpose is derived with.
    pub(super) fn label(self, purpose: Purpose) -> [u8; 5] {
        let [a, b, c, d] = self.0.to_be_bytes();
        [a, b, c, d, purpose as u8]
    }
}

/// Which of a usage's three keys is meant (RFC 3961 5.3).
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    /// Kc, for checksums alone.
    Checksum = 0x99,
    /// Ke, for encryption.
    Encryption = 0xaa,
    /// Ki, for the mac beside it.
    Integrity = 0x55,
}
