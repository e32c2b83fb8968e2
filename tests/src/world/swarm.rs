//! Many nodes without agents: each a session over mutual TLS, heartbeats and acknowledgements,
//! one pod, and nothing on a disk. They can be cut off, and come back.

use std::sync::{Arc, Mutex, PoisonError};

use krb_proto::{
    span,
    v1::{
        self, node_service_client::NodeServiceClient, sync_request::Event as Said,
        sync_response::Event as Told,
    },
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use super::{TSFOO, World, WorldError, api::Api, pki::Subject, pods::Pod};

/// The nodes, in the order of their numbers.
pub struct Swarm {
    /// Each of them.
    pub nodes: Vec<LightNode>,
}

/// A node that is only its session.
pub struct LightNode {
    /// Its name.
    pub name: String,
    /// The pod that is bound to it.
    pub pod: Pod,
    client: NodeServiceClient<Channel>,
    generation: u64,
    beating: Option<JoinHandle<()>>,
    /// The reason that it was last told to wipe for.
    fenced: Arc<Mutex<Option<String>>>,
}

/// How an attach was answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// With a Welcome.
    Welcome,
    /// It was told to wipe: the reason.
    Fenced(String),
}

fn failed(what: &str, error: impl std::fmt::Display) -> WorldError {
    WorldError::new(what.to_owned(), error)
}

impl Swarm {
    /// So many attached nodes, `NAME-1` and so on, each with a pod that holds a keytab.
    pub async fn attach(world: &World, name: &str, count: usize) -> Result<Self, WorldError> {
        let first = Pod::new(&format!("{name}-0"), TSFOO.login, TSFOO.uid, name)
            .annotated(&[("ts/services", "HTTP")])
            .injected(&world.entitlements(), world.realm.name())?;
        let mut nodes = Vec::new();
        for number in 1..=count {
            nodes.push(LightNode::make(world, &format!("{name}-{number}"), &first).await?);
        }
        let objects: Vec<_> = nodes.iter().map(|node| node.pod.object.clone()).collect();
        let list = serde_json::json!({"apiVersion": "v1", "kind": "PodList", "items": objects});
        world.pods.put(&format!("swarm-{name}"), &list)?;
        for node in &mut nodes {
            node.attach().await?;
            node.issue().await.map_err(|e| failed("issuing to a light node", e))?;
        }
        Ok(Self { nodes })
    }

    /// The node of this number, from 1.
    pub fn node(&mut self, number: usize) -> &mut LightNode {
        &mut self.nodes[number - 1]
    }
}

impl LightNode {
    /// A node with a certificate and a pod, not attached yet.
    async fn make(world: &World, name: &str, alike: &Pod) -> Result<Self, WorldError> {
        let subject = format!("system:node:{name}");
        let certificate = format!("light-{name}");
        world.pki.issue("node", &certificate, &Subject::node(&subject))?;
        let api = Api::connect(world.broker.address(), &world.pki, &certificate).await?;
        let mut pod = Pod::new(&format!("on-{name}"), TSFOO.login, TSFOO.uid, name);
        let metadata = pod.object["metadata"].clone();
        pod.object = alike.object.clone();
        for field in ["name", "uid"] {
            pod.object["metadata"][field] = metadata[field].clone();
        }
        pod.object["spec"]["nodeName"] = name.into();
        Ok(Self {
            name: name.to_owned(),
            pod,
            client: api.nodes(),
            generation: 0,
            beating: None,
            fenced: Arc::default(),
        })
    }

    /// Opens its stream, with the generation that it has, and beats from then on.
    pub async fn attach(&mut self) -> Result<Answer, WorldError> {
        let (says, said) = mpsc::channel(64);
        let hello = v1::Hello {
            boot_id: "light".to_owned(),
            instance: self.name.clone(),
            generation: (self.generation > 0).then_some(self.generation),
            ..v1::Hello::default()
        };
        let hello = v1::SyncRequest { event: Some(Said::Hello(hello)) };
        says.send(hello).await.map_err(|e| failed("saying Hello", e))?;
        let answer = self.client.sync(ReceiverStream::new(said)).await;
        let mut told = answer.map_err(|e| failed("attaching a light node", e))?.into_inner();
        let first = told.message().await.map_err(|e| failed("attaching a light node", e))?;
        match first.and_then(|message| message.event) {
            Some(Told::Welcome(welcome)) => {
                self.generation = welcome.generation;
                let every = welcome.heartbeat_interval.as_ref().map(span).unwrap_or_default();
                let fenced = self.fenced.clone();
                self.beating = Some(tokio::spawn(beat(told, says, every, self.generation, fenced)));
                Ok(Answer::Welcome)
            }
            Some(Told::Fenced(fenced)) => {
                self.generation = 0;
                Ok(Answer::Fenced(fenced.reason))
            }
            other => Err(failed("attaching a light node", format!("it was told {other:?}"))),
        }
    }

    /// Asks for its pod's keytab.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn issue(&self) -> Result<v1::IssueResponse, tonic::Status> {
        let request = v1::IssueRequest {
            pod_uid: self.pod.uid.clone(),
            volume: Pod::VOLUME.to_owned(),
            generation: self.generation,
            ..Default::default()
        };
        Ok(self.client.clone().issue(request).await?.into_inner())
    }

    /// Power loss: it is gone without a word.
    pub fn cut(&mut self) {
        if let Some(beating) = self.beating.take() {
            beating.abort();
        }
    }

    /// The reason that it was told to wipe for, on a stream that was attached.
    pub fn was_fenced(&self) -> Option<String> {
        self.fenced.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for LightNode {
    fn drop(&mut self) {
        self.cut();
    }
}

/// Heartbeats and acknowledgements, until the stream ends.
async fn beat(
    mut told: Streaming<v1::SyncResponse>,
    says: mpsc::Sender<v1::SyncRequest>,
    every: std::time::Duration,
    generation: u64,
    fenced: Arc<Mutex<Option<String>>>,
) {
    let mut beats = tokio::time::interval(every);
    loop {
        let said = tokio::select! {
            _ = beats.tick() => Said::Heartbeat(v1::Heartbeat {}),
            message = told.message() => match message {
                Ok(Some(v1::SyncResponse { event: Some(Told::Push(push)) })) => {
                    Said::Acknowledgement(acknowledged(push, generation))
                }
                Ok(Some(v1::SyncResponse { event: Some(Told::Fenced(why)) })) => {
                    *fenced.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.reason);
                    return;
                }
                Ok(Some(_)) => continue,
                Ok(None) | Err(_) => return,
            }
        };
        if says.send(v1::SyncRequest { event: Some(said) }).await.is_err() {
            return;
        }
    }
}

fn acknowledged(push: v1::Push, generation: u64) -> v1::Acknowledgement {
    let keytab = push.material.and_then(|material| material.keytab).unwrap_or_default();
    v1::Acknowledgement {
        push_id: push.push_id,
        lease_id: push.lease_id,
        principals: keytab.principals.clone(),
        keytab_digest: keytab.digest.clone(),
        generation,
    }
}
