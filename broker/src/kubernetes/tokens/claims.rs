//! What a token says of itself (RFC 7519), before anybody has said that it is true.
//!
//! It serves to refuse what can't be good without asking the API server, with a reason that helps;
//! and, once the API server has accepted the token, to know when it ends, which a TokenReview does
//! not tell. Nothing is granted by it.

use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use serde::Deserialize;

use crate::tokens::{Refusal, TokenError};

/// What is read of a token.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    sub: String,
    #[serde(default)]
    aud: Audiences,
    exp: Option<f64>,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Kubernetes>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
    #[default]
    None,
}

#[derive(Debug, Deserialize)]
struct Kubernetes {
    pod: Option<serde::de::IgnoredAny>,
}

impl Claims {
    /// Reads a token.
    ///
    /// # Errors
    /// When it is no service account's token.
    pub(super) fn read(token: &[u8]) -> Result<Self, TokenError> {
        let malformed = || TokenError::refused(Refusal::Malformed, "it is no JWT of an account");
        let mut parts = token.split(|byte| *byte == b'.');
        let (Some(_), Some(payload), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed());
        };
        let json = decode(payload).ok_or_else(malformed)?;
        serde_json::from_slice(&json).map_err(|_| malformed())
    }

    /// Refuses what can't be good: it has ended by `now`, or is not for the audience, not of the
    /// account, or bound to no pod. Returns when it ends.
    ///
    /// # Errors
    /// Which of these.
    pub(super) fn check(
        &self,
        audience: &str,
        username: &str,
        now: SystemTime,
    ) -> Result<SystemTime, TokenError> {
        let expires = self.expires().ok_or_else(|| {
            TokenError::refused(Refusal::Expired, "the token has no end, so it is not a pod's")
        })?;
        if expires <= now {
            let detail = format!("it ended at {}", crate::clock::rfc3339(expires));
            return Err(TokenError::refused(Refusal::Expired, detail));
        }
        let fits = match &self.aud {
            Audiences::One(one) => one == audience,
            Audiences::Many(many) => many.iter().any(|one| one == audience),
            Audiences::None => false,
        };
        if !fits {
            let detail = format!("it is for {:?}, not for {audience:?}", self.aud);
            return Err(TokenError::refused(Refusal::Audience, detail));
        }
        if self.sub != username {
            let detail = format!("it is of {:?}, not of {username}", self.sub);
            return Err(TokenError::refused(Refusal::ServiceAccount, detail));
        }
        if self.kubernetes.as_ref().is_none_or(|bound| bound.pod.is_none()) {
            return Err(TokenError::refused(Refusal::Pod, "it is bound to no pod"));
        }
        Ok(expires)
    }

    fn expires(&self) -> Option<SystemTime> {
        let seconds = self.exp.filter(|exp| (0.0..1e11).contains(exp))?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs_f64(seconds))
    }
}

/// Base64 for URLs without padding (RFC 4648 5), by the decoder that Kubernetes objects have.
fn decode(part: &[u8]) -> Option<Vec<u8>> {
    let standard = |byte: &u8| match byte {
        b'-' => '+',
        b'_' => '/',
        byte => char::from(*byte),
    };
    let mut text: String = part.iter().map(standard).collect();
    text.extend(std::iter::repeat_n('=', (4 - text.len() % 4) % 4));
    let decoded: ByteString = serde_json::from_value(serde_json::Value::String(text)).ok()?;
    Some(decoded.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;
    const ACCOUNT: &str = "system:serviceaccount:krb-broker:krb-node-agent";

    fn encode(json: &str) -> String {
        let encoded = serde_json::to_value(ByteString(json.as_bytes().to_vec())).unwrap();
        let text = encoded.as_str().unwrap().replace('+', "-").replace('/', "_");
        text.trim_end_matches('=').to_owned()
    }

    fn check(json: &str) -> Result<SystemTime, Refusal> {
        let token = format!("e30.{}.c2ln", encode(json));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
        let checked = Claims::read(token.as_bytes());
        checked.and_then(|claims| claims.check("krb-broker", ACCOUNT, now)).map_err(|error| {
            match error {
                TokenError::Refused { why, .. } => why,
                other => panic!("{other}"),
            }
        })
    }

    fn good() -> String {
        format!(
            r#"{{"aud":["krb-broker"],"exp":{},"iss":"https://kubernetes.default.svc","kubernetes.io":{{"namespace":"krb-broker","pod":{{"name":"a","uid":"u"}},"serviceaccount":{{"name":"krb-node-agent","uid":"s"}}}},"sub":"{ACCOUNT}"}}"#,
            NOW + 600
        )
    }

    #[test]
    fn a_projected_token_is_read_with_its_end() {
        let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW + 600);
        assert_eq!(check(&good()), Ok(expires));
        let one = good().replace(r#"["krb-broker"]"#, r#""krb-broker""#);
        assert_eq!(check(&one), Ok(expires), "one audience need not be a list");
    }

    #[test]
    fn what_cannot_be_good_is_refused_without_asking() {
        let replaced = |from: &str, to: &str| check(&good().replacen(from, to, 1));
        assert_eq!(replaced(&(NOW + 600).to_string(), &NOW.to_string()), Err(Refusal::Expired));
        assert_eq!(replaced(&format!(r#""exp":{},"#, NOW + 600), ""), Err(Refusal::Expired));
        assert_eq!(replaced(&(NOW + 600).to_string(), "1e300"), Err(Refusal::Expired));
        assert_eq!(replaced(r#"["krb-broker"]"#, r#"["api"]"#), Err(Refusal::Audience));
        assert_eq!(replaced(r#""aud":["krb-broker"],"#, ""), Err(Refusal::Audience));
        let other = r#""sub":"system:serviceaccount:krb-broker:default""#;
        assert_eq!(replaced(&format!(r#""sub":"{ACCOUNT}""#), other), Err(Refusal::ServiceAccount));
        assert_eq!(replaced(r#""pod":{"name":"a","uid":"u"},"#, ""), Err(Refusal::Pod));
    }

    #[test]
    fn what_is_no_token_is_malformed() {
        for text in ["", "abc", "a.b", "a.b.c", "a.!.c", "a.e30.c", "e30.e30.e30.e30", "..", "a..c"]
        {
            assert!(Claims::read(text.as_bytes()).is_err(), "{text}");
        }
        let nested = format!("a.{}.c", encode(&"[".repeat(10_000)));
        assert!(Claims::read(nested.as_bytes()).is_err());
    }
}
