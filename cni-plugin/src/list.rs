//! `slirp ls` and `slirp rm`: attachments of this user, for people.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};
use slirp_cli::words::{LS, Line, RM};

use crate::attachment::detach::detach;
use crate::attachment::form::{Limits, Ports};
use crate::attachment::key::Key;
use crate::attachment::ports;
use crate::attachment::record::Record;
use crate::attachment::store::Candidates;

/// `slirp ls`: lists the attachments of this user.
pub(crate) fn ls(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match LS.read(arguments) {
        Ok(line) if line.operands().is_empty() => list(&candidates(&line), line.has("json")),
        Ok(_) => LS.refuse("it takes no name"),
        Err(status) => status,
    }
}

/// `slirp rm`: removes attachments of a container.
pub(crate) fn rm(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let line = match RM.read(arguments) {
        Ok(line) => line,
        Err(status) => return status,
    };
    let names: Vec<_> = line.operands().iter().map(|name| name.to_string_lossy()).collect();
    match names.as_slice() {
        [container] => remove(&candidates(&line), container, None),
        [container, ifname] => remove(&candidates(&line), container, Some(ifname)),
        _ => RM.refuse("a container is needed, and perhaps an interface"),
    }
}

fn candidates(line: &Line) -> Candidates {
    Candidates::new(line.value("state-dir").map(Path::new))
}

fn list(candidates: &Candidates, as_json: bool) -> ExitCode {
    let records: Vec<Record> = candidates.existing().flat_map(|store| store.records()).collect();
    if as_json {
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

fn remove(candidates: &Candidates, container: &str, ifname: Option<&str>) -> ExitCode {
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
        if let Err(error) = detach(&key, candidates) {
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
