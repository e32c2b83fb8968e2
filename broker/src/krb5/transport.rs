//! One request to one KDC: UDP, then TCP where UDP is too small (RFC 4120 7.2).
//!
//! The UDP socket is connected, so datagrams of other senders are never seen. A retransmission
//! is the same bytes: KDCs answer it with the same reply. Nothing here reads a message, except
//! that the error 52 means TCP. No request is sent past the limits, no reply read past its cap.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::messages;

/// KRB_ERR_RESPONSE_TOO_BIG
const RESPONSE_TOO_BIG: i32 = 52;

/// The largest datagram there is.
const MAX_DATAGRAM: usize = 65_536;

/// How long a KDC may take, and how much it may say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// How long each transmission over UDP waits for a reply; as many as there are. None at
    /// all means TCP always.
    pub udp_waits: Vec<Duration>,
    /// Longer requests go over TCP at once, in bytes.
    pub udp_request: usize,
    /// How long a connection may take to open.
    pub tcp_connect: Duration,
    /// How long the reply may take on an open connection.
    pub tcp_reply: Duration,
    /// The longest reply that is read over TCP, in bytes.
    pub reply: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            udp_waits: vec![seconds(1), seconds(2), seconds(4)],
            udp_request: 1_400,
            tcp_connect: seconds(3),
            tcp_reply: seconds(7),
            reply: 128 * 1024,
        }
    }
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Nothing came in the time there was.
    #[error("{kdc} does not answer over {over}")]
    TimedOut {
        /// Which KDC.
        kdc: SocketAddr,
        /// `UDP` or `TCP`.
        over: &'static str,
    },
    /// The network refused.
    #[error("{kdc} can't be reached over {over}")]
    Io {
        /// Which KDC.
        kdc: SocketAddr,
        /// `UDP` or `TCP`.
        over: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The reply is longer than the cap.
    #[error("{kdc} announces a reply of {length} bytes")]
    TooLong {
        /// Which KDC.
        kdc: SocketAddr,
        /// What it announces.
        length: usize,
    },
    /// The request was not sent: whoever asks decided so.
    #[error("the request was not sent: {detail}")]
    NotSent {
        /// Why.
        detail: String,
        /// When it may be tried again.
        retry_after: Duration,
    },
}

/// Sends `request` to the KDC and returns its reply, unread.
///
/// # Errors
/// When no reply came within the limits.
pub async fn ask(
    kdc: SocketAddr,
    request: &[u8],
    limits: &Limits,
) -> Result<Vec<u8>, TransportError> {
    if request.len() <= limits.udp_request && !limits.udp_waits.is_empty() {
        let reply = ask_udp(kdc, request, &limits.udp_waits).await?;
        if !is_too_big(&reply) {
            return Ok(reply);
        }
    }
    ask_tcp(kdc, request, limits).await
}

fn is_too_big(reply: &[u8]) -> bool {
    messages::parse_krb_error(reply).is_ok_and(|error| error.code == RESPONSE_TOO_BIG)
}

async fn ask_udp(
    kdc: SocketAddr,
    request: &[u8],
    waits: &[Duration],
) -> Result<Vec<u8>, TransportError> {
    let over = "UDP";
    let failed = |source| TransportError::Io { kdc, over, source };
    let any: SocketAddr = match kdc {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await.map_err(failed)?;
    socket.connect(kdc).await.map_err(failed)?;
    let mut reply = vec![0; MAX_DATAGRAM];
    for wait in waits {
        socket.send(request).await.map_err(failed)?;
        if let Ok(received) = timeout(*wait, socket.recv(&mut reply)).await {
            reply.truncate(received.map_err(failed)?);
            return Ok(reply);
        }
    }
    Err(TransportError::TimedOut { kdc, over })
}

async fn ask_tcp(
    kdc: SocketAddr,
    request: &[u8],
    limits: &Limits,
) -> Result<Vec<u8>, TransportError> {
    let over = "TCP";
    let failed = |source| TransportError::Io { kdc, over, source };
    let late = |_| TransportError::TimedOut { kdc, over };
    let opened = timeout(limits.tcp_connect, TcpStream::connect(kdc)).await.map_err(late)?;
    let mut stream = opened.map_err(failed)?;
    let talk = talk(&mut stream, request, limits.reply);
    match timeout(limits.tcp_reply, talk).await.map_err(late)?.map_err(failed)? {
        Ok(reply) => Ok(reply),
        Err(length) => Err(TransportError::TooLong { kdc, length }),
    }
}

/// Length and request in one write, length and reply back; the inner error is a length over
/// the cap.
async fn talk(
    stream: &mut TcpStream,
    request: &[u8],
    cap: usize,
) -> io::Result<Result<Vec<u8>, usize>> {
    let length = u32::try_from(request.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.set_nodelay(true)?;
    stream.write_all(&[&length.to_be_bytes(), request].concat()).await?;
    let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
    if length > cap {
        return Ok(Err(length));
    }
    let mut reply = vec![0; length];
    stream.read_exact(&mut reply).await?;
    Ok(Ok(reply))
}

#[cfg(test)]
mod tests;
