//! Kernels that refuse what they offered.

use etherparse::PacketBuilder;

use super::*;
use crate::wire::frame::{IpHeader, is_transport_checksum_valid};
use crate::wire::vnet::FLAG_NEEDS_CSUM;

const SIZE: u16 = 1000;

/// A kernel with one device.
struct Kernel {
    refuses: fn(&VnetHeader) -> bool,
    with: Errno,
    /// Frames that it takes before it is full.
    room: usize,
    taken: Vec<Vec<u8>>,
    refused: usize,
}

impl Kernel {
    fn that_refuses(refuses: fn(&VnetHeader) -> bool) -> Self {
        Self { refuses, with: Errno::EINVAL, room: usize::MAX, taken: Vec::new(), refused: 0 }
    }

    fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        let vnet = VnetHeader::parse(frame.first_chunk().unwrap()).unwrap();
        if (self.refuses)(&vnet) {
            self.refused += 1;
            return Err(self.with.into());
        }
        if self.taken.len() >= self.room {
            return Err(Errno::EAGAIN.into());
        }
        self.taken.push(frame.to_vec());
        Ok(())
    }
}

fn device(offload: Offload) -> Acceptance {
    Acceptance::new("tap0".to_owned(), offload)
}

fn give(
    device: &mut Acceptance,
    kernel: &mut Kernel,
    author: Author,
    frame: &[u8],
) -> Result<(), Unwritten> {
    device.write(author, frame, &mut Vec::new(), |bytes| kernel.write(bytes))
}

/// What the kernel said that the caller hears of.
fn errno_of(written: Result<(), Unwritten>) -> Option<i32> {
    written.err().and_then(|unwritten| io::Error::from(unwritten).raw_os_error())
}

