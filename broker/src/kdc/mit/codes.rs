//! What kadm5's and libkrb5's error codes mean to the broker (`kadm5/kadm_err.h`, `krb5.h`).

use krb_proto::Principal;

use super::ffi::Kadm5Error;
use crate::kdc::KdcError;

const BASE: i64 = 43_787_520;

/// `KADM5_FAILURE`: nothing more is said.
pub(super) const FAILURE: i64 = BASE;
/// `KADM5_AUTH_GET`
pub(super) const AUTH_GET: i64 = BASE + 1;
/// `KADM5_AUTH_ADD`
pub(super) const AUTH_ADD: i64 = BASE + 2;
/// `KADM5_AUTH_MODIFY`
pub(super) const AUTH_MODIFY: i64 = BASE + 3;
/// `KADM5_DUP`: the principal exists.
pub(super) const DUP: i64 = BASE + 7;
/// `KADM5_RPC_ERROR`: kadmind is away, or was restarted since the handle was opened.
pub(super) const RPC_ERROR: i64 = BASE + 8;
/// `KADM5_NO_SRV`: nothing listens at the address.
pub(super) const NO_SRV: i64 = BASE + 9;
/// `KADM5_UNK_PRINC`
pub(super) const UNK_PRINC: i64 = BASE + 12;
/// `KADM5_UNK_POLICY`
pub(super) const UNK_POLICY: i64 = BASE + 13;
/// `KADM5_GSS_ERROR`: the handle's security context is no longer good (or never was).
pub(super) const GSS_ERROR: i64 = BASE + 46;
/// `KADM5_AUTH_SETKEY`
pub(super) const AUTH_SETKEY: i64 = BASE + 50;
/// `KADM5_CANT_RESOLVE`: kadmind's host name has no address now.
pub(super) const CANT_RESOLVE: i64 = BASE + 56;
/// `KADM5_SETKEY_BAD_KVNO`
pub(super) const BAD_KVNO: i64 = BASE + 59;
/// `KRB5_KDC_UNREACH`
const KDC_UNREACH: i64 = -1_765_328_228;
/// `KRB5_REALM_CANT_RESOLVE`
const REALM_CANT_RESOLVE: i64 = -1_765_328_164;

/// Whether a handle that answered so is of no more use: it must be opened anew.
pub(super) fn ends_the_handle(code: i64) -> bool {
    matches!(code, RPC_ERROR | GSS_ERROR)
}

/// Whether the same may succeed later with nobody's help.
pub(super) fn is_transient(code: i64) -> bool {
    matches!(code, RPC_ERROR | NO_SRV | CANT_RESOLVE | KDC_UNREACH | REALM_CANT_RESOLVE)
}

/// Whether kadmind refused the right to do it.
fn is_denial(code: i64) -> bool {
    let other_rights = BASE + 4..=BASE + 5; // delete; insufficient
    matches!(code, AUTH_GET | AUTH_ADD | AUTH_MODIFY | AUTH_SETKEY) || other_rights.contains(&code)
}

/// The error of the seam for what kadmind at `server` said when `operation` was tried.
pub(super) fn kdc_error(
    error: &Kadm5Error,
    server: &str,
    operation: &'static str,
    principal: &Principal,
) -> KdcError {
    let (principal, detail) = (principal.clone(), error.to_string());
    match error.code {
        UNK_PRINC => KdcError::Unknown { principal },
        code if is_transient(code) => {
            KdcError::Unavailable { server: server.to_owned(), principal, detail }
        }
        code if is_denial(code) => KdcError::Denied { operation, principal, detail },
        _ => KdcError::Failed { operation, principal, detail },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kadmind_says_becomes_the_error_that_the_walk_acts_on() {
        let principal: Principal = "HTTP/web@R".parse().unwrap();
        let seen = |code| {
            let error = Kadm5Error { code, message: String::new() };
            kdc_error(&error, "kadmin:a:749", "modify", &principal)
        };
        assert!(matches!(seen(43_787_532), KdcError::Unknown { .. }));
        assert!(seen(43_787_528).is_transient());
        assert!(seen(KDC_UNREACH).is_transient());
        for denied in [43_787_521, 43_787_522, 43_787_523, 43_787_524, 43_787_570] {
            assert!(matches!(seen(denied), KdcError::Denied { operation: "modify", .. }));
        }
        assert!(matches!(seen(43_787_520), KdcError::Failed { .. }));
    }
}
