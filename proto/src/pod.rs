//! Pods, their namespaces and volumes.

use std::{fmt, str::FromStr, sync::Arc};

use crate::text;

/// Why a text is no name of its kind.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidName {
    /// Namespaces and volumes are DNS labels.
    #[error("is not a DNS label: 1 to 63 of a-z 0-9 -")]
    Label,
    /// Pods are DNS names.
    #[error("is not a DNS name: labels of a-z 0-9 -, at most 253 characters")]
    Name,
    /// Uids are path parts that the API server makes.
    #[error("is not a pod uid: 1 to 64 of A-Z a-z 0-9 -")]
    Uid,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $valid:expr, $error:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The text as it is written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                if $valid(text) { Ok(Self(text.into())) } else { Err($error) }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A namespace's name, a DNS label.
    Namespace, text::is_dns_label, InvalidName::Label
);
name!(
    /// A pod's own name, a DNS name; it may have dots.
    PodName, text::is_dns_name, InvalidName::Name
);
name!(
    /// A volume's name in its pod's spec, a DNS label.
    VolumeName, text::is_dns_label, InvalidName::Label
);
name!(
    /// What tells a pod from its namesakes: 1 to 64 of `[A-Za-z0-9-]`.
    PodUid, is_uid, InvalidName::Uid
);

fn is_uid(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// A pod. Equal uids mean the same pod; names are used again.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PodRef {
    /// The broker's configured name of the cluster.
    pub cluster: Arc<str>,
    /// The namespace it runs in.
    pub namespace: Namespace,
    /// Its name.
    pub name: PodName,
    /// Its identity.
    pub uid: PodUid,
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
