//! The members' devices, each of them one end of a socket pair: who hears what, and in which order.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};

use mio::{Poll, Token, Waker};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};

use crate::config::Offload;
use crate::discard::DiscardReason;
use crate::host::link::switchboard::Switchboard;
use crate::host::link::tap::Tap;
use crate::host::mailbox::NewMember;
use crate::host::mailbox::{Mailbox, Message};
use crate::host::tests::{in_new_netns, ip, wait};
use crate::mac::MacAddr;
use crate::member::{Member, MemberError, MemberId};
use crate::plan::{AddressPlan, Ipv6Plan};
use crate::stats::Stats;
use crate::sys::{ifreq::InterfaceRequest, tun};
use crate::tcp::tests::packet::Draft;
use crate::wire::udp::emit_datagram;
use crate::wire::vnet::{FLAG_NEEDS_CSUM, Gso, VNET_HEADER_LEN, VnetHeader};

const GATEWAY: MacAddr = MacAddr([0x52, 0x55, 10, 0, 2, 2]);
/// What a device passes on before the next one is read.
const SHARE: usize = 16;
/// What is passed on before the stack gets its turn.
const PASSED_CAP: usize = 64;

/// A member's own end of its device.
struct Station {
    id: MemberId,
    last: u8,
    socket: OwnedFd,
}

struct Network {
    board: Switchboard,
    inbox: mpsc::Receiver<Message>,
    _poll: Poll,
}

fn mac(last: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, last])
}

fn member(last: u8) -> Member {
    Member {
        mac: mac(last),
        address: [10, 0, 2, last].into(),
        address6: None,
        names: Vec::new(),
        aliases: Vec::new(),
    }
}

impl Network {
    fn new() -> Self {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let (mailbox, inbox) = Mailbox::new(waker);
        let mut board = Switchboard::new().unwrap();
        board.start(AddressPlan::default().with_ipv6(Ipv6Plan::default()), mailbox);
        Self { board, inbox, _poll: poll }
    }

    /// The members .100, .101 and so on, who have heard of each other.
    fn of(count: u8) -> (Self, Vec<Station>) {
        let mut network = Self::new();
        let stations: Vec<_> =
            (100..100 + count).map(|last| network.join(last, Offload::FULL)).collect();
        for station in &stations {
            station.heard();
        }
        (network, stations)
    }

    fn join(&mut self, last: u8, offload: Offload) -> Station {
        let (tap, socket) = device(offload);
        let new = NewMember { tap, member: member(last), egress: None, rates: None, guard: None };
        Station { id: self.board.add(new).unwrap(), last, socket }
    }

    /// The next frame for the stack, and whose it is.
    fn read(&mut self) -> Option<(Vec<u8>, MemberId)> {
        let mut room = [0; 70_000];
        match self.board.read(&mut room) {
            Ok(len) => Some((room[..len].to_vec(), self.board.sender().unwrap())),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                None
            }
        }
    }

    fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        self.board.add_to(&mut stats);
        stats
    }

    fn discards(&self, reason: DiscardReason) -> u64 {
        self.stats().discards.value(reason)
    }
}

impl Station {
    fn say(&self, frame: &[u8]) {
        let sent = send(self.socket.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT);
        assert_eq!(sent, Ok(frame.len()));
    }

    /// A frame of its own with one datagram.
    fn datagram(&self, to: MacAddr, destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut frame = VnetHeader::default().emit().to_vec();
        frame.extend_from_slice(&[&to.0[..], &mac(self.last).0, &[8, 0]].concat());
        let (from, to) = (([10, 0, 2, self.last], 5).into(), (destination, 9).into());
        emit_datagram(&mut frame, from, to, 64, 0, payload).unwrap();
        frame
    }

    fn to_member(&self, last: u8, payload: &[u8]) -> Vec<u8> {
        self.datagram(mac(last), [10, 0, 2, last], payload)
    }

    fn to_stack(&self, payload: &[u8]) -> Vec<u8> {
        self.datagram(GATEWAY, [192, 0, 2, 1], payload)
    }

