//! A broker in memory: it grants what is asked, keeps generations, and can go away, fall
//! silent, refuse or be slow.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use krb_node_agent::dial::{Bearer, Dial, DialError, Dialling, ToBroker};
use krb_proto::{
    LeaseId, duration,
    v1::{
        self,
        node_service_server::{NodeService, NodeServiceServer},
        sync_request::Event as Said,
        sync_response::Event as Heard,
    },
};
use sha2::{Digest as _, Sha256};
use tokio::{sync::mpsc, task::AbortHandle};
use tokio_stream::{Stream, StreamExt as _, wrappers::UnboundedReceiverStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Endpoint, Server, Uri},
};

pub const BEAT: Duration = Duration::from_secs(10);

type Answers = mpsc::UnboundedSender<Result<v1::SyncResponse, Status>>;

/// What it remembers, and how it is to behave.
#[derive(Default)]
pub struct State {
    pub generation: u64,
    pub max_until: Duration,
    pub down: bool,
    pub mute: bool,
    /// The next Issues are refused with these.
    pub refusals: VecDeque<Status>,
    /// Issues are granted, and their answers then kept back for this long.
    pub slow: Duration,
    pub live: BTreeMap<(String, String), LeaseId>,
    pub issues: Vec<v1::IssueRequest>,
    /// `issue <lease>` and `release <lease>`, as they were answered.
    pub log: Vec<String>,
    pub hellos: Vec<v1::Hello>,
    pub acknowledged: Vec<v1::Acknowledgement>,
    pub goodbyes: Vec<v1::goodbye::Reason>,
    pub beats: usize,
    next_lease: u8,
    stream: Option<Answers>,
    connections: Vec<AbortHandle>,
}

#[derive(Clone)]
pub struct Broker(Arc<Mutex<State>>);

impl Broker {
    pub fn new() -> Self {
        let max_until = Duration::from_secs(3600);
        Self(Arc::new(Mutex::new(State { generation: 1, max_until, ..State::default() })))
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Every connection breaks, and no new one comes about.
    pub fn go_away(&self) {
        let mut state = self.state();
        state.down = true;
        state.stream = None;
        state.connections.drain(..).for_each(|connection| connection.abort());
    }

    pub fn come_back(&self) {
        self.state().down = false;
    }

    /// The node was lost: its leases have ended, its generation has passed.
    pub fn fence(&self) {
        let mut state = self.state();
        state.generation += 1;
        state.live.clear();
        let generation = state.generation;
        state.send(Heard::Fenced(v1::Fenced { generation, reason: "FENCED".to_owned() }));
    }

    pub fn push(&self, lease: LeaseId, push_id: u64, material: v1::Material) {
        let lease_id = lease.to_string();
        let push = v1::Push { push_id, lease_id, material: Some(material) };
        self.state().send(Heard::Push(push));
    }

    pub fn wipe(&self, lease: LeaseId, reason: &str) {
        let mut state = self.state();
        state.live.retain(|_, live| *live != lease);
        let (lease_id, reason) = (lease.to_string(), reason.to_owned());
        state.send(Heard::Wipe(v1::Wipe { lease_id, reason }));
    }
}

impl State {
    fn send(&self, event: Heard) {
        let stream = self.stream.as_ref().expect("a stream is open");
        stream.send(Ok(v1::SyncResponse { event: Some(event) })).unwrap();
    }

    fn hear(&mut self, said: Said, answers: &Answers) {
        let max_until = Some(duration(self.max_until));
        match said {
            Said::Hello(hello) => {
                let old = hello.generation.is_some_and(|generation| generation < self.generation);
                self.hellos.push(hello);
                self.stream = Some(answers.clone());
                let generation = self.generation;
                let heartbeat_interval = Some(duration(BEAT));
                self.send(if old {
                    Heard::Fenced(v1::Fenced { generation, reason: "FENCED".to_owned() })
                } else {
                    Heard::Welcome(v1::Welcome { generation, heartbeat_interval, max_until })
                });
            }
            Said::Heartbeat(_) => {
                self.beats += 1;
                if !self.mute {
                    self.send(Heard::HeartbeatReply(v1::HeartbeatReply { max_until }));
                }
            }
            Said::Acknowledgement(acknowledgement) => self.acknowledged.push(acknowledgement),
            Said::Goodbye(goodbye) => self.goodbyes.push(goodbye.reason()),
        }
    }

