//! Asking the node's agent, over its socket: one request, one reply, one connection.
//!
//! A volume that is mounted nowhere yet goes along as a descriptor. The agent then keeps the
//! connection until the driver hangs up, which says that the volume is in its place or will
//! never be; an agent that hangs up first has forgotten the volume.
//!
//! The agent is trusted to be root's, because the socket lies in a directory of root's. It may
//! be away, be restarted in the middle, or hang: nothing here waits past a deadline.

use std::{
    io::{self, IoSlice, Read, Write},
    mem::MaybeUninit,
    os::unix::net::UnixStream,
    time::Duration,
};

use krb_proto::driver::{Call, Fill, Forget, Reply, Request, SOCKET, frame, read_frame};
use rustix::{
    fd::{AsFd, BorrowedFd},
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
        SocketAddrUnix, SocketFlags, SocketType, connect, recv, sendmsg, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
};

use crate::{
    clock::Deadline, detached::Detached, failure::Failure, options::PodNames, target::Target,
};

/// How long an unmount waits for the agent, which learns of the end by itself if need be.
const FORGET_LIMIT: Duration = Duration::from_secs(1);

/// How often a wait for the agent looks up.
const SLICE: Duration = Duration::from_millis(100);

/// A connection to the agent, for one request.
#[derive(Debug)]
pub struct Agent(UnixStream);

impl Agent {
    /// Connects. No step on the connection lasts longer than a [`SLICE`]; a request fits into
    /// the socket's buffer, so only an agent that takes no connections uses one up.
    ///
    /// # Errors
    /// [`Failure::AgentAway`].
    pub fn connect() -> Result<Self, Failure> {
        dial().map(Self).map_err(|_| Failure::AgentAway)
    }

    /// Has a volume filled: the one that is mounted on the target, or a detached one. The agent
    /// gives the same lease each time it is asked.
    ///
    /// It ends early, as if the agent were away, when `give_up` says so.
    ///
    /// # Errors
    /// [`Failure::Refused`] with the agent's text; [`Failure::AgentGarbled`];
    /// [`Failure::AgentAway`] when it hangs up or the deadline passes.
    pub fn fill(
        self,
        target: &Target,
        names: &PodNames,
        volume: Option<&Detached>,
        deadline: &Deadline,
        give_up: &dyn Fn() -> bool,
    ) -> Result<Filled, Failure> {
        let fill = Fill {
            target: target.as_str().to_owned(),
            pod_uid: target.uid.to_string(),
            volume: target.volume.to_string(),
            detached: volume.is_some(),
            pod_namespace: names.namespace.clone(),
            pod_name: names.name.clone(),
        };
        match self.ask(Call::Fill(fill), volume.map(AsFd::as_fd), deadline, give_up) {
            Ok(reply) if reply.failure.is_empty() => Ok(Filled(self.0)),
            Ok(reply) => Err(Failure::Refused(reply.failure)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(Failure::AgentGarbled),
            Err(_) => Err(Failure::AgentAway),
        }
    }

    fn ask(
        &self,
        call: Call,
        volume: Option<BorrowedFd<'_>>,
        deadline: &Deadline,
        give_up: &dyn Fn() -> bool,
    ) -> io::Result<Reply> {
        let mut stream = &self.0;
        let request = frame(&Request { call: Some(call) });
        let sent = match volume {
            Some(volume) => send_with(stream, &request, volume)?,
            None => 0,
        };
        stream.write_all(&request[sent..])?;
        read_frame(&mut Patient { stream, deadline, give_up })
    }
}

/// A volume that the agent has filled, for as long as the driver has not put it in its place.
#[derive(Debug)]
pub struct Filled(UnixStream);

impl Filled {
    /// Whether the agent still reckons with the volume: it has not hung up.
    pub fn is_known(&self) -> bool {
        let look = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        recv(&self.0, &mut [0; 1], look).is_err_and(|errno| errno == Errno::WOULDBLOCK)
    }
}

/// Sends the bytes, or the first of them, and with them the descriptor. How many went.
fn send_with(stream: &UnixStream, bytes: &[u8], volume: BorrowedFd<'_>) -> io::Result<usize> {
    let volumes = [volume];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut along = SendAncillaryBuffer::new(&mut space);
    if !along.push(SendAncillaryMessage::ScmRights(&volumes)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut along, SendFlags::NOSIGNAL)?)
}

/// Tells the agent, once and briefly, that the volume is going. Its answer changes nothing.
pub fn forget(target: &Target) {
    if let Ok(agent) = Agent::connect() {
        let forget = Forget { target: target.as_str().to_owned() };
        let _ = agent.ask(Call::Forget(forget), None, &Deadline::after(FORGET_LIMIT), &|| false);
    }
}

fn dial() -> io::Result<UnixStream> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(SLICE))?; // bounds connect as well
    set_socket_timeout(&socket, Timeout::Recv, Some(SLICE))?;
    connect(&socket, &SocketAddrUnix::new(SOCKET)?)?;
    Ok(UnixStream::from(socket))
}

/// A stream that is read slice by slice until the deadline, or until it is given up.
struct Patient<'a> {
    stream: &'a UnixStream,
    deadline: &'a Deadline,
    give_up: &'a dyn Fn() -> bool,
}

impl Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock
                        && self.deadline.left().is_some()
                        && !(self.give_up)() => {}
                outcome => return outcome,
            }
        }
    }
}
