//! `slirp ls` and `slirp rm`: attachments of this user, for people.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::attachment::detach::detach;
use crate::attachment::form::{Limits, Ports};
use crate::attachment::key::Key;
use crate::attachment::ports;
use crate::attachment::record::Record;
use crate::attachment::store::Candidates;

const USAGE: &str = "\
Usage: slirp ls [--json] [--state-dir DIR]
       slirp rm [--state-dir DIR] CONTAINER [IFNAME]
       slirp policy check FILE...
       slirp policy explain FILE... TARGET
       slirp learn [OPTION]... LOG...
       slirp top|approve|events SOCKET
       slirp oci-hook --help

A CNI plugin of type \"slirp\". Container runtimes call it by the environment variable CNI_COMMAND;
people can
  ls      list the attachments of this user
  rm      remove the attachments of a container, or the one of this interface
  policy  check egress policies, and explain what they say
  learn   make an egress policy out of audit logs
  top, approve, events
          watch a network by its control socket, and answer its questions
Each of these words takes --help.
";

/// Words for people.
const WORDS: [&str; 9] =
    ["ls", "rm", "policy", "learn", "top", "approve", "events", "oci-hook", "help"];

/// Runs a word of the command line.
pub(crate) fn run(word: &str, arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let options = match Options::parse(arguments) {
        Ok(options) => options,
        Err(problem) => return fail(&format!("slirp {word}: {problem}\n{USAGE}")),
    };
    match (word, options.names.as_slice()) {
        ("help" | "--help" | "-h", _) => print(USAGE),
        ("--version", _) => print(&format!("slirp {}\n", env!("CARGO_PKG_VERSION"))),
        ("ls", []) => list(&options),
        ("rm", [container]) => remove(&options, container, None),
        ("rm", [container, ifname]) => remove(&options, container, Some(ifname)),
        _ => fail(USAGE),
    }
}

/// Refuses a word of the command line that is none.
pub(crate) fn refuse(word: &str) -> ExitCode {
    let meant = slirp_cli::nearest(word, &WORDS);
    let meant = meant.map(|meant| format!("; did you mean \"{meant}\"?")).unwrap_or_default();
    fail(&format!("slirp: {word:?} is no word of slirp{meant}\n{USAGE}"))
}

#[derive(Default)]
struct Options {
    as_json: bool,
    state_dir: Option<PathBuf>,
    names: Vec<String>,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut options = Self::default();
        while let Some(argument) = arguments.next() {
            let text = argument.into_string().map_err(|_| "an argument is not UTF-8".to_owned())?;
            match text.as_str() {
                "--json" => options.as_json = true,
                "--state-dir" => {
                    let folder = arguments.next().ok_or("--state-dir needs a folder")?;
                    options.state_dir = Some(PathBuf::from(folder));
                }
                _ if text.starts_with('-') => return Err(format!("unknown option {text}")),
                _ => options.names.push(text),
            }
        }
        Ok(options)
    }

    fn candidates(&self) -> Candidates {
        Candidates::new(self.state_dir.as_deref())
    }
}

fn list(options: &Options) -> ExitCode {
    let candidates = options.candidates();
    let records: Vec<Record> = candidates.existing().flat_map(|store| store.records()).collect();
    if options.as_json {
        let objects: Vec<Value> = records.iter().map(object).collect();
        return print(&format!("{}\n", Value::Array(objects)));
    }
    let head = ["CONTAINER", "INTERFACE", "NETWORK", "ADDRESS", "PID", "STATE", "PORTS"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(records.iter().map(|record| {
        let request = &record.request;
        [
            request.key.container_id.clone(),
            request.key.ifname.clone(),
            request.network.clone(),
            request.address.to_string(),
            record.keeper.pid.to_string(),
            state(record).to_owned(),
            request.ports.iter().map(ports::shown).collect::<Vec<_>>().join(","),
        ]
    }));
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    print(&text)
}

fn state(record: &Record) -> &'static str {
    match record.is_alive() {
        // For the second hook of a container that its runtime hides.
        true if record.request.netns_id.is_none() => "waiting",
        true => "running",
        false => "dead",
    }
}

fn object(record: &Record) -> Value {
    let request = &record.request;
    let operator = &request.operator;
    json!({
        "containerID": request.key.container_id,
        "ifname": request.key.ifname,
        "network": request.network,
        "shared": request.shared.is_some(),
        "netns": request.netns.display().to_string(),
        "address": request.address.to_string(),
        "address6": request.address6.map(|address| address.to_string()),
        "mac": record.mac,
        "pid": record.keeper.pid,
        "state": state(record),
        "ports": Ports::from(&request.ports),
        "rates": Limits::from(&request.rates),
        "auditLog": operator.audit.as_ref().map(|audit| audit.file.display().to_string()),
        "controlSocket": operator.control_socket.as_ref().map(|path| path.display().to_string()),
        "metrics": operator.metrics.as_ref().map(|metrics| metrics.address.to_string()),
    })
}

fn remove(options: &Options, container: &str, ifname: Option<&str>) -> ExitCode {
    let candidates = options.candidates();
    let mut keys: Vec<Key> = candidates
        .existing()
        .flat_map(|store| store.records())
        .map(|record| record.request.key)
        .filter(|key| key.container_id == container)
        .filter(|key| ifname.is_none_or(|ifname| key.ifname == ifname))
        .collect();
    if keys.is_empty() {
        let Some(ifname) = ifname else {
            return fail(&format!("slirp rm: {container} has no attachment\n"));
        };
        // Its record may be gone although its processes are not.
        keys.push(Key { container_id: container.to_owned(), ifname: ifname.to_owned() });
    }
    for key in keys {
        if let Err(error) = detach(&key, &candidates) {
            return fail(&format!("slirp rm: {key}: {error}\n"));
        }
    }
    ExitCode::SUCCESS
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn fail(text: &str) -> ExitCode {
    // If it is not read, that cannot be reported either.
    let _ = io::stderr().write_all(text.as_bytes());
    ExitCode::FAILURE
}
