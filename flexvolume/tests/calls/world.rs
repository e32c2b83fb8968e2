//! A node for one story: a mount namespace of its own with an empty `/run`, kubelet's root in
//! it, the real driver, and an agent that does as it is told.

use std::{
    fs, io,
    os::unix::net::{UnixListener, UnixStream},
    panic,
    path::Path,
    process::{self, Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use krb_proto::driver::{Call, Fill, Reply, Request, SOCKET, frame_length, write_frame};
use prost::Message as _;
use rustix::{
    fd::{AsRawFd, OwnedFd},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
    time::{ClockId, clock_gettime},
};
use serde_json::{Value, json};

pub const KUBELET: &str = "/run/kubelet";
/// The pod's namespace and name.
pub const POD: (&str, &str) = ("tsfoo", "web-0");

pub const UID: &str = "7b13ca15-96e5-4eea-9536-8fb9859c1200";
pub const TARGET: &str =
    "/run/kubelet/pods/7b13ca15-96e5-4eea-9536-8fb9859c1200/volumes/ts~krb/creds";

const INSIDE: &str = "KRB_FLEXVOLUME_STORY";

/// Runs a story on a node of its own: this test again, as a process in a new mount namespace.
pub fn story<F: FnOnce(Node)>(tell: F) {
    told_inside(&[], tell);
}

/// The same where the kernel knows no `noswap`: it refuses the word in a user namespace exactly
/// as one before 6.4 does everywhere.
pub fn story_without_noswap<F: FnOnce(Node)>(tell: F) {
    told_inside(&["--user", "--map-root-user"], tell);
}

fn told_inside<F: FnOnce(Node)>(namespaces: &[&str], tell: F) {
    if std::env::var_os(INSIDE).is_some() {
        fs::create_dir_all(TARGET).unwrap();
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            report(info);
            process::exit(101); // the agent's threads tell the story too
        }));
        return tell(Node { old: false });
    }
    assert!(rustix::process::getuid().is_root(), "these tests mount: run them as root");
    let closure = std::any::type_name::<F>(); // `calls::<module>::<test>::{{closure}}`
    let name = closure.split("::").skip(1).take(2).collect::<Vec<_>>().join("::");
    let told = Command::new("unshare")
        .args(namespaces)
        .args(["--mount", "--propagation", "private", "--", "sh", "-c"])
        .args(["mount -t tmpfs tmpfs /run && exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args([&*name, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare (util-linux) runs");
    let said = String::from_utf8_lossy(&told.stdout).into_owned();
    let complained = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.status.success(), "{said}\n{complained}");
    assert!(said.contains("1 passed"), "the story was not told: {said}\n{complained}");
}

/// What the driver answered. That it was one JSON object on stdout, and nothing on stderr, has
/// been seen.
#[derive(Debug, PartialEq)]
pub struct Answer {
    pub status: String,
    pub message: String,
    pub code: Option<i32>,
    pub text: String,
}

impl Answer {
    #[track_caller]
    pub fn succeeds(&self) {
        assert_eq!((self.text.as_str(), self.code), ("{\"status\":\"Success\"}\n", Some(0)));
    }

    #[track_caller]
    pub fn fails(&self, message: &str) {
        let all = (self.status.as_str(), self.message.as_str(), self.code);
        assert_eq!(all, ("Failure", message, Some(0)));
    }
}

/// The machine. Nothing on it but `/run` differs from the one that the tests run on.
#[derive(Clone, Copy)]
pub struct Node {
    /// Its kernel is one from before 5.2.
    old: bool,
}

impl Node {
    /// The same node with a kernel that can't make a mount before it is in its place.
    pub fn before_5_2(self) -> Self {
        Self { old: true }
    }

    /// Runs the driver and waits for its answer.
    pub fn driver(self, arguments: &[&str]) -> Answer {
        answer(self.start(arguments, 10_000))
    }

    /// The same, with so many milliseconds for a `mount`.
    pub fn driver_within(self, limit: u32, arguments: &[&str]) -> Answer {
        answer(self.start(arguments, limit))
    }

