//! Why a call fails, in the words that the pod's owner reads in the pod's events.
//!
//! The text is the same each time for the same cause, so that kubelet merges the events: no
//! pids, no times, no counts. It ends with a stable reason, like the agent's own texts.

use std::fmt;

use rustix::io::Errno;

/// Why a call fails.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Failure {
    /// `mount` or `unmount` with arguments that kubelet does not give.
    Call,
    /// The target is no volume's directory.
    Target,
    /// The options can't be read.
    Options,
    /// The options are of another pod or volume than the target.
    Disagree,
    /// The volume's directory does not exist.
    NoDirectory,
    /// A part of the path below kubelet's root is a link or a file.
    Link,
    /// The node would write the credentials to its swap.
    Swap,
    /// Another call for the same volume did not end in time.
    Busy,
    /// The volume was unmounted while it was being mounted.
    Unmounted,
    /// No agent, or none that answers in time.
    AgentAway,
    /// The agent's answer is no reply.
    AgentGarbled,
    /// The agent says no; its own text.
    Refused(String),
    /// The system said no to one step.
    System {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        errno: Errno,
    },
    /// The driver has a defect.
    Defect,
}

impl Failure {
    /// For `map_err`: the system refused while `doing`.
    pub fn system(doing: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self::System { doing, errno }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Call => "the driver was called in a way that it does not know (CALL_MALFORMED)",
            Self::Target => {
                "the path is not kubelet's directory for a volume of this driver (TARGET_REFUSED)"
            }
            Self::Options => "the volume's options can't be read (OPTIONS_MALFORMED)",
            Self::Disagree => {
                "the volume's options are of another pod or volume than its directory (TARGET_REFUSED)"
            }
            Self::NoDirectory => "the volume's directory does not exist (TARGET_MISSING)",
            Self::Link => "the volume's path has a link or a file in it (TARGET_REFUSED)",
            Self::Swap => {
                "this node has swap switched on and a kernel without noswap: credentials are not written to it (SWAP_ON)"
            }
            Self::Busy => {
                "another call for this volume has not ended yet; kubelet tries again (VOLUME_BUSY)"
            }
            Self::Unmounted => "the volume was unmounted while it was being mounted (UNMOUNTED)",
            Self::AgentAway => {
                "krb-broker's agent on this node does not answer; kubelet tries again (AGENT_UNAVAILABLE)"
            }
            Self::AgentGarbled => {
                "krb-broker's agent on this node gave an answer that can't be read (AGENT_GARBLED)"
            }
            Self::Refused(text) => text,
            Self::System { doing, errno } => {
                return write!(f, "{doing}: {} (NODE_FAILED)", std::io::Error::from(*errno));
            }
            Self::Defect => "the driver has a defect and gave up (INTERNAL)",
        })
    }
}

impl std::error::Error for Failure {}
