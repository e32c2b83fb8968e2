//! The structure of DER, checked before anything parses it.
//!
//! What passes [`check`]: every length is definite, minimal and inside its parent; children
//! fill their parent exactly; nothing follows the message; nesting is bounded; what Kerberos
//! tags explicitly holds exactly one element; times are real times, strings UTF-8, integers
//! and bit strings minimal and not empty. Contents of octet strings are not looked into.

use std::str;

/// The deepest nesting that is read. Kerberos needs about twelve levels.
pub const MAX_DEPTH: usize = 24;

/// The longest message that is read, in bytes.
pub const MAX_MESSAGE: usize = 256 * 1024;

/// How a message breaks the rules of DER, or those of RFC 4120 5.2.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Broken {
    /// It is longer than [`MAX_MESSAGE`].
    #[error("it is too long")]
    TooLong,
    /// An element ends after its parent, or has no tag or no length.
    #[error("an element is cut off")]
    Cut,
    /// A tag in more than one byte, or the tag zero: Kerberos has none.
    #[error("a tag is none of Kerberos'")]
    Tag,
    /// A length that is indefinite or written with more bytes than it needs.
    #[error("a length is not minimal and definite")]
    Length,
    /// Nesting deeper than [`MAX_DEPTH`].
    #[error("it is nested too deeply")]
    Depth,
    /// Bytes behind the message, or a second element where there is one only.
    #[error("something follows where it should end")]
    Trailing,
    /// An explicit tag or a sequence that holds no elements by its form, or the other way.
    #[error("an element is constructed where it is not, or the other way round")]
    Form,
    /// A KerberosTime that is not `YYYYMMDDHHMMSSZ`, or not a time.
    #[error("a time is not well-formed")]
    Time,
    /// A KerberosString that is not UTF-8.
    #[error("a string is not UTF-8")]
    Text,
    /// An integer that is empty, not minimal or over 8 bytes.
    #[error("an integer is not well-formed")]
    Integer,
    /// Flags with wrong padding.
    #[error("a bit string is not well-formed")]
    Bits,
}

/// Checks one whole message.
///
/// # Errors
/// The first rule that it breaks.
pub fn check(message: &[u8]) -> Result<(), Broken> {
    if message.len() > MAX_MESSAGE {
        return Err(Broken::TooLong);
    }
    let (element, rest) = split(message)?;
    if !rest.is_empty() {
        return Err(Broken::Trailing);
    }
    check_element(&element, MAX_DEPTH)
}

/// The element under `[number]` of a checked message's outermost sequence, tag and all.
///
/// # Errors
/// When the message is not a sequence, with or without an application tag around it.
pub fn field(message: &[u8], number: u8) -> Result<Option<&[u8]>, Broken> {
    let (mut element, _) = split(message)?;
    if element.tag & CLASS == APPLICATION {
        element = split(element.content)?.0;
    }
    let mut rest = element.content;
    while !rest.is_empty() {
        let (child, after) = split(rest)?;
        if child.tag == CONTEXT | CONSTRUCTED | number {
            return Ok(Some(child.content));
        }
        rest = after;
    }
    Ok(None)
}

const CLASS: u8 = 0xc0;
const UNIVERSAL: u8 = 0x00;
const APPLICATION: u8 = 0x40;
const CONTEXT: u8 = 0x80;
const CONSTRUCTED: u8 = 0x20;
const NUMBER: u8 = 0x1f;

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const GENERALIZED_TIME: u8 = 0x18;
const GENERAL_STRING: u8 = 0x1b;

struct Element<'a> {
    tag: u8,
    content: &'a [u8],
}

/// The first element of `bytes`, and what follows it.
fn split(bytes: &[u8]) -> Result<(Element<'_>, &[u8]), Broken> {
    let (&tag, rest) = bytes.split_first().ok_or(Broken::Cut)?;
    if tag & NUMBER == NUMBER || tag == 0 {
        return Err(Broken::Tag);
    }
    let (length, rest) = split_length(rest)?;
    let (content, rest) = rest.split_at_checked(length).ok_or(Broken::Cut)?;
    Ok((Element { tag, content }, rest))
}

fn split_length(bytes: &[u8]) -> Result<(usize, &[u8]), Broken> {
    let (&first, rest) = bytes.split_first().ok_or(Broken::Cut)?;
    if first < 0x80 {
        return Ok((usize::from(first), rest));
    }
    let count = usize::from(first & 0x7f);
    if !(1..=4).contains(&count) {
        return Err(Broken::Length);
    }
    let (digits, rest) = rest.split_at_checked(count).ok_or(Broken::Cut)?;
    let length = digits.iter().fold(0usize, |length, digit| length << 8 | usize::from(*digit));
    if digits[0] == 0 || length < 0x80 {
        return Err(Broken::Length);
    }
    Ok((length, rest))
}

fn check_element(element: &Element<'_>, depth: usize) -> Result<(), Broken> {
    let depth = depth.checked_sub(1).ok_or(Broken::Depth)?;
    match (element.tag & CLASS, element.tag & CONSTRUCTED != 0) {
        (UNIVERSAL, true) if matches!(element.tag, SEQUENCE | SET) => {
            let mut rest = element.content;
            while !rest.is_empty() {
                let (child, after) = split(rest)?;
                check_element(&child, depth)?;
                rest = after;
            }
            Ok(())
        }
        (UNIVERSAL, true) => Err(Broken::Form),
        (UNIVERSAL, false) => check_primitive(element),
        (_, false) => Err(Broken::Form), // Kerberos tags explicitly
        (_, true) => {
            let (child, rest) = split(element.content)?;
            if !rest.is_empty() {
                return Err(Broken::Trailing);
            }
            check_element(&child, depth)
        }
    }
}

