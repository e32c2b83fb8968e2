//! A node: a mount namespace with its own `/run` and kubelet's directory, an agent in it, and
//! the driver, called as kubelet calls it.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Arc,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{
    WorldError, log_file, make_dir,
    network::{Cable, Network},
    pki::{Pki, Subject},
    pods::Pod,
    programs::{driver, program},
    wait_for, write,
};
use crate::realm::daemon;

/// The driver's directory among kubelet's plug-ins, `vendor~driver`.
pub const DRIVER_DIR: &str = "krb-broker~credentials";

/// A node.
pub struct Node {
    name: String,
    dir: PathBuf,
    /// The process that keeps the namespaces.
    holder: Child,
    agent: Option<Child>,
    plugged: Option<Plugged>,
}

/// A node's place in a network.
struct Plugged {
    network: Arc<Network>,
    cable: Cable,
}

/// What the driver answered, and how it ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// `Success`, `Failure`, `Not supported`.
    pub status: String,
    /// What the pod's owner would read.
    pub message: String,
    /// All that it printed.
    pub text: String,
}

impl Answer {
    /// Whether the call succeeded.
    pub fn is_success(&self) -> bool {
        self.status == "Success"
    }
}

impl Node {
    /// Boots a node; no agent runs yet. It gets a certificate of its own. With a network it is
    /// a network namespace too, plugged into that; without, its network is the machine's.
    pub fn make(
        dir: &Path,
        name: &str,
        pki: &Pki,
        network: Option<Arc<Network>>,
    ) -> Result<Self, WorldError> {
        let dir = dir.join(name);
        make_dir(&dir.join("kubelet/pods"))?;
        let subject = format!("system:node:{name}");
        let files = pki.issue("node", &format!("node-{name}"), &Subject::node(&subject))?;
        let text = format!(
            "node = \"{name}\"\nbroker = \"https://BROKER\"\nbroker_name = \"{}\"\nca = {:?}\n\
             certificate = {:?}\nkey = {:?}\nkubelet_root = {:?}\n\
             [timeouts]\nreconnect_max = \"500ms\"\nfill = \"20s\"\nagain_max = \"500ms\"\n",
            super::pki::BROKER,
            pki.ca("broker"),
            files.certificate,
            files.key,
            dir.join("kubelet"),
        );
        write(&dir.join("agent.template"), &text)?;
        let holder = boot(&dir, network.is_some())?;
        let mut node = Self { name: name.to_owned(), dir, holder, agent: None, plugged: None };
        if let Some(network) = network {
            node.plug(network)?;
        }
        Ok(node)
    }

    fn plug(&mut self, network: Arc<Network>) -> Result<(), WorldError> {
        let cable = network.plug(self.holder.id())?;
        self.plugged = Some(Plugged { network, cable });
        Ok(())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command inside the node.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        let holder = self.holder.id();
        command.arg(format!("--mount=/proc/{holder}/ns/mnt"));
        if self.plugged.is_some() {
            command.arg(format!("--net=/proc/{holder}/ns/net"));
        }
        command.arg("--").arg(program);
        command
    }

    /// The cable that joins it to its network.
    ///
    /// # Errors
    /// When it was made without a network.
    pub fn cable(&self) -> Result<&Cable, WorldError> {
        let plugged = self.plugged.as_ref();
        let none = || WorldError::new(format!("the cable of {}", self.name), "it has none");
        plugged.map(|plugged| &plugged.cable).ok_or_else(none)
    }

    /// Stops every process of the node in its tracks, its pods' too. Needs a network.
    ///
    /// # Errors
    /// When it was made without a network: then nothing tells its processes from others.
    pub fn freeze(&self) -> Result<(), WorldError> {
        // a second round for what was being started during the first
        self.signal_all(Signal::STOP)?;
        self.signal_all(Signal::STOP)
    }

    /// Lets all go on after [`Self::freeze`].
    ///
    /// # Errors
    /// As for [`Self::freeze`].
    pub fn thaw(&self) -> Result<(), WorldError> {
        self.signal_all(Signal::CONT)
    }

