//! A node that asks for what is not its own, or out of turn.

use krb_proto::v1::{self, LeaseState, sync_request, sync_response};
use krb_tests::world::{
    World,
    api::{Api, reason},
    pki::Subject,
    pods::Pod,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Story, world};

/// Somebody with node-c's certificate and no agent.
struct NodeC {
    api: Api,
}

/// A stream of node-c's that is open.
struct Stream {
    said: mpsc::Sender<v1::SyncRequest>,
    told: Streaming<v1::SyncResponse>,
}

impl NodeC {
    async fn new(world: &World) -> Result<Self, Box<dyn std::error::Error>> {
        world.pki.issue("node", "node-c", &Subject::node("system:node:node-c"))?;
        Ok(Self { api: Api::connect(world.broker.address(), &world.pki, "node-c").await? })
    }

    async fn sync(&self, first: sync_request::Event) -> Result<Stream, tonic::Status> {
        let (said, requests) = mpsc::channel(8);
        let _ = said.send(v1::SyncRequest { event: Some(first) }).await;
        let told = self.api.nodes().sync(ReceiverStream::new(requests)).await?.into_inner();
        Ok(Stream { said, told })
    }

    async fn issue(&self, pod: &str, volume: &str, generation: u64) -> Result<String, String> {
        let (pod_uid, volume) = (pod.to_owned(), volume.to_owned());
        let request = v1::IssueRequest { pod_uid, volume, generation, ..Default::default() };
        let answer = self.api.nodes().issue(request).await;
        answer.map(|issued| issued.into_inner().lease_id).map_err(|status| reason(&status))
    }

    async fn release(&self, lease: &str) -> Result<(), String> {
        let request = v1::ReleaseRequest { lease_id: lease.to_owned(), generation: 1 };
        self.api.nodes().release(request).await.map(drop).map_err(|status| reason(&status))
    }
}

fn hello(instance: &str, generation: Option<u64>) -> sync_request::Event {
    let (boot_id, instance) = ("boot".to_owned(), instance.to_owned());
    sync_request::Event::Hello(v1::Hello { boot_id, instance, generation, inventory: Vec::new() })
}

impl Stream {
    async fn next(&mut self) -> Option<sync_response::Event> {
        self.told.message().await.ok().flatten().and_then(|message| message.event)
    }

    async fn generation(&mut self) -> u64 {
        match self.next().await {
            Some(sync_response::Event::Welcome(welcome)) => welcome.generation,
            other => panic!("not welcome: {other:?}"),
        }
    }
}

const VOLUME: &str = Pod::VOLUME;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_gets_nothing_before_it_attached_or_with_another_generation() -> Story {
    let world = world(&["node-a"])?;
    let node = NodeC::new(&world).await?;
    let pod = world.pod("c-0", "node-c")?;
    let refused = |answer: Result<String, String>| answer.expect_err("is refused");
    assert_eq!(refused(node.issue(&pod.uid, VOLUME, 0).await), "NOT_ATTACHED");
    assert_eq!(refused(node.issue(&pod.uid, VOLUME, 1).await), "NOT_ATTACHED");

    let mut stream = node.sync(hello("one", None)).await?;
    let generation = stream.generation().await;
    for wrong in [generation - 1, generation + 1, u64::MAX] {
        assert_eq!(refused(node.issue(&pod.uid, VOLUME, wrong).await), "FENCED", "{wrong}");
    }
    node.issue(&pod.uid, VOLUME, generation).await?;
    let mut old = node.sync(hello("one", Some(generation + 7))).await?;
    assert!(matches!(old.next().await, Some(sync_response::Event::Fenced(_))));
    let lines = world.broker.audited("lease.denied");
    let reasons: Vec<_> = lines.iter().map(|line| line["reason"].as_str()).collect();
    assert_eq!(reasons, [Some("NOT_ATTACHED"), Some("FENCED")], "equal ones are merged");
    world.serves_on("good", "node-a").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_neither_gets_nor_ends_what_is_another_nodes() -> Story {
    let world = world(&["node-a"])?;
    let node = NodeC::new(&world).await?;
    let mut stream = node.sync(hello("one", None)).await?;
    let generation = stream.generation().await;
    let pod = world.pod("web-0", "node-a")?;
    assert!(world.nodes[0].mount(&pod)?.is_success());
    let operator = world.operator().await?;
    let lease = operator.lease_of(&pod.uid).await?.expect("a lease");

    let refused = node.issue(&pod.uid, VOLUME, generation).await;
    assert_eq!(refused, Err("POD_UNKNOWN".to_owned()));
    node.release(&lease.lease_id).await?; // no error: it learns nothing
    let acknowledgement = v1::Acknowledgement {
        push_id: 1,
        lease_id: lease.lease_id.clone(),
        generation,
        ..v1::Acknowledgement::default()
    };
    let event = Some(sync_request::Event::Acknowledgement(acknowledgement));
    stream.said.send(v1::SyncRequest { event }).await?;
    let after = operator.lease_of(&pod.uid).await?.expect("a lease");
    assert_eq!(after.state(), LeaseState::Active);
    assert_eq!(after.lease_id, lease.lease_id);
    assert!(world.broker.audited("lease.released").is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_malformed_on_a_nodes_stream_ends_it_and_no_other() -> Story {
    let world = world(&["node-a"])?;
    let node = NodeC::new(&world).await?;
    let heartbeat = sync_request::Event::Heartbeat(v1::Heartbeat {});
    let refused = node.sync(heartbeat).await.err().expect("a stream begins with a Hello");
    assert_eq!(reason(&refused), "INVALID_ARGUMENT");
    for text in ["", "x", "../..", "a\u{0}b"] {
        assert_eq!(node.release(text).await, Err("INVALID_ARGUMENT".to_owned()), "{text:?}");
        if text != "x" {
            let issue = node.issue(text, VOLUME, 1).await;
            assert_eq!(issue, Err("INVALID_ARGUMENT".to_owned()), "{text:?}");
            let issue = node.issue("uid-1", text, 1).await;
            assert_eq!(issue, Err("INVALID_ARGUMENT".to_owned()), "{text:?}");
        }
    }
    let long = "b".repeat(100_000);
    let strange = v1::InventoryItem { lease_id: long.clone(), ..v1::InventoryItem::default() };
    let event = sync_request::Event::Hello(v1::Hello {
        boot_id: long.clone(),
        instance: long,
        generation: None,
        inventory: vec![strange; 20],
    });
    let mut stream = node.sync(event).await?;
    stream.generation().await;
    stream.said.send(v1::SyncRequest { event: Some(hello("two", None)) }).await?;
    assert!(stream.next().await.is_none(), "a second Hello ends the stream");
    world.serves_on("good", "node-a").await?;
    Ok(())
}