    /// Starts the driver as kubelet does, but for an umask that is stricter than kubelet's.
    pub fn start(self, arguments: &[&str], limit: u32) -> Child {
        let old = self.old.then_some(("KRB_FLEXVOLUME_OLD_KERNEL", "1"));
        Command::new("/bin/sh")
            .args(["-c", "umask 077 && exec \"$@\"", "sh"])
            .arg(env!("CARGO_BIN_EXE_krb-flexvolume"))
            .args(arguments)
            .current_dir("/")
            .env_clear()
            .env("KRB_FLEXVOLUME_LIMIT_MS", limit.to_string())
            .envs(old)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    pub fn mount(self) -> Answer {
        self.driver(&["mount", TARGET, &options(UID, "creds")])
    }

    pub fn start_mount(self) -> Child {
        self.start(&["mount", TARGET, &options(UID, "creds")], 10_000)
    }

    pub fn unmount(self) -> Answer {
        self.driver(&["unmount", TARGET])
    }

    /// An agent that does to each call what `act` says.
    pub fn agent(self, act: impl Fn(&Call) -> Act + Send + Sync + 'static) -> Agent {
        Agent::listen(move |call, _| act(call))
    }

    /// An agent that does to each call what `act` says, who is told where the volume's files are.
    pub fn writing_agent(self, act: impl Fn(&Call, &str) -> Act + Send + Sync + 'static) -> Agent {
        Agent::listen(act)
    }

    /// How many file systems are mounted on a directory.
    pub fn layers(self, directory: &str) -> usize {
        self.mounts().lines().filter(|line| line.split(' ').nth(4) == Some(directory)).count()
    }

    /// All mounts of the node.
    pub fn mounts(self) -> String {
        fs::read_to_string("/proc/self/mountinfo").unwrap()
    }

    /// Mounts a file system of another kind or origin.
    pub fn mount_foreign(self, kind: &str) {
        let done = Command::new("mount").args(["-t", kind, kind, TARGET]).status().unwrap();
        assert!(done.success());
    }

    pub fn log(self) -> String {
        fs::read_to_string("/run/krb-broker/driver.log").unwrap_or_default()
    }

    /// What is left of locks: nothing, when no call is under way.
    pub fn locks(self) -> Vec<String> {
        let Ok(entries) = fs::read_dir("/run/krb-broker/locks") else { return Vec::new() };
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// Waits for a state of the node, 20 s at most.
#[track_caller]
pub fn until(reached: impl Fn() -> bool) {
    let seconds = || clock_gettime(ClockId::Boottime).tv_sec;
    let begun = seconds();
    while !reached() {
        assert!(seconds() < begun + 20, "it never came to that");
        thread::yield_now();
    }
}

/// Kubelet's options.
pub fn options(uid: &str, volume: &str) -> String {
    json!({
        "kubernetes.io/fsType": "", "kubernetes.io/pod.name": "web-0",
        "kubernetes.io/pod.namespace": "tsfoo", "kubernetes.io/pod.uid": uid,
        "kubernetes.io/pvOrVolumeName": volume, "kubernetes.io/readwrite": "rw",
        "kubernetes.io/serviceAccount.name": "default", "ts/services": "HTTP",
    })
    .to_string()
}

/// Waits for a driver's answer and holds it to the rule: one JSON object, nothing else.
pub fn answer(driver: Child) -> Answer {
    let output = driver.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "kubelet would read stderr too");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.ends_with("}\n") && text.lines().count() == 1, "{text:?}");
    let object: Value = serde_json::from_str(&text).unwrap();
    let field = |name| object[name].as_str().unwrap_or_default().to_owned();
    Answer { status: field("status"), message: field("message"), code: output.status.code(), text }
}

/// What the agent does to a call.
pub enum Act {
    Reply(&'static str),
    HangUp,
    /// Replies and hangs up at once, before the volume is in its place.
    ReplyAndHangUp,
    Garbage,
    /// Keeps the connection and says nothing.
    Silence,
}

/// An agent of the test's own.
pub struct Agent {
    calls: Arc<Mutex<Vec<Call>>>,
    served: Arc<AtomicUsize>,
}

impl Agent {
    fn listen(act: impl Fn(&Call, &str) -> Act + Send + Sync + 'static) -> Self {
        fs::create_dir_all(Path::new(SOCKET).parent().unwrap()).unwrap();
        let _ = fs::remove_file(SOCKET);
        let listener = UnixListener::bind(SOCKET).unwrap();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let served = Arc::new(AtomicUsize::new(0));
        let (heard, act, count) = (calls.clone(), Arc::new(act), served.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (heard, act, count) = (heard.clone(), act.clone(), count.clone());
                thread::spawn(move || {
                    serve(stream.unwrap(), &heard, &*act);
                    count.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self { calls, served }
    }

    /// How many calls are over, their connections closed.
    pub fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }

    /// What it was asked, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// How often it was asked to fill, and to forget.
    pub fn counts(&self) -> (usize, usize) {
        let calls = self.calls();
        let fills = calls.iter().filter(|call| matches!(call, Call::Fill(_))).count();
        (fills, calls.len() - fills)
    }

    /// The agent dies: its socket answers nobody any more.
    pub fn die(self) {
        fs::remove_file(SOCKET).unwrap();
    }
}

fn serve(mut stream: UnixStream, heard: &Mutex<Vec<Call>>, act: &impl Fn(&Call, &str) -> Act) {
    let mut along = Vec::new();
    let Some(call) = hear(&stream, &mut along) else { return };
    let detached = matches!(call, Call::Fill(Fill { detached: true, .. }));
    assert_eq!(along.len(), usize::from(detached), "one descriptor, or none");
    heard.lock().unwrap().push(call.clone());
    let fd = along.pop();
    let place = fd.as_ref().map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let act = act(&call, place.as_deref().unwrap_or(TARGET));
    drop(fd);
    match act {
        Act::Reply(failure) => {
            let _ = write_frame(&mut stream, &Reply { failure: failure.to_owned() });
            if detached {
                let _ = io::copy(&mut stream, &mut io::sink()); // until it is in its place
            }
        }
        Act::HangUp => {}
        Act::ReplyAndHangUp => {
            let _ = write_frame(&mut stream, &Reply::default());
        }
        Act::Garbage => {
            let _ = io::Write::write_all(&mut stream, &[0, 0, 0, 2, 0xff, 0xff]);
        }
        Act::Silence => {
            let _ = io::copy(&mut stream, &mut io::sink()); // until the driver hangs up
        }
    }
}

/// Reads a request, and the descriptors that come along.
fn hear(stream: &UnixStream, along: &mut Vec<OwnedFd>) -> Option<Call> {
    let mut prefix = [0; 4];
    receive(stream, &mut prefix, along)?;
    let mut body = vec![0; frame_length(prefix).unwrap()];
    receive(stream, &mut body, along)?;
    Request::decode(body.as_slice()).unwrap().call
}

fn receive(stream: &UnixStream, mut buffer: &mut [u8], along: &mut Vec<OwnedFd>) -> Option<()> {
    while !buffer.is_empty() {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [io::IoSliceMut::new(buffer)];
        let got = recvmsg(stream, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                along.extend(descriptors);
            }
        }
        if got.bytes == 0 {
            return None;
        }
        buffer = &mut buffer[got.bytes..];
    }
    Some(())
}
