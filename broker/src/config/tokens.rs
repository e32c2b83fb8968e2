//! `[node_tokens]`: the agents whose tokens prove nodes.

use std::time::Duration;

use krb_proto::text;

use super::{check::Checker, raw};
use crate::kubernetes::tokens::Agents;

/// Whose tokens prove nodes, and for how long a review counts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeTokensConfig {
    /// Whose.
    pub agents: Agents,
    /// How long what the API server accepted is remembered.
    pub cache: Duration,
}

/// The longest that a review may count: a pod that is gone proves its node for as long.
const LONGEST_CACHE: Duration = Duration::from_secs(600);

impl Checker<'_> {
    pub(super) fn node_tokens(
        &mut self,
        raw: Option<&raw::NodeTokens>,
        has_cluster: bool,
    ) -> Option<NodeTokensConfig> {
        let raw = raw?;
        if !has_cluster {
            self.add(
                "node_tokens",
                "needs the section `kubernetes`: its API server reviews tokens",
            );
        }
        let audience = raw.audience.clone().unwrap_or_else(|| "krb-broker".to_owned());
        if audience.is_empty() || audience.contains(char::is_whitespace) {
            self.add("node_tokens.audience", "is empty or has blanks");
        }
        let field = "node_tokens.cache";
        let cache = self.span(field, raw.cache.as_deref(), Duration::from_secs(60));
        if cache > LONGEST_CACHE {
            self.add(
                field,
                "is more than 10m: a pod that is gone would prove its node for as long",
            );
        }
        let account = raw.service_account.as_deref().unwrap_or("krb-broker/krb-node-agent");
        let field = "node_tokens.service_account";
        let Some((namespace, name)) = account.split_once('/') else {
            self.add(field, "is not namespace/name");
            return None;
        };
        if !text::is_dns_name(name) {
            self.add(field, "is not namespace/name");
        }
        let namespace = self.parse(field, namespace)?;
        let service_account = name.to_owned();
        Some(NodeTokensConfig { agents: Agents { audience, namespace, service_account }, cache })
    }
}
