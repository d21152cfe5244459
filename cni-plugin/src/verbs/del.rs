//! `DEL`: takes a container's network away.

use crate::attachment::detach::detach;
use crate::attachment::store::Candidates;
use crate::config::Header;
use crate::config::settings::key;
use crate::protocol::environment::Environment;
use crate::protocol::error::CniError;

/// Detaches the container. Neither its network namespace nor the rest of the configuration matters.
/// A container that is not attached is not an error.
///
/// # Errors
/// The message begins with the original plugin's words.
pub(super) fn del(header: &Header, environment: &Environment) -> Result<(), CniError> {
    let context = format!("del slirp {}", environment.ifname);
    let candidates = Candidates::new(header.state_dir.as_deref());
    detach(&key(environment), &candidates)
        .map_err(|error| CniError::from(error).in_context(&context))
}
