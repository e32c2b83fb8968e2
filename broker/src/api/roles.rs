//! Which role may call which method. What is not listed, nobody may call.

use std::{collections::BTreeMap, collections::BTreeSet, fmt, path::PathBuf};

use krb_proto::Namespace;

/// What a caller is, by the CA that signed its certificate.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Role {
    /// A node's agent.
    Node,
    /// May see and change everything.
    Operator,
    /// May see leases and status.
    Viewer,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Operator => "operator",
            Self::Viewer => "viewer",
        })
    }
}

/// The CA files of the roles, and what viewers are bound to.
#[derive(Clone, Debug)]
pub struct RoleRoots {
    /// Of nodes; none: they have tokens.
    pub node: Option<PathBuf>,
    /// Whether a connection may come without a certificate, its calls with a token each.
    pub node_tokens: bool,
    /// Of operators.
    pub operator: PathBuf,
    /// Of viewers; none: there are no viewers.
    pub viewer: Option<PathBuf>,
    /// Viewers, by common name, that see only these namespaces.
    pub viewer_namespaces: BTreeMap<String, BTreeSet<Namespace>>,
}

const NODE: &[Role] = &[Role::Node];
const OPERATOR: &[Role] = &[Role::Operator];
const SEES: &[Role] = &[Role::Operator, Role::Viewer];
const ALL: &[Role] = &[Role::Node, Role::Operator, Role::Viewer];

/// Every method there is, by its path, and who may call it.
pub const METHODS: &[(&str, &[Role])] = &[
    ("/krb.broker.v1.NodeService/Issue", NODE),
    ("/krb.broker.v1.NodeService/Release", NODE),
    ("/krb.broker.v1.NodeService/Sync", NODE),
    ("/krb.broker.v1.LeaseService/ListLeases", SEES),
    ("/krb.broker.v1.LeaseService/GetLease", SEES),
    ("/krb.broker.v1.LeaseService/WatchLeases", SEES),
    ("/krb.broker.v1.LeaseService/RevokeLeases", OPERATOR),
    ("/krb.broker.v1.LeaseService/ExplainAccess", OPERATOR),
    ("/krb.broker.v1.PrincipalService/ListPrincipals", OPERATOR),
    ("/krb.broker.v1.PrincipalService/GetPrincipal", OPERATOR),
    ("/krb.broker.v1.PrincipalService/RotatePrincipal", OPERATOR),
    ("/krb.broker.v1.PrincipalService/AdoptPrincipal", OPERATOR),
    ("/krb.broker.v1.PrincipalService/ComparePrincipal", OPERATOR),
    ("/krb.broker.v1.PrincipalService/EnablePrincipal", OPERATOR),
    ("/krb.broker.v1.NodeAdminService/ListNodes", SEES),
    ("/krb.broker.v1.NodeAdminService/EvictNode", OPERATOR),
    ("/krb.broker.v1.NodeAdminService/UnbanNode", OPERATOR),
    ("/krb.broker.v1.NodeAdminService/ReleaseBrake", OPERATOR),
    ("/krb.broker.v1.NamespaceService/ListNamespaces", OPERATOR),
    ("/krb.broker.v1.NamespaceService/AcceptNamespace", OPERATOR),
    ("/krb.broker.v1.StatusService/GetStatus", SEES),
    ("/krb.broker.v1.StatusService/FinishRecovery", OPERATOR),
    ("/grpc.health.v1.Health/Check", ALL),
    ("/grpc.health.v1.Health/Watch", ALL),
    ("/grpc.health.v1.Health/List", ALL),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", SEES),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", SEES),
];

/// Whether a node may call the method at `path`: of no other is a token reviewed.
pub fn is_for_nodes(path: &str) -> bool {
    may_call(Role::Node, path)
}

/// Whether the role may call the method at `path`.
pub fn may_call(role: Role, path: &str) -> bool {
    METHODS.iter().any(|(method, roles)| *method == path && roles.contains(&role))
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn every_method_that_reflection_shows_has_its_roles() {
        let sets = [krb_proto::v1::DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET];
        let mut shown = 0;
        for set in sets {
            let set = FileDescriptorSet::decode(set).unwrap();
            for file in &set.file {
                for service in &file.service {
                    for method in &service.method {
                        let path =
                            format!("/{}.{}/{}", file.package(), service.name(), method.name());
                        assert!(METHODS.iter().any(|(known, _)| *known == path), "{path}");
                        shown += 1;
                    }
                }
            }
        }
        assert!(shown >= 9, "the descriptors are empty");
    }

    #[test]
    fn nodes_reach_no_operator_s_method_and_nobody_an_unknown_one() {
        for (path, _) in METHODS.iter().filter(|(path, _)| path.contains("krb.broker")) {
            let is_node = path.contains("NodeService");
            assert_eq!(may_call(Role::Node, path), is_node, "{path}");
            assert_eq!(may_call(Role::Operator, path), !is_node, "{path}");
        }
        assert!(!may_call(Role::Operator, "/krb.broker.v1.LeaseService/Unknown"));
        assert!(!may_call(Role::Viewer, "/krb.broker.v1.NamespaceService/AcceptNamespace"));
    }
}
