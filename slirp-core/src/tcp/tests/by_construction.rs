//! Defects B4, B5, B8 and B9 of the engine, which the fence avoids by construction.

use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;

use super::packet::{ACK, FIN, LINUX_OPTIONS, PSH, SYN, stream};
use super::{Opening, Peer};
use crate::config::Offload;
use crate::wire::icmp::{IcmpError, emit_error};
use crate::wire::vnet::Gso;

/// The workspace's manifest: what smoltcp is built with.
const MANIFEST: &str = include_str!("../../../../Cargo.toml");

fn smoltcp_features() -> &'static str {
    let from = MANIFEST.find("smoltcp = ").unwrap();
    let len = MANIFEST[from..].find(']').unwrap();
    &MANIFEST[from..from + len]
}

#[test]
fn engine_is_built_without_its_broken_features() {
    let features = smoltcp_features();
    assert!(features.contains("default-features = false"));
    assert!(features.contains("socket-tcp"));
    for broken in ["segmentation-offload", "pause-synack", "fragmentation", "reno", "cubic"] {
        assert!(!features.contains(broken), "{broken} (see the fence's table of defects)");
    }
}

/// B4: `segmentation-offload` would drop IPv6 segments above the MTU.
#[test]
fn segments_above_the_mtu_leave_in_both_families() {
    for (is_ipv6, mss, gso) in [(false, 1460, Gso::TcpV4), (true, 1440, Gso::TcpV6)] {
        let mut options = LINUX_OPTIONS.to_vec();
        options[2..4].copy_from_slice(&u16::to_be_bytes(mss));
        let opening = Opening {
            is_ipv6,
            options,
            offload: Offload::FULL,
            ring_len: 256 * 1024,
            ..Opening::default()
        };
        let mut peer = Peer::open(&opening);
        let data = stream(200_000);
        assert_eq!(peer.queue(&data), data.len());
        let mut arrived = Vec::new();
        while let Some(seen) = peer.poll() {
            if arrived.len() + seen.payload.len() < data.len() {
                assert!(seen.payload.len() > 60_000, "{} bytes", seen.payload.len());
                assert_eq!(seen.payload.len() % usize::from(mss), 0);
            }
            assert_eq!((peer.vnet.gso, peer.vnet.gso_size), (gso, mss));
            arrived.extend_from_slice(&seen.payload);
        }
        assert!(arrived == data, "{} bytes", arrived.len());
    }
}

/// B5: an engine that holds back the SYN|ACK asks to be polled all the time.
#[test]
fn half_open_connection_sleeps_until_its_retransmission() {
    let (mut peer, syn_ack) = Peer::half_open(&Opening::default());
    assert!(syn_ack.has(SYN | ACK));
    assert!(peer.poll().is_none());
    let at = peer.engine.poll_at(&peer.connection, peer.now).unwrap();
    assert_eq!(at.saturating_since(peer.now), Duration::from_millis(200));
    peer.now = at;
    assert!(peer.poll().unwrap().has(SYN | ACK));
    assert!(peer.poll().is_none());
}

/// B8: a socket that listens again keeps state of its former connection.
#[test]
fn second_connection_on_a_tuple_knows_nothing_of_the_first() {
    let mut first = Peer::open(&Opening::default());
    let data = stream(4000);
    assert_eq!(first.queue(&data), data.len());
    let _ = first.poll_all();
    // Three duplicate acknowledgements leave a fast retransmission behind.
    for _ in 0..4 {
        let _ = first.send(ACK, 0, 0, &[]);
    }
    let _ = first.send(ACK, 100, 0, &[1; 10]);

    let bare = Opening { options: vec![2, 4, 2, 24], ..Opening::default() };
    let (mut second, syn_ack) = Peer::half_open(&bare);
    core::mem::swap(&mut first.engine, &mut second.engine);
    assert!(!syn_ack.sack_permitted);
    assert_eq!(syn_ack.window_scale, None);
    assert!(second.send(ACK, 0, 0, &[]).is_none());
    let out_of_order = second.send(ACK | PSH, 100, 0, &[1; 10]).unwrap();
    assert!(!out_of_order.has_options, "no SACK block to a guest that did not offer it");
    assert!(second.poll_all().is_empty(), "nothing of the first is retransmitted");
    assert_eq!(second.queue(&data), data.len());
    let segments = second.poll_all();
    assert!(segments.iter().all(|seen| seen.payload.len() <= 536 && !seen.has(FIN)));
    assert_eq!(segments.iter().map(|seen| seen.payload.len()).sum::<usize>(), data.len());
}

/// B9: smoltcp's emitter leaves stale buffer content in bytes 4 to 8 of an ICMPv4 error.
#[test]
fn icmp_errors_carry_no_stale_bytes() {
    let offending = super::packet::Draft::new(
        "10.0.2.100:40000".parse().unwrap(),
        "192.0.2.1:80".parse().unwrap(),
    )
    .packet();
    let mut out = Vec::with_capacity(2000);
    out.resize(2000, 0xff);
    out.clear();
    let from = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2));
    let to = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 100));
    emit_error(&mut out, IcmpError::HostUnreachable, from, to, &offending);
    assert_eq!(&out[20..22], &[3, 1]);
    assert_eq!(&out[24..28], &[0; 4]);
    assert_eq!(&out[28..48], &offending[..20]);
}

#[test]
fn icmp_errors_of_smoltcp_still_carry_stale_bytes() {
    use smoltcp::wire::{Icmpv4DstUnreachable, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Repr};
    let header = Ipv4Repr {
        src_addr: Ipv4Addr::new(10, 0, 2, 100),
        dst_addr: Ipv4Addr::new(192, 0, 2, 1),
        next_header: IpProtocol::Udp,
        payload_len: 8,
        hop_limit: 64,
    };
    let reason = Icmpv4DstUnreachable::HostUnreachable;
    let repr = Icmpv4Repr::DstUnreachable { reason, header, data: &[0; 8] };
    let mut out = vec![0xff; repr.buffer_len()];
    let checksum = smoltcp::phy::ChecksumCapabilities::default();
    repr.emit(&mut Icmpv4Packet::new_unchecked(&mut out[..]), &checksum);
    assert_eq!(&out[4..8], &[0xff; 4], "smoltcp writes them now");
}
