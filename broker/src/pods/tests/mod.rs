//! Stories of a directory of objects.

mod file;
mod objects;

/// A pod as kubectl prints it, with these lines in its spec.
pub(super) fn pod_text(name: &str, uid: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: tsfoo
  uid: {uid}
  labels: {{app: web, tier: front}}
spec:
  nodeName: node-a
  serviceAccountName: default
  containers:
  - name: web
    image: x
    securityContext: {{runAsUser: 1234}}
{spec}
status:
  phase: Running
"
    )
}

/// The namespace of the pods, and a node.
pub(super) const AROUND: &str = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: tsfoo, uid: ns-1}}
- {apiVersion: v1, kind: Node, metadata: {name: node-a, labels: {zone: secure}}}
- {apiVersion: v1, kind: Service, metadata: {name: web, namespace: tsfoo}, spec: {selector: {app: web}}}
- {apiVersion: v1, kind: Service, metadata: {name: both, namespace: tsfoo}, spec: {selector: {app: web, tier: front}}}
- {apiVersion: v1, kind: Service, metadata: {name: narrower, namespace: tsfoo}, spec: {selector: {app: web, tier: back}}}
- {apiVersion: v1, kind: Service, metadata: {name: all, namespace: tsfoo}, spec: {selector: {}}}
- {apiVersion: v1, kind: Service, metadata: {name: none, namespace: tsfoo}, spec: {}}
- {apiVersion: v1, kind: Service, metadata: {name: out, namespace: tsfoo}, spec: {type: ExternalName, externalName: x.y, selector: {app: web}}}
- {apiVersion: v1, kind: Service, metadata: {name: other, namespace: tsbar}, spec: {selector: {app: web}}}
- {apiVersion: serving.knative.dev/v1, kind: Service, metadata: {name: kn, namespace: tsfoo}, spec: {selector: {app: web}}}
";
