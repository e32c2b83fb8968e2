//! Whether the cluster keeps its nodes apart: the Node authorizer and NodeRestriction.
//!
//! Where they are off, the root of one node is the root of all of them as far as the API server is
//! concerned: it reads every Secret, labels other nodes, makes tokens for pods of other nodes. The
//! broker's own rule, that a node gets what its own pods may have, then rests on nothing.
//!
//! The questions change nothing. The authorizer is asked, by SubjectAccessReviews, what a node that
//! does not exist may do. NodeRestriction can only be seen at work: as that node, which takes the
//! right to impersonate it and nobody else, a label is set on another node as a dry run. Without
//! the right it remains unknown, and that is said.

use std::time::Duration;

use kube::{
    Client,
    core::{
        Request,
        params::{ListParams, Patch, PatchParams, PostParams},
    },
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    audit::{Actor, Event, Outcome, Record},
    ledger::book::Book,
};

/// The node that does not exist. Whoever makes one of this name spoils the probe, no more.
pub const NOBODY: &str = "system:node:krb-broker-probe";
/// The group of all nodes.
const NODES: &str = "system:nodes";
/// How often it is tried until the API server has answered.
const RETRY: Duration = Duration::from_secs(30);
/// How often it is done again.
const AGAIN: Duration = Duration::from_secs(3600);
/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);

/// What was found of one of the two.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Found {
    /// It is at work.
    On,
    /// It is not; what a node may do, in words.
    Off(&'static str),
    /// It can't be seen; why.
    Unknown(String),
}

/// What was found of both.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Findings {
    /// The Node authorizer.
    pub authorizer: Found,
    /// The admission plugin NodeRestriction.
    pub restriction: Found,
}

/// Looks at both.
///
/// # Errors
/// When the API server does not answer.
pub async fn probe(client: &Client) -> Result<Findings, kube::Error> {
    Ok(Findings { authorizer: authorizer(client).await?, restriction: restriction(client).await? })
}

/// Probes at the start and every hour, and is loud about what is missing, until `stop`.
pub async fn keep_probing(client: Client, book: Book, stop: CancellationToken) {
    let mut last = None;
    let probing = async {
        loop {
            let wait = match tokio::time::timeout(LIMIT * 4, probe(&client)).await {
                Ok(Ok(found)) => {
                    if last.as_ref() != Some(&found) {
                        tell(&found, &book).await;
                        last = Some(found);
                    }
                    AGAIN
                }
                Ok(Err(error)) => {
                    let error = super::client::described(&error);
                    tracing::warn!(error, "whether nodes are kept apart can't be asked now");
                    RETRY
                }
                Err(_) => RETRY,
            };
            tokio::time::sleep(wait).await;
        }
    };
    stop.run_until_cancelled(probing).await;
}

async fn tell(found: &Findings, book: &Book) {
    let both = [
        ("the Node authorizer", &found.authorizer),
        ("the admission plugin NodeRestriction", &found.restriction),
    ];
    for (what, found) in both {
        match found {
            Found::On => tracing::info!("{what} is on"),
            Found::Unknown(why) => tracing::warn!(why, "whether {what} is on is not known"),
            Found::Off(may) => {
                tracing::error!(may, "NODES ARE NOT KEPT APART: {what} is off");
                let line = Record::new(Event::ClusterUnguarded, Actor::Broker);
                let line = line.outcome(Outcome::Failed).detail(&format!("{what} is off: {may}"));
                let _ = book.audit_later(line).await; // the broker stops when it can't be written
            }
        }
    }
}

async fn authorizer(client: &Client) -> Result<Found, kube::Error> {
    let secret = json!({
        "verb": "get", "version": "v1", "resource": "secrets",
        "namespace": "kube-system", "name": "krb-broker-probe",
    });
    // to list them takes a selector from 1.32 on; to make a mirror pod takes none anywhere
    let pods =
        json!({"verb": "create", "version": "v1", "resource": "pods", "namespace": "default"});
    if may(client, &secret).await? {
        return Ok(Found::Off("a node may read Secrets that no pod of it uses"));
    }
    if !may(client, &pods).await? {
        return Ok(Found::Off("a node gets none of the rights that it gives"));
    }
    Ok(Found::On)
}

/// Whether the node that does not exist may do this.
async fn may(client: &Client, attributes: &Value) -> Result<bool, kube::Error> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {
            "user": NOBODY, "groups": [NODES, "system:authenticated"],
            "resourceAttributes": attributes,
        },
    });
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let body = serde_json::to_vec(&review).map_err(kube::Error::SerdeError)?;
    let request = Request::new(path).create(&PostParams::default(), body);
    let request = request.map_err(kube::Error::BuildRequest)?;
    let said: Value = client.request(request).await?;
    Ok(said["status"]["allowed"] == true)
}

async fn restriction(client: &Client) -> Result<Found, kube::Error> {
    let nodes = Request::new("/api/v1/nodes");
    let first = nodes.list(&ListParams::default().limit(1)).map_err(kube::Error::BuildRequest)?;
    let first: Value = client.request(first).await?;
    let Some(node) = first["items"][0]["metadata"]["name"].as_str() else {
        return Ok(Found::Unknown("there is no node to try it on".to_owned()));
    };
    let label = json!({"metadata": {"labels": {"krb-broker.io/probe": "dry-run"}}});
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    let request = nodes.patch(node, &params, &Patch::Merge(label));
    let mut request = request.map_err(kube::Error::BuildRequest)?;
    let as_nobody =
        [("impersonate-user", NOBODY), ("impersonate-group", NODES)].map(|(name, value)| {
            (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
        });
    request.headers_mut().extend(as_nobody);
    match client.request::<Value>(request).await {
        Ok(_) => Ok(Found::Off("a node may change other nodes")),
        Err(kube::Error::Api(status)) => Ok(refused(&status.message)),
        Err(error) => Err(error),
    }
}

/// What a refused dry run says. The Node authorizer lets any node patch nodes, so that it is the
/// plugin that says no; the words have been these since Kubernetes 1.8.
fn refused(message: &str) -> Found {
    if message.contains("is not allowed to modify node") {
        Found::On
    } else if message.contains("impersonate") {
        Found::Unknown(format!("the broker may not impersonate {NOBODY} in the group {NODES}"))
    } else {
        Found::Unknown(format!("a dry run was refused: {}", krb_proto::text::shown(message)))
    }
}
