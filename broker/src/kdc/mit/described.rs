//! What the seam's words about a principal are in kadm5's: bits, seconds, expirations. Pure.

use std::time::Duration;

use krb_proto::{Kvno, Principal};

use super::{
    admin::failed,
    ffi::{Change, Entry},
};
use crate::kdc::{Attributes, KdcError, PrincipalRole, PrincipalState};

/// `KRB5_KDB_DISALLOW_ALL_TIX`
const DISALLOW_ALL_TIX: i32 = 0x40;
/// `KRB5_KDB_REQUIRES_PRE_AUTH`: of a service, asks its clients for preauthenticated tickets; of
/// a client, asks it to preauthenticate.
const REQUIRES_PRE_AUTH: i32 = 0x80;
/// `KRB5_KDB_DISALLOW_SVR`
const DISALLOW_SVR: i32 = 0x1000;
/// The bits that a principal's role decides.
const ROLE_BITS: i32 = REQUIRES_PRE_AUTH | DISALLOW_SVR;
/// A moment long past, and not 0, which would be never.
const LONG_AGO: u32 = 1;

/// What the attributes are in kadm5's terms, the other bits as they are.
pub(super) fn wanted(attributes: &Attributes, bits: i32) -> Change {
    Change {
        policy: None,
        max_life: seconds(attributes.max_life),
        max_renewable_life: 0,
        pw_expiration: if attributes.is_client() { 0 } else { LONG_AGO },
        attributes: bits & !ROLE_BITS | role_bits(attributes.role),
    }
}

fn role_bits(role: PrincipalRole) -> i32 {
    match role {
        PrincipalRole::Service => 0,
        PrincipalRole::RoleAccount => ROLE_BITS,
    }
}

pub(super) fn is_disabled(entry: &Entry) -> bool {
    entry.attributes & DISALLOW_ALL_TIX != 0
}

/// The principal as it is, but for that one bit.
pub(super) fn as_disabled(entry: &Entry, disabled: bool) -> Change {
    let bit = if disabled { DISALLOW_ALL_TIX } else { 0 };
    Change {
        policy: None,
        max_life: entry.max_life,
        max_renewable_life: entry.max_renewable_life,
        pw_expiration: entry.pw_expiration,
        attributes: entry.attributes & !DISALLOW_ALL_TIX | bit,
    }
}

pub(super) fn is_like(entry: &Entry, change: &Change) -> bool {
    entry.max_life == change.max_life
        && entry.max_renewable_life == change.max_renewable_life
        && entry.pw_expiration == change.pw_expiration
        && entry.attributes & ROLE_BITS == change.attributes & ROLE_BITS
}

/// Fails unless what was read back is what was set.
pub(super) fn verify_attributes(
    principal: &Principal,
    entry: &Entry,
    attributes: &Attributes,
) -> Result<(), KdcError> {
    let change = wanted(attributes, entry.attributes);
    if is_like(entry, &change) {
        return Ok(());
    }
    let detail = format!(
        "kadmind has max_life {} s, max_renewable_life {} s, password expiration {}, attributes \
         {:#x} where {} s, 0 s, {} and of {:#x} these were set: {:#x} (does the ACL restrict them?)",
        entry.max_life,
        entry.max_renewable_life,
        entry.pw_expiration,
        entry.attributes,
        change.max_life,
        change.pw_expiration,
        ROLE_BITS,
        change.attributes & ROLE_BITS,
    );
    Err(failed("reading back", principal, detail))
}

pub(super) fn state(entry: &Entry, now: u64) -> PrincipalState {
    let has = |bit| entry.attributes & bit != 0;
    let life = |seconds: i32| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    PrincipalState {
        kvno: (entry.kvno != 0).then_some(Kvno(entry.kvno)),
        policy: entry.policy.clone(),
        max_life: life(entry.max_life),
        max_renewable_life: life(entry.max_renewable_life),
        password_expired: entry.pw_expiration != 0 && u64::from(entry.pw_expiration) <= now,
        disabled: is_disabled(entry),
        requires_preauth: has(REQUIRES_PRE_AUTH),
        allows_svr: !has(DISALLOW_SVR),
    }
}

/// Whole seconds, as kadm5 keeps spans.
fn seconds(span: Duration) -> i32 {
    i32::try_from(span.as_secs()).unwrap_or(i32::MAX)
}
