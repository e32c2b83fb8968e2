//! Who a node is by its agent's token: the seam, and what may be said of a refusal.
//!
//! A node may prove itself by the service account token of its agent's pod instead of a
//! certificate. Whoever implements [`NodeTokens`] says which pod a token is of, and which node that
//! pod runs on; [`reviews`] remembers that for a while and bounds what is asked.
//!
//! A token is a [`Secret`] from the moment it is taken out of a request: it is never logged, and
//! remembered only by its SHA-256. The caller of a token that is refused learns which kind of thing
//! is wrong; the rest is for the audit log.

pub mod reviews;

use std::{fmt, time::SystemTime};

use async_trait::async_trait;
use krb_proto::{NodeName, PodUid, Secret};
use sha2::{Digest, Sha256};

use crate::session::KeyHash;

/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN: usize = 16 * 1024;

/// What a token proved.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Proved {
    /// The node that the agent's pod runs on.
    pub node: NodeName,
    /// The uid of its Node object.
    pub node_uid: String,
    /// The uid of the agent's pod.
    pub pod: PodUid,
    /// When the token ends.
    pub expires: SystemTime,
}

impl Proved {
    /// What a ban tells this agent by: it lasts as long as its pod does.
    pub fn key(&self) -> KeyHash {
        let mut hash = Sha256::new_with_prefix("krb-broker agent pod ");
        hash.update(self.pod.as_str());
        KeyHash(hash.finalize().into())
    }
}

/// Tells whose a token is.
#[async_trait]
pub trait NodeTokens: Send + Sync {
    /// Which node's agent has this token, as of now.
    ///
    /// # Errors
    /// When it is refused, or nobody can say now.
    async fn review(&self, token: &Secret) -> Result<Proved, TokenError>;

    /// Whether whoever reviews tokens can be asked at all now.
    async fn answers(&self) -> bool;
}

/// Why a token proved nothing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TokenError {
    /// It is refused, and would be again.
    #[error("{why}: {detail}")]
    Refused {
        /// What is wrong, for the caller.
        why: Refusal,
        /// The same in full, for the audit log.
        detail: String,
    },
    /// Nobody can say now.
    #[error("tokens can't be reviewed now: {detail}")]
    Unavailable {
        /// What went wrong.
        detail: String,
    },
    /// Too many are being reviewed.
    #[error("too many tokens are being reviewed")]
    Busy,
}

impl TokenError {
    /// A refusal.
    pub fn refused(why: Refusal, detail: impl Into<String>) -> Self {
        Self::Refused { why, detail: detail.into() }
    }

    /// An outage.
    pub fn unavailable(detail: impl fmt::Display) -> Self {
        Self::Unavailable { detail: detail.to_string() }
    }
}

/// What is wrong with a token, as its caller may know.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Refusal {
    /// The call carries none.
    Missing,
    /// It is too long, or no token at all.
    Malformed,
    /// Its time is over, or it has no end.
    Expired,
    /// It is not for the broker.
    Audience,
    /// The API server does not know it: forged, or its pod or account is gone.
    NotValid,
    /// It is of another service account.
    ServiceAccount,
    /// It is bound to no pod, or its pod is gone, finished, or not what it says.
    Pod,
    /// Its pod runs on no node that there is.
    Node,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "the call carries neither a certificate nor a token",
            Self::Malformed => "the call's token is malformed",
            Self::Expired => "the token has expired",
            Self::Audience => "the token is for another audience",
            Self::NotValid => "the API server does not accept the token",
            Self::ServiceAccount => "the token is not of the agents' service account",
            Self::Pod => "the token is not of a running agent's pod",
            Self::Node => "the token's pod runs on no known node",
        })
    }
}

#[cfg(any(test, feature = "testing"))]
pub use testing::FakeTokens;

#[cfg(any(test, feature = "testing"))]
mod testing {
    use std::{
        collections::HashMap,
        sync::{Mutex, MutexGuard},
    };

    use super::{NodeTokens, Proved, Refusal, Secret, TokenError, async_trait};

    /// A cluster's tokens in memory. It can go down.
    #[derive(Debug, Default)]
    pub struct FakeTokens(Mutex<State>);

    #[derive(Debug, Default)]
    struct State {
        known: HashMap<Vec<u8>, Proved>,
        down: bool,
        asked: usize,
    }

    impl FakeTokens {
        /// The token is good from now on, and proves this.
        pub fn know(&self, token: &str, proved: Proved) {
            self.state().known.insert(token.as_bytes().to_vec(), proved);
        }

        /// The token is good no more.
        pub fn forget(&self, token: &str) {
            self.state().known.remove(token.as_bytes());
        }

        /// Nobody can be asked, or somebody again.
        pub fn set_down(&self, down: bool) {
            self.state().down = down;
        }

        /// How many reviews were asked for.
        pub fn asked(&self) -> usize {
            self.state().asked
        }

        fn state(&self) -> MutexGuard<'_, State> {
            self.0.lock().expect("no test panicked with the tokens")
        }
    }

    #[async_trait]
    impl NodeTokens for FakeTokens {
        async fn review(&self, token: &Secret) -> Result<Proved, TokenError> {
            self.state().asked += 1;
            tokio::task::yield_now().await;
            let state = self.state();
            if state.down {
                return Err(TokenError::unavailable("the API server is away"));
            }
            let known = state.known.get(token.expose()).cloned();
            known.ok_or_else(|| TokenError::refused(Refusal::NotValid, "not known"))
        }

        async fn answers(&self) -> bool {
            !self.state().down
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_tells_agents_by_their_pods() {
        let proved = |node: &str, pod: &str| Proved {
            node: node.parse().unwrap(),
            node_uid: "n".to_owned(),
            pod: pod.parse().unwrap(),
            expires: SystemTime::UNIX_EPOCH,
        };
        assert_eq!(proved("a", "p").key(), proved("b", "p").key());
        assert_ne!(proved("a", "p").key(), proved("a", "q").key());
    }
}
