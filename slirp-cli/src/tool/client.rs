//! The client of a control socket: lines of JSON both ways.
//!
//! Owns the connection, the numbers of requests, and which answer belongs to which. What is asked
//! and what becomes of an answer is left to the words of the program. Nothing that arrives is
//! trusted to be short or well formed; texts in it come from a guest.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};
use slirp_core::internals::process::inherited_fd;

use super::shown::foreign;

/// Bytes of a line; the protocol's own limit.
const LINE_CAP: u64 = 1 << 20;
/// How long a network may take for its greeting, and for taking a request (arbitrary; both take
/// less than a millisecond).
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("cannot connect to {0}: {1}")]
    Connect(String, io::Error),
    #[error("the other end is no control socket of a network: {0}")]
    Foreign(&'static str),
    #[error("the network did not answer within {} s", PATIENCE.as_secs())]
    Silent,
    #[error("the network has ended")]
    Ended,
    #[error("{0}")]
    Refused(String),
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
}

impl ClientError {
    /// Of an error while writing or reading.
    fn of(error: io::Error) -> Self {
        let kind = error.kind();
        if [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset].contains(&kind) {
            Self::Ended
        } else if kind == io::ErrorKind::WouldBlock {
            Self::Silent
        } else {
            Self::Broken(error)
        }
    }
}

/// What a network says of itself first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Greeting {
    /// Its version.
    pub(super) version: String,
    /// Whether this connection may change and decide something.
    pub(super) may_decide: bool,
}

/// A line from the network.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Message {
    /// Something happened.
    Event(Value),
    /// The answer to the request of this number; as an error, the network's own words.
    Answer(u64, Result<Value, String>),
}

/// A connection, used by one thread.
#[derive(Debug)]
pub(super) struct Client {
    #[cfg_attr(
        not(any(test, feature = "tui")),
        expect(dead_code, reason = "`events` needs no right")
    )]
    pub(super) greeting: Greeting,
    requests: Requests,
    messages: Messages,
    /// Events that came before an answer.
    events: VecDeque<Value>,
}

/// The half that is written to.
#[derive(Debug)]
pub(super) struct Requests {
    stream: UnixStream,
    last: u64,
}

/// The half that is read from.
#[derive(Debug)]
pub(super) struct Messages {
    reader: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the socket at a path, or takes over the descriptor of `fd:N`, and says who we
    /// are.
    pub(super) fn connect(address: &OsStr, label: &str) -> Result<Self, ClientError> {
        let failed = |error| ClientError::Connect(foreign(&address.to_string_lossy(), 200), error);
        let number = address.to_str().and_then(|text| text.strip_prefix("fd:"));
        let stream = match number.map(str::parse) {
            Some(Ok(number)) => inherited_fd(number).map(UnixStream::from),
            // A file may have such a name, too.
            Some(Err(_)) | None => UnixStream::connect(address),
        };
        Self::over(stream.map_err(failed)?, label)
    }

    /// Uses a connected socket.
    pub(super) fn over(stream: UnixStream, label: &str) -> Result<Self, ClientError> {
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut messages = Messages { reader: BufReader::new(stream.try_clone()?) };
        let greeting = Greeting::of(&messages.line()?)?;
        let requests = Requests { stream, last: 0 };
        let mut client = Self { greeting, requests, messages, events: VecDeque::new() };
        client.call("hello", json!({ "label": label, "protocol": 1 }))?;
        client.requests.stream.set_read_timeout(None)?;
        Ok(client)
    }

    /// Asks and waits for the answer.
    pub(super) fn call(&mut self, request: &str, arguments: Value) -> Result<Value, ClientError> {
        let number = self.requests.send(request, arguments)?;
        loop {
            match self.messages.next()? {
                Message::Event(event) => self.events.push_back(event),
                Message::Answer(id, answer) if id == number => {
                    return answer.map_err(ClientError::Refused);
                }
                Message::Answer(..) => {}
            }
        }
    }

    /// Waits for the next event.
    pub(super) fn event(&mut self) -> Result<Value, ClientError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            if let Message::Event(event) = self.messages.next()? {
                return Ok(event);
            }
        }
    }

    /// The halves, for two threads.
    #[cfg(feature = "tui")]
    pub(super) fn split(self) -> (Requests, Messages) {
        (self.requests, self.messages)
    }
}

impl Greeting {
    fn of(object: &Value) -> Result<Self, ClientError> {
        let version = object.get("slirp").and_then(Value::as_str);
        let version = version.ok_or(ClientError::Foreign("its first line is no greeting"))?;
        let rights = object.get("can").and_then(Value::as_array).map(Vec::as_slice);
        let may_decide = rights.unwrap_or_default().iter().any(|right| right == "decide");
        Ok(Self { version: foreign(version, 20), may_decide })
    }
}

impl Requests {
    /// Sends a request, and hands back its number.
    pub(super) fn send(&mut self, request: &str, arguments: Value) -> Result<u64, ClientError> {
        self.last += 1;
        let line = json!({ "id": self.last, "execute": request, "arguments": arguments });
        match self.stream.write_all(format!("{line}\n").as_bytes()) {
            Ok(()) => Ok(self.last),
            Err(error) => Err(ClientError::of(error)),
        }
    }
}