    /// It asks everyone for the address of another member; no business of the stack's.
    fn question(&self, last: u8) -> Vec<u8> {
        let mut frame = VnetHeader::default().emit().to_vec();
        frame.extend_from_slice(&[&[0xff; 6], &mac(self.last).0[..], &[8, 6]].concat());
        frame.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend_from_slice(&[&mac(self.last).0[..], &[10, 0, 2, self.last]].concat());
        frame.extend_from_slice(&[0, 0, 0, 0, 0, 0, 10, 0, 2, last]);
        frame
    }

    /// What it has received.
    fn heard(&self) -> Vec<Vec<u8>> {
        let mut heard = Vec::new();
        let mut room = [0; 70_000];
        loop {
            match recv(self.socket.as_raw_fd(), &mut room, MsgFlags::MSG_DONTWAIT) {
                Ok(0) | Err(Errno::EAGAIN) => return heard,
                Ok(len) => heard.push(room[..len].to_vec()),
                Err(errno) => panic!("{errno}"),
            }
        }
    }

    /// Waits until its device is closed.
    fn await_end(&self) {
        wait(&self.socket, PollFlags::POLLIN);
        let end = recv(self.socket.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT);
        // The latter where what it said was not read.
        assert!(matches!(end, Ok(0) | Err(Errno::ECONNRESET)), "{end:?}");
    }
}

/// A device, and its member's end of it.
fn device(offload: Offload) -> (Tap, OwnedFd) {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (ours, own) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
    (Tap::double(ours, offload), own)
}

#[test]
fn frame_between_members_is_counted_and_no_business_of_the_stack() {
    let (mut network, stations) = Network::of(3);
    let [a, b, c] = &stations[..] else { panic!() };
    let frame = a.to_member(101, b"payload");
    a.say(&frame);
    assert_eq!(network.read(), None);
    assert_eq!(b.heard(), std::slice::from_ref(&frame));
    assert!(a.heard().is_empty() && c.heard().is_empty());
    let stats = network.stats();
    assert_eq!(stats.frames_between_members, 1);
    assert_eq!(stats.bytes_between_members, frame.len() as u64);
    // A frame to a group is one frame, however many get it.
    a.say(&a.question(101));
    assert_eq!(network.read(), None);
    assert_eq!((a.heard().len(), b.heard().len(), c.heard().len()), (0, 1, 1));
    assert_eq!(network.stats().frames_between_members, 2);
    assert_eq!(network.stats().discards.total(), 0);
}

#[test]
fn frame_for_the_stack_is_read_with_its_sender() {
    let (mut network, stations) = Network::of(2);
    let frames: Vec<_> = stations.iter().map(|station| station.to_stack(b"payload")).collect();
    for (station, frame) in stations.iter().zip(&frames).rev() {
        station.say(frame);
        wait(&network.board, PollFlags::POLLIN);
        assert_eq!(network.read(), Some((frame.clone(), station.id)));
    }
    assert_eq!(network.read(), None);
    assert!(stations.iter().all(|station| station.heard().is_empty()));
    assert_eq!(network.stats().frames_between_members, 0);
}

#[test]
fn frames_of_the_stack_go_to_whom_they_are_for() {
    let (mut network, stations) = Network::of(2);
    let frame = |to: MacAddr| {
        [&VnetHeader::default().emit()[..], &to.0, &GATEWAY.0, &[8, 0], &[0x45; 46]].concat()
    };
    network.board.write(&frame(mac(101)));
    assert_eq!((stations[0].heard().len(), stations[1].heard().len()), (0, 1));
    network.board.write(&frame(MacAddr::BROADCAST));
    assert_eq!((stations[0].heard().len(), stations[1].heard().len()), (1, 1));
    network.board.write(&frame(mac(77)));
    network.board.write(&[0; 5]);
    assert!(stations.iter().all(|station| station.heard().is_empty()));
    assert_eq!(network.discards(DiscardReason::MemberUnknown), 1);
    assert_eq!(network.discards(DiscardReason::FrameTruncated), 1);
    assert_eq!(network.stats().frames_between_members, 0, "the stack is no member");
}

