//! Streams of bytes that tell their own offset: sent, received and compared without keeping them
//! all.

use std::io::{self, Read, Write};
use std::sync::OnceLock;

/// Length of the repeated block: a prime near 1 MiB, so that no power of two of lost or repeated
/// bytes lines up.
const BLOCK_LEN: usize = 1_048_573;

fn block() -> &'static [u8] {
    static BLOCK: OnceLock<Vec<u8>> = OnceLock::new();
    BLOCK.get_or_init(|| {
        // xorshift64 from an arbitrary odd seed.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .take(BLOCK_LEN)
        .collect()
    })
}

/// Writes `len` bytes of the stream that starts at `seed`.
///
/// # Errors
/// Those of the writer.
pub fn send_exact(mut writer: impl Write, seed: usize, len: usize) -> io::Result<()> {
    let mut at = seed % BLOCK_LEN;
    let mut left = len;
    while left > 0 {
        let piece = &block()[at..BLOCK_LEN.min(at + left.min(65536))];
        writer.write_all(piece)?;
        left -= piece.len();
        at = (at + piece.len()) % BLOCK_LEN;
    }
    Ok(())
}

/// Reads `len` bytes and compares them with the stream that starts at `seed`.
///
/// # Errors
/// Those of the reader; `UnexpectedEof` for a short stream, `InvalidData` with the offset for a
/// wrong byte.
pub fn receive_exact(mut reader: impl Read, seed: usize, len: usize) -> io::Result<()> {
    let mut buffer = vec![0; 65536];
    let mut done = 0;
    while done < len {
        let want = buffer.len().min(len - done);
        let count = reader.read(&mut buffer[..want])?;
        if count == 0 {
            let text = format!("stream ended at {done} of {len}");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        verify_exact(&buffer[..count], seed + done)?;
        done += count;
    }
    Ok(())
}

/// Compares `bytes` with the stream at `offset`.
///
/// # Errors
/// `InvalidData` where they differ.
pub fn verify_exact(bytes: &[u8], offset: usize) -> io::Result<()> {
    let mut at = offset % BLOCK_LEN;
    let mut rest = bytes;
    while !rest.is_empty() {
        let len = rest.len().min(BLOCK_LEN - at);
        if rest[..len] != block()[at..at + len] {
            let text = format!("wrong byte in {len} bytes at {offset}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        rest = &rest[len..];
        at = 0;
    }
    Ok(())
}
