//! HMAC over parts, so that nothing has to be joined first.

use hmac::{EagerHash, Hmac, KeyInit, Mac};
use krb_proto::Secret;

/// The first `length` bytes of the HMAC of `parts` under `key`.
pub(super) fn hmac<D: EagerHash>(key: &[u8], parts: &[&[u8]], length: usize) -> Vec<u8> {
    let mut mac = Hmac::<D>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes()[..length].to_vec()
}

/// The same where the result is a key.
pub(super) fn derive<D: EagerHash>(key: &[u8], parts: &[&[u8]], length: usize) -> Secret {
    Secret::new(hmac::<D>(key, parts, length))
}
