//! `slirp events`: what a network decides, as it happens.
//!
//! Owns the command line and how an event is shown to a person, one line each.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::client::{Client, ClientError};
use super::record::Record;
use super::shown::{bytes, counted, foreign};
use crate::console::eprint_line;
use crate::words::EVENTS;

/// Runs `slirp events` with the arguments behind this word.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let line = match EVENTS.read(arguments) {
        Ok(line) => line,
        Err(status) => return status,
    };
    let Some((socket, events)) = line.operands().split_first() else {
        return EVENTS.refuse("a socket is needed");
    };
    let events: Vec<_> = events.iter().map(|event| event.to_string_lossy().into_owned()).collect();
    let followed = Client::connect(socket, "slirp events")
        .map_err(Failure::Network)
        .and_then(|client| follow(client, &events, line.has("json"), &mut io::stdout().lock()));
    match followed {
        Err(Failure::Network(ClientError::Ended)) | Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Reader(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(Failure::Network(error)) => {
            eprint_line(format_args!("slirp events: {error}"));
            ExitCode::FAILURE
        }
        Err(Failure::Reader(error)) => {
            eprint_line(format_args!("slirp events: write error: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Why the events end.
#[derive(Debug)]
enum Failure {
    Network(ClientError),
    Reader(io::Error),
}

/// Writes events until one side has enough.
fn follow(
    mut client: Client,
    events: &[String],
    as_json: bool,
    output: &mut impl io::Write,
) -> Result<(), Failure> {
    let mut wanted = json!({ "decide": false });
    if !events.is_empty() {
        wanted["events"] = events.into();
    }
    client.call("subscribe", wanted).map_err(Failure::Network)?;
    loop {
        let event = client.event().map_err(Failure::Network)?;
        let line = if as_json { event.to_string() } else { shown(&event) };
        writeln!(output, "{line}").and_then(|()| output.flush()).map_err(Failure::Reader)?;
    }
}

/// `02:35:16 flow     10.0.2.100 tcp files.example:443 (203.0.113.7): allow, rule policy.txt:2`.
pub(super) fn shown(event: &Value) -> String {
    let Some(record) = Record::of(event) else { return foreign(&event.to_string(), 400) };
    let text = |text: &str| foreign(text, 120);
    // RFC 3339: the time of day is behind the T.
    let time = record.ts.split_once('T').map_or("", |(_, time)| time);
    let time: String = time.chars().take_while(|&c| c != '.' && c != 'Z').take(8).collect();
    let mut line = format!("{:8} {:8}", text(&time), text(&record.event));
    for part in [&record.guest, &record.proto].into_iter().flatten() {
        line += &format!(" {}", text(part));
    }
    let names = record.names.iter().chain(&record.name).map(|name| text(name));
    let names = names.collect::<Vec<_>>().join(",");
    let port = if record.port > 0 { format!(":{}", record.port) } else { String::new() };
    match record.dst {
        Some(dst) if names.is_empty() && dst.is_ipv6() => line += &format!(" [{dst}]{port}"),
        Some(dst) if names.is_empty() => line += &format!(" {dst}{port}"),
        Some(dst) => line += &format!(" {names}{port} ({dst})"),
        None if names.is_empty() => {}
        None => line += &format!(" {names}{port}"),
    }
    let mut facts = Vec::new();
    if let Some(claim) = &record.claim {
        facts.push(format!("says {}", text(claim)));
    }
    facts.extend(record.qtype.as_deref().map(text));
    facts.extend(record.answer.as_deref().map(text));
    if let Some(verdict) = record.verdict {
        let would = if record.is_enforced { "" } else { "would " };
        facts.push(format!("{would}{verdict}"));
    }
    facts.extend(record.cause.as_deref().map(text));
    if let Some(rule) = &record.rule {
        facts.push(format!("rule {}", text(rule)));
    }
    if record.event == "end" {
        let (out, back) = (bytes(record.bytes_out), bytes(record.bytes_in));
        facts.push(format!("{out} out, {back} in"));
    }
    if let Some(question) = record.question {
        facts.push(format!("question {question}"));
    }
    if record.count > 1 || record.event == "lost" {
        facts.push(counted(record.count, "event"));
    }
    if !facts.is_empty() {
        line += &format!(": {}", facts.join(", "));
    }
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::client::tests::server;
    use super::*;

    #[test]
    fn events_are_one_readable_line_each() {
        for (event, line) in [
            (
                json!({ "v": 1, "ts": "2026-11-29T02:35:16.220101Z", "seq": 42, "event": "verify",
                    "guest": "10.0.2.100", "proto": "tcp", "dst": "203.0.113.7", "port": 443,
                    "names": ["index.example"], "sni": "other.example", "verdict": "deny",
                    "cause": "name", "flow": "17.3" }),
                "02:35:16 verify   10.0.2.100 tcp index.example:443 (203.0.113.7): says \
                    other.example, deny, name",
            ),
            (
                json!({ "v": 1, "ts": "2026-11-29T02:35:17Z", "event": "flow", "proto": "tcp",
                    "guest": "fd00::100", "dst": "2001:db8::1", "port": 22, "would": "deny",
                    "cause": "default", "count": 3 }),
                "02:35:17 flow     fd00::100 tcp [2001:db8::1]:22: would deny, default, 3 events",
            ),
            (
                json!({ "v": 1, "ts": "2026-11-29T02:35:18Z", "event": "dns",
                    "guest": "10.0.2.100", "name": "\u{1b}[2J\nx.example", "qtype": "TXT",
                    "answer": "nxdomain" }),
                "02:35:18 dns      10.0.2.100 \\u{1b}[2J\\nx.example: TXT, nxdomain",
            ),
            (
                json!({ "v": 1, "ts": "2026-11-29T02:35:19Z", "event": "end",
                    "guest": "10.0.2.100", "proto": "udp", "dst": "203.0.113.7", "port": 123,
                    "bytes_out": 48, "bytes_in": 1_100_000 }),
                "02:35:19 end      10.0.2.100 udp 203.0.113.7:123: 48 B out, 1.1 MB in",
            ),
            (json!({ "event": "lost", "count": 7 }), "         lost    : 7 events"),
            (json!(["\u{7}"]), "[\"\\\\u0007\"]"),
        ] {
            assert_eq!(shown(&event), line);
        }
    }

    #[test]
    fn events_are_followed_until_the_network_ends() {
        let (socket, network) = server(&["read"], |word, arguments| {
            assert_eq!((word, &arguments["events"]), ("subscribe", &json!(["flow"])));
            vec![
                json!({ "event": { "event": "lost", "count": 1 } }),
                json!({ "return": {} }),
                json!({ "event": { "event": "lost", "count": 2 } }),
            ]
        });
        let closer = socket.try_clone().expect("a duplicate");
        let client = Client::over(socket, "test").expect("it greets");
        struct Lines(Vec<u8>, std::os::unix::net::UnixStream);
        impl io::Write for Lines {
            fn write(&mut self, text: &[u8]) -> io::Result<usize> {
                self.0.extend(text);
                if self.0.ends_with(b"\"count\":2,\"event\":\"lost\"}\n") {
                    self.1.shutdown(std::net::Shutdown::Both)?;
                }
                Ok(text.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut lines = Lines(Vec::new(), closer);
        let end = follow(client, &["flow".to_owned()], true, &mut lines);
        assert!(matches!(end, Err(Failure::Network(ClientError::Ended))), "{end:?}");
        assert_eq!(lines.0.iter().filter(|&&byte| byte == b'\n').count(), 2);
        network.join().expect("the network ends with its client");
    }
}
