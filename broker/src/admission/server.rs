//! The webhook's requests: bounded before anything of them is read, decided, answered.
//!
//! `POST /mutate` and `POST /validate` take an `AdmissionReview`; `GET /healthz` says that the
//! process answers, `GET /readyz` that the API server can use it. No request has a side
//! effect, so a dry run is the same as any other.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest, Path, Request as HttpRequest, State},
    http::{StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use json_patch::Patch;
use tokio::sync::Semaphore;

use super::{
    callers::Callers,
    mutate::mutate,
    refusal::Refusal,
    review::{self, Request},
    serving::Certificates,
    validate::validate,
};
use crate::{
    clock::Clock,
    entitlement::{Denial, load::Entitlements, policy::Policy, rules::Rules},
};

/// The most requests at once; beyond that they are told to come again.
pub const MAX_IN_FLIGHT: usize = 64;

/// The longest body, in bytes.
pub const MAX_BODY: usize = 1024 * 1024;

/// How long a body may take to come.
const READ: Duration = Duration::from_secs(5);

/// Whether the caller showed a certificate of the configured client CA.
#[derive(Clone, Copy, Debug)]
pub struct Proof(pub bool);

/// What requests are answered by.
pub struct Webhook {
    /// The entitlements in force.
    pub policy: Arc<Policy>,
    /// What is served.
    pub certificates: Arc<Certificates>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Who may ask.
    pub callers: Callers,
    /// Places for requests.
    pub places: Semaphore,
}

/// A webhook's decision: what to change, or why not.
type Decide = fn(&Request, &Entitlements, &Rules) -> Result<Patch, Vec<Denial>>;

/// The routes. Each connection adds its [`Proof`].
pub fn router(webhook: Arc<Webhook>) -> Router {
    Router::new()
        .route("/mutate", post(on_mutate))
        .route("/mutate/{path_end}", post(on_mutate))
        .route("/validate", post(on_validate))
        .route("/validate/{path_end}", post(on_validate))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(on_ready))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(webhook)
}

async fn on_mutate(
    State(webhook): State<Arc<Webhook>>,
    Extension(proof): Extension<Proof>,
    path_end: Option<Path<String>>,
    request: HttpRequest,
) -> Response {
    webhook.answer(proof, path_end, request, mutate).await
}

async fn on_validate(
    State(webhook): State<Arc<Webhook>>,
    Extension(proof): Extension<Proof>,
    path_end: Option<Path<String>>,
    request: HttpRequest,
) -> Response {
    let decide: Decide = |request, entitlements, rules| {
        validate(request, entitlements, rules).map(|()| Patch::default())
    };
    webhook.answer(proof, path_end, request, decide).await
}

async fn on_ready(State(webhook): State<Arc<Webhook>>) -> Response {
    if webhook.certificates.is_good(webhook.clock.now().wall) {
        "ok\n".into_response()
    } else {
        let why = "there is no certificate that the API server could believe\n";
        (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
    }
}

impl Webhook {
    async fn answer(
        &self,
        proof: Proof,
        path_end: Option<Path<String>>,
        request: HttpRequest,
        decide: Decide,
    ) -> Response {
        if !self.callers.may_ask(proof.0, path_end.as_ref().map(|path_end| path_end.as_str())) {
            if let Some(strangers) = self.callers.count_stranger(self.clock.now().boot) {
                tracing::warn!(strangers, "callers that are not the API server were turned away");
            }
            return (StatusCode::FORBIDDEN, "only the API server is answered\n").into_response();
        }
        let Ok(_place) = self.places.try_acquire() else {
            let again = [(RETRY_AFTER, "1")];
            return (StatusCode::TOO_MANY_REQUESTS, again, "too many at once\n").into_response();
        };
        let body = match tokio::time::timeout(READ, Bytes::from_request(request, &())).await {
            Ok(Ok(body)) => body,
            Ok(Err(refused)) => return refused.into_response(),
            Err(_) => return StatusCode::REQUEST_TIMEOUT.into_response(),
        };
        let request = match review::read(&body) {
            Ok(request) => request,
            Err(why) => return (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response(),
        };
        let rules = self.policy.rules();
        match decide(&request, &self.policy.entitlements(), rules) {
            Ok(patch) => Json(request.allowed(&patch)).into_response(),
            Err(denials) => {
                let refusal = Refusal::new(denials, rules);
                log(&request, &refusal);
                Json(request.refused(&refusal)).into_response()
            }
        }
    }
}

/// No annotation's value is logged: it may be what should not have been written there.
fn log(request: &Request, refusal: &Refusal) {
    let reasons: Vec<&str> = refusal.reasons().into_iter().map(|reason| reason.as_str()).collect();
    tracing::warn!(
        namespace = krb_proto::text::shown(&request.namespace),
        name = request.name,
        user = request.user,
        subject = ?request.subject,
        reasons = reasons.join(","),
        "refused at admission"
    );
}
