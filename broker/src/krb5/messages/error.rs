//! KRB-ERROR (RFC 4120 5.9.1): nothing in it is authenticated.

use std::time::{Duration, SystemTime};

use kerberos_asn1 as asn1;
use krb_proto::text;

use super::{Malformed, expect_value, names, parse as parse_der};

const WHAT: &str = "KRB-ERROR";

/// What a KDC answers instead of a reply, or what somebody else says it does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KrbError {
    /// Why (RFC 4120 7.5.9); [`error_name`] says it in words.
    pub code: i32,
    /// The KDC's clock, to a microsecond.
    pub stime: SystemTime,
    /// More words, cut and printable.
    pub text: Option<String>,
    /// For codes 24 and 25 METHOD-DATA, else anything.
    pub data: Vec<u8>,
}

/// Reads a KRB-ERROR.
///
/// # Errors
/// When it is none.
pub fn parse(bytes: &[u8]) -> Result<KrbError, Malformed> {
    let error: asn1::KrbError = parse_der(WHAT, bytes)?;
    expect_value(WHAT, "pvno", error.pvno, 5)?;
    expect_value(WHAT, "msg-type", error.msg_type, 30)?;
    let micros = u64::try_from(error.susec).unwrap_or(0).min(999_999);
    Ok(KrbError {
        code: error.error_code,
        stime: names::system_time(&error.stime) + Duration::from_micros(micros),
        text: error.e_text.map(|words| text::shown(&words)),
        data: error.e_data.unwrap_or_default(),
    })
}

/// The name that RFC 4120 gives the code.
pub fn error_name(code: i32) -> &'static str {
    match code {
        1 => "KDC_ERR_NAME_EXP",
        2 => "KDC_ERR_SERVICE_EXP",
        6 => "KDC_ERR_C_PRINCIPAL_UNKNOWN",
        7 => "KDC_ERR_S_PRINCIPAL_UNKNOWN",
        9 => "KDC_ERR_NULL_KEY",
        11 => "KDC_ERR_NEVER_VALID",
        12 => "KDC_ERR_POLICY",
        13 => "KDC_ERR_BADOPTION",
        14 => "KDC_ERR_ETYPE_NOSUPP",
        16 => "KDC_ERR_PADATA_TYPE_NOSUPP",
        18 => "KDC_ERR_CLIENT_REVOKED",
        19 => "KDC_ERR_SERVICE_REVOKED",
        20 => "KDC_ERR_TGT_REVOKED",
        21 => "KDC_ERR_CLIENT_NOTYET",
        22 => "KDC_ERR_SERVICE_NOTYET",
        23 => "KDC_ERR_KEY_EXPIRED",
        24 => "KDC_ERR_PREAUTH_FAILED",
        25 => "KDC_ERR_PREAUTH_REQUIRED",
        29 => "KDC_ERR_SVC_UNAVAILABLE",
        31 => "KRB_AP_ERR_BAD_INTEGRITY",
        32 => "KRB_AP_ERR_TKT_EXPIRED",
        33 => "KRB_AP_ERR_TKT_NYV",
        34 => "KRB_AP_ERR_REPEAT",
        37 => "KRB_AP_ERR_SKEW",
        41 => "KRB_AP_ERR_MODIFIED",
        52 => "KRB_ERR_RESPONSE_TOO_BIG",
        60 => "KRB_ERR_GENERIC",
        68 => "KDC_ERR_WRONG_REALM",
        _ => "an error that RFC 4120 does not expect here",
    }
}
