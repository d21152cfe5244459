//! What a guest may reach at all, before any rule is asked.
//!
//! Owns the two switches of [`Policy`]. Published as [`config::Policy`](crate::config::Policy).

/// What a guest may reach; [`policy`](crate::policy) judges by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Policy {
    /// Whether the gateway address stands for the host's loopback, and loopback addresses that the
    /// guest spells out are passed on (default true).
    pub allow_host_loopback: bool,
    /// Whether the DNS address answers queries (default true).
    pub dns_service: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self { allow_host_loopback: true, dns_service: true }
    }
}
