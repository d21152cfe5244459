//! The start of the thread in the guest's network namespace.
//!
//! Owns what the thread is given at the start, in the order in which a filter and a sandbox allow
//! it.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use crate::config::Timeouts;
use crate::host::forward::ForwardProtocol;
use crate::host::inner::ask::SocketKind;
use crate::host::inner::listening::SocketDiag;
use crate::host::inner::order::{Signs, Start};
use crate::host::inner::pool::Batch;
use crate::host::inner::settings::{Place, Splices, SplicesError};
use crate::host::mailbox::Mailbox;
use crate::host::reactor::Reactor;

/// What is settled before the stack is made.
#[derive(Debug)]
pub(super) struct Terms {
    /// Descriptors that bridges may have.
    pub(super) descriptors: usize,
    /// Tells the ports in use on the host, if it was opened before.
    pub(super) host_ports: Option<SocketDiag>,
    /// Listeners of the instance that no guest may reach.
    pub(super) closed: Vec<SocketAddr>,
    /// How long bridges may pause.
    pub(super) timeouts: Timeouts,
}

/// Has the thread work, and the reactor know of it.
pub(super) fn start(
    splices: Splices,
    terms: Terms,
    reactor: &mut Reactor,
    mailbox: Mailbox,
) -> Result<JoinHandle<()>, SplicesError> {
    let splices = splices.enter(None)?;
    let (is_scanning, inward) = (splices.is_scanning(), splices.inward());
    let Splices { place, rules, .. } = splices;
    let Place::Entered(inner) = place else { return Err(SplicesError::Ended) };
    let host_ports = match (is_scanning, terms.host_ports) {
        (false, _) => None,
        (true, Some(opened)) => Some(opened),
        (true, None) => Some(SocketDiag::open().map_err(SplicesError::SetUp)?),
    };
    let mut batches = Vec::new();
    for protocol in [ForwardProtocol::Tcp, ForwardProtocol::Udp] {
        if rules.to_host.iter().any(|ports| ports.protocol == protocol) {
            let kinds = [false, true].map(|is_ipv6| SocketKind { protocol, is_ipv6 });
            batches.extend(kinds.map(Batch::make));
        }
    }
    let (done, outcome) = mpsc::sync_channel(1);
    let start = Start {
        rules,
        mailbox,
        signs: Arc::new(Signs::new(terms.descriptors)),
        batches,
        host_ports,
        closed: terms.closed,
        own: Box::new(reactor.own_ports()),
        descriptors: terms.descriptors,
        timeouts: terms.timeouts,
        done,
    };
    let (orders, thread, scanned) = inner.start(start, &outcome, inward)?;
    reactor.adopt_inner(orders, &scanned);
    Ok(thread)
}