    fn signal_all(&self, signal: Signal) -> Result<(), WorldError> {
        self.cable()?;
        let network_of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let ours = network_of(&self.holder.id().to_string());
        let gone = || WorldError::new(format!("the processes of {}", self.name), "it is off");
        let ours = ours.ok_or_else(gone)?;
        for entry in fs::read_dir("/proc")?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let pid = name.parse().ok().and_then(Pid::from_raw);
            if let Some(pid) = pid
                && network_of(&name).as_ref() == Some(&ours)
            {
                // it may have ended meanwhile
                let _ = kill_process(pid, signal);
            }
        }
        Ok(())
    }

    /// Starts the agent and waits until it listens for the driver.
    pub fn start_agent(&mut self, broker: &SocketAddr) -> Result<(), WorldError> {
        let template = fs::read_to_string(self.dir.join("agent.template"))?;
        write(&self.config(), &template.replace("BROKER", &broker.to_string()))?;
        self.restart_agent()
    }

    /// Starts the agent again with the configuration it had.
    pub fn restart_agent(&mut self) -> Result<(), WorldError> {
        // As a pod with HostToContainer has it: the node's mounts reach the agent, not the reverse.
        let mut command = self.command("unshare");
        command.args(["--mount", "--propagation", "slave", "--"]).arg(program("krb-node-agent")?);
        command.arg("--config").arg(self.config()).env_clear().env("PATH", "/usr/bin:/bin");
        let mut command = daemon::with_death_signal(&command);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log_file(&self.dir, "agent")?);
        let agent = daemon::spawn(command).map_err(|e| WorldError::new("the agent", e))?;
        self.agent = Some(agent);
        let inside = self.inside("/run/krb-broker/agent.sock");
        wait_for("the agent's socket", || inside.exists().then_some(()))
    }

    /// How long the agent tries to fill a volume while the driver waits; in force when the
    /// agent is started with [`Self::start_agent`].
    pub fn set_patience(&self, milliseconds: u32) -> Result<(), WorldError> {
        let template = self.dir.join("agent.template");
        let text = fs::read_to_string(&template)?;
        write(&template, &text.replace("fill = \"20s\"", &format!("fill = \"{milliseconds}ms\"")))
    }

    fn config(&self) -> PathBuf {
        self.dir.join("agent.toml")
    }

    /// The agent's log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("agent.log")).unwrap_or_default()
    }

    /// A path of the node, seen from outside.
    pub fn inside(&self, path: &str) -> PathBuf {
        Path::new(&format!("/proc/{}/root", self.holder.id())).join(path.trim_start_matches('/'))
    }

    /// Sends the agent a signal.
    pub fn signal_agent(&self, signal: Signal) {
        if let Some(agent) = &self.agent
            && let Some(pid) = Pid::from_raw(agent.id().cast_signed())
        {
            let _ = kill_process(pid, signal);
        }
    }

    /// SIGKILL: the agent is gone without a word.
    pub fn kill_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }

    /// SIGTERM, and waits until the agent has said Goodbye and ended.
    pub fn stop_agent(&mut self) -> Result<(), WorldError> {
        self.signal_agent(Signal::TERM);
        let agent = &mut self.agent;
        wait_for("the agent to end", || {
            agent.as_mut().and_then(|agent| agent.try_wait().ok().flatten())
        })?;
        self.agent = None;
        Ok(())
    }

    /// The process id of the agent, while it runs.
    pub fn agent_pid(&self) -> Option<u32> {
        self.agent.as_ref().map(Child::id)
    }

    /// Power loss: every process and mount of the node is gone at once, its disk stays.
    pub fn power_off(&mut self) {
        self.kill_agent();
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }

    /// Boots it again after [`Self::power_off`]; the agent is started by the caller.
    pub fn power_on(&mut self) -> Result<(), WorldError> {
        self.holder = boot(&self.dir, self.plugged.is_some())?;
        match self.plugged.take() {
            Some(Plugged { network, .. }) => self.plug(network),
            None => Ok(()),
        }
    }

    /// Kubelet's directory for the pod's volume.
    pub fn target(&self, pod: &Pod) -> PathBuf {
        let place = format!("kubelet/pods/{}/volumes/{DRIVER_DIR}/{}", pod.uid, Pod::VOLUME);
        self.dir.join(place)
    }

    /// Calls the driver's `mount` as kubelet does.
    pub fn mount(&self, pod: &Pod) -> Result<Answer, WorldError> {
        answer(self.mount_call(pod)?.output()?)
    }

    /// The driver's `mount` as kubelet would run it: the process is the driver itself.
    pub fn mount_call(&self, pod: &Pod) -> Result<Command, WorldError> {
        let target = self.target(pod);
        make_dir(&target)?;
        self.driver_call(&["mount", &target.display().to_string(), &Self::mount_options(pod)])
    }

    /// The options that kubelet gives the driver's `mount`, as JSON.
    pub fn mount_options(pod: &Pod) -> String {
        json!({
            "kubernetes.io/fsType": "",
            "kubernetes.io/pod.name": pod.name,
            "kubernetes.io/pod.namespace": pod.namespace,
            "kubernetes.io/pod.uid": pod.uid,
            "kubernetes.io/pvOrVolumeName": Pod::VOLUME,
            "kubernetes.io/readwrite": "rw",
            "kubernetes.io/serviceAccount.name": "default",
        })
        .to_string()
    }

    /// Calls the driver's `unmount` as kubelet does, and removes the directory as it does.
    pub fn unmount(&self, pod: &Pod) -> Result<Answer, WorldError> {
        let target = self.target(pod);
        let answer = self.call(&["unmount", &target.display().to_string()])?;
        if answer.is_success() {
            let _ = fs::remove_dir(self.inside(&target.display().to_string()));
        }
        Ok(answer)
    }

    /// Calls the driver; exactly one JSON object must come back.
    pub fn call(&self, args: &[&str]) -> Result<Answer, WorldError> {
        answer(self.driver_call(args)?.output()?)
    }

    fn driver_call(&self, args: &[&str]) -> Result<Command, WorldError> {
        let mut command = self.command(driver()?);
        command.args(args).env_clear().env("PATH", "/usr/bin:/bin");
        Ok(command)
    }

    /// A file of a mounted volume, as the node's root reads it.
    pub fn read(&self, pod: &Pod, path: &str) -> Option<Vec<u8>> {
        fs::read(self.inside(&self.target(pod).join(path).display().to_string())).ok()
    }

    /// Whether anything is mounted on the pod's volume.
    pub fn is_mounted(&self, pod: &Pod) -> bool {
        let mounts = format!("/proc/{}/mountinfo", self.holder.id());
        let target = self.target(pod).display().to_string();
        fs::read_to_string(mounts).unwrap_or_default().contains(&target)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.power_off();
    }
}

