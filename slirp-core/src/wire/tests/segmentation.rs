use etherparse::PacketBuilder;

use super::*;
use crate::wire::frame::is_transport_checksum_valid;

fn frame(is_ipv6: bool, is_tcp: bool, payload: &[u8]) -> (Vec<u8>, VnetHeader) {
    let start = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let mut bytes = Vec::new();
    let ip = if is_ipv6 {
        start.ipv6([1; 16], [2; 16], 64)
    } else {
        start.ipv4([10, 0, 2, 100], [10, 0, 2, 101], 64)
    };
    if is_tcp {
        ip.tcp(5, 80, 0xffff_fff0, 1000).ack(9).psh().fin().write(&mut bytes, payload).unwrap();
    } else {
        ip.udp(5, 80).write(&mut bytes, payload).unwrap();
    }
    let transport_at = if is_ipv6 { 54 } else { 34 };
    let checksum_at = if is_tcp { 16 } else { 6 };
    // As a device gets it: the sum of the pseudo header only.
    bytes[transport_at + checksum_at..transport_at + checksum_at + 2].fill(0x55);
    let gso = match (is_tcp, is_ipv6) {
        (true, false) => Gso::TcpV4,
        (true, true) => Gso::TcpV6,
        (false, _) => Gso::Udp,
    };
    let vnet = VnetHeader {
        flags: FLAG_NEEDS_CSUM,
        gso,
        hdr_len: 0,
        gso_size: 1000,
        csum_start: u16::try_from(transport_at).unwrap(),
        csum_offset: u16::try_from(checksum_at).unwrap(),
    };
    (bytes, vnet)
}

fn cut_all(vnet: &VnetHeader, frame: &[u8]) -> Result<Vec<Vec<u8>>, DiscardReason> {
    let mut packets = Vec::new();
    cut(vnet, frame, &mut Vec::new(), |packet| packets.push(packet.to_vec()))?;
    Ok(packets)
}

#[test]
fn packets_are_whole_in_order_and_have_their_checksums() {
    let payload: Vec<u8> = (0..2500_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    for (is_ipv6, is_tcp) in [(false, false), (false, true), (true, false), (true, true)] {
        let (frame, vnet) = frame(is_ipv6, is_tcp, &payload);
        let packets = cut_all(&vnet, &frame).unwrap();
        assert_eq!(packets.len(), 3);
        let mut joined = Vec::new();
        for (index, packet) in packets.iter().enumerate() {
            let ip = IpHeader::parse(&packet[14..]).unwrap();
            assert_eq!(ip.packet_len, packet.len() - 14);
            let segment = &packet[14 + ip.header_len..];
            assert!(is_transport_checksum_valid(&ip, segment), "{is_ipv6} {is_tcp} {index}");
            if is_tcp {
                let number = u32::from_be_bytes(segment[4..8].try_into().unwrap());
                let before = u32::try_from(joined.len()).unwrap();
                assert_eq!(number, 0xffff_fff0_u32.wrapping_add(before));
                assert_eq!(segment[13] & 0x09 != 0, index == 2, "FIN and PSH on the last");
                joined.extend_from_slice(&segment[20..]);
            } else {
                let len = u16::from_be_bytes([segment[4], segment[5]]);
                assert_eq!(usize::from(len), segment.len());
                joined.extend_from_slice(&segment[8..]);
            }
        }
        assert_eq!(joined, payload);
    }
}

#[test]
fn single_packet_only_gets_its_checksum() {
    let (frame, vnet) = frame(false, true, b"payload");
    let vnet = VnetHeader { gso: Gso::None, gso_size: 0, ..vnet };
    let packets = cut_all(&vnet, &frame).unwrap();
    assert_eq!(packets.len(), 1);
    let ip = IpHeader::parse(&packets[0][14..]).unwrap();
    assert!(is_transport_checksum_valid(&ip, &packets[0][34..]));
    let plain = VnetHeader::default();
    assert_eq!(cut_all(&plain, &frame).unwrap(), [frame]);
}

#[test]
fn frame_of_too_many_packets_is_refused_as_a_whole() {
    let (frame, vnet) = frame(false, true, &[0; 2570]);
    let vnet = VnetHeader { gso_size: 10, ..vnet };
    assert_eq!(cut_all(&vnet, &frame), Err(DiscardReason::MemberSegmentsExhausted));
    let vnet = VnetHeader { gso_size: 11, ..vnet };
    assert_eq!(cut_all(&vnet, &frame).unwrap().len(), 234);
}

#[test]
fn device_takes_what_it_has_the_offload_for() {
    let tcp = VnetHeader { flags: FLAG_NEEDS_CSUM, gso: Gso::TcpV4, ..VnetHeader::default() };
    let udp = VnetHeader { gso: Gso::Udp, ..tcp };
    let partial = VnetHeader { gso: Gso::None, ..tcp };
    let plain = VnetHeader::default();
    let header = Offload { vnet_header: true, ..Offload::NOTHING };
    let checksum = Offload { checksum: true, ..header };
    let segmenting = Offload { tcp_segmentation: true, ..checksum };
    for (offload, covered) in [
        (Offload::NOTHING, [false, false, false, false]),
        (header, [true, false, false, false]),
        (checksum, [true, true, false, false]),
        (segmenting, [true, true, true, false]),
        (Offload::FULL, [true, true, true, true]),
    ] {
        let found = [plain, partial, tcp, udp].map(|vnet| is_covered(&vnet, offload));
        assert_eq!(found, covered, "{offload:?}");
    }
}

proptest::proptest! {
    #[test]
    fn any_frame_is_cut_or_refused(bytes: Vec<u8>, gso_size: u16, offset in 0_usize..60) {
        let (mut frame, vnet) = frame(offset % 2 == 0, offset % 3 == 0, &[7; 300]);
        for (to, from) in frame.iter_mut().skip(offset).zip(&bytes) {
            *to = *from;
        }
        let vnet = VnetHeader { gso_size, ..vnet };
        let _ = cut_all(&vnet, &frame);
        let _ = cut_all(&vnet, &bytes);
    }
}
