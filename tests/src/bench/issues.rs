//! Issues at the broker over mutual TLS, each durable, audited, and released again; beside a
//! process that answers the same calls with nothing.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use krb_proto::v1::{self, node_service_client::NodeServiceClient};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::{
    Budget, Failure, Report,
    node_client::NodeClient,
    scene,
    stopwatch::{Spans, Stopwatch},
};
use crate::{
    realm::daemon,
    world::{World, api::Api, wait_for},
};

/// Connections to each.
const CONNECTIONS: usize = 8;
/// Calls under way at once, each for a pod of its own.
const IN_FLIGHT: usize = 128;
/// Rounds of each.
const ROUNDS: usize = 4;
/// How long a round lasts.
const ROUND: Duration = Duration::from_secs(2);

/// Loads both in turn.
pub async fn measure() -> Result<Report, Failure> {
    let world = scene::world(false)?;
    let pods = scene::pods(&world, "issue", IN_FLIGHT, &[("ts/prestashtkt", "true")])?;
    let node = NodeClient::attach(&world, CONNECTIONS).await?;
    let rival = Rival::start(&world)?;
    let mut echo = Vec::new();
    for _ in 0..CONNECTIONS {
        echo.push(Api::connect(rival.address, &world.pki, scene::NODE).await?.nodes());
    }
    let requests: Vec<_> = pods.iter().map(|pod| node.request(&pod.uid)).collect();
    let (mut issues, mut echoes) = (Load::default(), Load::default());
    round(&node.channels, &requests, ROUND / 4).await?; // the ticket is fetched, the tables are warm
    for _ in 0..ROUNDS {
        issues.add(round(&node.channels, &requests, ROUND).await?);
        echoes.add(echo_round(&echo, &requests[0], ROUND).await?);
    }
    let (ours, theirs) = (issues.rate(), echoes.rate());
    let lines = vec![
        format!("issue and release, {IN_FLIGHT} at once: {ours:.0}/s, issue {}", issues.spans),
        format!("empty echo, {IN_FLIGHT} at once: {theirs:.0} calls/s, {}", echoes.spans),
    ];
    let limit = (theirs / 2.0).min(10_000.0);
    let budget = Budget {
        name: "issue-rate",
        met: ours >= limit,
        figure: format!("{ours:.0}/s"),
        budget: format!("{limit:.0}/s"),
        rival: format!("empty echo {theirs:.0}/s"),
    };
    Ok(Report { lines, budgets: vec![budget] })
}

/// What a number of rounds came to.
#[derive(Default)]
struct Load {
    done: usize,
    time: Duration,
    spans: Spans,
}

impl Load {
    fn add(&mut self, (spans, time): (Vec<Duration>, Duration)) {
        self.done += spans.len();
        self.time += time;
        self.spans.extend(spans);
    }

    fn rate(&self) -> f64 {
        self.done as f64 / self.time.as_secs_f64()
    }
}

type Client = NodeServiceClient<Channel>;

/// Issues and releases, over and over, until the time is over.
async fn round(
    clients: &[Client],
    requests: &[v1::IssueRequest],
    time: Duration,
) -> Result<(Vec<Duration>, Duration), Failure> {
    let watch = Stopwatch::start();
    let mut tasks: JoinSet<Result<Vec<Duration>, Failure>> = JoinSet::new();
    for (request, client) in requests.iter().zip(clients.iter().cycle()) {
        let (request, mut client) = (request.clone(), client.clone());
        tasks.spawn(async move {
            let mut spans = Vec::new();
            while watch.elapsed() < time {
                let one = Stopwatch::start();
                let issued = client.issue(request.clone()).await?.into_inner();
                spans.push(one.elapsed());
                let (lease_id, generation) = (issued.lease_id, request.generation);
                client.release(v1::ReleaseRequest { lease_id, generation }).await?;
            }
            Ok(spans)
        });
    }
    ended(tasks, watch).await
}

/// Empty calls, over and over, until the time is over.
async fn echo_round(
    clients: &[Client],
    request: &v1::IssueRequest,
    time: Duration,
) -> Result<(Vec<Duration>, Duration), Failure> {
    let watch = Stopwatch::start();
    let mut tasks: JoinSet<Result<Vec<Duration>, Failure>> = JoinSet::new();
    for client in clients.iter().cycle().take(IN_FLIGHT) {
        let (request, mut client) = (request.clone(), client.clone());
        tasks.spawn(async move {
            let mut spans = Vec::new();
            while watch.elapsed() < time {
                let one = Stopwatch::start();
                client.issue(request.clone()).await?;
                spans.push(one.elapsed());
            }
            Ok(spans)
        });
    }
    ended(tasks, watch).await
}

async fn ended(
    mut tasks: JoinSet<Result<Vec<Duration>, Failure>>,
    watch: Stopwatch,
) -> Result<(Vec<Duration>, Duration), Failure> {
    let mut spans = Vec::new();
    while let Some(task) = tasks.join_next().await {
        spans.extend(task??);
    }
    Ok((spans, watch.elapsed()))
}

/// The echo's process. Dropping it kills it.
struct Rival {
    address: SocketAddr,
    child: Child,
}

impl Rival {
    fn start(world: &World) -> Result<Self, Failure> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["echo", "--listen", &address.to_string(), "--pki"]);
        command.arg(world.dir().join("pki")).env_clear();
        let mut command = daemon::with_death_signal(&command);
        command.stderr(Stdio::inherit());
        let rival = Self { address, child: daemon::spawn(command)? };
        wait_for("the echo to listen", || TcpStream::connect(address).ok())?;
        Ok(rival)
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
