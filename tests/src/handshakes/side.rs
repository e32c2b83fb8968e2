//! One side's process, and what is said to it and by it (see `handshake.c`).

use std::{
    fmt,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{ChildStdin, ChildStdout},
};

use crate::{realm::daemon, world::WorldError};

/// A side that says nothing for so long is broken. The library itself gives a KDC up sooner.
const ANSWER_WITHIN: Duration = Duration::from_secs(40);
/// The longest answer that is believed.
const LONGEST: usize = 1 << 16;

/// What a side has for the other.
pub(super) struct Part {
    /// To be handed over; may be empty.
    pub(super) token: Vec<u8>,
    /// Whether the side is done with it.
    pub(super) is_last: bool,
}

/// Why there was no handshake.
pub(super) enum Broken {
    /// A side refused; its process is fine.
    Handshake(String),
    /// A side's process is gone or silent.
    Side(String),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Handshake(said) | Self::Side(said)) = self;
        f.write_str(said)
    }
}

/// A side's process. It ends when this is dropped, and with the program that started it.
pub(super) struct Side {
    name: &'static str,
    child: Child,
    pipes: Option<(ChildStdin, ChildStdout)>,
}

impl Side {
    /// Starts it. What it can't say to us it says on our standard error.
    pub(super) fn start(name: &'static str, command: &Command) -> Result<Self, WorldError> {
        let mut command = daemon::with_death_signal(command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let child = daemon::spawn(command).map_err(|e| WorldError::new(format!("an {name}"), e))?;
        Ok(Self { name, child, pipes: None })
    }

    /// Has an initiator begin with this ccache and service.
    pub(super) async fn begin(&mut self, ccache: &Path, service: &str) -> Result<Part, Broken> {
        let ccache = ccache.as_os_str().as_bytes();
        self.ask(b'S', &[b"FILE:", ccache, b"\0", service.as_bytes()].concat()).await
    }

    /// Hands it the other side's token.
    pub(super) async fn go_on(&mut self, token: &[u8]) -> Result<Part, Broken> {
        self.ask(b'T', token).await
    }

    async fn ask(&mut self, kind: u8, rest: &[u8]) -> Result<Part, Broken> {
        let name = self.name;
        let broken = |what: &dyn fmt::Display| Broken::Side(format!("{name}: {what}"));
        let exchange = tokio::time::timeout(ANSWER_WITHIN, self.exchange(kind, rest)).await;
        let answer =
            exchange.map_err(|_| broken(&"it does not answer"))?.map_err(|e| broken(&e))?;
        match answer.split_first() {
            Some((b'T', token)) => Ok(Part { token: token.to_vec(), is_last: false }),
            Some((b'D', token)) => Ok(Part { token: token.to_vec(), is_last: true }),
            Some((b'E', said)) => {
                Err(Broken::Handshake(format!("{name}: {}", String::from_utf8_lossy(said))))
            }
            other => Err(broken(&format!("it says {other:?}"))),
        }
    }

    async fn exchange(&mut self, kind: u8, rest: &[u8]) -> std::io::Result<Vec<u8>> {
        let (input, output) = self.pipes()?;
        let length = u32::try_from(rest.len() + 1).map_err(std::io::Error::other)?;
        let message = [&length.to_be_bytes(), &[kind][..], rest].concat();
        input.write_all(&message).await?;
        let length = output.read_u32().await? as usize;
        if length > LONGEST {
            return Err(std::io::Error::other(format!("it announces {length} bytes")));
        }
        let mut answer = vec![0; length];
        output.read_exact(&mut answer).await?;
        Ok(answer)
    }

    /// The pipes, watched by the runtime in which they are first used.
    fn pipes(&mut self) -> std::io::Result<&mut (ChildStdin, ChildStdout)> {
        if self.pipes.is_none() {
            let gone = || std::io::Error::other("it has no pipes");
            let input = self.child.stdin.take().ok_or_else(gone)?;
            let output = self.child.stdout.take().ok_or_else(gone)?;
            self.pipes = Some((ChildStdin::from_std(input)?, ChildStdout::from_std(output)?));
        }
        self.pipes.as_mut().ok_or_else(|| std::io::Error::other("it has no pipes"))
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
