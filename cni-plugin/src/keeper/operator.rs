//! What the operator watches and steers a network by, opened for an engine.
//!
//! Owns the messages about it. It is opened by name, so before the engine is confined; files of
//! sockets are removed from outside of its sandbox.

use std::io;
use std::path::Path;

use slirp_core::instance::{AuditLog, Builder, ControlSocket};
use slirp_core::sandbox::Sandbox;

use crate::attachment::error::Error;
use crate::attachment::operator::Operator;

/// Opens everything that `wanted` names, for an instance and its sandbox.
pub(super) fn open(
    wanted: &Operator,
    mut builder: Builder,
    mut sandbox: Sandbox,
) -> Result<(Builder, Sandbox), Error> {
    if let Some(audit) = &wanted.audit {
        let log = AuditLog::append(&audit.file).map_err(|e| failed("auditLog", &audit.file, &e))?;
        builder = builder.audit(log.level(audit.level.of_log()).required(audit.required));
    }
    if let Some(path) = &wanted.control_socket {
        let control =
            ControlSocket::bind(path).map_err(|error| failed("controlSocket", path, &error))?;
        sandbox = sandbox.removed_file(control.file());
        builder = builder.control(control);
    }
    if let Some(metrics) = &wanted.metrics {
        let bound = metrics.address.of_socket().bind();
        let socket = bound
            .map_err(|error| Error::failed(format!("metrics: {}: {error}", metrics.address)))?;
        sandbox = sandbox.removed_file(socket.file());
        builder = builder.metrics(socket.per_member(metrics.members));
    }
    Ok((builder, sandbox))
}

fn failed(key: &str, path: &Path, error: &io::Error) -> Error {
    Error::failed(format!("{key}: {}: {error}", path.display()))
}
