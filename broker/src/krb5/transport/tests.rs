//! Stories on loopback sockets.

use tokio::net::TcpListener;

use super::*;
use crate::krb5::messages::testing::krb_error;

fn quick() -> Limits {
    let wait = Duration::from_millis(50);
    Limits { udp_waits: vec![wait, wait], tcp_connect: wait, tcp_reply: wait, ..Limits::default() }
}

async fn udp() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// A KDC that reads one request over TCP and answers with these bytes.
async fn tcp(listener: TcpListener, answer: Vec<u8>) -> Vec<u8> {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = vec![0; stream.read_u32().await.unwrap() as usize];
    stream.read_exact(&mut request).await.unwrap();
    stream.write_all(&answer).await.unwrap();
    request
}

fn framed(reply: &[u8]) -> Vec<u8> {
    [&u32::try_from(reply.len()).unwrap().to_be_bytes(), reply].concat()
}

#[tokio::test]
async fn a_lost_datagram_is_sent_again_unchanged() {
    let (socket, address) = udp().await;
    let kdc = tokio::spawn(async move {
        let mut buffer = [0; 100];
        let (first, _) = socket.recv_from(&mut buffer).await.unwrap();
        let first = buffer[..first].to_vec();
        let (again, client) = socket.recv_from(&mut buffer).await.unwrap();
        assert_eq!(buffer[..again], first);
        socket.send_to(b"reply", client).await.unwrap();
    });
    assert_eq!(ask(address, b"request", &quick()).await.unwrap(), b"reply");
    kdc.await.unwrap();
}

#[tokio::test]
async fn a_datagram_of_somebody_else_is_never_seen() {
    let ((socket, address), (stranger, _)) = (udp().await, udp().await);
    let kdc = tokio::spawn(async move {
        let (_, client) = socket.recv_from(&mut [0; 100]).await.unwrap();
        stranger.send_to(b"forged", client).await.unwrap();
        socket.send_to(b"reply", client).await.unwrap();
    });
    assert_eq!(ask(address, b"request", &quick()).await.unwrap(), b"reply");
    kdc.await.unwrap();
}

#[tokio::test]
async fn a_reply_too_big_for_udp_is_fetched_over_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let socket = UdpSocket::bind(address).await.unwrap();
    let kdc = tokio::spawn(async move {
        let (_, client) = socket.recv_from(&mut [0; 100]).await.unwrap();
        let stime = std::time::UNIX_EPOCH;
        socket.send_to(&krb_error(52, stime, None), client).await.unwrap();
        tcp(listener, framed(b"a long reply")).await
    });
    assert_eq!(ask(address, b"request", &quick()).await.unwrap(), b"a long reply");
    assert_eq!(kdc.await.unwrap(), b"request");
}

#[tokio::test]
async fn a_long_request_goes_over_tcp_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let kdc = tokio::spawn(tcp(listener, framed(b"reply")));
    let request = vec![7; quick().udp_request + 1];
    assert_eq!(ask(address, &request, &quick()).await.unwrap(), b"reply");
    assert_eq!(kdc.await.unwrap(), request);
}

#[tokio::test]
async fn what_a_kdc_may_say_is_bounded() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let kdc = tokio::spawn(tcp(listener, u32::MAX.to_be_bytes().to_vec()));
    let limits = Limits { udp_waits: Vec::new(), ..quick() };
    let error = ask(address, b"request", &limits).await.unwrap_err();
    assert!(matches!(error, TransportError::TooLong { length: 0xffff_ffff, .. }), "{error}");
    kdc.await.unwrap();
}

#[tokio::test]
async fn silence_and_a_closed_port_are_told_apart() {
    let (silent, address) = udp().await;
    let error = ask(address, b"request", &quick()).await.unwrap_err();
    assert!(matches!(error, TransportError::TimedOut { over: "UDP", .. }), "{error}");
    drop(silent);
    let error = ask(address, b"request", &quick()).await.unwrap_err();
    assert!(matches!(error, TransportError::Io { .. }), "{error}");
}
