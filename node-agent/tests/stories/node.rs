//! A node: kubelet's directory, the broker, and the agent between them.

use std::{fs, io::IoSlice, mem::MaybeUninit, sync::Arc, time::Duration};

use krb_node_agent::{
    agent::{Agent, Identity, Times},
    clock::{Boottime, Clock},
    journal::Journal,
    place::Place,
    serve, socket,
    volume::Volumes,
};
use krb_proto::{
    LeaseId,
    driver::{self, Call, Fill, Forget, Reply, Request},
};
use prost::Message as _;
use rustix::{
    fd::{AsFd, OwnedFd},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{broker::Broker, mounts::Pods};

/// The clock of paused time.
struct TokioClock(Instant);

impl Clock for TokioClock {
    fn now(&self) -> Boottime {
        Boottime(Duration::from_secs(1000) + self.0.elapsed())
    }
}

pub struct Node {
    pub pods: Pods,
    pub broker: Broker,
    clock: Arc<TokioClock>,
    starts: usize,
    running: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Node {
    /// A node whose agent has not started yet.
    pub fn new() -> Self {
        let pods = Pods::new();
        fs::create_dir_all(pods.run_dir()).unwrap();
        fs::create_dir_all(pods.kubelet().root()).unwrap();
        let clock = Arc::new(TokioClock(Instant::now()));
        Self { pods, broker: Broker::new(), clock, starts: 0, running: None }
    }

    /// A node with an attached agent.
    pub async fn attached() -> Self {
        let mut node = Self::new();
        node.start();
        node.until("it is attached", |node| !node.broker.state().hellos.is_empty()).await;
        node
    }

    pub fn start(&mut self) {
        self.starts += 1;
        let identity =
            Identity { boot_id: "boot".to_owned(), instance: format!("start {}", self.starts) };
        let volumes = Volumes::new(self.pods.kubelet());
        let journal = Journal::new(&self.pods.run_dir());
        let agent = Agent::resume(identity, volumes, journal, Times::default(), self.clock.clone())
            .unwrap();
        let listener = socket::bind(&self.pods.run_dir().join("agent.sock")).unwrap();
        let (stop, dial) = (CancellationToken::new(), Arc::new(self.broker.clone()));
        let served = serve(Arc::new(agent), dial, listener, 8, stop.clone());
        self.running = Some((stop, tokio::spawn(served)));
    }

    /// SIGTERM.
    pub async fn stop(&mut self) {
        let (stop, served) = self.running.take().unwrap();
        stop.cancel();
        served.await.unwrap();
    }

    /// SIGKILL, as far as a task can die of one.
    pub async fn kill(&mut self) {
        let (_stop, served) = self.running.take().unwrap();
        served.abort();
        let _aborted = served.await;
        self.broker.go_away(); // tasks of it that live on reach nobody
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.broker.come_back();
    }

    /// What the driver does, up to the reply: the failure text, empty on success.
    pub async fn call(&self, call: Call) -> String {
        let socket = self.pods.run_dir().join("agent.sock");
        let mut stream = UnixStream::connect(socket).await.unwrap();
        stream.write_all(&driver::frame(&Request { call: Some(call) })).await.unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await.unwrap();
        Reply::decode(&reply[4..]).unwrap().failure
    }

    pub fn fill_call(&self, place: &Place) -> Call {
        Call::Fill(Fill {
            target: self.pods.target(place).to_str().unwrap().to_owned(),
            pod_uid: place.pod.to_string(),
            volume: place.volume.to_string(),
            detached: false,
            pod_namespace: "tsfoo".to_owned(),
            pod_name: "web-0".to_owned(),
        })
    }

    /// What the driver sends for a volume that it has not mounted yet. The connection, once the
    /// request is said.
    pub async fn send_fill(&self, place: &Place, volumes: &[&OwnedFd]) -> UnixStream {
        let Call::Fill(fill) = self.fill_call(place) else { unreachable!() };
        let call = Call::Fill(Fill { detached: true, ..fill });
        let stream = UnixStream::connect(self.pods.run_dir().join("agent.sock")).await.unwrap();
        let request = driver::frame(&Request { call: Some(call) });
        let volumes: Vec<_> = volumes.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut along = SendAncillaryBuffer::new(&mut space);
        assert!(volumes.is_empty() || along.push(SendAncillaryMessage::ScmRights(&volumes)));
        let sent = sendmsg(&stream, &[IoSlice::new(&request)], &mut along, SendFlags::empty());
        assert_eq!(sent.unwrap(), request.len());
        stream
    }

    /// The reply on a connection that stays open: the failure text, empty on success.
    pub async fn reply(stream: &mut UnixStream) -> String {
        let mut prefix = [0; 4];
        stream.read_exact(&mut prefix).await.unwrap();
        let mut reply = vec![0; driver::frame_length(prefix).unwrap()];
        stream.read_exact(&mut reply).await.unwrap();
        Reply::decode(reply.as_slice()).unwrap().failure
    }

    /// A volume that is filled and not in its place yet, with the driver's connection.
    pub async fn filled_detached(&self, pod: &str) -> (Place, OwnedFd, UnixStream) {
        let (place, volume) = self.pods.make_detached(pod);
        let mut driver = self.send_fill(&place, &[&volume]).await;
        assert_eq!(Self::reply(&mut driver).await, "");
        (place, volume, driver)
    }

    pub async fn fill(&self, place: &Place) -> String {
        self.call(self.fill_call(place)).await
    }

    pub async fn forget(&self, place: &Place) -> String {
        let target = self.pods.target(place).to_str().unwrap().to_owned();
        self.call(Call::Forget(Forget { target })).await
    }

    /// A volume that is mounted and filled.
    pub async fn filled(&self, pod: &str) -> Place {
        let place = self.pods.mount(pod);
        assert_eq!(self.fill(&place).await, "");
        place
    }

    pub fn lease(&self, place: &Place) -> LeaseId {
        let holder = (place.pod.to_string(), place.volume.to_string());
        self.broker.state().live[&holder]
    }

    /// Waits until something is so, an hour at most.
    pub async fn until(&self, what: &str, so: impl Fn(&Self) -> bool) {
        self.within(Duration::from_secs(3600), what, so).await;
    }

    pub async fn within(&self, span: Duration, what: &str, so: impl Fn(&Self) -> bool) {
        let end = Instant::now() + span;
        while !so(self) {
            assert!(Instant::now() < end, "it never came to be that {what}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
