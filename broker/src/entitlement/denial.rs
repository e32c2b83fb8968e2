//! Denials: what the pod's owner reads, and what the audit log keeps.

use krb_proto::reason::Reason;

use super::Denial;

/// All that a node learns of a pod that is not bound to it, whatever the cause.
pub const POD_UNKNOWN: &str = "no such pod on this node";

impl Denial {
    /// A denial whose owner's message is also the rule.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { reason, rule: message.clone(), message }
    }

    /// A denial with its missing rule in full.
    pub fn with_rule(reason: Reason, message: impl Into<String>, rule: impl Into<String>) -> Self {
        Self { reason, message: message.into(), rule: rule.into() }
    }

    /// The denial of a pod that is not bound to the calling node: constant for the caller,
    /// in full for the audit log.
    pub fn pod_unknown(rule: impl Into<String>) -> Self {
        Self::with_rule(Reason::PodUnknown, POD_UNKNOWN, rule)
    }

    /// The ask can't be read.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::new(Reason::AskMalformed, message)
    }
}
