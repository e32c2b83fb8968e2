//! `AdmissionReview`: what the API server asks a webhook, and how it is answered.
//!
//! Versions v1 and v1beta1 of admission.k8s.io; the answer is in the version of the question.
//! Nothing is decided here. What is not read here does not matter to a decision.

use json_patch::Patch;
use k8s_openapi::ByteString;
use krb_proto::text::shown;
use serde::Deserialize;
use serde_json::{Value, json};

use super::refusal::Refusal;

/// The versions that are answered, newest first.
const VERSIONS: [&str; 2] = ["admission.k8s.io/v1", "admission.k8s.io/v1beta1"];

/// What the API server asks.
#[derive(Clone, Debug)]
pub struct Request {
    version: &'static str,
    uid: String,
    /// What is done, and to what.
    pub subject: Subject,
    /// The namespace of the object, as it is written.
    pub namespace: String,
    /// The object's name, or what its name will start with: for the log.
    pub name: String,
    /// Who asks the API server: for the log.
    pub user: String,
    /// The object as it will be; null where there is none.
    pub object: Value,
    /// The object as it is; null where there is none.
    pub old: Value,
}

/// What is done, as far as it matters here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Subject {
    /// A pod is made.
    NewPod,
    /// A pod is changed.
    Pod,
    /// Ephemeral containers are added to a pod, which is seen (Kubernetes 1.22 and later).
    EphemeralOfPod,
    /// Ephemeral containers are added to a pod, which is not seen (1.16 to 1.21).
    EphemeralAlone,
    /// Anything else.
    Other,
}

/// The body is no question that can be answered; why.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("this is no AdmissionReview that can be answered: {0}")]
pub struct InvalidReview(String);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawReview {
    api_version: String,
    kind: String,
    request: RawRequest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRequest {
    uid: String,
    kind: RawKind,
    #[serde(default)]
    sub_resource: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
    operation: String,
    #[serde(default)]
    user_info: RawUser,
    #[serde(default)]
    object: Value,
    #[serde(default)]
    old_object: Value,
}

#[derive(Deserialize)]
struct RawKind {
    group: String,
    kind: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawUser {
    username: String,
}

/// Reads a body.
///
/// # Errors
/// When it is no JSON, no `AdmissionReview`, or of a version that is not answered.
pub fn read(body: &[u8]) -> Result<Request, InvalidReview> {
    let raw: RawReview =
        serde_json::from_slice(body).map_err(|error| InvalidReview(error.to_string()))?;
    let version = VERSIONS.into_iter().find(|version| *version == raw.api_version);
    let (Some(version), "AdmissionReview") = (version, raw.kind.as_str()) else {
        let (kind, version) = (shown(&raw.kind), shown(&raw.api_version));
        return Err(InvalidReview(format!("it is a {kind} of {version}")));
    };
    let request = raw.request;
    Ok(Request {
        version,
        subject: subject(&request),
        namespace: request.namespace.unwrap_or_default(),
        name: name(request.name, &request.object),
        user: shown(&request.user_info.username),
        uid: request.uid,
        object: request.object,
        old: request.old_object,
    })
}

fn subject(request: &RawRequest) -> Subject {
    let sub = request.sub_resource.as_deref().unwrap_or_default();
    let ours = matches!(request.operation.as_str(), "CREATE" | "UPDATE");
    match (request.kind.group.as_str(), request.kind.kind.as_str(), sub) {
        ("", "Pod", "") if request.operation == "CREATE" => Subject::NewPod,
        ("", "Pod", "") if ours => Subject::Pod,
        ("", "Pod", "ephemeralcontainers") if ours => Subject::EphemeralOfPod,
        ("", "EphemeralContainers", _) if ours => Subject::EphemeralAlone,
        _ => Subject::Other,
    }
}

/// A pod that something makes has no name yet, only what it will start with.
fn name(name: Option<String>, object: &Value) -> String {
    let metadata = &object["metadata"];
    let said = |field: &str| metadata[field].as_str().filter(|name| !name.is_empty());
    let name = name.filter(|name| !name.is_empty());
    let generated = || said("generateName").map(|start| format!("{start}*"));
    let name = name.or_else(|| said("name").map(str::to_owned)).or_else(generated);
    shown(&name.unwrap_or_default())
}

impl Request {
    /// The answer that allows it, with the patch where there is something to change.
    pub fn allowed(&self, patch: &Patch) -> Value {
        let mut response = json!({"uid": self.uid, "allowed": true});
        if !patch.0.is_empty() {
            let text = ByteString(json!(patch).to_string().into_bytes());
            response["patchType"] = json!("JSONPatch");
            response["patch"] = json!(text);
        }
        self.review(response)
    }

    /// The answer that refuses it.
    pub fn refused(&self, refusal: &Refusal) -> Value {
        let status = json!({
            "status": "Failure",
            "code": 403,
            "reason": "Forbidden",
            "message": refusal.message(),
        });
        self.review(json!({"uid": self.uid, "allowed": false, "status": status}))
    }

    fn review(&self, response: Value) -> Value {
        json!({"apiVersion": self.version, "kind": "AdmissionReview", "response": response})
    }
}
