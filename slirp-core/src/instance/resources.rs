//! What the host allows the process, from which the caps of an instance follow.

use std::num::NonZero;
use std::thread::available_parallelism;

use crate::config::Limits;
use crate::control::server::CONNECTIONS_CAP;
use crate::host::dns::DnsConfig;
use crate::host::socket::descriptors::{self, Allotment};
use crate::host::socket::ports;

/// The resources at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostResources {
    /// How many descriptors the process may have; `None` for no limit.
    pub(super) descriptors: Option<usize>,
    /// How many UDP ports the host hands out; `None` when that is unknown.
    udp_ports: Option<usize>,
    /// How many processors the process may use.
    pub(super) processors: usize,
}

impl HostResources {
    /// Asks the kernel.
    pub(super) fn read() -> Self {
        Self {
            descriptors: descriptors::limit(),
            udp_ports: ports::handed_out(),
            processors: available_parallelism().map_or(1, NonZero::get),
        }
    }

    /// Lowers the caps to what the host allows. Returns how many clients the API socket may have.
    pub(super) fn cap(&self, limits: &mut Limits, dns: &mut DnsConfig) -> usize {
        let wanted = Allotment {
            flows: limits.flows,
            dns_queries: limits.dns_queries.min(dns.queries_cap),
            api_clients: CONNECTIONS_CAP,
        };
        let allotment = wanted.within(self.descriptors);
        limits.flows = allotment.flows;
        limits.dns_queries = allotment.dns_queries;
        dns.queries_cap = allotment.dns_queries;
        limits.udp_mappings = ports::mappings_within(self.udp_ports, limits.udp_mappings);
        allotment.api_clients
    }

    /// How many descriptors bridges may have, of those that flows would have.
    pub(super) fn take_for_bridges(&self, limits: &mut Limits) -> usize {
        descriptors::take_for_bridges(self.descriptors, &mut limits.flows)
    }
}