fn answer(output: Output) -> Result<Answer, WorldError> {
    let said = [output.stdout, output.stderr].concat();
    let answer: Value = serde_json::from_slice(&said).map_err(|e| {
        WorldError::new(format!("the driver's answer {:?}", String::from_utf8_lossy(&said)), e)
    })?;
    let text = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
    let (status, message) = (text("status"), text("message"));
    Ok(Answer { status, message, text: String::from_utf8_lossy(&said).trim().to_owned() })
}

/// A process in a mount namespace of its own, with its own `/run`; and, if it is to be plugged
/// into a network, in a network namespace of its own.
fn boot(dir: &Path, apart: bool) -> Result<Child, WorldError> {
    let ready = dir.join("booted");
    let _ = fs::remove_file(&ready);
    let script = "mount --make-rshared / && mount -t tmpfs -o mode=755 tmpfs /run && : >\"$0\" && exec sleep infinity";
    let mut command = Command::new("unshare");
    if apart {
        command.arg("--net");
    }
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(&ready);
    let mut command = daemon::with_death_signal(&command);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log_file(dir, "boot")?);
    let holder = daemon::spawn(command).map_err(|e| WorldError::new("booting a node", e))?;
    wait_for("the node to boot", || ready.exists().then_some(()))?;
    Ok(holder)
}
