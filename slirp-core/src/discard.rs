//! Why a frame, packet or request was discarded.
//!
//! Owns the closed list of reasons and their counters. Nothing is lost silently: every discard on
//! the data path names one of these, counts it and leaves a trace line. A discard is never an
//! `Err`: a hostile guest must not be able to steer the control flow above the packet path.

crate::words::words! {
    /// Why something was discarded.
    pub enum DiscardReason:
    /// The frame is shorter than the headers that it announces.
    FrameTruncated => "frame_truncated",
    /// The virtio-net header contradicts the frame behind it.
    VnetHeaderInvalid => "vnet_header_invalid",
    /// The Ethernet type is neither ARP, IPv4 nor (with IPv6 enabled) IPv6.
    EtherTypeUnsupported => "ether_type_unsupported",
    /// The Ethernet source is a group address or all zero.
    SourceMacInvalid => "source_mac_invalid",
    /// IPv6 arrived although it is not enabled.
    Ipv6Disabled => "ipv6_disabled",
    /// Version, header length or total length of the IP header is wrong.
    IpHeaderInvalid => "ip_header_invalid",
    /// The IPv4 header checksum is wrong.
    IpChecksumInvalid => "ip_checksum_invalid",
    /// The IP source address can never be a sender (multicast, broadcast, loopback, unspecified,
    /// ours).
    SourceAddressInvalid => "source_address_invalid",
    /// TTL or hop limit ran out here.
    HopLimitExceeded => "hop_limit_exceeded",
    /// The transport protocol is not relayed.
    ProtocolUnsupported => "protocol_unsupported",
    /// The transport protocol is one that the guest may not use.
    ProtocolDisabled => "protocol_disabled",
    /// An IPv6 extension header chain could not be walked.
    ExtensionHeaderInvalid => "extension_header_invalid",
    /// The transport header is wrong in itself.
    TransportHeaderInvalid => "transport_header_invalid",
    /// The transport checksum is wrong.
    TransportChecksumInvalid => "transport_checksum_invalid",
    /// An ARP packet that is not a well-formed Ethernet/IPv4 ARP.
    ArpInvalid => "arp_invalid",
    /// An ARP request for an address that is not ours.
    ArpNotForUs => "arp_not_for_us",
    /// A neighbour discovery packet that RFC 4861 section 7.1 tells to discard.
    NdpInvalid => "ndp_invalid",
    /// A neighbour solicitation for an address that is not ours.
    NdpNotForUs => "ndp_not_for_us",
    /// A fragment that contradicts what came before it (overlap, length, end).
    FragmentInvalid => "fragment_invalid",
    /// The reassembler holds as much as it may.
    FragmentMemoryExhausted => "fragment_memory_exhausted",
    /// A datagram was not completed in time.
    FragmentTimedOut => "fragment_timed_out",
    /// Policy forbids this destination.
    DestinationNotAllowed => "destination_not_allowed",
    /// The egress policy forbids it.
    EgressDenied => "egress_denied",
    /// A datagram about which somebody is asked whether it may go there, or whose name is looked
    /// up. The program repeats it.
    EgressAsked => "egress_asked",
    /// The egress policy forbids what the first bytes of a connection say, or they cannot be read.
    EgressUnverified => "egress_unverified",
    /// A datagram was to wait for its part of a limited rate, and there was no room or no time.
    RateExceeded => "rate_exceeded",
    /// The destination can never be relayed (multicast, broadcast, unspecified).
    DestinationUnroutable => "destination_unroutable",
    /// A service that does not exist on a virtual address.
    ServiceUnavailable => "service_unavailable",
    /// The flow table is full, and no flow in it can make room.
    FlowTableFull => "flow_table_full",
    /// As many connections and datagrams as may be are joined past the link, or wait for it, and
    /// none of them can make room.
    BridgesFull => "bridges_full",
    /// A TCP connection that was still being opened, the oldest, was evicted to make room.
    HalfOpenLimit => "half_open_limit",
    /// A UDP or echo mapping, or a UDP conversation of a remote, was evicted to make room.
    MappingEvicted => "mapping_evicted",
    /// The host has no file descriptor or memory for another socket.
    HostResourcesExhausted => "host_resources_exhausted",
    /// The host refused to send the datagram.
    HostSendFailed => "host_send_failed",
    /// A host socket's send buffer is full.
    HostBufferFull => "host_buffer_full",
    /// A TCP segment that belongs to no flow.
    TcpNoFlow => "tcp_no_flow",
    /// A SYN that repeats one whose connection is still being opened.
    TcpSynRepeated => "tcp_syn_repeated",
    /// A combination of TCP flags that no stack sends.
    TcpFlagsInvalid => "tcp_flags_invalid",
    /// Payload beyond the window that was advertised.
    TcpBeyondWindow => "tcp_beyond_window",
    /// An acknowledgement of data that was never sent.
    TcpAckUnsent => "tcp_ack_unsent",
    /// The rings of all TCP connections are at their memory cap; the connection that asked for more
    /// was ended.
    RingMemoryExhausted => "ring_memory_exhausted",
    /// The TCP engine span without progress and the flow was ended.
    TcpEngineStuck => "tcp_engine_stuck",
    /// The TCP engine panicked and the flow was ended.
    TcpEngineFailed => "tcp_engine_failed",
    /// The guest never finished the handshake.
    TcpHandshakeTimedOut => "tcp_handshake_timed_out",
    /// No guest answered for the address, so a forwarded connection or datagram could not be
    /// delivered.
    GuestNotFound => "guest_not_found",
    /// Too many datagrams wait for the guest's MAC address.
    GuestQueueFull => "guest_queue_full",
    /// A forwarded connection or datagram whose addresses are already in use or do not fit
    /// together.
    ForwardAddressInvalid => "forward_address_invalid",
    /// The guest stopped acknowledging.
    TcpGuestUnresponsive => "tcp_guest_unresponsive",
    /// A half-closed connection moved nothing for hours.
    TcpHalfClosedIdle => "tcp_half_closed_idle",
    /// The host side did not connect in time.
    HostConnectTimedOut => "host_connect_timed_out",
    /// An ICMP message that is neither an echo request nor relayed otherwise.
    IcmpUnsupported => "icmp_unsupported",
    /// Echo requests cannot be relayed because the host allows neither ping nor raw sockets.
    IcmpEchoNotPermitted => "icmp_echo_not_permitted",
    /// A DNS message that is too short or too long to be one.
    DnsMessageInvalid => "dns_message_invalid",
    /// Too many DNS queries are in flight.
    DnsQueriesExhausted => "dns_queries_exhausted",
    /// The oldest TCP connection to the DNS service was reset to make room for another.
    DnsConnectionLimit => "dns_connection_limit",
    /// No upstream resolver answered in time.
    DnsTimedOut => "dns_timed_out",
    /// A DHCP or DHCPv6 message that is too short, overruns itself, or that no client sends.
    DhcpInvalid => "dhcp_invalid",
    /// A DHCP or DHCPv6 message that is not answered: of another type, or for another server.
    DhcpNotAnswered => "dhcp_not_answered",
    /// Every address of the DHCP pool is leased.
    DhcpPoolExhausted => "dhcp_pool_exhausted",
    /// A TFTP packet that starts no transfer.
    TftpNotAnswered => "tftp_not_answered",
    /// A datagram from the host for a flow that is gone.
    HostDatagramNoFlow => "host_datagram_no_flow",
    /// A datagram from the host that does not fit into an IP packet.
    HostDatagramTooLarge => "host_datagram_too_large",
    /// The TAP device did not take the frame.
    TapWriteFailed => "tap_write_failed",
    /// A member of a shared network used an Ethernet address of another member or of ours.
    MemberMacForeign => "member_mac_foreign",
    /// A member of a shared network used or announced an IP address that is another member's or
    /// ours, or one of the network that it was not assigned.
    MemberAddressForeign => "member_address_foreign",
    /// A member of a shared network used more addresses than one may.
    MemberAddressesExhausted => "member_addresses_exhausted",
    /// A member of a shared network spoke as a router or as a DHCP server.
    MemberRoleForbidden => "member_role_forbidden",
    /// A frame on a shared network for an Ethernet address that no member has.
    MemberUnknown => "member_unknown",
    /// A frame for a member that would stand for more packets than we cut one into.
    MemberSegmentsExhausted => "member_segments_exhausted",
}

