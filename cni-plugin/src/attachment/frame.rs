//! Messages between our own processes: a length of four bytes, then JSON.
//!
//! A message is read exactly to its end, so that descriptors may follow it on the socket.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest message in bytes (arbitrary; a request with thousands of ports has some 200 KiB, and one
/// with three policies of 1 MiB each some 4 MiB).
const CAP: usize = 16 * 1024 * 1024;

/// Sends a message.
///
/// # Errors
/// The errors of write(2); `InvalidInput` above the cap.
pub(crate) fn send(mut stream: &UnixStream, value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_vec(value)?;
    let len = u32::try_from(text.len()).ok().filter(|_| text.len() <= CAP);
    let len = len.ok_or(io::ErrorKind::InvalidInput)?;
    let mut bytes = len.to_le_bytes().to_vec();
    bytes.extend_from_slice(&text);
    stream.write_all(&bytes)
}

/// Receives a message.
///
/// # Errors
/// The errors of read(2); `UnexpectedEof` when the other side has gone, `InvalidData` for any other
/// message.
pub(crate) fn receive<T: DeserializeOwned>(mut stream: &UnixStream) -> io::Result<T> {
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    let len = usize::try_from(u32::from_le_bytes(len)).ok().filter(|&len| len <= CAP);
    let mut bytes = vec![0; len.ok_or(io::ErrorKind::InvalidData)?];
    stream.read_exact(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn messages_arrive_one_by_one_and_the_end_is_an_error() {
        let (a, b) = UnixStream::pair().unwrap();
        for value in [json!({ "text": "\u{e4}" }), json!(7)] {
            send(&a, &value).unwrap();
        }
        assert_eq!(receive::<Value>(&b).unwrap(), json!({ "text": "\u{e4}" }));
        assert_eq!(receive::<Value>(&b).unwrap(), json!(7));
        drop(a);
        assert_eq!(receive::<Value>(&b).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn length_beyond_the_cap_is_refused() {
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(&[0xff; 4]).unwrap();
        assert_eq!(receive::<Value>(&b).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
