//! Tokens of agents, reviewed by the API server.
//!
//! Three questions, none answered from a cache: whether the token is good for our audience and whose
//! it is (TokenReview), which node the pod runs on that it is bound to, and which uid that node's
//! object has. A token says that somebody on the pod's node has it, and no more; that is what a
//! node's certificate says too.

mod claims;

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use async_trait::async_trait;
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus},
    core::v1::{Node, Pod},
};
use krb_proto::{Namespace, NodeName, PodUid, Secret, text::shown};
use kube::{Api, Client, api::PostParams};
use zeroize::Zeroize;

use self::claims::Claims;
use crate::{
    clock::Clock,
    tokens::{NodeTokens, Proved, Refusal, TokenError},
};

/// Where the API server says which pod a token is bound to.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Whose tokens are accepted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Agents {
    /// What their tokens must be made for.
    pub audience: String,
    /// The namespace of their service account.
    pub namespace: Namespace,
    /// Its name.
    pub service_account: String,
}

impl Agents {
    /// The account as the API server names it.
    fn username(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.service_account)
    }
}

/// The API server as the one who says whose a token is.
pub struct ReviewedTokens {
    client: Client,
    agents: Agents,
    clock: Arc<dyn Clock>,
}

impl ReviewedTokens {
    /// Asks by this client. It may create tokenreviews, and get nodes and the agents' pods.
    pub fn new(client: Client, agents: Agents, clock: Arc<dyn Clock>) -> Self {
        Self { client, agents, clock }
    }

    async fn ask(&self, token: &Secret) -> Result<TokenReviewStatus, TokenError> {
        let token = str::from_utf8(token.expose())
            .map_err(|_| TokenError::refused(Refusal::Malformed, "it is no text"))?;
        let spec = TokenReviewSpec {
            audiences: Some(vec![self.agents.audience.clone()]),
            token: Some(token.to_owned()),
        };
        let mut review = TokenReview { spec, ..TokenReview::default() };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await;
        review.spec.token.zeroize();
        let mut answer = answer.map_err(|error| away("reviewing a token", &error))?;
        answer.spec.token.zeroize();
        answer.status.ok_or_else(|| TokenError::unavailable("the TokenReview has no status"))
    }
}

#[async_trait]
impl NodeTokens for ReviewedTokens {
    async fn review(&self, token: &Secret) -> Result<Proved, TokenError> {
        let claims = Claims::read(token.expose())?;
        let username = self.agents.username();
        let expires = claims.check(&self.agents.audience, &username, self.clock.now().wall)?;
        let (name, uid) = bound_pod(&self.ask(token).await?, &self.agents)?;

        let pods: Api<Pod> = Api::namespaced(self.client.clone(), self.agents.namespace.as_str());
        let pod = pods.get_opt(&name).await.map_err(|error| away("getting its pod", &error))?;
        let pod = pod.ok_or_else(|| of_pod(&name, "is gone"))?;
        let node = node_of(&pod, &uid, &self.agents, self.clock.now().wall)?;

        let nodes: Api<Node> = Api::all(self.client.clone());
        let object = nodes.get_opt(node.as_str()).await;
        let object = object.map_err(|error| away("getting its node", &error))?;
        let node_uid = object.and_then(|object| object.metadata.uid).ok_or_else(|| {
            TokenError::refused(Refusal::Node, format!("there is no Node object {node}"))
        })?;
        Ok(Proved { node, node_uid, pod: uid, expires })
    }

    async fn answers(&self) -> bool {
        // its own check of etcd included; a refusal is an answer
        let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else { return false };
        match self.client.request_text(request).await {
            Ok(_) => true,
            Err(kube::Error::Api(status)) => (400..500).contains(&status.code),
            Err(_) => false,
        }
    }
}

fn away(doing: &str, error: &kube::Error) -> TokenError {
    TokenError::unavailable(format!("{doing}: {}", crate::audit::chain(error)))
}

fn of_pod(name: &str, what: &str) -> TokenError {
    TokenError::refused(Refusal::Pod, format!("the pod {} {what}", shown(name)))
}

/// Name and uid of the pod that a token is bound to, which is good and an agent's.
fn bound_pod(status: &TokenReviewStatus, agents: &Agents) -> Result<(String, PodUid), TokenError> {
    let refused = |why, detail: String| Err(TokenError::refused(why, detail));
    if status.authenticated != Some(true) {
        let why = status.error.as_deref().unwrap_or("it is not authenticated");
        return refused(Refusal::NotValid, shown(why));
    }
    // one that knows no audiences would have accepted a token for anybody
    if !status.audiences.iter().flatten().any(|audience| *audience == agents.audience) {
        return refused(Refusal::Audience, "the API server names another audience".to_owned());
    }
    let Some(user) = &status.user else {
        return refused(Refusal::NotValid, "the API server names no user".to_owned());
    };
    let username = user.username.as_deref().unwrap_or_default();
    if username != agents.username() {
        return refused(Refusal::ServiceAccount, format!("it is of {}", shown(username)));
    }
    let extra = user.extra.as_ref();
    match (only(extra, POD_NAME), only(extra, POD_UID).and_then(|uid| uid.parse().ok())) {
        (Some(name), Some(uid)) => Ok((name.to_owned(), uid)),
        _ => refused(Refusal::Pod, "it is bound to no pod".to_owned()),
    }
}

/// The one value of a key.
fn only<'a>(extra: Option<&'a BTreeMap<String, Vec<String>>>, key: &str) -> Option<&'a str> {
    match extra?.get(key)?.as_slice() {
        [value] if !value.is_empty() => Some(value),
        _ => None,
    }
}

/// The node that the agent's pod runs on, if it is that pod, alive, and an agent's.
fn node_of(
    pod: &Pod,
    uid: &PodUid,
    agents: &Agents,
    now: SystemTime,
) -> Result<NodeName, TokenError> {
    let (meta, name) = (&pod.metadata, pod.metadata.name.as_deref().unwrap_or_default());
    let refused = |what: &str| Err(of_pod(name, what));
    if meta.uid.as_deref() != Some(uid.as_str()) {
        return refused("was made anew since the token was");
    }
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return refused("has finished");
    }
    // the API server adds the grace when it sets the timestamp
    let over = meta.deletion_timestamp.as_ref().is_some_and(|at| SystemTime::from(at.0) <= now);
    if over {
        return refused("is past its deletion");
    }
    let annotation = |key| meta.annotations.as_ref().and_then(|all| all.get(key));
    let mirror = annotation("kubernetes.io/config.mirror").is_some()
        || annotation("kubernetes.io/config.source").is_some_and(|source| source != "api")
        || meta.owner_references.iter().flatten().any(|owner| owner.kind == "Node");
    if mirror {
        return refused("was made by a node");
    }
    let spec = pod.spec.as_ref();
    let account = spec.and_then(|spec| spec.service_account_name.as_deref());
    if account != Some(agents.service_account.as_str()) {
        return refused("runs as another service account");
    }
    let node = spec.and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
    node.parse().map_err(|_| {
        TokenError::refused(Refusal::Node, format!("the pod {} is bound to no node", shown(name)))
    })
}

#[cfg(test)]
mod tests;
