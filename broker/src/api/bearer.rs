//! The token that a call carries (RFC 6750 2.1).

use http::{HeaderMap, header::AUTHORIZATION};
use krb_proto::Secret;

use crate::tokens::{MAX_TOKEN, Refusal, TokenError};

/// Takes the token out of a request's headers: whatever becomes of the request, it goes on
/// without.
///
/// # Errors
/// When there is none, more than one, or it can't be one.
pub fn take(headers: &mut HeaderMap) -> Result<Secret, TokenError> {
    let mut values: Vec<_> = headers.get_all(AUTHORIZATION).iter().cloned().collect();
    headers.remove(AUTHORIZATION);
    let malformed = |detail: &str| TokenError::refused(Refusal::Malformed, detail);
    let value = match (values.pop(), values.pop()) {
        (None, _) => return Err(TokenError::refused(Refusal::Missing, "no authorization header")),
        (Some(value), None) => value,
        (Some(_), Some(_)) => return Err(malformed("several authorization headers")),
    };
    let token = value
        .as_bytes()
        .split_at_checked(BEARER.len())
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case(BEARER))
        .map(|(_, token)| token)
        .ok_or_else(|| malformed("the authorization header is not `Bearer TOKEN`"))?;
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
    match token {
        [] => Err(malformed("the token is empty")),
        long if long.len() > MAX_TOKEN => Err(malformed("the token is longer than 16 KiB")),
        token if token.iter().all(fits) => Ok(Secret::new(token.to_vec())),
        _ => Err(malformed("the token has characters that no token has")), // RFC 6750 2.1
    }
}

const BEARER: &[u8] = b"Bearer ";

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let value = |text: &&str| HeaderValue::from_str(text).unwrap();
        values.iter().map(|text| (AUTHORIZATION, value(text))).collect()
    }

    fn refusal(values: &[&str]) -> Refusal {
        match take(&mut headers(values)) {
            Err(TokenError::Refused { why, .. }) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_token_of_a_call_is_taken_out_of_its_headers() {
        for scheme in ["Bearer", "bearer"] {
            let mut headers = headers(&[&format!("{scheme} abc.d-f_.x")]);
            let token = take(&mut headers).unwrap();
            assert_eq!(token.expose(), b"abc.d-f_.x");
            assert!(headers.is_empty(), "nothing after it sees the token");
            assert!(!format!("{token:?}").contains("abc"));
        }
    }

    #[test]
    fn what_is_no_token_is_refused_before_anybody_is_asked() {
        assert_eq!(refusal(&[]), Refusal::Missing);
        for text in ["Bearer ", "Bearer", "Basic abc", "Bearer a b", "Bearer a\u{7f}b", "abc"] {
            let Ok(value) = HeaderValue::from_str(text) else { continue };
            let mut headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
            assert!(take(&mut headers).is_err(), "{text:?}");
            assert!(headers.is_empty());
        }
        assert_eq!(refusal(&["Bearer a", "Bearer b"]), Refusal::Malformed);
        assert_eq!(
            refusal(&[&format!("Bearer {}", "a".repeat(MAX_TOKEN + 1))]),
            Refusal::Malformed
        );
        assert!(take(&mut headers(&[&format!("Bearer {}", "a".repeat(MAX_TOKEN))])).is_ok());
    }
}
