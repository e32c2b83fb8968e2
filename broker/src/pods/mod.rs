//! Pods as the cluster knows them, and what of them gives authority.
//!
//! The broker believes nothing that a node says of a pod; it looks the pod up here.
//! [`mod@file`] reads a directory of objects as `kubectl get -o yaml` prints them;
//! [`crate::kubernetes::source`] asks the API server.

mod absence;
mod directory;
pub mod file;
pub mod nodes;
pub(crate) mod objects;
pub(crate) mod spec;
#[cfg(test)]
mod tests;
mod world;

pub use world::Place;

use std::collections::BTreeMap;

use async_trait::async_trait;
use krb_proto::{Namespace, NodeName, PodRef, PodUid, VolumeName};

/// A pod, with what a decision needs and nothing that an annotation could forge.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pod {
    /// Which pod.
    pub pod: PodRef,
    /// The uid of its namespace object.
    pub namespace_uid: String,
    /// The node it is bound to.
    pub node: NodeName,
    /// Succeeded, Failed, or past its deletion with its grace.
    pub finished: bool,
    /// Why it may never have anything, where that is so: a mirror pod, owned by a node, no
    /// service account.
    pub not_eligible: Option<&'static str>,
    /// The effective runAsUser of every container, init and ephemeral too; `None`: unset.
    pub run_as_users: Vec<RunAsUser>,
    /// The effective runAsGroup of every container that has one, init and ephemeral too.
    pub run_as_groups: Vec<RunAsGroup>,
    /// The pod's `securityContext.supplementalGroups`.
    pub supplemental_groups: Vec<u32>,
    /// The pod's `securityContext.fsGroup`.
    pub fs_group: Option<u32>,
    /// The flexVolume and CSI volumes of its spec.
    pub volumes: Vec<CredentialVolume>,
    /// Names of the Services of its namespace whose selector selects it; never ExternalName
    /// or selector-less ones.
    pub services: Vec<String>,
    /// The labels of the node object, where the source has one.
    pub node_labels: BTreeMap<String, String>,
}

/// What a container runs as.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RunAsUser {
    /// The container's name.
    pub container: String,
    /// Its own `runAsUser`, or the pod's, or none.
    pub uid: Option<u32>,
}

/// The group that a container runs as. A number that is no gid is read as 4294967295, here and
/// in the pod's other groups: no account has it, so that it is never taken for unset.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RunAsGroup {
    /// The container's name.
    pub container: String,
    /// Its own `runAsGroup`, or the pod's.
    pub gid: u32,
}

/// A volume of a pod's spec: who mounts it, and what its immutable options ask for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CredentialVolume {
    /// Its name in the spec.
    pub name: VolumeName,
    /// `vendor/driver`.
    pub driver: String,
    /// Its options, as the spec has them.
    pub options: BTreeMap<String, String>,
}

/// What the source knows of a uid.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Sighting {
    /// It is there, as of now.
    Here(Box<Pod>),
    /// It has not been there for long enough to be sure, or its name has another uid now.
    Gone,
    /// It is not there, but has not been away for long enough to be sure.
    Missing,
    /// It is there and lacks what the API server stamps: uid, nodeName, phase.
    Unstamped {
        /// What is missing.
        what: &'static str,
    },
}

/// Where pods are looked up.
#[async_trait]
pub trait PodSource: Send + Sync {
    /// Looks the pod up now: the view that is returned is confirmed by this call. `hint` is where
    /// to look for one that the source has not seen yet; it is believed in nothing else.
    async fn look(&self, uid: &PodUid, hint: Option<&Place>) -> Result<Sighting, PodsUnavailable>;

    /// Of these pods, those that are gone: absent, or finished, for long enough to be sure.
    async fn gone(&self, pods: &[PodRef]) -> Result<Vec<PodUid>, PodsUnavailable>;

    /// The uid that the namespace has now.
    async fn namespace_uid(&self, namespace: &Namespace)
    -> Result<Option<String>, PodsUnavailable>;
}

/// The source can't be read now.
#[derive(Debug, thiserror::Error)]
#[error("the source of pods can't be read: {detail}")]
pub struct PodsUnavailable {
    /// What went wrong.
    pub detail: String,
    /// The same for the pod's owner: always one text for one cause, and no addresses.
    pub told: &'static str,
}

impl PodsUnavailable {
    /// Where the owner need not know more than that it is so.
    pub fn new(detail: impl std::fmt::Display) -> Self {
        Self { detail: detail.to_string(), told: "the broker can't look the pod up now" }
    }
}
