//! Reading a request, and the one descriptor that may come with it.
//!
//! Descriptors that nobody asked for are closed, also those that come after the request: what
//! reads on without asking for them makes the kernel throw them away.

use std::{
    io::{self, IoSliceMut},
    mem::MaybeUninit,
};

use krb_proto::driver::{Request, frame_length};
use prost::Message as _;
use rustix::{
    fd::OwnedFd,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg},
};
use tokio::{io::Interest, net::UnixStream};

use crate::volume::Detached;

/// What a caller sent.
#[derive(Debug)]
pub struct Received {
    /// Its request.
    pub request: Request,
    /// The volume that came along. That it is one has not been looked at.
    pub volume: Option<Detached>,
}

/// Reads one request.
///
/// # Errors
/// Those of the stream; `InvalidData` for what is no request, and for more than one descriptor.
pub async fn read(stream: &UnixStream) -> io::Result<Received> {
    let mut volume = None;
    let mut prefix = [0; 4];
    read_exact(stream, &mut prefix, &mut volume).await?;
    let mut body = vec![0; frame_length(prefix)?];
    read_exact(stream, &mut body, &mut volume).await?;
    let request = Request::decode(body.as_slice())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Received { request, volume: volume.map(Detached) })
}

async fn read_exact(
    stream: &UnixStream,
    buffer: &mut [u8],
    along: &mut Option<OwnedFd>,
) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        let receive = || receive(stream, &mut buffer[done..], along);
        match stream.async_io(Interest::READABLE, receive).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => done += count,
        }
    }
    Ok(())
}

/// Receives what there is, without waiting.
fn receive(
    stream: &UnixStream,
    buffer: &mut [u8],
    along: &mut Option<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(stream, &mut [IoSliceMut::new(buffer)], &mut control, flags)?;
    let mut too_many = received.flags.contains(ReturnFlags::CTRUNC);
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            for descriptor in descriptors {
                too_many |= along.replace(descriptor).is_some();
            }
        }
    }
    if too_many {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too many descriptors came along"));
    }
    Ok(received.bytes)
}
