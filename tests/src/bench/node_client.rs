//! A node's agent reduced to its calls: a session and channels, and nothing on a disk.

use krb_proto::v1::{
    self, node_service_client::NodeServiceClient, sync_request::Event, sync_response,
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::{Failure, scene::NODE};
use crate::world::{World, api::Api, pki::Subject};

/// An attached node. Its session goes on until it is dropped.
pub struct NodeClient {
    /// Its connections to the broker.
    pub channels: Vec<NodeServiceClient<Channel>>,
    generation: u64,
    beating: JoinHandle<()>,
}

impl NodeClient {
    /// Connects `connections` times as [`NODE`], which has no agent, and attaches.
    pub async fn attach(world: &World, connections: usize) -> Result<Self, Failure> {
        let subject = format!("system:node:{NODE}");
        world.pki.issue("node", NODE, &Subject::node(&subject))?;
        let mut channels = Vec::new();
        for _ in 0..connections {
            let api = Api::connect(world.broker.address(), &world.pki, NODE).await?;
            channels.push(api.nodes());
        }
        let mut client = channels.first().ok_or("no connection")?.clone();
        let (says, said) = mpsc::channel(4);
        let hello = v1::Hello {
            boot_id: "bench".to_owned(),
            instance: "bench".to_owned(),
            ..v1::Hello::default()
        };
        says.send(v1::SyncRequest { event: Some(Event::Hello(hello)) }).await?;
        let mut told = client.sync(ReceiverStream::new(said)).await?.into_inner();
        let first = told.message().await?.and_then(|response| response.event);
        let Some(sync_response::Event::Welcome(welcome)) = first else {
            return Err(format!("the broker did not welcome the node: {first:?}").into());
        };
        let beating = tokio::spawn(async move {
            loop {
                tokio::select! {
                    told = told.message() => if !matches!(told, Ok(Some(_))) { return },
                    () = tokio::time::sleep(std::time::Duration::from_secs(5)) => {
                        let beat = Event::Heartbeat(v1::Heartbeat {});
                        if says.send(v1::SyncRequest { event: Some(beat) }).await.is_err() {
                            return;
                        }
                    }
                }
            }
        });
        Ok(Self { channels, generation: welcome.generation, beating })
    }

    /// The request for this pod's volume.
    pub fn request(&self, pod_uid: &str) -> v1::IssueRequest {
        v1::IssueRequest {
            pod_uid: pod_uid.to_owned(),
            volume: crate::world::pods::Pod::VOLUME.to_owned(),
            generation: self.generation,
            ..Default::default()
        }
    }

    /// A connection, by number, round and round.
    pub fn channel(&self, number: usize) -> NodeServiceClient<Channel> {
        self.channels[number % self.channels.len()].clone()
    }
}

impl Drop for NodeClient {
    fn drop(&mut self) {
        self.beating.abort();
    }
}
