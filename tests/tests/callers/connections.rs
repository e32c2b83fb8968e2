//! Connections that say nothing, or nonsense.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use super::{Story, world};

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_on_a_connection_costs_nothing_else() -> Story {
    let world = world(&["node-a"])?;
    let noise: Vec<u8> =
        (0..65_536_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".as_slice(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\xff\xff\x01\x00\xff\xfc",
        b"\0",
        &noise,
    ] {
        let mut tcp = TcpStream::connect(world.broker.address())?;
        tcp.set_read_timeout(Some(Duration::from_secs(15)))?;
        let _ = tcp.write_all(bytes);
        let _ = tcp.shutdown(std::net::Shutdown::Write);
        let mut said = Vec::new();
        let _ = tcp.read_to_end(&mut said);
        assert!(said.len() < 64, "an alert at most: {said:?}");
    }
    world.serves_on("good", "node-a").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_keep_nobody_out() -> Story {
    #[expect(clippy::disallowed_methods, reason = "how long a real caller waits is the question")]
    let now = Instant::now;
    let world = world(&["node-a"])?;
    let address = world.broker.address();
    let idle: Vec<TcpStream> =
        (0..300).map(|_| TcpStream::connect(address)).collect::<Result<_, _>>()?;
    let began = now();
    let operator = world.operator().await?;
    operator.list(krb_proto::v1::ListLeasesRequest::default()).await?;
    let waited = now() - began;
    assert!(waited < Duration::from_secs(4), "a caller waited {waited:?} for those who are idle");
    world.serves_on("good", "node-a").await?;
    drop(idle);
    Ok(())
}