#[test]
fn member_that_sends_without_end_leaves_the_others_their_turn() {
    let (mut network, stations) = Network::of(2);
    let [busy, other] = &stations[..] else { panic!() };
    for _ in 0..3 * SHARE {
        busy.say(&busy.to_stack(b"more"));
    }
    assert_eq!(network.read().unwrap().1, busy.id);
    // It comes when the busy one is being read already.
    other.say(&other.to_stack(b"one"));
    let before = std::iter::from_fn(|| network.read().map(|(_, sender)| sender))
        .take_while(|&sender| sender == busy.id)
        .count();
    assert_eq!(1 + before, SHARE);
    let rest = std::iter::from_fn(|| network.read().map(|(_, sender)| sender));
    assert_eq!(rest.filter(|&sender| sender == busy.id).count(), 2 * SHARE, "nothing is lost");
}

#[test]
fn frame_to_a_group_costs_as_much_as_the_frames_that_it_becomes() {
    let (mut network, stations) = Network::of(3);
    let [busy, other, _] = &stations[..] else { panic!() };
    for _ in 0..SHARE / 2 {
        busy.say(&busy.question(102));
    }
    busy.say(&busy.to_stack(b"behind"));
    other.say(&other.to_stack(b"one"));
    let senders: Vec<_> = std::iter::from_fn(|| network.read().map(|(_, sender)| sender)).collect();
    // Whoever is first in the queue; the busy one has spent its share before it says the last.
    assert_eq!(senders, [other.id, busy.id]);
}

#[test]
fn members_that_talk_to_each_other_leave_the_stack_its_turn() {
    let (mut network, stations) = Network::of(2);
    let [a, b] = &stations[..] else { panic!() };
    for _ in 0..PASSED_CAP + 1 {
        a.say(&a.to_member(101, b"payload"));
    }
    assert_eq!(network.read(), None);
    assert_eq!(b.heard().len(), PASSED_CAP);
    wait(&network.board, PollFlags::POLLIN);
    assert_eq!(network.read(), None);
    assert_eq!(b.heard().len(), 1);
}

#[test]
fn member_that_reads_nothing_loses_frames_and_holds_up_nobody() {
    let (mut network, stations) = Network::of(3);
    let [a, deaf, c] = &stations[..] else { panic!() };
    let big = vec![0; 1400];
    let mut said = 0;
    while network.discards(DiscardReason::TapWriteFailed) == 0 {
        a.say(&a.to_member(101, &big));
        said += 1;
        assert_eq!(network.read(), None);
        assert!(said < 10_000, "a queue without end");
    }
    a.say(&a.question(102));
    assert_eq!(network.read(), None);
    assert_eq!((deaf.heard().len(), c.heard().len()), (said - 1, 1));
    assert_eq!(network.discards(DiscardReason::TapWriteFailed), 2);
    assert!(network.inbox.try_recv().is_err(), "it is still a member");
    a.say(&a.to_member(101, b"again"));
    assert_eq!(network.read(), None);
    assert_eq!(deaf.heard().len(), 1);
}

#[test]
fn frame_in_the_name_of_another_goes_nowhere() {
    let (mut network, stations) = Network::of(3);
    let [a, b, c] = &stations[..] else { panic!() };
    // The second member's Ethernet address, and then only its IP address.
    a.say(&b.to_member(102, b"spoofed"));
    let mut frame = a.to_member(102, b"spoofed");
    frame[VNET_HEADER_LEN + 14 + 15] = 101;
    a.say(&frame);
    a.say(b"");
    a.say(&[0; 3]);
    assert_eq!(network.read(), None);
    assert!(b.heard().is_empty() && c.heard().is_empty());
    assert_eq!(network.discards(DiscardReason::MemberMacForeign), 1);
    assert_eq!(network.stats().discards.total(), 4);
    assert_eq!(network.stats().frames_between_members, 0);
}

#[test]
fn newcomer_is_announced_to_the_others_by_all_its_addresses() {
    let (mut network, stations) = Network::of(2);
    let (tap, socket) = device(Offload::FULL);
    let address6 = Some("fd00::66".parse().unwrap());
    let member = Member { address6, ..member(102) };
    network.board.add(NewMember { tap, member, egress: None, rates: None, guard: None }).unwrap();
    for station in &stations {
        let heard = station.heard();
        let ethertypes: Vec<_> = heard.iter().map(|frame| frame[22..24].to_vec()).collect();
        assert_eq!(ethertypes, [[8, 6], [0x86, 0xdd]]);
        for frame in &heard {
            assert_eq!(frame[..VNET_HEADER_LEN], VnetHeader::default().emit());
            assert_eq!(frame[16..22], mac(102).0);
        }
    }
    assert_eq!(recv(socket.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT), Err(Errno::EAGAIN));
}

