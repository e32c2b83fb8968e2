//! Who may have what.
//!
//! [`Entitlements`](load) come from a directory of YAML files and are checked whole; the
//! decision is one pure function of (entitlements, pod, node, ask), with a grant or a denial
//! that names the missing rule.

pub mod account;
pub mod acl;
mod across;
pub mod ask;
pub mod decide;
pub mod denial;
mod fields;
pub mod foresee;
pub(crate) mod groups;
pub mod hostnames;
pub mod load;
pub mod policy;
mod principals;
pub mod problems;
pub mod rules;
pub mod service;
#[cfg(test)]
pub(crate) mod tests;
mod tickets;

use std::{fmt, str::FromStr, sync::Arc};

use krb_proto::{Principal, reason::Reason, text};

/// The login of a role account: the primary of its principal, the name of its files.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Login(Arc<str>);

impl Login {
    /// The login as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Login {
    type Err = InvalidLogin;

    fn from_str(login: &str) -> Result<Self, InvalidLogin> {
        let fits = login.len() <= 64 && text::is_path_part(login);
        if fits { Ok(Self(login.into())) } else { Err(InvalidLogin) }
    }
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is no login.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("is not a login: 1 to 64 of A-Z a-z 0-9 . _ -, no leading dot")]
pub struct InvalidLogin;

/// What a pod may have of what its volume asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Grant {
    /// The account that the pod runs as.
    pub account: Login,
    /// The owner of its files.
    pub uid: u32,
    /// The account's group.
    pub gid: u32,
    /// The group that may read the keytab: the account's, where the pod's fsGroup is it.
    pub keytab_gid: Option<u32>,
    /// Principals whose keys go into the keytab, ascending, no two alike.
    pub principals: Vec<GrantedPrincipal>,
    /// Accounts whose tickets the pod gets, ascending, no two alike.
    pub tickets: Vec<GrantedTicket>,
    /// What the account may have altogether.
    pub limits: Limits,
}

/// A principal that a pod may have the keys of.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct GrantedPrincipal {
    /// Which.
    pub principal: Principal,
    /// Whether it may act as a client.
    pub client: bool,
    /// Whether several accounts may have it.
    pub shared: bool,
    /// Whether its host name is the pod's own, and ends with it.
    pub of_pod: bool,
}

/// An account whose ticket a pod may have.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct GrantedTicket {
    /// The account.
    pub login: Login,
    /// Its principal.
    pub client: Principal,
    /// Who makes its keys.
    pub mode: AccountMode,
    /// Who has the same ticket.
    pub sharing: Sharing,
}

/// Who makes a role account's keys.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum AccountMode {
    /// The administrator, who hands a keytab file over. The broker sets nothing on the account.
    #[default]
    Keytab,
    /// The broker, which replaces them too. They leave it never.
    Managed,
}

impl FromStr for AccountMode {
    type Err = InvalidTerm;

    fn from_str(word: &str) -> Result<Self, InvalidTerm> {
        match word {
            "keytab" => Ok(Self::Keytab),
            "managed" => Ok(Self::Managed),
            _ => Err(InvalidTerm("keytab or managed")),
        }
    }
}

/// Which pods have the same ticket of a role account.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Sharing {
    /// All.
    #[default]
    Principal,
    /// Those of one node.
    Node,
    /// None: each has its own.
    Pod,
}

impl FromStr for Sharing {
    type Err = InvalidTerm;

    fn from_str(word: &str) -> Result<Self, InvalidTerm> {
        match word {
            "principal" => Ok(Self::Principal),
            "node" => Ok(Self::Node),
            "pod" => Ok(Self::Pod),
            _ => Err(InvalidTerm("principal, node or pod")),
        }
    }
}

/// A word that is none of those there are.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("is not {0}")]
pub struct InvalidTerm(&'static str);

/// How much an account may have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Live leases.
    pub leases: u32,
    /// Principals.
    pub principals: u32,
    /// Principals made in an hour.
    pub new_principals_per_hour: u32,
    /// Its share of the gate, against other accounts.
    pub weight: u32,
}

/// Why a pod may not have what it asks for.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Denial {
    /// The stable reason.
    pub reason: Reason,
    /// For the pod's owner: one line, the same for the same cause.
    pub message: String,
    /// For the audit log: the rule that was missing, in full.
    pub rule: String,
}
