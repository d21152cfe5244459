//! Services on the virtual addresses.
//!
//! Owns one file per service. Services take packets of the guest and give packets back; they know
//! neither flows nor each other.

pub mod arp;
pub mod dhcp;
pub mod dhcpv6;
pub mod dns;
pub mod echo;
pub mod ndp;
pub mod neighbor;
pub mod router_advertisement;
pub mod search_domain;
pub mod tftp;
