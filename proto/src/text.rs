//! The alphabets that names from outside are held to.

/// Whether `text` may be one part of a path: 1 to 255 of `[A-Za-z0-9._-]`, no leading dot.
pub fn is_path_part(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && !text.starts_with('.')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Whether `text` is a DNS label (RFC 1123): 1 to 63 of `[a-z0-9-]`, an alphanumeric at both ends.
pub fn is_dns_label(text: &str) -> bool {
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

/// Whether `text` is a DNS name: labels joined by dots, at most 253 characters.
pub fn is_dns_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_dns_label)
}

/// `text` as it may stand in a message or a log: cut to 64 characters, no control characters.
pub fn shown(text: &str) -> String {
    let mut shown: String =
        text.chars().take(64).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(64).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_part_can_neither_hide_nor_climb() {
        for good in ["tsfoo", "a.b", "A-1_2"] {
            assert!(is_path_part(good), "{good}");
        }
        for bad in ["", ".", "..", ".x", "a/b", "a\0", "@R", "a b", &"a".repeat(256)] {
            assert!(!is_path_part(bad), "{bad:?}");
        }
    }

    #[test]
    fn dns_names_are_lower_case_labels() {
        assert!(is_dns_name("web.tsfoo.svc.cluster.local"));
        for bad in ["", ".", "a..b", "-a", "a-", "A", "a_b", &"a".repeat(64)] {
            assert!(!is_dns_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn what_is_shown_is_short_and_printable() {
        assert_eq!(shown("a\nb\0"), "a\u{fffd}b\u{fffd}");
        assert_eq!(shown(&"x".repeat(10_000)).len(), 67);
    }
}