#[test]
fn member_that_leaves_takes_its_device_and_guard_with_it() {
    let (mut network, mut stations) = Network::of(2);
    let (tap, socket) = device(Offload::FULL);
    let (guard, mut lifeline) = UnixStream::pair().unwrap();
    lifeline.set_nonblocking(true).unwrap();
    let new = NewMember {
        tap,
        member: member(102),
        egress: None,
        rates: None,
        guard: Some(guard.into()),
    };
    let guest = Station { id: network.board.add(new).unwrap(), last: 102, socket };
    assert!(lifeline.read(&mut [0]).is_err(), "it is held");
    // It still has something to say.
    guest.say(&guest.to_stack(b"last words"));
    stations[0].say(&stations[0].to_stack(b"first"));
    network.read().unwrap();
    let (left, released) = network.board.remove(guest.id).unwrap();
    assert_eq!((left, released.macs), (member(102), vec![mac(102)]));
    wait(&lifeline, PollFlags::POLLIN);
    assert_eq!(lifeline.read(&mut [0]).unwrap(), 0);
    guest.await_end();
    assert!(network.board.remove(guest.id).is_none());
    assert!(network.board.member(guest.id).is_none());
    // Neither does it speak any more, nor is it spoken to.
    stations[0].heard();
    stations[0].say(&stations[0].to_member(102, b"gone?"));
    while let Some((_, sender)) = network.read() {
        assert_eq!(sender, stations[0].id);
    }
    assert_eq!(network.discards(DiscardReason::MemberUnknown), 1);
    // Its port is another one's now, its name nobody's.
    stations.push(network.join(102, Offload::FULL));
    assert!(stations[2].id > guest.id);
    let listed: Vec<_> = network.board.members().into_iter().map(|(id, _)| id).collect();
    assert_eq!(listed, stations.iter().map(|station| station.id).collect::<Vec<_>>());
    stations[2].say(&stations[2].to_stack(b"hello"));
    assert_eq!(network.read().unwrap().1, stations[2].id);
}

#[test]
fn member_that_is_refused_leaves_nothing_behind() {
    let (mut network, stations) = Network::of(1);
    let (tap, socket) = device(Offload::FULL);
    let twin = Member { mac: mac(77), ..member(100) };
    let refused =
        network.board.add(NewMember { tap, member: twin, egress: None, rates: None, guard: None });
    assert_eq!(refused, Err(MemberError::AddressTaken([10, 0, 2, 100].into())));
    Station { id: MemberId(0), last: 100, socket }.await_end();
    // A file that no poller takes.
    let file = OwnedFd::from(File::open("/proc/self/status").unwrap());
    let tap = Tap::double(file, Offload::FULL);
    let refused = network.board.add(NewMember {
        tap,
        member: member(101),
        egress: None,
        rates: None,
        guard: None,
    });
    assert_eq!(refused, Err(MemberError::Device));
    assert_eq!(network.board.members().len(), 1);
    assert!(stations[0].heard().is_empty(), "nobody is announced");
    network.join(101, Offload::FULL);
    assert_eq!(stations[0].heard().len(), 1);
}

#[test]
fn loss_of_a_device_is_reported_once_and_ends_nobody_else() {
    let (mut network, mut stations) = Network::of(3);
    network
        .board
        .write(&[&VnetHeader::default().emit()[..], &mac(100).0, &GATEWAY.0, &[8, 0]].concat());
    let Station { id, socket, .. } = stations.remove(0);
    // With something unread, the other end reports an error instead of an end.
    drop(socket);
    wait(&network.board, PollFlags::POLLIN);
    stations[0].say(&stations[0].to_stack(b"still here"));
    let read: Vec<_> = std::iter::from_fn(|| network.read()).collect();
    assert_eq!(read.len(), 1);
    assert!(matches!(network.inbox.try_recv(), Ok(Message::MemberLost(lost)) if lost == id));
    stations[0].say(&stations[0].to_member(100, b"gone?"));
    stations[0].say(&stations[0].question(102));
    assert_eq!(network.read(), None);
    assert_eq!(stations[1].heard().len(), 1);
    assert!(network.inbox.try_recv().is_err(), "once");
    assert_eq!(network.stats().discards.total(), 0, "nothing is written to it");
    assert_eq!(network.board.member(id), Some(&member(100)), "until the loop removes it");
    assert!(network.board.remove(id).is_some());
}

