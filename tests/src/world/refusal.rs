//! What every refusal of a mount has in common, whatever its reason.

use krb_proto::v1::LeaseState;

use super::{World, WorldError, node::Node, pods::Pod};

impl World {
    /// Mounts a pod that is to be refused with `reason`, twice. Both answers say the same and
    /// end with the reason; the audit log has a line, with a rule, and merges the second; nothing is
    /// mounted, and no lease is live. Returns the text.
    pub async fn refused(&self, pod: &Pod, node: &str, reason: &str) -> Result<String, WorldError> {
        let node = self.nodes.iter().find(|known| known.name() == node);
        let node = node.ok_or_else(|| WorldError::new("refusing a mount", "no such node"))?;
        let wrong =
            |what: String| WorldError::new(format!("refusing {} ({reason})", pod.name), what);
        let denials = || {
            let lines = self.broker.audited("lease.denied");
            lines.into_iter().filter(|line| line["pod_uid"] == pod.uid.as_str()).collect::<Vec<_>>()
        };
        let before = denials().len();
        let first = refusal_of(node, pod)?;
        let second = refusal_of(node, pod)?;
        if first != second {
            return Err(wrong(format!("said {first:?}, and then {second:?}")));
        }
        if !first.ends_with(&format!("({reason})")) {
            return Err(wrong(format!("was refused with {first:?}")));
        }
        if first.chars().count() > 500 || first.contains(char::is_control) {
            return Err(wrong(format!("said something that is no short line: {first:?}")));
        }
        let lines = denials();
        let told = |line: &serde_json::Value| line["reason"] == reason && line["rule"].is_string();
        if lines.len() > before + 1 || !lines.iter().any(told) {
            return Err(wrong(format!("the audit log says {lines:?}")));
        }
        self.holds_nothing(pod, node).await?;
        Ok(first)
    }

    /// The pod has no live lease, and nothing is mounted for it.
    pub async fn holds_nothing(&self, pod: &Pod, node: &Node) -> Result<(), WorldError> {
        let wrong = |what: String| WorldError::new(format!("what {} holds", pod.name), what);
        if node.is_mounted(pod) {
            return Err(wrong("something is mounted".to_owned()));
        }
        let lease = self.operator().await?.lease_of(&pod.uid).await;
        let live = |state| matches!(state, LeaseState::Pending | LeaseState::Active);
        match lease.map_err(|status| wrong(status.to_string()))? {
            Some(lease) if live(lease.state()) => Err(wrong(format!("{lease:?}"))),
            _ => Ok(()),
        }
    }

    /// Whatever happened cost nothing else: a good pod is served, and nothing panicked.
    pub async fn serves_on(&self, name: &str, node: &str) -> Result<(), WorldError> {
        let pod = self.pod(name, node)?;
        let node = self.nodes.iter().find(|known| known.name() == node);
        let node = node.ok_or_else(|| WorldError::new("serving on", "no such node"))?;
        let answer = node.mount(&pod)?;
        if !answer.is_success() {
            return Err(WorldError::new("serving a good pod", format!("{answer:?}")));
        }
        node.unmount(&pod)?;
        self.pods.delete(&pod)?;
        self.nothing_panicked()
    }

    /// No program of this world panicked.
    pub fn nothing_panicked(&self) -> Result<(), WorldError> {
        let logs = self.nodes.iter().map(Node::log).chain([self.broker.log()]);
        match logs.into_iter().find(|log| log.contains("panicked")) {
            Some(log) => Err(WorldError::new("a program panicked", log)),
            None => Ok(()),
        }
    }
}

/// The text with which the driver refuses to mount.
fn refusal_of(node: &Node, pod: &Pod) -> Result<String, WorldError> {
    let answer = node.mount(pod)?;
    if answer.is_success() {
        return Err(WorldError::new(format!("mounting {}", pod.name), "it was not refused"));
    }
    Ok(answer.message)
}
