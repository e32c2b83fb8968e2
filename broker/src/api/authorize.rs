//! Stands before every service: whoever may not call a method never reaches it.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use krb_proto::reason::Reason;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use super::{caller::Caller, errors::status, roles::may_call};
use crate::{
    audit::{Event, Record},
    ledger::book::Book,
};

/// Puts [`Authorized`] before a service.
#[derive(Clone)]
pub struct Authorize {
    book: Book,
}

impl Authorize {
    /// Denied calls go to the audit log of this book.
    pub fn new(book: Book) -> Self {
        Self { book }
    }
}

impl<S> Layer<S> for Authorize {
    type Service = Authorized<S>;

    fn layer(&self, inner: S) -> Authorized<S> {
        Authorized { inner, book: self.book.clone() }
    }
}

/// A service that only those reach who may call it.
#[derive(Clone)]
pub struct Authorized<S> {
    inner: S,
    book: Book,
}

type Answer<S> = <S as Service<Request<Body>>>::Future;

impl<S> Service<Request<Body>> for Authorized<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Future: Send + 'static>,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let caller = request.extensions().get::<Caller>().cloned();
        let Some(denial) = deny(caller.as_ref(), &path, self.book.now().wall) else {
            let answer: Answer<S> = self.inner.call(request);
            return Box::pin(answer);
        };
        let book = self.book.clone();
        Box::pin(async move {
            let shown = krb_proto::text::shown(&path);
            let actor = caller.map_or_else(
                || crate::audit::Actor::Unknown("no certificate".to_owned()),
                |caller| caller.actor(),
            );
            let line = Record::new(Event::CallDenied, actor).reason(denial.reason);
            let answer = match book.audit_denial(line.rule(&shown).detail(&denial.why)).await {
                Ok(()) => status(denial.code, denial.reason, denial.why),
                Err(error) => error.into(),
            };
            Ok(answer.into_http())
        })
    }
}

struct Denied {
    code: Code,
    reason: Reason,
    why: String,
}

/// Why the caller may not call the method, if it may not.
fn deny(caller: Option<&Caller>, path: &str, now: std::time::SystemTime) -> Option<Denied> {
    let unauthenticated =
        |why: String| Denied { code: Code::Unauthenticated, reason: Reason::Unauthenticated, why };
    let Some(caller) = caller else {
        return Some(unauthenticated("the connection has no certificate".to_owned()));
    };
    let Some(role) = caller.role() else {
        return Some(unauthenticated(caller.actor().to_string()));
    };
    if caller.not_after < now {
        return Some(unauthenticated("the certificate has expired since it connected".to_owned()));
    }
    if may_call(role, path) {
        return None;
    }
    let why = format!("a {role} may not call this method");
    Some(Denied { code: Code::PermissionDenied, reason: Reason::RoleNotAllowed, why })
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
