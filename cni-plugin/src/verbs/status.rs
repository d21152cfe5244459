//! `STATUS`: whether containers can be added.

use std::fs::OpenOptions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::attachment::store::Candidates;
use crate::config::Header;
use crate::config::policy;
use crate::config::settings::settings;
use crate::protocol::environment::Environment;
use crate::protocol::error::{CniError, code};

/// Checks what an addition needs, without a container.
///
/// # Errors
/// 50 with the missing part, 51 when containers of this network have lost their network.
pub(super) fn status(header: &Header) -> Result<(), CniError> {
    let settings = settings(header, &Environment::default(), None)?;
    policy::checked(policy::texts(header)?, &settings.request.policy)?;
    let unavailable = |what: String| Err(CniError::new(code::NOT_AVAILABLE, what));
    if let Some(program) = &settings.request.program {
        let is_executable = std::fs::metadata(program)
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
        if !is_executable {
            return unavailable(format!("SLIRP4NETNS: {} cannot be run", program.display()));
        }
    }
    let device = Path::new("/dev/net/tun");
    if let Err(error) = OpenOptions::new().read(true).write(true).open(device) {
        return unavailable(format!("{}: {error}", device.display()));
    }
    let candidates = Candidates::new(header.state_dir.as_deref());
    if let Err(error) = candidates.create() {
        return unavailable(error.to_string());
    }
    let mut lost = Vec::new();
    for store in candidates.existing() {
        let records = store.records().into_iter().filter(|r| r.request.network == header.name);
        lost.extend(records.filter(|r| !r.is_alive()).map(|r| r.request.key.to_string()));
    }
    if lost.is_empty() {
        return Ok(());
    }
    let message = format!("containers that have lost their network: {}", lost.join(", "));
    Err(CniError::new(code::LIMITED_CONNECTIVITY, message))
}
