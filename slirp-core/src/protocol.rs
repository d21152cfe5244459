//! The protocols that a guest asks for.
//!
//! Owns their name, [`Protocol`]. Published as [`policy::Protocol`](crate::policy::Protocol).

/// The protocol that asks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP or ICMPv6 echo; its "port" is not looked at.
    Echo,
}
