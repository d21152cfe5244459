//! Services on the virtual addresses.
//!
//! Owns one file per service. Services take packets of the guest and give packets back; they know
//! neither flows nor each other.

pub(crate) mod arp;
pub(crate) mod dhcp;
pub(crate) mod dhcpv6;
pub(crate) mod dns;
pub(crate) mod echo;
pub(crate) mod ndp;
pub(crate) mod neighbor;
pub(crate) mod router_advertisement;
pub(crate) mod search_domain;
pub(crate) mod tftp;
