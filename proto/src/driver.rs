//! What the flexvolume driver and the node's agent say to each other, and its framing.
//!
//! One request and one reply a connection, each preceded by its length (4 bytes,
//! big-endian). The agent serves it at [`SOCKET`], to uid 0 alone.

use std::io::{self, Read, Write};

use prost::Message;

#[allow(missing_docs, unused_qualifications, clippy::all)]
mod messages {
    include!(concat!(env!("OUT_DIR"), "/krb.agent.v1.rs"));
}
pub use messages::{Fill, Forget, Reply, Request, request::Call};

/// Where the agent listens.
pub const SOCKET: &str = "/run/krb-broker/agent.sock";

/// The longest frame that is read, in bytes.
pub const MAX_FRAME: usize = 16 * 1024;

/// The four directories of a volume, made by the driver, root's, 0755.
pub const DIRECTORIES: [&str; 4] = ["tickets", "keytabs", "conf", "rcache"];

/// Writes one message in one write.
///
/// # Errors
/// Those of the stream.
pub fn write_frame(stream: &mut impl Write, message: &impl Message) -> io::Result<()> {
    stream.write_all(&frame(message))?;
    stream.flush()
}

/// A message with its length in front.
pub fn frame(message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [length.to_be_bytes().as_slice(), &body].concat()
}

/// The length that a frame's first four bytes announce.
///
/// # Errors
/// `InvalidData` when it is over [`MAX_FRAME`].
pub fn frame_length(prefix: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_be_bytes(prefix) as usize;
    if length > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the frame is too long"));
    }
    Ok(length)
}

/// Reads one message.
///
/// # Errors
/// Those of the stream; `InvalidData` for a frame that is too long or no message.
pub fn read_frame<M: Message + Default>(stream: &mut impl Read) -> io::Result<M> {
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix)?;
    let mut body = vec![0; frame_length(prefix)?];
    stream.read_exact(&mut body)?;
    M::decode(body.as_slice()).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written_and_a_huge_one_is_refused() {
        let request = Request { call: Some(Call::Forget(Forget { target: "/x".to_owned() })) };
        let mut wire = Vec::new();
        write_frame(&mut wire, &request).unwrap();
        assert_eq!(read_frame::<Request>(&mut wire.as_slice()).unwrap(), request);

        let huge = u32::MAX.to_be_bytes();
        let error = read_frame::<Request>(&mut huge.as_slice()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
