//! A KDC or kadmind as a child process that can't outlive us.
//!
//! The kernel kills a child with `PR_SET_PDEATHSIG` when the *thread* that started it ends, so
//! all daemons are started by one thread that lives as long as the process.

use std::{
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    sync::{OnceLock, mpsc},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use super::RealmError;

/// How long a daemon may take until it listens.
const START: Duration = Duration::from_secs(20);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// A running daemon. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
}

impl Daemon {
    /// Starts `command` and waits until it listens at `address` (TCP).
    pub(crate) fn start(command: Command, address: SocketAddr) -> Result<Self, RealmError> {
        let name = command.get_program().to_string_lossy().into_owned();
        let failed = |detail: String| RealmError::new(format!("starting {name}"), detail);
        let child = spawn(with_death_signal(&command)).map_err(failed)?;
        let mut daemon = Self { child };
        let rounds = START.as_millis() / LOOK.as_millis();
        for _ in 0..rounds {
            if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
                return Ok(daemon);
            }
            if let Ok(Some(status)) = daemon.child.try_wait() {
                return Err(failed(format!("ended with {status}")));
            }
            pause(LOOK);
        }
        Err(failed(format!("does not listen at {address}")))
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it: with SIGTERM, and with SIGKILL when that takes more than 2 s.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::CONT);
        self.signal(Signal::TERM);
        for _ in 0..400 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            pause(LOOK);
        }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // it is our child and not yet waited for: the pid is its own
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The same command below `setpriv --pdeathsig KILL`, which becomes it.
pub(crate) fn with_death_signal(command: &Command) -> Command {
    let mut wrapped = Command::new("setpriv");
    wrapped.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program());
    wrapped.args(command.get_args()).env_clear();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            wrapped.env(name, value);
        }
    }
    wrapped.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    wrapped
}

type Job = (Command, mpsc::Sender<Result<Child, String>>);

/// Starts the command in the thread that never ends.
pub(crate) fn spawn(command: Command) -> Result<Child, String> {
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, inbox) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, reply) in inbox {
                let _ = reply.send(command.spawn().map_err(|error| error.to_string()));
            }
        });
        jobs
    });
    let (reply, answer) = mpsc::channel();
    spawner.send((command, reply)).map_err(|error| error.to_string())?;
    answer.recv().map_err(|error| error.to_string())?
}

/// Lets a moment pass between two looks at a process.
fn pause(span: Duration) {
    #[expect(clippy::disallowed_methods, reason = "there is no event to wait for: a poll")]
    std::thread::sleep(span);
}
