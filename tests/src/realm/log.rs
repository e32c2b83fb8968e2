//! What a KDC and kadmind were asked, counted from their own logs.

use std::{collections::BTreeMap, path::Path};

/// Requests that one KDC answered, by what it logged.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KdcRequests {
    /// AS requests, whatever the answer.
    pub as_requests: u64,
    /// AS requests that got a ticket.
    pub as_issued: u64,
    /// AS requests that were asked to come again with preauthentication (25).
    pub preauth_needed: u64,
    /// TGS requests, whatever the answer.
    pub tgs_requests: u64,
    /// TGS requests that got a ticket.
    pub tgs_issued: u64,
}

impl KdcRequests {
    /// All requests.
    pub fn total(&self) -> u64 {
        self.as_requests + self.tgs_requests
    }

    pub(super) fn read(log: &Path) -> Self {
        let mut counted = Self::default();
        for line in std::fs::read_to_string(log).unwrap_or_default().lines() {
            counted.count(line);
        }
        counted
    }

    fn count(&mut self, line: &str) {
        let issued = u64::from(line.contains(": ISSUE:"));
        if line.contains(": AS_REQ ") {
            self.as_requests += 1;
            self.as_issued += issued;
            self.preauth_needed += u64::from(line.contains(": NEEDED_PREAUTH:"));
        } else if line.contains(": TGS_REQ ") {
            self.tgs_requests += 1;
            self.tgs_issued += issued;
        }
    }
}

/// How many requests a KDC answered in each second of its log that has any.
pub(super) fn kdc_seconds(log: &Path) -> Vec<u64> {
    by_second(log, |line| line.contains(": AS_REQ ") || line.contains(": TGS_REQ "))
}

/// How many requests kadmind answered in each second of its log that has any.
pub(super) fn kadmin_seconds(log: &Path) -> Vec<u64> {
    by_second(log, |line| line.contains("Request: ") || line.contains("Unauthorized request: "))
}

/// Lines of interest by the second that they begin with, `Nov 22 22:00:00`.
fn by_second(log: &Path, of_interest: impl Fn(&str) -> bool) -> Vec<u64> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let mut seconds: Vec<(&str, u64)> = Vec::new();
    for line in text.lines().filter(|line| of_interest(line)) {
        let Some(second) = line.get(..15) else { continue };
        match seconds.last_mut() {
            Some((last, count)) if *last == second => *count += 1,
            _ => seconds.push((second, 1)),
        }
    }
    seconds.into_iter().map(|(_, count)| count).collect()
}

/// TGTs that a KDC logged to have issued to this client by AS exchanges.
pub(super) fn tgts_issued_to(log: &Path, client: &str) -> u64 {
    let to_it = format!(", {client} for krbtgt/");
    let issued = |line: &&str| {
        line.contains(": AS_REQ ") && line.contains(": ISSUE:") && line.contains(&to_it)
    };
    let text = std::fs::read_to_string(log).unwrap_or_default();
    u64::try_from(text.lines().filter(issued).count()).unwrap_or(u64::MAX)
}

/// Requests that kadmind logged, by operation (`kadm5_init`, `kadm5_create_principal`, ...).
pub(super) fn kadmin_requests(log: &Path) -> BTreeMap<String, u64> {
    let mut counted = BTreeMap::new();
    for line in std::fs::read_to_string(log).unwrap_or_default().lines() {
        let asked =
            line.split_once("Request: ").or_else(|| line.split_once("Unauthorized request: "));
        if let Some((operation, _)) = asked.and_then(|(_, rest)| rest.split_once(',')) {
            *counted.entry(operation.to_owned()).or_insert(0) += 1;
        }
    }
    counted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kdc_log_counts_as_what_it_is() {
        let mut counted = KdcRequests::default();
        for line in [
            "Nov 22 22:00:00 h krb5kdc[1](info): AS_REQ (4 etypes {aes256-cts-hmac-sha1-96(18)}) \
             127.0.0.1: NEEDED_PREAUTH: a@R for krbtgt/R@R, Additional pre-authentication required",
            "Nov 22 22:00:00 h krb5kdc[1](info): AS_REQ (1 etypes {aes256-cts-hmac-sha1-96(18)}) \
             127.0.0.1: ISSUE: authtime 1, etypes {rep=18}, a@R for krbtgt/R@R",
            "Nov 22 22:00:00 h krb5kdc[1](info): TGS_REQ (1 etypes {aes256-cts-hmac-sha1-96(18)}) \
             127.0.0.1: LOOKING_UP_SERVER: authtime 0, a@R for x@R, Server not found",
            "Nov 22 22:00:00 h krb5kdc[1](info): closing down fd 12",
        ] {
            counted.count(line);
        }
        let expected = KdcRequests {
            as_requests: 2,
            as_issued: 1,
            preauth_needed: 1,
            tgs_requests: 1,
            tgs_issued: 0,
        };
        assert_eq!(counted, expected);
    }
}
