//! A node for one story: a mount namespace of its own with an empty `/run`, kubelet's root in
//! it, the real driver, and an agent that does as it is told.

use std::{
    fs, io,
    os::unix::net::{UnixListener, UnixStream},
    panic,
    path::Path,
    process::{self, Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use krb_proto::driver::{Call, Reply, Request, SOCKET, read_frame, write_frame};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

pub const KUBELET: &str = "/run/kubelet";
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
        return tell(Node);
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
pub struct Node;

impl Node {
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
        Command::new("/bin/sh")
            .args(["-c", "umask 077 && exec \"$@\"", "sh"])
            .arg(env!("CARGO_BIN_EXE_krb-flexvolume"))
            .args(arguments)
            .current_dir("/")
            .env_clear()
            .env("KRB_FLEXVOLUME_LIMIT_MS", limit.to_string())
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
    Garbage,
    /// Keeps the connection and says nothing.
    Silence,
}

/// An agent of the test's own.
pub struct Agent {
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Agent {
    fn listen(act: impl Fn(&Call) -> Act + Send + Sync + 'static) -> Self {
        fs::create_dir_all(Path::new(SOCKET).parent().unwrap()).unwrap();
        let _ = fs::remove_file(SOCKET);
        let listener = UnixListener::bind(SOCKET).unwrap();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (heard, act) = (calls.clone(), Arc::new(act));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (heard, act) = (heard.clone(), act.clone());
                thread::spawn(move || serve(stream.unwrap(), &heard, &*act));
            }
        });
        Self { calls }
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

fn serve(mut stream: UnixStream, heard: &Mutex<Vec<Call>>, act: &impl Fn(&Call) -> Act) {
    let Ok(Request { call: Some(call) }) = read_frame(&mut stream) else { return };
    heard.lock().unwrap().push(call.clone());
    match act(&call) {
        Act::Reply(failure) => {
            let _ = write_frame(&mut stream, &Reply { failure: failure.to_owned() });
        }
        Act::HangUp => {}
        Act::Garbage => {
            let _ = io::Write::write_all(&mut stream, &[0, 0, 0, 2, 0xff, 0xff]);
        }
        Act::Silence => {
            let _ = io::copy(&mut stream, &mut io::sink()); // until the driver hangs up
        }
    }
}
