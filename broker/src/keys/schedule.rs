//! When keys are replaced in their own time, by patterns of principals.
//!
//! The first pattern that fits counts; a principal that none fits is replaced only when
//! something makes it due. Each principal has its own moment in the last tenth of its interval,
//! always the same for the same key, so that principals made in one hour are not replaced in one.

use std::{
    str::FromStr,
    time::{Duration, SystemTime},
};

use krb_proto::{Kvno, Principal};
use sha2::{Digest, Sha256};

use super::ManagedPrincipal;

/// Principals by the parts of their names: `HTTP/*`, `*/db.example.com`, `tsfoo`. `*` stands for
/// one whole component. The realm is left out: there is one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pattern(Vec<String>);

impl FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let parts: Vec<String> = text.split('/').map(str::to_owned).collect();
        let fits = |part: &String| {
            !part.is_empty() && (part == "*" || !part.contains(['*', '@', '#', '\\', ' ']))
        };
        if parts.iter().all(fits) { Ok(Self(parts)) } else { Err(InvalidPattern) }
    }
}

/// The text is no pattern.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("is not a pattern of principals: components joined by /, * for a whole one, no realm")]
pub struct InvalidPattern;

impl Pattern {
    /// Whether the principal fits.
    pub fn fits(&self, principal: &Principal) -> bool {
        let components = principal.components();
        self.0.len() == components.len()
            && self.0.iter().zip(components).all(|(part, name)| part == "*" || part == name)
    }
}

/// How often the keys of which principals are replaced.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Schedule(pub Vec<(Pattern, Duration)>);

impl Schedule {
    /// When the principal's key is to be replaced; `None` when no pattern fits, or it has none.
    pub fn at(&self, managed: &ManagedPrincipal) -> Option<SystemTime> {
        let current = managed.current()?;
        let fits = |(pattern, _): &&(Pattern, Duration)| pattern.fits(&managed.principal);
        let every = self.0.iter().find(fits)?.1;
        let moment = every.mul_f64(0.9 + 0.1 * chance(&managed.principal, current.keyset.kvno));
        // A replacement that was given up is tried again after a tenth of the interval.
        let again = managed.given_up_at.map(|at| at + every / 10);
        Some((current.since + moment).max(again.unwrap_or(SystemTime::UNIX_EPOCH)))
    }
}

/// 0 to 1, the same for the same key.
fn chance(principal: &Principal, kvno: Kvno) -> f64 {
    let digest = Sha256::new()
        .chain_update(principal.to_string())
        .chain_update(kvno.0.to_be_bytes())
        .finalize();
    f64::from(u16::from_le_bytes([digest[0], digest[1]])) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_pattern_is_whole_components() {
        let fits = |pattern: &str, name: &str| {
            pattern.parse::<Pattern>().unwrap().fits(&format!("{name}@R").parse().unwrap())
        };
        assert!(fits("HTTP/*", "HTTP/web") && fits("*/web", "nfs/web") && fits("tsfoo", "tsfoo"));
        assert!(!fits("HTTP/*", "nfs/web") && !fits("*", "HTTP/web") && !fits("HTTP/*", "HTTP"));
        for wrong in ["", "HTTP/", "HT*/x", "HTTP/x@R", "a b/c"] {
            assert!(wrong.parse::<Pattern>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn principals_of_one_hour_are_not_replaced_in_one() {
        let every = Duration::from_secs(1_000_000);
        let moments: Vec<f64> = (0..200_u32)
            .map(|n| chance(&format!("HTTP/web-{n}@R").parse().unwrap(), Kvno(2)))
            .collect();
        let early = moments.iter().filter(|moment| **moment < 0.5).count();
        assert!((60..140).contains(&early), "{early}");
        let schedule = Schedule(vec![("HTTP/*".parse().unwrap(), every)]);
        let managed = ManagedPrincipal::new(
            "HTTP/web-0@R".parse().unwrap(),
            "tsfoo".parse().unwrap(),
            false,
            crate::kdc::Attributes::service(every, false),
            UNIX_EPOCH,
        );
        assert_eq!(schedule.at(&managed), None, "it has no key yet");
    }
}
