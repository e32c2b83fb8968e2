//! What a pod's owner is told beside the mount: denials, delays, revocations; never a success.
//!
//! Telling is a courtesy. It never waits, never fails whoever tells, and nothing is decided by it; the
//! audit log has everything, whether or not anybody was told. What is told is what the mount's failure
//! says too, and only of a pod that is bound to the node which asks: the text is for its owner.
//!
//! [`merge`] makes of many notices few writes; it is pure.

pub mod merge;

use std::fmt;

use krb_proto::PodRef;

use crate::lease::Lease;

/// Something that a pod's owner should know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Notice {
    /// Whose.
    pub pod: PodRef,
    /// What kind of thing happened.
    pub about: About,
    /// A sentence that its owner may read: the same for the same cause.
    pub text: String,
}

impl Notice {
    /// That the lease was taken away, and why, in words that name no operator.
    pub fn revoked(lease: &Lease, why: &str) -> Self {
        let text = format!("the credentials of volume {} are revoked: {why}", lease.holder.volume);
        Self { pod: lease.holder.pod.clone(), about: About::Revoked, text }
    }
}

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum About {
    /// The pod may not have what it asks for.
    Denied,
    /// It may, and has to wait.
    Delayed,
    /// What it had was taken away.
    Revoked,
}

impl About {
    /// The reason as Kubernetes shows it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Denied => "CredentialsDenied",
            Self::Delayed => "CredentialsDelayed",
            Self::Revoked => "CredentialsRevoked",
        }
    }
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

/// Tells the owners of pods.
pub trait Notices: Send + Sync {
    /// Takes the notice. Does not block; it may be merged with others, or dropped.
    fn tell(&self, notice: Notice);
}

/// Where there is no way to tell anybody.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoNotices;

impl Notices for NoNotices {
    fn tell(&self, _: Notice) {}
}

#[cfg(any(test, feature = "testing"))]
pub use testing::NoticeBoard;

#[cfg(any(test, feature = "testing"))]
mod testing {
    use std::sync::Mutex;

    use super::{Notice, Notices};

    /// Keeps what was told.
    #[derive(Debug, Default)]
    pub struct NoticeBoard(Mutex<Vec<Notice>>);

    impl NoticeBoard {
        /// What was told so far.
        pub fn told(&self) -> Vec<Notice> {
            self.0.lock().expect("no test panicked with the board").clone()
        }
    }

    impl Notices for NoticeBoard {
        fn tell(&self, notice: Notice) {
            self.0.lock().expect("no test panicked with the board").push(notice);
        }
    }
}
