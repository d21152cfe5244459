//! The protocols that a guest asks for.
//!
//! Owns their name, [`Protocol`]. Published as [`policy::Protocol`](crate::policy::Protocol).

crate::words::words! {
    /// The protocol that asks.
    pub enum Protocol:
    /// TCP.
    Tcp => "tcp",
    /// UDP.
    Udp => "udp",
    /// ICMP or ICMPv6 echo; its "port" is not looked at.
    Echo => "icmp",
}