/// One counter per [`DiscardReason`].
#[derive(Clone, Debug)]
pub struct DiscardCounters([u64; DiscardReason::ALL.len()]);

impl DiscardCounters {
    /// Counts one discard and leaves a trace line.
    pub(crate) fn count(&mut self, reason: DiscardReason) {
        self.count_silently(reason);
        tracing::trace!(reason = reason.as_str(), "discard");
    }

    /// Counts one discard that a listener hears of otherwise.
    pub(crate) const fn count_silently(&mut self, reason: DiscardReason) {
        self.0[reason as usize] = self.0[reason as usize].wrapping_add(1);
    }

    /// Counts the discard that `outcome` tells of, if it does.
    pub(crate) fn note(&mut self, outcome: Result<(), DiscardReason>) {
        if let Err(reason) = outcome {
            self.count(reason);
        }
    }

    /// How often `reason` was counted.
    pub const fn value(&self, reason: DiscardReason) -> u64 {
        self.0[reason as usize]
    }

    /// Every reason with its counter.
    pub fn iter(&self) -> impl Iterator<Item = (DiscardReason, u64)> + '_ {
        DiscardReason::ALL.iter().map(|&reason| (reason, self.value(reason)))
    }

    /// Adds everything that `other` has counted.
    pub fn add(&mut self, other: &Self) {
        for (own, more) in self.0.iter_mut().zip(other.0) {
            *own = own.wrapping_add(more);
        }
    }

    /// Sum of all counters.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl Default for DiscardCounters {
    fn default() -> Self {
        Self([0; DiscardReason::ALL.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn words_are_unique_and_index_matches() {
        let words: BTreeSet<_> = DiscardReason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(words.len(), DiscardReason::ALL.len());
        for (index, &reason) in DiscardReason::ALL.iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }

    #[test]
    fn counting_one_reason_leaves_the_others_alone() {
        let mut counters = DiscardCounters::default();
        counters.count(DiscardReason::ArpInvalid);
        counters.count(DiscardReason::ArpInvalid);
        assert_eq!(counters.value(DiscardReason::ArpInvalid), 2);
        assert_eq!(counters.total(), 2);
    }
}