/// A frame of 3,000 bytes of TCP payload, to be cut into pieces of 1,460.
fn large_frame(from: u8, to: u8) -> Vec<u8> {
    let draft = Draft {
        payload: vec![7; 3000],
        ..Draft::new(([10, 0, 2, from], 5).into(), ([10, 0, 2, to], 9).into())
    };
    let vnet = VnetHeader {
        flags: FLAG_NEEDS_CSUM,
        gso: Gso::TcpV4,
        gso_size: 1460,
        hdr_len: 54,
        csum_start: 34,
        csum_offset: 16,
    };
    let ethernet = [&mac(to).0[..], &mac(from).0, &[8, 0]].concat();
    [&vnet.emit()[..], &ethernet, &draft.packet()].concat()
}

#[test]
fn what_a_device_lacks_is_done_for_it() {
    let mut network = Network::new();
    let full = network.join(100, Offload::FULL);
    let plain = network.join(101, Offload::NOTHING);
    let header = network.join(102, Offload { vnet_header: true, ..Offload::NOTHING });
    for station in [&full, &plain, &header] {
        station.heard();
    }
    for (to, vnet_len) in [(&plain, 0), (&header, VNET_HEADER_LEN)] {
        full.say(&large_frame(100, to.last));
        assert_eq!(network.read(), None);
        let heard = to.heard();
        let lens: Vec<_> = heard.iter().map(|frame| frame.len() - vnet_len - 54).collect();
        assert_eq!(lens, [1460, 1460, 80]);
        for frame in heard {
            assert_eq!(frame[..vnet_len], VnetHeader::default().emit()[..vnet_len]);
            assert_eq!(frame[vnet_len..vnet_len + 6], mac(to.last).0);
        }
    }
    // The other way round: a frame without a header gets one.
    let frame = plain.to_member(100, b"payload");
    plain.say(&frame[VNET_HEADER_LEN..]);
    plain.say(&plain.to_stack(b"payload")[VNET_HEADER_LEN..]);
    assert_eq!(network.read(), Some((plain.to_stack(b"payload"), plain.id)));
    assert_eq!(full.heard(), [frame]);
    // It cannot be made to be cut into frames without end.
    let mut bomb = large_frame(100, 101);
    bomb[4..6].copy_from_slice(&1_u16.to_ne_bytes());
    full.say(&bomb);
    assert_eq!(network.read(), None);
    assert!(plain.heard().is_empty());
    assert_eq!(network.discards(DiscardReason::MemberSegmentsExhausted), 1);
}

#[test]
fn interface_that_is_deleted_ends_its_member_and_one_that_is_down_does_not() {
    in_new_netns(|| {
        let Ok(device) = File::options().read(true).write(true).open("/dev/net/tun") else {
            crate::host::tests::skip("/dev/net/tun");
            return;
        };
        let device = OwnedFd::from(device);
        let name = InterfaceRequest::new(b"member0");
        tun::set_interface(
            device.as_fd(),
            name,
            tun::TAP | tun::NO_PACKET_INFORMATION | tun::VNET_HEADER,
        )
        .unwrap();
        let (mut network, stations) = Network::of(1);
        let tap = Tap::adopt(device).unwrap();
        let new = NewMember { tap, member: member(101), egress: None, rates: None, guard: None };
        let id = network.board.add(new).unwrap();
        let say = |network: &mut Network| {
            stations[0].say(&stations[0].to_member(101, b"payload"));
            // The namespace's kernel has things to say as well.
            while network.read().is_some() {}
        };
        // As long as the interface is down, frames are lost, but nobody is.
        say(&mut network);
        assert_eq!(network.discards(DiscardReason::TapWriteFailed), 1);
        assert!(network.inbox.try_recv().is_err());
        ip("link set member0 up");
        say(&mut network);
        ip("link del member0");
        say(&mut network);
        assert!(matches!(network.inbox.try_recv(), Ok(Message::MemberLost(lost)) if lost == id));
        say(&mut network);
        assert!(network.inbox.try_recv().is_err());
        assert_eq!(network.discards(DiscardReason::TapWriteFailed), 1);
    });
}
