//! A pod's object: its immutable spec and what the API server stamped on it.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use krb_proto::{NodeName, PodRef, VolumeName};
use serde::Deserialize;
use serde_json::Value;

use super::{
    CredentialVolume, RunAsGroup, RunAsUser,
    objects::{Meta, PodObject, meta},
};
use crate::entitlement::groups::Groups;

/// Set by kubelet on the API's copy of a pod that it was given by other means.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Where kubelet got a pod from: `api` for all but static pods.
const SOURCE: &str = "kubernetes.io/config.source";

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: String,
    service_account_name: String,
    security_context: Option<Security>,
    containers: Vec<Container>,
    init_containers: Option<Vec<Container>>,
    ephemeral_containers: Option<Vec<Container>>,
    volumes: Option<Vec<Volume>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Security {
    run_as_user: Option<i64>,
    run_as_group: Option<i64>,
    supplemental_groups: Option<Vec<i64>>,
    fs_group: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    name: String,
    security_context: Option<Security>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Volume {
    name: String,
    flex_volume: Option<Source>,
    csi: Option<Source>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Source {
    driver: String,
    options: Option<BTreeMap<String, String>>,
    volume_attributes: Option<BTreeMap<String, String>>,
}

/// Reads a pod. One whose spec can't be read is there, and lacks a stamp.
///
/// # Errors
/// When it can't be said which pod it is.
pub fn pod(cluster: &Arc<str>, value: &Value) -> Result<PodObject, String> {
    let meta = meta(value)?;
    let pod = PodRef {
        cluster: cluster.clone(),
        namespace: meta.namespace.parse().map_err(|why| format!("namespace {why}"))?,
        name: meta.name.parse().map_err(|why| format!("name {why}"))?,
        uid: meta.uid.parse().map_err(|_| "has no uid that the API server gave".to_owned())?,
    };
    let phase = value["status"]["phase"].as_str().unwrap_or_default();
    let spec = Spec::deserialize(&value["spec"]).ok();
    let deletion = deletion(&meta);
    let unstamped = match &spec {
        None => Some("a spec that can be read"),
        Some(_) if phase.is_empty() => Some("status.phase"),
        Some(spec) if spec.node_name.parse::<NodeName>().is_err() => Some("spec.nodeName"),
        Some(_) if deletion.is_err() => Some("a deletionTimestamp that can be read"),
        Some(_) => None,
    };
    let spec = spec.unwrap_or_default();
    Ok(PodObject {
        pod,
        unstamped,
        node: spec.node_name.parse().ok(),
        ended: matches!(phase, "Succeeded" | "Failed"),
        deletion: deletion.ok().flatten().map(Into::into),
        not_eligible: not_eligible(&meta, &spec),
        run_as_users: run_as_users(&spec),
        run_as_groups: run_as_groups(&spec),
        supplemental_groups: supplemental_groups(&spec),
        fs_group: fs_group(&spec),
        volumes: spec.volumes.unwrap_or_default().into_iter().filter_map(volume).collect(),
        labels: meta.labels.unwrap_or_default(),
    })
}

fn deletion(meta: &Meta) -> Result<Option<Timestamp>, jiff::Error> {
    meta.deletion_timestamp.as_deref().map(str::parse).transpose()
}

fn not_eligible(meta: &Meta, spec: &Spec) -> Option<&'static str> {
    let no_account = || spec.service_account_name.is_empty().then_some("it has no service account");
    comes_from_a_node(meta).or_else(no_account)
}

/// Why the object was made by a node and not for one.
fn comes_from_a_node(meta: &Meta) -> Option<&'static str> {
    let annotation = |key| meta.annotations.as_ref().and_then(|all| all.get(key));
    let owned_by_node = meta.owner_references.iter().flatten().any(|owner| owner.kind == "Node");
    if annotation(MIRROR).is_some() {
        Some("it is a mirror pod")
    } else if annotation(SOURCE).is_some_and(|source| source != "api") {
        Some("it did not come from the API server")
    } else if owned_by_node {
        Some("it is owned by a node")
    } else {
        None
    }
}

