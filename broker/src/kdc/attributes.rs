//! How a principal is to be at the KDC, and how it is.

use std::time::Duration;

use krb_proto::Kvno;

/// What a principal is for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum PrincipalRole {
    /// A service: others get tickets to it. It asks them for no preauthentication, since a
    /// TGT without it would be refused.
    #[default]
    Service,
    /// A role account: a client that must preauthenticate, and nobody gets tickets to it
    /// (`-allow_svr`).
    RoleAccount,
}

/// How a principal whose keys are the broker's is to be at the KDC.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attributes {
    /// The longest life of its tickets.
    pub max_life: Duration,
    /// Whether a service may get tickets as a client. If not, its password is expired.
    pub client: bool,
    /// What it is for.
    pub role: PrincipalRole,
}

impl Attributes {
    /// Those of a service.
    pub const fn service(max_life: Duration, client: bool) -> Self {
        Self { max_life, client, role: PrincipalRole::Service }
    }

    /// Those of a role account, which always is a client.
    pub const fn role_account(max_life: Duration) -> Self {
        Self { max_life, client: true, role: PrincipalRole::RoleAccount }
    }

    /// Whether it may get tickets as a client.
    pub fn is_client(&self) -> bool {
        self.client || self.is_role_account()
    }

    /// Whether it is a role account.
    pub fn is_role_account(&self) -> bool {
        self.role == PrincipalRole::RoleAccount
    }
}

/// How a principal is at the KDC.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PrincipalState {
    /// The number of its newest key; `None` while it has no key.
    pub kvno: Option<Kvno>,
    /// The name of its policy.
    pub policy: Option<String>,
    /// The longest life of its tickets.
    pub max_life: Duration,
    /// The longest life of its renewable tickets.
    pub max_renewable_life: Duration,
    /// Whether its password has expired at the time it was asked: it is no client then.
    pub password_expired: bool,
    /// Whether the KDC issues no tickets for it.
    pub disabled: bool,
    /// Whether it must preauthenticate as a client, and as a server asks for preauthenticated
    /// tickets.
    pub requires_preauth: bool,
    /// Whether the KDC issues tickets to it as a server.
    pub allows_svr: bool,
}
