//! A TCP transfer in which every byte is checked.
//!
//! One side sends a block again and again for a while and then closes its direction. The other side
//! compares, and answers with the number of right bytes. The block has a prime length, so bytes
//! that are lost, doubled or moved are not right.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::super::finding::Moved;

/// How long one transfer sends (arbitrary; long enough for a figure).
pub(super) const SPAN: Duration = Duration::from_millis(250);
/// How long a read or a write may wait.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);
/// Most bytes of a transfer (arbitrary; 80 Gbit/s in [`SPAN`]).
const BYTES_CAP: u64 = 5 << 29;
/// The largest prime below 64 KiB.
const BLOCK_LEN: usize = 65_521;
/// What is answered instead of a number when a byte was wrong.
const WRONG: u64 = u64::MAX;

/// Bytes without a pattern that would hide a mistake.
fn block() -> Vec<u8> {
    let mut state = 1_u32;
    let byte = || {
        // Constants of Numerical Recipes; the high bits are the random ones.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(byte).take(BLOCK_LEN).collect()
}

/// Sends for `span`; an error unless the other side has got exactly that.
pub(super) fn send(mut stream: TcpStream, span: Duration) -> io::Result<Moved> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let block = block();
    let began = Instant::now();
    let mut sent = 0;
    while began.elapsed() < span && sent < BYTES_CAP {
        stream.write_all(&block)?;
        sent += BLOCK_LEN as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer)?;
    let span = began.elapsed();
    match u64::from_be_bytes(answer) {
        arrived if arrived == sent => Ok(Moved { bytes: sent, span }),
        WRONG => Err(io::Error::other("a byte has changed on the way")),
        arrived => Err(io::Error::other(format!("{arrived} of {sent} bytes have arrived"))),
    }
}

/// Takes and compares everything, and answers.
pub(super) fn take(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let block = block();
    let mut bytes = vec![0; 1 << 16];
    let (mut arrived, mut at, mut is_right) = (0, 0, true);
    loop {
        // Never beyond the end of the block.
        let room = bytes.len().min(BLOCK_LEN - at);
        let len = match stream.read(&mut bytes[..room]) {
            Ok(0) => break,
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        is_right &= bytes[..len] == block[at..at + len];
        at = (at + len) % BLOCK_LEN;
        arrived += len as u64;
    }
    stream.write_all(&if is_right { arrived } else { WRONG }.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback is there");
        let address = listener.local_addr().expect("it is bound");
        let client = TcpStream::connect(address).expect("it connects");
        (client, listener.accept().expect("a client").0)
    }

    #[test]
    fn all_bytes_arrive() {
        let (sender, taker) = pair();
        let taking = thread::spawn(|| take(taker));
        let moved = send(sender, Duration::from_millis(5)).expect("all arrive");
        assert!(moved.bytes >= BLOCK_LEN as u64 && moved.span >= Duration::from_millis(5));
        taking.join().expect("it takes").expect("it answers");
    }

    #[test]
    fn changed_and_lost_bytes_are_seen() {
        type Change = fn(&mut Vec<u8>);
        let rows: [(Change, u64); 3] = [
            (|bytes| bytes[70_000] ^= 1, WRONG),
            (|bytes| bytes.truncate(70_000), 70_000),
            (
                |bytes| {
                    bytes.remove(70_000);
                },
                WRONG,
            ),
        ];
        for (change, problem) in rows {
            let (mut sender, taker) = pair();
            let taking = thread::spawn(|| take(taker));
            let mut bytes = [block(), block()].concat();
            change(&mut bytes);
            sender.write_all(&bytes).expect("it is sent");
            sender.shutdown(Shutdown::Write).expect("it is open");
            let mut answer = [0; 8];
            sender.read_exact(&mut answer).expect("an answer");
            assert_eq!(u64::from_be_bytes(answer), problem);
            taking.join().expect("it takes").expect("it answers");
        }
    }
}
