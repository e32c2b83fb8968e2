//! Kerberos names.

use std::{fmt, str::FromStr};

/// The longest principal that is read, in bytes.
pub const MAX_PRINCIPAL: usize = 512;

/// A Kerberos realm, such as `EXAMPLE.COM`: 1 to 128 of `[A-Za-z0-9.-]`, not starting with a dot.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Realm(String);

impl Realm {
    /// The realm as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Realm {
    type Err = InvalidPrincipal;

    fn from_str(text: &str) -> Result<Self, InvalidPrincipal> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
        if text.is_empty() {
            return Err(InvalidPrincipal::NoRealm);
        }
        if text.len() > 128 || text.starts_with('.') || !text.bytes().all(allowed) {
            return Err(InvalidPrincipal::Realm);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Realm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A Kerberos name, `primary/instance@REALM`, that has already been checked.
///
/// Its components are 1 to 255 of `[A-Za-z0-9._-]`, so that it can stand in a path, an ACL
/// line and a message without quoting.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Principal {
    components: Vec<String>,
    realm: Realm,
}

impl Principal {
    /// A name of these components in `realm`.
    ///
    /// # Errors
    /// As for parsing: a component is empty or outside the alphabet, or there are none.
    pub fn new<S: AsRef<str>>(components: &[S], realm: &Realm) -> Result<Self, InvalidPrincipal> {
        if components.is_empty() {
            return Err(InvalidPrincipal::EmptyComponent);
        }
        for component in components {
            check_component(component.as_ref())?;
        }
        let components = components.iter().map(|c| c.as_ref().to_owned()).collect();
        Ok(Self { components, realm: realm.clone() })
    }

    /// The parts before the `@`, at least one.
    pub fn components(&self) -> &[String] {
        &self.components
    }

    /// The first component: the service of `HTTP/web@R`, the login of `tsfoo@R`.
    pub fn primary(&self) -> &str {
        &self.components[0]
    }

    /// The realm it belongs to.
    pub fn realm(&self) -> &Realm {
        &self.realm
    }

    /// The name without its realm, `primary/instance`.
    pub fn name(&self) -> String {
        self.components.join("/")
    }

    /// The ticket-granting service of `realm`, `krbtgt/REALM@REALM` (RFC 4120 7.3).
    pub fn krbtgt(realm: &Realm) -> Self {
        let components = vec!["krbtgt".to_owned(), realm.as_str().to_owned()];
        Self { components, realm: realm.clone() }
    }
}

fn check_component(component: &str) -> Result<(), InvalidPrincipal> {
    if component.is_empty() {
        return Err(InvalidPrincipal::EmptyComponent);
    }
    if component.contains('\\') {
        return Err(InvalidPrincipal::Escaped); // refused, never interpreted
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if component.len() > 255 || !component.bytes().all(allowed) {
        return Err(InvalidPrincipal::Component);
    }
    Ok(())
}

impl FromStr for Principal {
    type Err = InvalidPrincipal;

    fn from_str(text: &str) -> Result<Self, InvalidPrincipal> {
        if text.len() > MAX_PRINCIPAL {
            return Err(InvalidPrincipal::TooLong);
        }
        if text.contains('\\') {
            return Err(InvalidPrincipal::Escaped);
        }
        let (name, realm) = text.split_once('@').ok_or(InvalidPrincipal::NoRealm)?;
        Self::new(&name.split('/').collect::<Vec<_>>(), &realm.parse()?)
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.components.join("/"), self.realm)
    }
}

/// Why a text is no principal or realm.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidPrincipal {
    /// Two slashes in a row, or nothing before the `@`.
    #[error("has an empty component")]
    EmptyComponent,
    /// A backslash anywhere.
    #[error("uses a backslash escape")]
    Escaped,
    /// No `@`, or nothing after it.
    #[error("names no realm")]
    NoRealm,
    /// A component outside `[A-Za-z0-9._-]` or over 255 characters.
    #[error("has a component that is not 1 to 255 of A-Z a-z 0-9 . _ -")]
    Component,
    /// A realm outside `[A-Za-z0-9.-]`, over 128 characters, or with a leading dot.
    #[error("has a realm that is not 1 to 128 of A-Z a-z 0-9 . -")]
    Realm,
    /// Over [`MAX_PRINCIPAL`] bytes.
    #[error("is longer than 512 bytes")]
    TooLong,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_principal_is_read_and_written_alike() {
        let principal: Principal = "HTTP/web.tsfoo.svc.cluster.local@EXAMPLE.COM".parse().unwrap();
        assert_eq!(principal.primary(), "HTTP");
        assert_eq!(principal.realm().as_str(), "EXAMPLE.COM");
        assert_eq!(principal.to_string(), "HTTP/web.tsfoo.svc.cluster.local@EXAMPLE.COM");
    }

    #[test]
    fn what_could_mean_something_else_elsewhere_is_refused() {
        use InvalidPrincipal as E;
        let long = format!("{}@R", "a".repeat(10_000));
        for (text, why) in [
            ("", E::NoRealm),
            ("tsfoo", E::NoRealm),
            ("tsfoo@", E::NoRealm),
            ("@R", E::EmptyComponent),
            ("a//b@R", E::EmptyComponent),
            ("a\\/b@R", E::Escaped),
            ("a@b@R", E::Realm),
            ("a@R/x", E::Realm),
            ("a@.R", E::Realm),
            ("a b@R", E::Component),
            ("a\0@R", E::Component),
            ("a@R\0", E::Realm),
            (long.as_str(), E::TooLong),
        ] {
            assert_eq!(text.parse::<Principal>(), Err(why), "{:?}", &text[..text.len().min(20)]);
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_parses_prints_back(text in "\\PC{0,40}") {
            if let Ok(principal) = text.parse::<Principal>() {
                prop_assert_eq!(principal.to_string(), text);
            }
        }
    }
}