/// What is read of a pod, or of a template of pods, that does not exist yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Template {
    /// What its containers will run as.
    pub run_as_users: Vec<RunAsUser>,
    /// The groups of those containers that set one.
    pub run_as_groups: Vec<RunAsGroup>,
    /// Its supplementalGroups.
    pub supplemental_groups: Vec<u32>,
    /// Its fsGroup.
    pub fs_group: Option<u32>,
    /// Its flexVolume and CSI volumes.
    pub volumes: Vec<CredentialVolume>,
    /// Why it may never have anything.
    pub not_eligible: Option<&'static str>,
}

impl Template {
    /// The groups that it sets.
    pub fn groups(&self) -> Groups<'_> {
        Groups {
            run_as: &self.run_as_groups,
            supplemental: &self.supplemental_groups,
            fs_group: self.fs_group,
        }
    }
}

/// Reads a pod or a template of pods: a value with `metadata` and `spec`.
///
/// # Errors
/// What can't be read.
pub(crate) fn template(value: &Value) -> Result<Template, String> {
    let meta = match &value["metadata"] {
        Value::Null => Meta::default(), // a template need not have any
        _ => meta(value)?,
    };
    let spec = Spec::deserialize(&value["spec"]).map_err(|error| format!("spec: {error}"))?;
    Ok(Template {
        run_as_users: run_as_users(&spec),
        run_as_groups: run_as_groups(&spec),
        supplemental_groups: supplemental_groups(&spec),
        fs_group: fs_group(&spec),
        not_eligible: comes_from_a_node(&meta),
        volumes: spec.volumes.unwrap_or_default().into_iter().filter_map(volume).collect(),
    })
}

/// Reads a list of containers alone, without the pod that they are of.
///
/// # Errors
/// What can't be read.
pub(crate) fn containers(list: &Value) -> Result<Template, String> {
    let containers = Option::<Vec<Container>>::deserialize(list);
    let containers = containers.map_err(|error| format!("containers: {error}"))?;
    let spec = Spec { containers: containers.unwrap_or_default(), ..Spec::default() };
    Ok(Template {
        run_as_users: run_as_users(&spec),
        run_as_groups: run_as_groups(&spec),
        ..Template::default()
    })
}

fn run_as_users(spec: &Spec) -> Vec<RunAsUser> {
    let uid = |security: &Option<Security>| security.as_ref().and_then(|s| s.run_as_user);
    let of_pod = uid(&spec.security_context);
    let user = |container: &Container| RunAsUser {
        container: container.name.clone(),
        uid: id(uid(&container.security_context).or(of_pod)),
    };
    all_containers(spec).map(user).collect()
}

fn run_as_groups(spec: &Spec) -> Vec<RunAsGroup> {
    let gid = |security: &Option<Security>| security.as_ref().and_then(|s| s.run_as_group);
    let of_pod = gid(&spec.security_context);
    let run_as_group = |container: &Container| {
        let number = gid(&container.security_context).or(of_pod)?;
        Some(RunAsGroup { container: container.name.clone(), gid: group(number) })
    };
    all_containers(spec).filter_map(run_as_group).collect()
}

fn supplemental_groups(spec: &Spec) -> Vec<u32> {
    let groups = spec.security_context.as_ref().and_then(|s| s.supplemental_groups.as_ref());
    groups.into_iter().flatten().copied().map(group).collect()
}

fn fs_group(spec: &Spec) -> Option<u32> {
    spec.security_context.as_ref().and_then(|s| s.fs_group).map(group)
}

fn all_containers(spec: &Spec) -> impl Iterator<Item = &Container> {
    let init = spec.init_containers.iter().flatten();
    spec.containers.iter().chain(init).chain(spec.ephemeral_containers.iter().flatten())
}

/// A number that is no gid becomes one that no account has, and not "unset".
fn group(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn id(number: Option<i64>) -> Option<u32> {
    number.and_then(|number| u32::try_from(number).ok())
}

fn volume(volume: Volume) -> Option<CredentialVolume> {
    let name: VolumeName = volume.name.parse().ok()?;
    let (source, options) = match (volume.flex_volume, volume.csi) {
        (Some(mut flex), None) => {
            let options = flex.options.take();
            (flex, options)
        }
        (None, Some(mut csi)) => {
            let options = csi.volume_attributes.take();
            (csi, options)
        }
        _ => return None,
    };
    Some(CredentialVolume { name, driver: source.driver, options: options.unwrap_or_default() })
}