fn check_primitive(element: &Element<'_>) -> Result<(), Broken> {
    let (good, broken) = match element.tag {
        INTEGER => (is_integer(element.content), Broken::Integer),
        BIT_STRING => (is_bit_string(element.content), Broken::Bits),
        GENERALIZED_TIME => (is_time(element.content), Broken::Time),
        GENERAL_STRING => (str::from_utf8(element.content).is_ok(), Broken::Text),
        tag if tag | CONSTRUCTED == SEQUENCE || tag | CONSTRUCTED == SET => (false, Broken::Form),
        _ => (true, Broken::Tag),
    };
    if good { Ok(()) } else { Err(broken) }
}

fn is_integer(content: &[u8]) -> bool {
    match content {
        [] => false,
        [_] => true,
        [0, second, ..] if second & 0x80 == 0 => false,
        [0xff, second, ..] if second & 0x80 != 0 => false,
        more => more.len() <= 8,
    }
}

fn is_bit_string(content: &[u8]) -> bool {
    match content {
        [] => false,
        [padding] => *padding == 0,
        [padding, ..] => *padding < 8,
    }
}

/// `YYYYMMDDHHMMSSZ` and a time that the calendar has; no leap second.
fn is_time(content: &[u8]) -> bool {
    let Some((b"Z", digits)) = content.split_last_chunk::<1>().map(|(d, z)| (z, d)) else {
        return false;
    };
    if digits.len() != 14 || !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let number = |at: usize, length: usize| {
        digits[at..at + length].iter().fold(0u32, |n, digit| n * 10 + u32::from(digit - b'0'))
    };
    let (year, month, day) = (number(0, 4), number(4, 2), number(6, 2));
    (1..=12).contains(&month)
        && (1..=days(year, month)).contains(&day)
        && number(8, 2) < 24
        && number(10, 2) < 60
        && number(12, 2) < 60
}

fn days(year: u32, month: u32) -> u32 {
    let leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_an_input_that_breaks_it() {
        let nested = (0..40).fold(vec![0x02, 1, 0], |inner, _| {
            [&[0x30, u8::try_from(inner.len()).unwrap()], inner.as_slice()].concat()
        });
        let time = |text: &str| [&[0x18, 15], text.as_bytes()].concat();
        for (bytes, broken) in [
            (vec![], Broken::Cut),
            (vec![0x30], Broken::Cut),
            (vec![0x30, 2, 2, 1], Broken::Cut),
            (vec![0x30, 5, 2, 1, 0], Broken::Cut),
            (vec![0x1f, 0x20, 0], Broken::Tag),
            (vec![0, 0], Broken::Tag),
            (vec![0x30, 0x80, 0, 0], Broken::Length),
            (vec![0x30, 0x81, 3, 2, 1, 0], Broken::Length),
            (vec![0x30, 0x82, 0, 0x80], Broken::Length),
            (vec![0x30, 0x85, 1, 1, 1, 1, 1], Broken::Length),
            (vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff], Broken::Cut),
            (nested, Broken::Depth),
            (vec![0x30, 0, 0], Broken::Trailing),
            (vec![0xa0, 6, 2, 1, 0, 2, 1, 0], Broken::Trailing),
            (vec![0x80, 1, 0], Broken::Form),
            (vec![0x10, 0], Broken::Form),
            (vec![0x22, 3, 2, 1, 0], Broken::Form),
            (vec![0xa0, 0], Broken::Cut),
            (vec![2, 0], Broken::Integer),
            (vec![2, 2, 0, 1], Broken::Integer),
            (vec![2, 2, 0xff, 0x80], Broken::Integer),
            (vec![3, 0], Broken::Bits),
            (vec![3, 2, 8, 0], Broken::Bits),
            (vec![0x1b, 1, 0xff], Broken::Text),
            (vec![0x18, 0], Broken::Time),
            (time("20261122223500+"), Broken::Time),
            (time("2026112222350 Z"), Broken::Time),
            (time("20260229000000Z"), Broken::Time),
            (time("20261301000000Z"), Broken::Time),
            (time("20260100000000Z"), Broken::Time),
            (time("20260101240000Z"), Broken::Time),
            (time("20260101006000Z"), Broken::Time),
            (time("20260101000060Z"), Broken::Time),
            (vec![4; MAX_MESSAGE + 1], Broken::TooLong),
        ] {
            assert_eq!(check(&bytes), Err(broken), "{:02x?}", &bytes[..bytes.len().min(20)]);
        }
        for good in [time("20240229235959Z"), vec![0x30, 3, 2, 1, 0], vec![3, 1, 0], vec![4, 0]] {
            assert_eq!(check(&good), Ok(()), "{good:02x?}");
        }
    }

    #[test]
    fn a_field_is_found_by_its_number() {
        let message = [0x6b, 12, 0x30, 10, 0xa0, 3, 2, 1, 5, 0xa1, 3, 2, 1, 7];
        assert_eq!(field(&message, 1), Ok(Some(&[2, 1, 7][..])));
        assert_eq!(field(&message, 2), Ok(None));
    }
}
