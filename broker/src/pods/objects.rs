//! Kubernetes objects as `kubectl get -o yaml` prints them, read to what decisions need.
//!
//! Single objects and `kind: List` (also `PodList` and its like). Other kinds are passed
//! over. An object that can't be read gives nothing; a pod of that kind is kept by its uid
//! where that much can be read, so that it is known to be there and gives no authority.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use krb_proto::{Namespace, NodeName, PodRef, PodUid};
use serde::Deserialize;
use serde_json::Value;

use super::{CredentialVolume, RunAsGroup, RunAsUser, spec};

/// An object that the source understands.
#[derive(Clone, Debug)]
pub enum Object {
    /// A pod.
    Pod(Arc<PodObject>),
    /// A pod of this uid, of which no more can be read.
    Unreadable(PodUid),
    /// A Service with a selector.
    Service(ServiceObject),
    /// A namespace and its uid.
    Namespace(Namespace, String),
    /// A node and its labels.
    Node(NodeName, BTreeMap<String, String>),
}

/// A pod's object.
#[derive(Clone, Debug)]
pub struct PodObject {
    /// Which pod.
    pub pod: PodRef,
    /// What the API server stamps and this object lacks.
    pub unstamped: Option<&'static str>,
    /// The node it is bound to; absent only in one that is not stamped.
    pub node: Option<NodeName>,
    /// Whether its phase is Succeeded or Failed.
    pub ended: bool,
    /// When it is to be gone: the API server adds the grace when it sets the timestamp.
    pub deletion: Option<SystemTime>,
    /// Why it may never have anything.
    pub not_eligible: Option<&'static str>,
    /// What its containers run as.
    pub run_as_users: Vec<RunAsUser>,
    /// The groups of those containers that set one.
    pub run_as_groups: Vec<RunAsGroup>,
    /// Its supplementalGroups.
    pub supplemental_groups: Vec<u32>,
    /// Its fsGroup.
    pub fs_group: Option<u32>,
    /// Its flexVolume and CSI volumes.
    pub volumes: Vec<CredentialVolume>,
    /// Its labels, which Services select it by.
    pub labels: BTreeMap<String, String>,
}

/// A Service that selects pods.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceObject {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name, a DNS label.
    pub name: String,
    /// Labels that its pods have; at least one.
    pub selector: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Meta {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub labels: Option<BTreeMap<String, String>>,
    pub annotations: Option<BTreeMap<String, String>>,
    pub deletion_timestamp: Option<String>,
    pub owner_references: Option<Vec<Owner>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Owner {
    pub kind: String,
}

/// The objects of a document, and what could not be read of it.
pub fn read(cluster: &Arc<str>, document: &Value) -> (Vec<Object>, Vec<String>) {
    let mut objects = Vec::new();
    let mut wrong = Vec::new();
    for item in items(document) {
        match object(cluster, item) {
            Ok(Some(object)) => objects.push(object),
            Ok(None) => {}
            Err(why) => {
                wrong.push(why);
                objects.extend(unreadable(item));
            }
        }
    }
    (objects, wrong)
}

/// The items of a list, or the one object. Lists are not looked for in lists.
fn items(document: &Value) -> Vec<&Value> {
    let is_list = document["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    match &document["items"] {
        Value::Array(items) if is_list => items.iter().collect(),
        _ => vec![document],
    }
}

fn object(cluster: &Arc<str>, value: &Value) -> Result<Option<Object>, String> {
    let kind = value["kind"].as_str().unwrap_or_default();
    let ours = value["apiVersion"].as_str() == Some("v1");
    let described = |why: String| format!("{kind} {}: {why}", shown_name(value));
    let object = match kind {
        "Pod" if ours => spec::pod(cluster, value).map(|pod| Some(Object::Pod(Arc::new(pod)))),
        "Service" if ours => service(value).map(|service| service.map(Object::Service)),
        "Namespace" if ours => {
            namespace(value).map(|(name, uid)| Some(Object::Namespace(name, uid)))
        }
        "Node" if ours => node(value).map(|node| Some(Object::Node(node.name, node.labels))),
        _ => return Ok(None),
    };
    object.map_err(described)
}

fn unreadable(value: &Value) -> Option<Object> {
    let uid = value["metadata"]["uid"].as_str()?.parse().ok()?;
    (value["kind"] == "Pod").then_some(Object::Unreadable(uid))
}

fn shown_name(value: &Value) -> String {
    krb_proto::text::shown(value["metadata"]["name"].as_str().unwrap_or("without a name"))
}

pub(super) fn meta(value: &Value) -> Result<Meta, String> {
    Meta::deserialize(&value["metadata"]).map_err(|error| format!("metadata: {error}"))
}

/// Reads a Service; `None` for one that selects nothing.
///
/// # Errors
/// What can't be read of it.
pub(crate) fn service(value: &Value) -> Result<Option<ServiceObject>, String> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Spec {
        selector: Option<BTreeMap<String, String>>,
        r#type: String,
    }
    let meta = meta(value)?;
    let spec = Spec::deserialize(&value["spec"]).map_err(|error| format!("spec: {error}"))?;
    let selector = spec.selector.unwrap_or_default();
    if selector.is_empty() || spec.r#type == "ExternalName" {
        return Ok(None);
    }
    if !krb_proto::text::is_dns_label(&meta.name) {
        return Err("its name is not a DNS label".to_owned());
    }
    let namespace = meta.namespace.parse().map_err(|why| format!("namespace {why}"))?;
    Ok(Some(ServiceObject { namespace, name: meta.name, selector }))
}

/// Reads a namespace: its name and uid.
///
/// # Errors
/// What can't be read of it.
pub(crate) fn namespace(value: &Value) -> Result<(Namespace, String), String> {
    let meta = meta(value)?;
    let name = meta.name.parse().map_err(|why| format!("name {why}"))?;
    let uid: PodUid = meta.uid.parse().map_err(|_| "has no uid".to_owned())?;
    Ok((name, uid.as_str().to_owned()))
}

/// A node's object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeObject {
    /// Its name.
    pub name: NodeName,
    /// Its uid, empty where it has none.
    pub uid: String,
    /// Whether its condition Ready is True; `None` where there is no such condition.
    pub ready: Option<bool>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// Reads a node.
///
/// # Errors
/// What can't be read of it.
pub(crate) fn node(value: &Value) -> Result<NodeObject, String> {
    let meta = meta(value)?;
    let name = meta.name.parse().map_err(|why| format!("name {why}"))?;
    let conditions = value["status"]["conditions"].as_array();
    let ready = conditions.and_then(|all| all.iter().find(|c| c["type"] == "Ready"));
    let ready = ready.map(|condition| condition["status"] == "True");
    Ok(NodeObject { name, uid: meta.uid, ready, labels: meta.labels.unwrap_or_default() })
}