    fn issue(&mut self, request: v1::IssueRequest) -> Result<v1::IssueResponse, Status> {
        self.issues.push(request.clone());
        if let Some(refusal) = self.refusals.pop_front() {
            return Err(refusal);
        }
        if request.generation != self.generation {
            return Err(refusal(tonic::Code::FailedPrecondition, "fenced", "FENCED", None));
        }
        let next = LeaseId::from_random([self.next_lease + 1; 16]);
        let holder = (request.pod_uid.clone(), request.volume.clone());
        let lease = *self.live.entry(holder).or_insert(next);
        if lease == next {
            self.next_lease += 1;
        }
        self.log.push(format!("issue {}", lease.as_bytes()[0]));
        Ok(answer(&request, lease))
    }
}

fn answer(request: &v1::IssueRequest, lease: LeaseId) -> v1::IssueResponse {
    v1::IssueResponse {
        lease_id: lease.to_string(),
        pod: Some(v1::PodRef { uid: request.pod_uid.clone(), ..v1::PodRef::default() }),
        volume: request.volume.clone(),
        user: "tsfoo".to_owned(),
        uid: 1234,
        gid: 1111,
        keytab_gid: None,
        material: Some(material("keytab-2", &[2], "ccache-1")),
        profile: b"[libdefaults]\n".to_vec(),
    }
}

/// Material of one principal and one ticket.
pub fn material(keytab: &str, kvnos: &[u32], ccache: &str) -> v1::Material {
    let principal = "HTTP/web.tsfoo.svc.cluster.local@EXAMPLE.COM".to_owned();
    v1::Material {
        keytab: Some(v1::Keytab {
            contents: keytab.as_bytes().to_vec(),
            principals: vec![v1::PrincipalKeys { principal, kvnos: kvnos.to_vec() }],
            digest: Sha256::digest(keytab).to_vec(),
        }),
        tickets: vec![v1::Ticket {
            user: "tsfoo".to_owned(),
            realm: "EXAMPLE.COM".to_owned(),
            default_realm: true,
            contents: ccache.as_bytes().to_vec(),
            endtime: None,
        }],
    }
}

/// A refusal as the broker's API makes one.
pub fn refusal(code: tonic::Code, text: &str, reason: &str, wait: Option<Duration>) -> Status {
    use tonic_types::StatusExt as _;
    let mut details = tonic_types::ErrorDetails::with_error_info(reason, "krb-broker", []);
    if wait.is_some() {
        details.set_retry_info(wait);
    }
    Status::with_error_details(code, text, details)
}

type Sync = Pin<Box<dyn Stream<Item = Result<v1::SyncResponse, Status>> + Send>>;

#[tonic::async_trait]
impl NodeService for Broker {
    async fn issue(
        &self,
        request: Request<v1::IssueRequest>,
    ) -> Result<Response<v1::IssueResponse>, Status> {
        let (answer, slow) = {
            let mut state = self.state();
            (state.issue(request.into_inner()), state.slow)
        };
        tokio::time::sleep(slow).await;
        answer.map(Response::new)
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseResponse>, Status> {
        let lease: LeaseId = request.into_inner().lease_id.parse().unwrap();
        let mut state = self.state();
        state.live.retain(|_, live| *live != lease);
        state.log.push(format!("release {}", lease.as_bytes()[0]));
        Ok(Response::new(v1::ReleaseResponse {}))
    }

    type SyncStream = Sync;

    async fn sync(
        &self,
        request: Request<Streaming<v1::SyncRequest>>,
    ) -> Result<Response<Sync>, Status> {
        let (answers, stream) = mpsc::unbounded_channel();
        let (broker, mut said) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Some(Ok(message)) = said.next().await {
                broker.state().hear(message.event.unwrap(), &answers);
            }
            let mut state = broker.state();
            if state.stream.as_ref().is_some_and(|open| open.same_channel(&answers)) {
                state.stream = None;
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(stream))))
    }
}

impl Dial for Broker {
    fn dial(&self) -> Dialling<'_> {
        let broker = self.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let broker = broker.clone();
            async move { broker.connect().map(TokioIo::new) }
        });
        Box::pin(async move {
            let endpoint = Endpoint::from_static("http://broker.test:1");
            let connected = endpoint.connect_with_connector(connector).await;
            let refused = |source| DialError::Connect { address: "broker".to_owned(), source };
            connected.map(|channel| ToBroker::new(channel, Bearer::none())).map_err(refused)
        })
    }
}

impl Broker {
    /// The near end of a new connection.
    pub fn connect(&self) -> io::Result<tokio::io::DuplexStream> {
        if self.state().down {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (agent, mut near) = tokio::io::duplex(64 * 1024);
        let (mut far, server) = tokio::io::duplex(64 * 1024);
        let wire = tokio::spawn(async move {
            let _cut = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
        self.state().connections.push(wire.abort_handle());
        let service = NodeServiceServer::new(self.clone());
        let incoming = tokio_stream::once(Ok::<_, io::Error>(server));
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
        Ok(agent)
    }
}
