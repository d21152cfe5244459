//! Whether the host lets us have ports, asked before anything is made for them to lead to.

use mio::Poll;
use tracing::subscriber::{NoSubscriber, with_default};

use super::{Forward, ForwardError, Forwards};
use crate::host::descriptors;
use crate::plan::AddressPlan;

/// Opens the ports of all of `forwards` as an instance with this `plan` would, and closes them
/// again, so that what stands in their way is known before there is a device. A port may be taken
/// before it is opened for good; that is refused then. Raise the limit of descriptors before.
///
/// # Errors
/// [`ForwardError`], for the first rule that could not be added.
pub fn verify_forwards(forwards: &[Forward], plan: &AddressPlan) -> Result<(), ForwardError> {
    let invalid = forwards.iter().find(|forward| !plan.is_guest_address(forward.guest.ip()));
    if let Some(forward) = invalid {
        return Err(ForwardError::GuestAddress(forward.guest.ip()));
    }
    // Without a poller there is no instance either, which is told when one is started.
    let Ok(poll) = Poll::new() else { return Ok(()) };
    let Ok(registry) = poll.registry().try_clone() else { return Ok(()) };
    let mut tried = Forwards::new(registry, false, descriptors::limit());
    // What is worth a line is told when the ports are opened for good.
    with_default(NoSubscriber::default(), || tried.add_all(forwards)).map(drop)
}