impl Messages {
    /// Waits for the next message.
    pub(super) fn next(&mut self) -> Result<Message, ClientError> {
        loop {
            let mut object = self.line()?;
            let mut take = |key: &str| object.get_mut(key).map(Value::take);
            if let Some(event) = take("event") {
                return Ok(Message::Event(event));
            }
            let id = take("id").as_ref().and_then(Value::as_u64);
            let refused = take("error").map(|error| {
                let words = error.get("desc").and_then(Value::as_str).unwrap_or("refused");
                foreign(words, 400)
            });
            let answer = match (refused, take("return")) {
                (Some(words), _) => Err(words),
                (None, Some(value)) => Ok(value),
                // A later version may say more.
                (None, None) => continue,
            };
            match (id, answer) {
                (Some(id), answer) => return Ok(Message::Answer(id, answer)),
                // It is about no request of ours, so the connection is refused.
                (None, Err(words)) => return Err(ClientError::Refused(words)),
                (None, Ok(_)) => {}
            }
        }
    }

    fn line(&mut self) -> Result<Value, ClientError> {
        let mut line = Vec::new();
        let read = self.reader.by_ref().take(LINE_CAP).read_until(b'\n', &mut line);
        match read {
            Ok(_) if line.is_empty() => return Err(ClientError::Ended),
            Ok(_) if line.ends_with(b"\n") => {}
            Ok(len) if len as u64 == LINE_CAP => {
                return Err(ClientError::Foreign("a line too long"));
            }
            Ok(_) => return Err(ClientError::Ended),
            Err(error) => return Err(ClientError::of(error)),
        }
        serde_json::from_slice(&line).map_err(|_| ClientError::Foreign("a line is no JSON"))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::fd::IntoRawFd as _;
    use std::thread::{self, JoinHandle};

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};

    use super::*;

    /// What a network would answer.
    pub(in crate::tool) type Answers = fn(&str, &Value) -> Vec<Value>;

    /// A connected socket whose other end greets and answers until it is closed. A line of
    /// `answers` without an event gets the request's number.
    pub(in crate::tool) fn server(can: &[&str], answers: Answers) -> (UnixStream, JoinHandle<()>) {
        let (ours, mut theirs) = UnixStream::pair().expect("a socketpair");
        let greeting = json!({ "slirp": "0.2.0", "protocol": 1, "can": can });
        let serve = move || {
            let _ = theirs.write_all(format!("{greeting}\n").as_bytes());
            let reader = BufReader::new(theirs.try_clone().expect("a duplicate"));
            for line in reader.lines() {
                let Ok(line) = line else { return };
                let request: Value = serde_json::from_str(&line).expect("a request is JSON");
                let word = request["execute"].as_str().expect("a request has a word");
                let lines = match word {
                    "hello" => vec![json!({ "return": greeting })],
                    word => answers(word, &request["arguments"]),
                };
                for mut line in lines {
                    if line.get("event").is_none() {
                        line["id"] = request["id"].clone();
                    }
                    let _ = theirs.write_all(format!("{line}\n").as_bytes());
                }
            }
        };
        (ours, thread::spawn(serve))
    }

    #[test]
    fn answers_are_told_from_events_and_errors() {
        let (socket, network) = server(&["read", "decide"], |word, arguments| match word {
            "policy_add" => vec![
                json!({ "event": { "event": "policy" } }),
                json!({ "later": true }),
                json!({ "return": { "id": arguments["rule"] } }),
            ],
            _ => vec![json!({ "error": { "desc": "no\u{1b}[2J such request" } })],
        });
        let mut client = Client::over(socket, "test").expect("it greets");
        assert!(client.greeting.may_decide);
        let answer = client.call("policy_add", json!({ "rule": "allow any" })).expect("an answer");
        assert_eq!(answer["id"], "allow any");
        assert_eq!(client.event().expect("the event was kept")["event"], "policy");
        let error = client.call("dance", json!({})).expect_err("it is unknown");
        assert_eq!(error.to_string(), "no\\u{1b}[2J such request");
        drop(client);
        network.join().expect("the network ends with its client");
    }

    #[test]
    fn what_is_no_network_is_told() {
        for (line, message) in [
            ("", "the network has ended"),
            ("{\"slirp\":", "the network has ended"),
            ("SSH-2.0-x\n", "the other end is no control socket of a network: a line is no JSON"),
            (
                "{}\n",
                "the other end is no control socket of a network: its first line is no greeting",
            ),
            (
                &"x".repeat(2 << 20),
                "the other end is no control socket of a network: a line too long",
            ),
        ] {
            let (ours, mut theirs) = UnixStream::pair().expect("a socketpair");
            let line = line.to_owned();
            let speaker = thread::spawn(move || {
                let _ = theirs.write_all(line.as_bytes());
            });
            let error = Client::over(ours, "test").expect_err("it is no network");
            assert_eq!(error.to_string(), message);
            speaker.join().expect("it speaks");
        }
        let error = Client::connect(OsStr::new("/nonexistent"), "test").expect_err("no file");
        assert!(error.to_string().starts_with("cannot connect to /nonexistent: "), "{error}");
    }

    #[test]
    fn descriptors_are_taken_over() {
        let (socket, network) = server(&["read"], |_, _| vec![json!({ "return": {} })]);
        // As it is after execve(2) for a descriptor that was to be inherited.
        fcntl(&socket, FcntlArg::F_SETFD(FdFlag::empty())).expect("it is open");
        let address = format!("fd:{}", socket.into_raw_fd());
        let mut client = Client::connect(OsStr::new(&address), "test").expect("it greets");
        assert!(!client.greeting.may_decide);
        client.call("info", json!({})).expect("an answer");
        drop(client);
        network.join().expect("the network ends with its client");
    }
}
