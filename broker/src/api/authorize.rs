//! Stands before every service: whoever may not call a method never reaches it.
//!
//! A call on a connection without a certificate proves itself by its token, which is taken out
//! of the request here and is reviewed only for methods that nodes may call.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use http::{Request, Response};
use krb_proto::{Secret, reason::Reason};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use super::{
    bearer,
    caller::{Caller, Identity},
    errors::{status, try_again},
    roles::{is_for_nodes, may_call},
    tls::Peer,
};
use crate::{
    audit::{Actor, Event, Outcome, Record},
    ledger::book::Book,
    tokens::{NodeTokens, TokenError},
};

/// When a token that could not be reviewed is worth another try.
const SOON: Duration = Duration::from_secs(2);

/// Puts [`Authorized`] before a service.
#[derive(Clone)]
pub struct Authorize {
    book: Book,
    tokens: Option<Arc<dyn NodeTokens>>,
}

impl Authorize {
    /// Denied calls go to the audit log of this book; where there are `tokens`, they prove nodes.
    pub fn new(book: Book, tokens: Option<Arc<dyn NodeTokens>>) -> Self {
        Self { book, tokens }
    }

    /// The caller, if it may make the call.
    async fn admit(&self, path: &str, call: Shown) -> Result<Caller, Status> {
        match self.identify(path, call).await {
            Ok(caller) => match deny(&caller, path, self.book.now().wall) {
                None => Ok(caller),
                Some(denied) => Err(self.denied(path, denied).await),
            },
            Err(denied) => Err(self.denied(path, denied).await),
        }
    }

    async fn identify(&self, path: &str, call: Shown) -> Result<Caller, Denied> {
        let Some(peer) = call.peer else {
            let why = "the connection has no certificate".to_owned();
            return Err(Denied::unauthenticated(Caller::unproven().actor(), why));
        };
        let Some(tokens) = &self.tokens else { return Ok(peer.caller) };
        if peer.caller.identity != Identity::Unproven || !is_for_nodes(path) {
            return Ok(peer.caller);
        }
        let reviewed = match call.token {
            Ok(token) => tokens.review(&token).await,
            Err(error) => Err(error),
        };
        match reviewed {
            Ok(proved) => {
                peer.proof.iter().for_each(|proof| proof.note());
                Ok(Caller::by_token(proved))
            }
            Err(error) => Err(Denied::of_token(error)),
        }
    }

    /// What a denied caller is told, once the audit log has it.
    async fn denied(&self, path: &str, denied: Denied) -> Status {
        let rule = krb_proto::text::shown(path);
        let line = Record::new(Event::CallDenied, denied.actor).reason(denied.reason);
        let line = line.outcome(denied.outcome).rule(&rule).detail(&denied.detail);
        match self.book.audit_denial(line).await {
            Ok(()) if denied.code == Code::Unavailable => {
                try_again(denied.code, denied.reason, denied.why, SOON)
            }
            Ok(()) => status(denied.code, denied.reason, denied.why),
            Err(error) => error.into(),
        }
    }
}

impl<S> Layer<S> for Authorize {
    type Service = Authorized<S>;

    fn layer(&self, inner: S) -> Authorized<S> {
        Authorized { inner, authorize: self.clone() }
    }
}

/// A service that only those reach who may call it.
#[derive(Clone)]
pub struct Authorized<S> {
    inner: S,
    authorize: Authorize,
}

/// What a call shows of who makes it.
struct Shown {
    peer: Option<Peer>,
    token: Result<Secret, TokenError>,
}

impl<S> Service<Request<Body>> for Authorized<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Future: Send> + Clone + Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let token = bearer::take(request.headers_mut()); // nothing behind this sees it
        let shown = Shown { peer: request.extensions().get::<Peer>().cloned(), token };
        let path = request.uri().path().to_owned();
        let authorize = self.authorize.clone();
        // The service that is ready makes the call; its clone becomes ready for the next.
        let next = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, next);
        Box::pin(async move {
            match authorize.admit(&path, shown).await {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                    ready.call(request).await
                }
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

struct Denied {
    actor: Actor,
    code: Code,
    reason: Reason,
    outcome: Outcome,
    /// What the caller is told.
    why: String,
    /// What the audit log has of it.
    detail: String,
}

impl Denied {
    fn unauthenticated(actor: Actor, why: String) -> Self {
        let (code, reason) = (Code::Unauthenticated, Reason::Unauthenticated);
        let detail = why.clone();
        Self { actor, code, reason, outcome: Outcome::Denied, why, detail }
    }

    fn of_token(error: TokenError) -> Self {
        let detail = error.to_string();
        let mut denied = Self::unauthenticated(Caller::unproven().actor(), detail);
        match error {
            TokenError::Refused { why, .. } => {
                // an actor of its own, so that one kind does not hide another in merged lines
                denied.actor = Actor::Unknown(why.to_string());
                denied.why = why.to_string();
            }
            TokenError::Unavailable { .. } => {
                (denied.code, denied.outcome) = (Code::Unavailable, Outcome::Failed);
                denied.reason = Reason::TokensUnavailable;
                denied.why = "the cluster's API server can't say whose the token is now".to_owned();
            }
            TokenError::Busy => {
                (denied.code, denied.reason) = (Code::Unavailable, Reason::TokensUnavailable);
                denied.outcome = Outcome::Failed;
            }
        }
        denied
    }
}

/// Why the caller may not call the method, if it may not.
fn deny(caller: &Caller, path: &str, now: SystemTime) -> Option<Denied> {
    let Some(role) = caller.role() else {
        let why = match caller.identity {
            Identity::Unproven => "the connection has no certificate".to_owned(),
            _ => caller.actor().to_string(),
        };
        return Some(Denied::unauthenticated(caller.actor(), why));
    };
    if caller.not_after < now {
        let what = if caller.node_uid.is_some() { "token" } else { "certificate" };
        let why = format!("the {what} has expired since it connected");
        return Some(Denied::unauthenticated(caller.actor(), why));
    }
    if may_call(role, path) {
        return None;
    }
    let why = format!("a {role} may not call this method");
    let (code, reason) = (Code::PermissionDenied, Reason::RoleNotAllowed);
    let detail = why.clone();
    Some(Denied { actor: caller.actor(), code, reason, outcome: Outcome::Denied, why, detail })
}

/// The caller of a request that has passed.
///
/// # Errors
/// Never, behind [`Authorize`]; a service that is served without it denies everybody.
pub fn caller<T>(request: &tonic::Request<T>) -> Result<Caller, Status> {
    request.extensions().get::<Caller>().cloned().ok_or_else(|| {
        status(Code::Unauthenticated, Reason::Unauthenticated, "no certificate".to_owned())
    })
}

#[cfg(test)]
mod tests;
