//! Client of the API socket.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::tcp::IO_LIMIT;
use crate::world::World;

/// The API socket of a test's own binary.
#[derive(Debug)]
pub struct Api {
    path: PathBuf,
}

impl Api {
    /// The socket that [`option`](Self::option) asks for.
    pub fn new(world: &World) -> Self {
        Self { path: world.folder().join("api.sock") }
    }

    /// Any other one.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// The option for the binary.
    pub fn option(&self) -> String {
        format!("--api-socket={}", self.path.display())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A connection that has said nothing yet.
    ///
    /// # Panics
    /// When the socket does not listen.
    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).expect("the API socket listens");
        stream.set_read_timeout(Some(IO_LIMIT)).expect("an open socket takes a timeout");
        stream
    }

    /// One request as RootlessKit makes it: half-close, then read to the end.
    ///
    /// # Panics
    /// When there is no reply in time.
    pub fn ask(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).expect("the request fits a buffer");
        stream.shutdown(Shutdown::Write).expect("the stream is open");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("the reply comes and ends");
        reply
    }

    /// One request as scripts make it: no half-close.
    ///
    /// # Panics
    /// When there is no reply in time.
    pub fn ask_without_half_close(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).expect("the request fits a buffer");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("the reply comes and ends");
        reply
    }

    /// Adds a rule that must work; `arguments` as JSON. Returns its id.
    ///
    /// # Panics
    /// When it is refused.
    pub fn forward(&self, arguments: &str) -> u64 {
        let reply = self.ask(&format!("{{\"execute\":\"add_hostfwd\",\"arguments\":{arguments}}}"));
        let id =
            reply.strip_prefix("{\"return\":{\"id\":").and_then(|rest| rest.strip_suffix("}}"));
        id.and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("{arguments}: {reply}"))
    }
}
