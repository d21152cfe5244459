//! The switch of a shared network: where each frame of a member goes.
//!
//! Owns the ports of the members, who may use which Ethernet and IP address, and the decision about
//! each frame. The claims of a frame are read in `claim`; the holders of addresses are kept in
//! `tenure`. Reading and writing frames is left to the host side, and frames for our own addresses
//! to the [`stack`](crate::stack). IEEE 802.1D (learning), RFC 826, RFC 4861, RFC 6105 and
//! RFC 7610 (messages that a port may not send).
//!
//! # Theory of operation
//!
//! *Goals.* Members reach each other as stations of one Ethernet. A hostile member can neither take
//! traffic of others nor speak for them, for the gateway or for the DNS server. The stack need not
//! know of ports: an address or MAC address of a packet that reaches it belongs to one member only,
//! so replies to it leave through that member's port.
//!
//! *The holder of an address.*
//!
//! | address | holder |
//! | --- | --- |
//! | a member's own (assigned) MAC, IPv4 and IPv6 address | the member, until it leaves |
//! | IPv6 addresses made from its MAC address (RFC 4862) | the member, until it leaves |
//! | the virtual MAC and IP addresses | no member |
//! | other IPv4 addresses of the network | no member |
//! | any other (networks nested behind a member) | the first member to use it, until it leaves |
//!
//! *Each frame* is checked from the outside in: virtio-net header, Ethernet source, then what ARP,
//! neighbour discovery or the IP header say about the sender. Messages that only a router or a
//! DHCP server sends are discarded. Then its Ethernet destination decides. A frame for an unknown
//! destination is discarded and not flooded: every holder has announced its address first.
//!
//! *Limits.* [`MEMBERS_CAP`] ports; [`MACS_CAP`](tenure::MACS_CAP) and
//! [`ADDRESSES_CAP`](tenure::ADDRESSES_CAP) per port, beyond which a member's new addresses are
//! refused. No member can remove another member's entries.
//!
//! *Deliberate omissions.* Entries do not age: links are not moved from port to port here. There is
//! no spanning tree, so a member that bridges two of its own interfaces to this network makes a
//! loop, but its copies of other members' frames are discarded as spoofed.

mod claim;
mod tenure;

#[cfg(test)]
mod tests;

use core::net::IpAddr;

use crate::discard::DiscardReason;
use crate::mac::MacAddr;
use crate::member::{MEMBERS_CAP, Member, MemberError};
use crate::plan::AddressPlan;
use crate::wire::vnet::VNET_HEADER_LEN;
use claim::{Audience, Claim};
use tenure::Tenure;

/// Port index; reused after its member leaves.
pub type PortIndex = usize;

/// Where a frame goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// Whether the stack gets it.
    pub to_stack: bool,
    /// Which members get it.
    pub to: Recipients,
}

/// The members that get a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recipients {
    /// None.
    Nobody,
    /// The one on this port.
    Port(PortIndex),
    /// All but the sender.
    Others,
}

/// The addresses of a member that has left.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Released {
    /// Its Ethernet addresses.
    pub macs: Vec<MacAddr>,
    /// Its IP addresses.
    pub addresses: Vec<IpAddr>,
}

/// Decides which member, or the stack, gets a frame.
#[derive(Debug)]
pub struct Switch {
    plan: AddressPlan,
    /// Which ports are in use.
    ports: Vec<bool>,
    tenure: Tenure,
}

impl Switch {
    /// A switch without members.
    pub fn new(plan: AddressPlan) -> Self {
        Self { plan, ports: Vec::new(), tenure: Tenure::new(plan) }
    }

    /// Connects a member. Its addresses are taken from members that have used them.
    ///
    /// # Errors
    /// Those of [`Member::validate`]; [`MemberError::AddressTaken`] and [`MemberError::MacTaken`]
    /// when another member was assigned the same; [`MemberError::TooMany`].
    pub fn connect(&mut self, member: &Member) -> Result<PortIndex, MemberError> {
        member.validate(&self.plan)?;
        let free = self.ports.iter().position(|is_used| !is_used);
        let port = free.unwrap_or(self.ports.len());
        if port >= MEMBERS_CAP {
            return Err(MemberError::TooMany);
        }
        self.tenure.assign(port, member)?;
        match self.ports.get_mut(port) {
            Some(is_used) => *is_used = true,
            None => self.ports.push(true),
        }
        Ok(port)
    }

    /// Disconnects the member on `port`. Its addresses are free for others.
    pub fn disconnect(&mut self, port: PortIndex) -> Released {
        if let Some(is_used) = self.ports.get_mut(port) {
            *is_used = false;
        }
        self.tenure.release(port)
    }

    /// Decides about a frame of the member on `port`, which begins with a virtio-net header.
    ///
    /// # Errors
    /// Why it goes nowhere.
    pub fn handle_frame(&mut self, port: PortIndex, frame: &[u8]) -> Result<Route, DiscardReason> {
        let claim = Claim::read(&self.plan, frame)?;
        self.tenure.hold_mac(port, claim.source)?;
        for mac in claim.macs.into_iter().flatten() {
            self.tenure.hold_mac(port, mac)?;
        }
        for address in claim.addresses.into_iter().flatten() {
            self.tenure.hold_address(port, address)?;
        }
        match claim.audience {
            Audience::Stack => Ok(Route { to_stack: true, to: Recipients::Nobody }),
            Audience::Members => self.route(port, claim.destination, false),
            Audience::Everybody => self.route(port, claim.destination, true),
        }
    }

    fn route(
        &self,
        from: PortIndex,
        destination: MacAddr,
        is_group_for_stack: bool,
    ) -> Result<Route, DiscardReason> {
        if destination.is_group() {
            return Ok(Route { to_stack: is_group_for_stack, to: Recipients::Others });
        }
        if self.tenure.is_virtual_mac(destination) {
            return Ok(Route { to_stack: true, to: Recipients::Nobody });
        }
        match self.tenure.holder_of_mac(destination) {
            Some(port) if port != from => Ok(Route { to_stack: false, to: Recipients::Port(port) }),
            Some(_) | None => Err(DiscardReason::MemberUnknown),
        }
    }

    /// Where a frame of the stack goes, which begins with a virtio-net header. `Others` are all
    /// members.
    ///
    /// # Errors
    /// [`DiscardReason::MemberUnknown`] when no member has its destination (any more).
    pub fn route_from_stack(&self, frame: &[u8]) -> Result<Recipients, DiscardReason> {
        let destination = frame
            .get(VNET_HEADER_LEN..)
            .and_then(|frame| frame.first_chunk())
            .map(|&mac| MacAddr(mac))
            .ok_or(DiscardReason::FrameTruncated)?;
        if destination.is_group() {
            return Ok(Recipients::Others);
        }
        let port = self.tenure.holder_of_mac(destination);
        port.map(Recipients::Port).ok_or(DiscardReason::MemberUnknown)
    }
}
