//! What must hold between accounts: nothing that gives authority belongs to two of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt::Display,
    hash::Hash,
};

use super::{account::RoleAccount, problems::Problems, service::HostName};

/// An account and the place it was read from.
type Placed = (String, RoleAccount);

/// Notes everything that two accounts both claim, and every name that is nobody's: not in
/// `logins`, where all of them are known.
pub fn check(accounts: &[Placed], logins: Option<&HashSet<String>>, problems: &mut Problems) {
    unique(accounts, "unix_login", problems, |a| vec![a.login.as_str().to_ascii_lowercase()]);
    unique(accounts, "unix_uid", problems, |a| vec![a.uid]);
    unique(accounts, "namespaces", problems, |a| a.namespaces.iter().cloned().collect());
    namespaces_named_like_others(accounts, problems);
    if let Some(logins) = logins {
        tickets_for_nobody(accounts, logins, problems);
    }
    hosts(accounts, problems);
}

fn unique<K: Display + Eq + Hash>(
    accounts: &[Placed],
    field: &str,
    problems: &mut Problems,
    keys: impl Fn(&RoleAccount) -> Vec<K>,
) {
    let mut seen: HashMap<K, &str> = HashMap::new();
    for (place, account) in accounts {
        for key in keys(account) {
            if let Some(first) = seen.get(&key) {
                problems.add(place, field, format_args!("{key} is in {first} already"));
            } else {
                seen.insert(key, place);
            }
        }
    }
}

/// A namespace may be called like the account it belongs to, never like another one.
fn namespaces_named_like_others(accounts: &[Placed], problems: &mut Problems) {
    let logins: HashSet<String> =
        accounts.iter().map(|(_, a)| a.login.as_str().to_ascii_lowercase()).collect();
    for (place, account) in accounts {
        for namespace in &account.namespaces {
            let own = account.login.as_str().eq_ignore_ascii_case(namespace.as_str());
            if !own && logins.contains(namespace.as_str()) {
                let message = format_args!("{namespace} is the login of another account");
                problems.add(place, "namespaces", message);
            }
        }
    }
}

fn tickets_for_nobody(accounts: &[Placed], logins: &HashSet<String>, problems: &mut Problems) {
    for (place, account) in accounts {
        for login in account.tickets_for.iter().filter(|login| !logins.contains(login.as_str())) {
            problems.add(place, "tickets_for", format_args!("there is no account {login}"));
        }
    }
}

/// A logical host is one account's, unless all that list it say that it is shared; and no
/// account's logical host is the user-prefixed form of another's.
fn hosts(accounts: &[Placed], problems: &mut Problems) {
    let mut owners: BTreeMap<&HostName, (&str, &RoleAccount, bool)> = BTreeMap::new();
    for (place, account) in accounts {
        let own = account.logical_hosts.iter().map(|host| (host, false));
        let shared = account.shared_logical_hosts.iter().map(|host| (host, true));
        for (host, shared) in own.chain(shared) {
            match owners.get(host) {
                Some((_, _, true)) if shared => {}
                Some((first, ..)) => {
                    let message = format_args!("{host} is in {first} too, and not shared in both");
                    problems.add(place, "logical_hosts", message);
                }
                None => drop(owners.insert(host, (place, account, shared))),
            }
        }
    }
    prefixed_hosts(accounts, &owners, problems);
}

fn prefixed_hosts(
    accounts: &[Placed],
    owners: &BTreeMap<&HostName, (&str, &RoleAccount, bool)>,
    problems: &mut Problems,
) {
    let by_login: HashMap<String, &Placed> =
        accounts.iter().map(|a| (a.1.login.as_str().to_ascii_lowercase(), a)).collect();
    for (host, (place, account, _)) in owners {
        for (dot, _) in host.as_str().match_indices('.') {
            let (login, rest) = (&host.as_str()[..dot], &host.as_str()[dot + 1..]);
            let Some((other_place, other)) = by_login.get(login).copied() else { continue };
            let others = |hosts: &BTreeSet<HostName>| hosts.iter().any(|h| h.as_str() == rest);
            let is_others = others(&other.logical_hosts) || others(&other.shared_logical_hosts);
            if other.login != account.login && is_others {
                let message =
                    format_args!("{host} is the user-prefixed form of a host in {other_place}");
                problems.add(place, "logical_hosts", message);
            }
        }
    }
}
