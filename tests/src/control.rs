//! Client of the control socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::namespace::Namespace;
use crate::tcp::IO_LIMIT;
use crate::world::World;

/// A connection to a control socket.
#[derive(Debug)]
pub struct Control {
    reader: BufReader<UnixStream>,
    /// The first line.
    pub greeting: Value,
}

impl Control {
    /// Where the socket of a test's own binary is.
    pub fn path(world: &World) -> PathBuf {
        world.folder().join("control.sock")
    }

    /// The option for the binary.
    pub fn option(world: &World) -> String {
        format!("--control-socket={}", Self::path(world).display())
    }

    /// A client on the host.
    ///
    /// # Panics
    /// When the socket does not serve it.
    pub fn connect(world: &World) -> Self {
        Self::connect_from(&world.host, &Self::path(world))
    }

    /// A client in a network namespace.
    ///
    /// # Panics
    /// When nothing listens.
    pub fn connect_from(from: &Namespace, path: &Path) -> Self {
        Self::over(from.enter(|| UnixStream::connect(path)).expect("the control socket listens"))
    }

    /// A client at the other end of a pair.
    ///
    /// # Panics
    /// When there is no greeting.
    pub fn over(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(IO_LIMIT)).expect("an open socket takes a timeout");
        let mut control = Self { reader: BufReader::new(stream), greeting: Value::Null };
        control.greeting = control.read().expect("a line comes first");
        control
    }

    /// The socket.
    pub fn stream(&self) -> &UnixStream {
        self.reader.get_ref()
    }

    /// The next line; `None` at the end.
    ///
    /// # Panics
    /// When no line comes in time, or one that is not JSON.
    pub fn read(&mut self) -> Option<Value> {
        let mut line = String::new();
        let len = self.reader.read_line(&mut line).expect("a line comes in time");
        let value = (len > 0).then(|| serde_json::from_str(&line));
        value.transpose().unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// Sends a request.
    ///
    /// # Panics
    /// When the connection is over.
    pub fn send(&mut self, execute: &str, arguments: &Value) {
        let request = json!({ "id": 1, "execute": execute, "arguments": arguments });
        writeln!(self.reader.get_mut(), "{request}").expect("the connection is open");
    }

    /// The reply to a request. Events that come before it are dropped.
    ///
    /// # Panics
    /// When none comes in time.
    pub fn ask(&mut self, execute: &str, arguments: &Value) -> Value {
        self.send(execute, arguments);
        loop {
            let value = self.read().expect("a reply comes");
            if value.get("event").is_none() {
                return value;
            }
        }
    }

    /// What a request that is granted returns.
    ///
    /// # Panics
    /// When it is refused.
    pub fn get(&mut self, execute: &str, arguments: &Value) -> Value {
        let reply = self.ask(execute, arguments);
        reply.get("return").unwrap_or_else(|| panic!("{execute}: {reply}")).clone()
    }

    /// Why a request is refused.
    ///
    /// # Panics
    /// When it is granted.
    pub fn refused(&mut self, execute: &str, arguments: &Value) -> String {
        let reply = self.ask(execute, arguments);
        let words = reply["error"]["desc"].as_str();
        words.unwrap_or_else(|| panic!("{execute}: {reply}")).to_owned()
    }

    /// The next event of a kind. Others are dropped.
    ///
    /// # Panics
    /// When none comes in time.
    pub fn event(&mut self, kind: &str) -> Value {
        loop {
            let value = self.read().expect("the connection is open");
            if value["event"]["event"] == kind {
                return value["event"].clone();
            }
        }
    }
}
