//! Services of the guest's link: addresses by DHCP and router advertisement, and names.

mod dhcp;
mod dns;
mod ipv6;
