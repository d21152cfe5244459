//! Datagrams for the services of the link: DHCP, DHCPv6 and TFTP.
//!
//! Owns which datagrams these are and how the answers leave. They come before policy: a guest gets
//! its address whatever it may reach, and its requests never go to a server of the host, which
//! would answer for another network.

use core::net::{IpAddr, SocketAddr};

use super::Stack;
use super::outbox::UdpToGuest;
use crate::discard::DiscardReason;
use crate::flow::GuestSide;
use crate::plan::VirtualHost;
use crate::service::tftp::{TFTP_PORT, handle_tftp};
use crate::time::Instant;

/// A service of the link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LinkService {
    Dhcp,
    Dhcpv6,
    Tftp,
}

impl Stack {
    /// The service that datagrams to `destination` are for, if any.
    pub(super) fn link_service(&self, destination: SocketAddr) -> Option<LinkService> {
        if self.dhcp.is_for_us(destination) {
            return Some(LinkService::Dhcp);
        }
        if self.dhcpv6.is_for_us(destination) {
            return Some(LinkService::Dhcpv6);
        }
        let is_tftp = destination.port() == TFTP_PORT
            && self.config.plan.virtual_host(destination.ip()) == Some(VirtualHost::Gateway);
        is_tftp.then_some(LinkService::Tftp)
    }

    /// Answers the datagram with `payload` that `guest` sent to `service` at `written`. Only DHCP
    /// is spoken to without an address.
    pub(super) fn on_link_service(
        &mut self,
        service: LinkService,
        guest: GuestSide,
        written: SocketAddr,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), DiscardReason> {
        if guest.address.ip().is_unspecified() && service != LinkService::Dhcp {
            return Err(DiscardReason::SourceAddressInvalid);
        }
        match service {
            LinkService::Dhcp => {
                let outcome = self.dhcp.handle_message(guest.mac, payload, now)?;
                if let Some((address, client)) = outcome.leased {
                    self.on_neighbor(IpAddr::V4(address), client);
                }
                // Other members have no business with it.
                let is_private = self.dhcp.has_reservations();
                let to = if is_private { guest.mac } else { outcome.to };
                self.outbox.push_packet(&outcome.packet, to)
            }
            LinkService::Dhcpv6 => {
                let reply = self.dhcpv6.handle_message(guest.address, written, payload)?;
                self.outbox.push_packet(&reply, guest.mac)
            }
            LinkService::Tftp => {
                let payload = handle_tftp(payload)?;
                let udp = UdpToGuest {
                    from: written,
                    to: guest.address,
                    mac: guest.mac,
                    payload,
                    segment_len: None,
                    traffic_class: 0,
                };
                self.outbox.push_udp(udp)
            }
        }
    }
}

#[cfg(test)]
#[path = "tests/link_service.rs"]
mod tests;