fn payload() -> Vec<u8> {
    (0..2500_u32).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

/// A frame of the stack with `payload`, in segments of [`SIZE`] unless it is to be one packet.
fn frame(is_ipv6: bool, is_tcp: bool, is_segmented: bool) -> Vec<u8> {
    let start = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let ip = if is_ipv6 {
        start.ipv6([1; 16], [2; 16], 64)
    } else {
        start.ipv4([10, 0, 2, 2], [10, 0, 2, 100], 64)
    };
    let mut bytes = Vec::new();
    if is_tcp {
        ip.tcp(80, 5, 7, 1000).ack(9).write(&mut bytes, &payload()).unwrap();
    } else {
        ip.udp(80, 5).write(&mut bytes, &payload()).unwrap();
    }
    let (transport_at, offset) = (if is_ipv6 { 54 } else { 34 }, if is_tcp { 16 } else { 6 });
    let at = transport_at + offset;
    bytes[at..at + 2].fill(0x55);
    let gso = match (is_segmented, is_tcp, is_ipv6) {
        (false, _, _) => Gso::None,
        (true, true, false) => Gso::TcpV4,
        (true, true, true) => Gso::TcpV6,
        (true, false, _) => Gso::Udp,
    };
    let vnet = VnetHeader {
        flags: FLAG_NEEDS_CSUM,
        gso,
        gso_size: if is_segmented { SIZE } else { 0 },
        csum_start: u16::try_from(transport_at).unwrap(),
        csum_offset: u16::try_from(offset).unwrap(),
        ..VnetHeader::default()
    };
    [&vnet.emit()[..], &bytes].concat()
}

/// The payload of packets that need nothing from the device, whose checksums are right.
fn payload_of(packets: &[Vec<u8>], header_len: usize) -> Vec<u8> {
    let mut joined = Vec::new();
    for packet in packets {
        let (vnet, packet) = packet.split_first_chunk().unwrap();
        assert_eq!(VnetHeader::parse(vnet), Ok(VnetHeader::default()));
        let ip = IpHeader::parse(&packet[14..]).unwrap();
        let segment = &packet[14 + ip.header_len..];
        assert!(is_transport_checksum_valid(&ip, segment));
        joined.extend_from_slice(&segment[header_len..]);
    }
    joined
}

#[test]
fn segmentation_that_is_refused_is_done_here_from_then_on() {
    let tcp = Offload { tcp_segmentation: false, ..Offload::FULL };
    let udp = Offload { udp_segmentation: false, ..Offload::FULL };
    for (is_ipv6, is_tcp, left) in
        [(false, true, tcp), (true, true, tcp), (false, false, udp), (true, false, udp)]
    {
        for errno in [Errno::EINVAL, Errno::EOPNOTSUPP] {
            let mut kernel = Kernel::that_refuses(|vnet| vnet.gso != Gso::None);
            kernel.with = errno;
            let mut device = device(Offload::FULL);
            let frame = frame(is_ipv6, is_tcp, true);
            for frames in 1..=2 {
                give(&mut device, &mut kernel, Author::Stack, &frame).unwrap();
                assert_eq!(device.offload(), left);
                assert_eq!((kernel.refused, kernel.taken.len()), (1, 3 * frames));
            }
            let header_len = if is_tcp { 20 } else { 8 };
            assert_eq!(payload_of(&kernel.taken[..3], header_len), payload());
            assert_eq!(kernel.taken[..3], kernel.taken[3..]);
        }
    }
}

#[test]
fn refusal_of_udp_segmentation_leaves_the_rest() {
    let mut kernel = Kernel::that_refuses(|vnet| vnet.gso == Gso::Udp);
    let mut device = device(Offload::FULL);
    give(&mut device, &mut kernel, Author::Stack, &frame(false, false, true)).unwrap();
    kernel.taken.clear();
    let others = [frame(false, true, true), frame(true, true, true), frame(false, false, false)];
    for frame in &others {
        give(&mut device, &mut kernel, Author::Stack, frame).unwrap();
    }
    assert_eq!(kernel.taken, others, "as they are");
    assert_eq!(device.offload(), Offload { udp_segmentation: false, ..Offload::FULL });
}

#[test]
fn checksums_that_are_refused_are_filled_in() {
    let mut kernel = Kernel::that_refuses(|vnet| vnet.flags & FLAG_NEEDS_CSUM != 0);
    let mut device = device(Offload::FULL);
    let frame_of_one = frame(false, true, false);
    give(&mut device, &mut kernel, Author::Stack, &frame_of_one).unwrap();
    assert_eq!(device.offload(), Offload { checksum: false, ..Offload::FULL });
    // What is segmented needs checksums, too, and is not even tried.
    give(&mut device, &mut kernel, Author::Stack, &frame(false, true, true)).unwrap();
    assert_eq!(kernel.refused, 1);
    assert_eq!(payload_of(&kernel.taken, 20), [payload(), payload()].concat());
}

#[test]
fn kernel_that_refuses_everything_proves_nothing() {
    let mut kernel = Kernel::that_refuses(|_| true);
    let mut device = device(Offload::FULL);
    for frame in [frame(false, true, true), frame(false, false, true), frame(true, true, false)] {
        let written = give(&mut device, &mut kernel, Author::Stack, &frame);
        assert_eq!(errno_of(written), Some(libc::EINVAL));
    }
    assert_eq!(kernel.refused, 6, "each as it is, and its first packet");
    let plain = [&VnetHeader::default().emit()[..], b"a frame without anything"].concat();
    let written = give(&mut device, &mut kernel, Author::Stack, &plain);
    assert_eq!(errno_of(written), Some(libc::EINVAL));
    assert_eq!(kernel.refused, 7, "there is no other way to write it");
    assert_eq!(device.offload(), Offload::FULL);
}

#[test]
fn trouble_of_another_kind_is_not_about_the_frame() {
    for errno in [Errno::EIO, Errno::EBADFD, Errno::ENOMEM, Errno::EAGAIN] {
        let mut kernel = Kernel::that_refuses(|vnet| vnet.gso != Gso::None);
        kernel.with = errno;
        let mut device = device(Offload::FULL);
        let written = give(&mut device, &mut kernel, Author::Stack, &frame(false, true, true));
        assert_eq!(errno_of(written), Some(errno as i32));
        assert_eq!((device.offload(), kernel.taken.len()), (Offload::FULL, 0));
    }
}

#[test]
fn device_that_is_full_at_first_makes_the_whole_frame_wait() {
    let mut kernel = Kernel::that_refuses(|vnet| vnet.gso != Gso::None);
    kernel.room = 0;
    let mut device = device(Offload::FULL);
    let frame = frame(false, true, true);
    let written = give(&mut device, &mut kernel, Author::Stack, &frame);
    assert_eq!(errno_of(written), Some(libc::EAGAIN));
    assert_eq!(device.offload(), Offload::FULL, "nothing was taken");
    kernel.room = 3;
    give(&mut device, &mut kernel, Author::Stack, &frame).unwrap();
    assert_eq!(payload_of(&kernel.taken, 20), payload());
    // It is the same for a frame that is cut at once.
    assert_eq!(errno_of(give(&mut device, &mut kernel, Author::Stack, &frame)), Some(libc::EAGAIN));
}

#[test]
fn packets_that_find_the_device_full_are_lost_alone() {
    let mut kernel = Kernel::that_refuses(|vnet| vnet.gso != Gso::None);
    kernel.room = 1;
    let mut device = device(Offload::FULL);
    let frame = frame(false, true, true);
    for refused_as_a_whole in [true, false] {
        kernel.taken.clear();
        let written = give(&mut device, &mut kernel, Author::Stack, &frame);
        // Not EAGAIN, which would have the first packet written twice.
        assert_eq!(errno_of(written), Some(libc::ENOBUFS), "{refused_as_a_whole}");
        assert_eq!(payload_of(&kernel.taken, 20), payload()[..usize::from(SIZE)]);
        assert!(!device.offload().tcp_segmentation);
    }
}

#[test]
fn frames_of_a_member_prove_nothing_but_get_through() {
    let mut kernel = Kernel::that_refuses(|vnet| vnet.gso != Gso::None);
    let mut device = device(Offload::FULL);
    for frame in [frame(false, true, true), frame(true, false, true)] {
        kernel.taken.clear();
        give(&mut device, &mut kernel, Author::Member, &frame).unwrap();
        assert_eq!(kernel.taken.len(), 3);
        assert_eq!(device.offload(), Offload::FULL);
    }
    give(&mut device, &mut kernel, Author::Stack, &frame(false, true, true)).unwrap();
    assert!(!device.offload().tcp_segmentation);
    // What the stack has found holds for everybody's frames.
    let refused = kernel.refused;
    give(&mut device, &mut kernel, Author::Member, &frame(false, true, true)).unwrap();
    assert_eq!(kernel.refused, refused);
}
