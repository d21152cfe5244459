//! What the program says to the people and programs around it.
//!
//! Owns the two streams: whole texts in a single write, flushed at once, and silence when nobody
//! reads any more. A reader that went away never stops the network.

use std::io::{self, Write};

/// Writes `text` to stdout in one piece.
///
/// # Errors
/// Those of write(2), except `EPIPE`: a reader such as `grep -q` has seen enough.
pub(crate) fn print(text: &[u8]) -> io::Result<()> {
    write_whole(&mut io::stdout().lock(), text)
}

/// Writes one line to stdout, whatever becomes of it.
pub(crate) fn say(line: impl std::fmt::Display) {
    let _ = write_whole(&mut io::stdout().lock(), format!("{line}\n").as_bytes());
}

/// Writes one line to stderr, whatever becomes of it.
pub(crate) fn complain(line: impl std::fmt::Display) {
    complain_bytes(format!("{line}\n").as_bytes());
}

/// Writes `text`, which need not be text, to stderr, whatever becomes of it.
pub(crate) fn complain_bytes(text: &[u8]) {
    let _ = write_whole(&mut io::stderr().lock(), text);
}

fn write_whole(stream: &mut impl Write, text: &[u8]) -> io::Result<()> {
    match stream.write_all(text).and_then(|()| stream.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
