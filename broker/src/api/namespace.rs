//! `NamespaceService`: the namespace objects that accounts are bound to.

use std::sync::Arc;

use krb_proto::{
    Namespace,
    reason::Reason,
    timestamp,
    v1::{self, namespace_service_server::NamespaceService},
};
use tonic::{Code, Request, Response, Status};

use super::{
    authorize::caller,
    errors::{invalid, status},
};
use crate::{
    audit::{Event, Record},
    ledger::{Pin, book::Book},
    pods::PodSource,
};

/// Serves operators.
#[derive(Clone)]
pub struct NamespaceApi {
    /// The ledger.
    pub book: Book,
    /// Where namespaces are looked up.
    pub pods: Arc<dyn PodSource>,
}

#[tonic::async_trait]
impl NamespaceService for NamespaceApi {
    async fn list_namespaces(
        &self,
        _: Request<v1::ListNamespacesRequest>,
    ) -> Result<Response<v1::ListNamespacesResponse>, Status> {
        let namespaces = self.book.read(|ledger| {
            ledger.pins().iter().map(|(namespace, pin)| written(namespace, pin)).collect()
        });
        Ok(Response::new(v1::ListNamespacesResponse { namespaces }))
    }

    async fn accept_namespace(
        &self,
        request: Request<v1::AcceptNamespaceRequest>,
    ) -> Result<Response<v1::AcceptNamespaceResponse>, Status> {
        let actor = caller(&request)?.actor();
        let asked = request.into_inner();
        let namespace: Namespace = asked.namespace.parse().map_err(|e| invalid("namespace", e))?;
        let now = self.pods.namespace_uid(&namespace).await.map_err(|error| {
            tracing::warn!(%error, "a namespace can't be looked up");
            let message = "the broker can't look the namespace up now".to_owned();
            status(Code::Unavailable, Reason::PodsUnavailable, message)
        })?;
        let Some(uid) = now else {
            return Err(status(Code::NotFound, Reason::NotFound, "no such namespace".to_owned()));
        };
        if uid != asked.uid {
            let message = format!("the namespace has the uid {uid} now; look at it first");
            return Err(status(Code::FailedPrecondition, Reason::NamespaceChanged, message));
        }
        let pin = self
            .book
            .commit(|ledger, lines, now| {
                ledger.accept_namespace(&namespace, &uid, &actor.to_string(), now.wall);
                let line = Record::new(Event::NamespaceAccepted, actor);
                lines.push(line.namespace(&namespace).detail(&uid));
                ledger.pins().get(&namespace).map(|pin| written(&namespace, pin))
            })
            .await?;
        Ok(Response::new(v1::AcceptNamespaceResponse { pin }))
    }
}

fn written(namespace: &Namespace, pin: &Pin) -> v1::NamespacePin {
    v1::NamespacePin {
        namespace: namespace.to_string(),
        uid: pin.uid.clone(),
        pinned_at: Some(timestamp(pin.pinned_at)),
        accepted_by: pin.accepted_by.clone().unwrap_or_default(),
    }
}
