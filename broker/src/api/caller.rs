//! Who is calling, by the certificate that the connection was made with, or by the token that a
//! call carries on a connection without one.

use std::{collections::BTreeSet, time::SystemTime};

use krb_proto::{Namespace, NodeName};
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::{extensions::ParsedExtension, prelude::*};

use super::roles::Role;
use crate::{audit::Actor, session::KeyHash, tokens::Proved};

/// The peer of a connection, or whoever makes one call on it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Caller {
    /// Who it is.
    pub identity: Identity,
    /// Until when its certificate or token is good: a connection may outlive it, its calls may not.
    pub not_after: SystemTime,
    /// The key that it proved to have.
    pub key: Option<KeyHash>,
    /// The uid of its Node object, where it proved that.
    pub node_uid: Option<String>,
}

/// What a certificate, or a token, proves.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Identity {
    /// The agent of this node.
    Node(NodeName),
    /// An operator, by common name.
    Operator(String),
    /// A viewer, by common name, and the namespaces it is bound to.
    Viewer(String, Option<BTreeSet<Namespace>>),
    /// It came without a certificate: each of its calls must prove itself by a token.
    Unproven,
    /// Signed by a role's CA, and yet nobody.
    Nobody {
        /// Why.
        why: &'static str,
    },
}

impl Caller {
    /// The peer of a connection without a certificate.
    pub fn unproven() -> Self {
        let not_after = SystemTime::UNIX_EPOCH;
        Self { identity: Identity::Unproven, not_after, key: None, node_uid: None }
    }

    /// The caller that a token proved.
    pub fn by_token(proved: Proved) -> Self {
        Self {
            key: Some(proved.key()),
            not_after: proved.expires,
            node_uid: Some(proved.node_uid),
            identity: Identity::Node(proved.node),
        }
    }

    /// Its role, if it has one.
    pub fn role(&self) -> Option<Role> {
        match self.identity {
            Identity::Node(_) => Some(Role::Node),
            Identity::Operator(_) => Some(Role::Operator),
            Identity::Viewer(..) => Some(Role::Viewer),
            Identity::Unproven | Identity::Nobody { .. } => None,
        }
    }

    /// As the audit log names it.
    pub fn actor(&self) -> Actor {
        match &self.identity {
            Identity::Node(node) => Actor::Node(node.clone()),
            Identity::Operator(name) => Actor::Operator(name.clone()),
            Identity::Viewer(name, _) => Actor::Viewer(name.clone()),
            Identity::Unproven => Actor::Unknown("no certificate".to_owned()),
            Identity::Nobody { why } => Actor::Unknown((*why).to_owned()),
        }
    }

    /// Its node.
    pub fn node(&self) -> Option<&NodeName> {
        match &self.identity {
            Identity::Node(node) => Some(node),
            _ => None,
        }
    }

    /// The namespaces that are all it may see; `None`: any.
    pub fn visible(&self) -> Option<BTreeSet<Namespace>> {
        match &self.identity {
            Identity::Viewer(_, visible) => visible.clone(),
            _ => None,
        }
    }
}

/// The organisation of node certificates, as kubelets have it.
const NODES: &str = "system:nodes";
/// What their common name begins with.
const NODE: &str = "system:node:";

/// Reads a certificate that a CA of `role` has signed.
pub fn identify(certificate: &CertificateDer<'_>, role: Role) -> Caller {
    let nobody = |why| Caller {
        identity: Identity::Nobody { why },
        not_after: SystemTime::UNIX_EPOCH,
        key: None,
        node_uid: None,
    };
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return nobody("the certificate can't be read");
    };
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    let not_after = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    let identity = match who(&parsed, role) {
        Ok(identity) => identity,
        Err(why) => Identity::Nobody { why },
    };
    let key = Some(KeyHash(Sha256::digest(parsed.public_key().raw).into()));
    Caller { identity, not_after, key, node_uid: None }
}

fn who(certificate: &X509Certificate<'_>, role: Role) -> Result<Identity, &'static str> {
    let for_clients = certificate.extensions().iter().any(|extension| {
        matches!(extension.parsed_extension(), ParsedExtension::ExtendedKeyUsage(usage) if usage.client_auth)
    });
    if !for_clients {
        return Err("the certificate lacks the extended key usage clientAuth");
    }
    let subject = certificate.subject();
    let mut names = subject.iter_common_name().map(AttributeTypeAndValue::as_str);
    let (Some(Ok(name)), None) = (names.next(), names.next()) else {
        return Err("the certificate has not exactly one common name");
    };
    match role {
        Role::Operator => Ok(Identity::Operator(name.to_owned())),
        Role::Viewer => Ok(Identity::Viewer(name.to_owned(), None)),
        Role::Node => {
            let mut organisations = subject.iter_organization().map(AttributeTypeAndValue::as_str);
            if !matches!((organisations.next(), organisations.next()), (Some(Ok(NODES)), None)) {
                return Err("the certificate is not exactly of O=system:nodes");
            }
            let node = name.strip_prefix(NODE).and_then(|node| node.parse().ok());
            node.map(Identity::Node).ok_or("the common name is not system:node:<name>")
        }
    }
}
