//! What the steps have in common: the world, its two pods, and ways to run commands in them.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, SystemTime},
};

use krb_broker::clock::{Boottime, Clock as _, SystemClock, unix_seconds};
use krb_proto::v1::{Exposure, Lease};

use super::screen::Screen;
use crate::{
    realm::{self, packages},
    world::{TSFOO, World, WorldError, broker::Settings, container, node::Node, pki, pods::Pod},
};

/// The node that will die.
pub const DOOMED: &str = "node-a";
/// The node that goes on.
pub const SURVIVOR: &str = "node-b";
/// The service whose key the demo follows, without its realm.
pub const HOST: &str = "web.tsfoo.svc.cluster.local";
/// Why a lookup of one of the two pods can't fail.
const TWO: &str = "the pods were made before";

/// The world of the demo.
pub struct Stage {
    /// Realm, broker, nodes.
    pub world: World,
    /// The tools of MIT's packages, for `PATH`.
    pub tools: String,
    pods: Vec<(&'static str, Pod)>,
}

impl Stage {
    /// Starts everything, with short times.
    pub fn build() -> Result<Self, WorldError> {
        let settings = Settings {
            sessions: "heartbeat = \"500ms\"\nsilent_after = \"2s\"\nlost_after = \"2s\"\n\
                       lease_ttl = \"1h\"\nunclaimed_after = \"10s\"\n"
                .to_owned(),
            realm: "service_max_life = \"10s\"\nticket_life = \"20s\"\nclock_skew = \"2s\"\n\
                    acknowledge_within = \"3s\"\nkdc_propagation = \"5s\"\n"
                .to_owned(),
            ..Settings::default()
        };
        let options = realm::Options { name: "DEMO".to_owned(), ..Default::default() };
        let world = World::build(&[DOOMED, SURVIVOR], &[TSFOO], options, settings)?;
        let tools = packages::root().join("usr/bin").display().to_string();
        Ok(Self { world, tools, pods: Vec::new() })
    }

    /// Adds the pod of a node.
    pub fn add(&mut self, node: &'static str, pod: Pod) {
        self.pods.push((node, pod));
    }

    /// The pod of a node.
    pub fn pod(&self, node: &str) -> &Pod {
        &self.pods.iter().find(|(its, _)| *its == node).expect(TWO).1
    }

    /// A node.
    pub fn node(&self, name: &str) -> &Node {
        self.world.nodes.iter().find(|node| node.name() == name).expect("the world has both nodes")
    }

    /// The principal whose key the demo follows.
    pub fn principal(&self) -> String {
        format!("HTTP/{HOST}@{}", self.world.realm.name())
    }

    /// The directory of this run.
    pub fn dir(&self) -> PathBuf {
        self.world.dir().parent().unwrap_or(Path::new("/")).to_owned()
    }

    /// A command in the pod of a node, as its container would run it.
    pub fn inside(&self, node: &str, script: &str) -> Command {
        container::command(self.node(node), self.pod(node), &self.tools, script)
    }

    /// Runs `script` in the pod of a node and shows it. It must succeed.
    pub fn show(
        &self,
        screen: &mut Screen,
        node: &str,
        script: &str,
    ) -> Result<String, WorldError> {
        screen.command_in(&self.pod(node).name, script)?;
        let text = succeeded(script, &self.inside(node, script).output()?)?;
        screen.output(&text)?;
        Ok(text)
    }

    /// `leases.py` with the stock Python client, as the holder of this certificate.
    pub fn python(&self, certificate: &str, args: &[&str]) -> Result<Output, WorldError> {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = tests.join("../target/venv/bin/python");
        let files = self.world.pki.files(certificate);
        let mut command = Command::new(python);
        command.env("PYTHONDONTWRITEBYTECODE", "1").arg(tests.join("python/leases.py"));
        command.args(["--address", &self.world.broker.address().to_string()]);
        command.arg("--ca").arg(self.world.pki.ca("broker")).arg("--cert").arg(files.certificate);
        command.arg("--key").arg(files.key).args(["--server-name", pki::BROKER]).args(args);
        Ok(command.output()?)
    }

    /// The keytab that lies on the pod's volume now, copied to a file of root's alone.
    pub fn copy_keytab(&self, node: &str, name: &str) -> Result<PathBuf, WorldError> {
        let keytab = self.node(node).read(self.pod(node), "keytabs/tsfoo");
        let keytab = keytab.ok_or_else(|| WorldError::new("copying a keytab", "there is none"))?;
        let copy = self.dir().join(name);
        fs::write(&copy, keytab)?;
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o600))?;
        Ok(copy)
    }

    /// The newest lease of the pod of a node.
    pub async fn lease(&self, node: &str) -> Result<Lease, WorldError> {
        let operator = self.world.operator().await?;
        let lease = operator.lease_of(&self.pod(node).uid).await;
        lease.map_err(asked)?.ok_or_else(|| WorldError::new("asking for a lease", "there is none"))
    }

    /// The logs that say what went wrong.
    pub fn logs(&self) -> Vec<(String, String)> {
        let nodes = self.world.nodes.iter();
        let agents = nodes.map(|node| (format!("the agent of {}", node.name()), node.log()));
        let broker = ("the broker".to_owned(), self.world.broker.log());
        let audit = ("the audit log".to_owned(), self.world.broker.audit());
        agents.chain([broker, audit]).collect()
    }
}

/// What a command printed, if it succeeded.
pub fn succeeded(what: &str, output: &Output) -> Result<String, WorldError> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(WorldError::new(what, format!("{}\n{text}{said}", output.status)))
}

/// Fails the demo unless what it says was seen.
pub fn expect(seen: bool, what: &str) -> Result<(), WorldError> {
    if seen { Ok(()) } else { Err(WorldError::new("expected", what)) }
}

/// A failed call.
pub fn asked(status: tonic::Status) -> WorldError {
    WorldError::new("asking the broker", status)
}

/// A keytab's kvnos of the demo's principal, as `2,3`.
pub fn kvnos(lease: &Lease) -> String {
    let keys = lease.keytab.iter().find(|keys| keys.principal.starts_with("HTTP/"));
    let kvnos = keys.map(|keys| keys.kvnos.iter().map(u32::to_string).collect::<Vec<_>>());
    kvnos.unwrap_or_default().join(",")
}

/// The lease's exposure in words.
pub fn exposure(lease: &Lease) -> String {
    match &lease.exposure {
        Some(Exposure { open: true, .. }) => "open".to_owned(),
        Some(Exposure { exposed_until: Some(at), .. }) => clock_time(at.seconds),
        _ => "-".to_owned(),
    }
}

/// The time of day of a Unix time, UTC.
pub fn clock_time(seconds: i64) -> String {
    let second = seconds.rem_euclid(86_400);
    format!("{:02}:{:02}:{:02} UTC", second / 3_600, second / 60 % 60, second % 60)
}

/// The time since the machine booted.
pub fn now() -> Boottime {
    SystemClock.now().boot
}

/// Seconds since 1970.
pub fn wall_seconds() -> i64 {
    let wall: SystemTime = SystemClock.now().wall;
    i64::try_from(unix_seconds(wall)).unwrap_or(i64::MAX)
}

/// Waits a moment between two looks.
pub async fn moment() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}
