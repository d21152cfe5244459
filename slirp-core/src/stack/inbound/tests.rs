//! Remotes that come to the guest, in virtual time.

use etherparse::{PacketBuilder, PacketBuilderStep, SlicedPacket, TcpHeader, TransportSlice};

use core::time::Duration;

use super::*;
use crate::config::{Offload, StackConfig};
use crate::event::{Datagram, HostAction};
use crate::flow::{HostStream, Transfer};
use crate::stack::link::{ASK_INTERVAL, HELD_CAP};
use crate::stack::tests::came_through;
use crate::wire::vnet::{VNET_HEADER_LEN, VnetHeader};

mod versions;

const GUEST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const GATEWAY_MAC: [u8; 6] = [0x52, 0x55, 10, 0, 2, 2];
const GUEST: [u8; 4] = [10, 0, 2, 100];

/// The host's end of the connection: what it has for the guest and what it got.
#[derive(Default)]
struct Client {
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
}

impl HostStream for Client {
    fn send(&mut self, data: &[u8]) -> Transfer {
        self.incoming.extend_from_slice(data);
        Transfer::Moved(data.len())
    }

    fn recv(&mut self, room: &mut [u8]) -> Transfer {
        let len = room.len().min(self.outgoing.len());
        if len == 0 {
            return Transfer::Blocked;
        }
        room[..len].copy_from_slice(&self.outgoing[..len]);
        self.outgoing.drain(..len);
        Transfer::Moved(len)
    }

    fn shutdown_write(&mut self) {}
}

struct Scene {
    stack: Stack,
    client: Client,
    frames: Vec<Vec<u8>>,
    actions: Vec<HostAction>,
    now: Instant,
}

impl Scene {
    fn new(change: impl FnOnce(&mut StackConfig)) -> Self {
        let mut config = StackConfig { seed: 7, ..StackConfig::default() };
        change(&mut config);
        let stack = Stack::new(config);
        let (frames, actions) = (Vec::new(), Vec::new());
        Self { stack, client: Client::default(), frames, actions, now: Instant::ZERO }
    }

    fn accept(&mut self, remote: &str) -> Result<FlowId, DiscardReason> {
        let guest = SocketAddr::from((GUEST, 80));
        let accepted = self.stack.handle_tcp_accepted(
            came_through(1, remote.parse().unwrap()),
            guest,
            self.now,
        );
        self.turn();
        accepted
    }

    fn turn(&mut self) {
        loop {
            while let Some(action) = self.stack.poll_action() {
                self.actions.push(action);
            }
            let ready = self.stack.poll_ready(self.now);
            if let Some(flow) = ready {
                self.stack.pump(flow, &mut self.client, self.now);
            }
            while let Some(frame) = self.stack.poll_frame(self.now) {
                self.frames.push(frame.to_vec());
            }
            if ready.is_none() {
                return;
            }
        }
    }

    fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((at, _)) = self.stack.poll_timeout().filter(|&(at, _)| at <= end) {
            self.now = self.now.max(at);
            self.stack.handle_timeout(self.now);
            self.turn();
        }
        self.now = end;
    }

    fn feed(&mut self, mut frame: Vec<u8>) {
        if self.stack.config().offload.vnet_header {
            frame.splice(0..0, VnetHeader::default().emit());
        }
        assert!(self.stack.handle_frame(&mut frame, self.now).is_none());
        self.turn();
    }

    fn tell_mac(&mut self) {
        self.tell_mac_of(GUEST_MAC);
    }

    fn tell_mac_of(&mut self, mac: [u8; 6]) {
        self.feed(tell(mac));
    }

    /// The TCP headers of the frames so far, with their sources and payload lengths.
    fn segments(&mut self) -> Vec<([u8; 4], TcpHeader, usize)> {
        let skip = if self.stack.config().offload.vnet_header { VNET_HEADER_LEN } else { 0 };
        let frames = core::mem::take(&mut self.frames);
        let parsed = frames.iter().filter_map(|frame| {
            let packet = SlicedPacket::from_ethernet(&frame[skip..]).ok()?;
            let Some(TransportSlice::Tcp(tcp)) = &packet.transport else { return None };
            let source = frame[skip + 26..skip + 30].try_into().unwrap();
            Some((source, tcp.to_header(), tcp.payload().len()))
        });
        parsed.collect()
    }

    fn arp_requests(&mut self) -> usize {
        let frames = core::mem::take(&mut self.frames);
        frames.iter().filter(|frame| frame[12..14] == [8, 6]).count()
    }

    fn count(&self, reason: DiscardReason) -> u64 {
        self.stack.stats().discards.value(reason)
    }
}

/// The guest's answer to who it is.
fn tell(mac: [u8; 6]) -> Vec<u8> {
    let mut arp = GATEWAY_MAC.to_vec();
    arp.extend_from_slice(&mac);
    arp.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    arp.extend_from_slice(&mac);
    arp.extend_from_slice(&GUEST);
    arp.extend_from_slice(&GATEWAY_MAC);
    arp.extend_from_slice(&[10, 0, 2, 2]);
    arp
}

fn segment(to: ([u8; 4], u16), seq: u32) -> PacketBuilderStep<TcpHeader> {
    PacketBuilder::ethernet2(GUEST_MAC, GATEWAY_MAC)
        .ipv4(GUEST, to.0, 64)
        .tcp(80, to.1, seq, 64_240)
}

fn built(step: PacketBuilderStep<TcpHeader>, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    step.write(&mut frame, payload).unwrap();
    frame
}

const OPTIONS: [u8; 8] = [2, 4, 0x05, 0x78, 1, 3, 3, 7];

/// Opens a connection up to the guest's SYN|ACK with an MSS of 1400 and a shift of 7.
fn open(scene: &mut Scene) -> (([u8; 4], u16), u32) {
    scene.tell_mac();
    scene.accept("198.51.100.2:5000").unwrap();
    let segments = scene.segments();
    let [(source, syn, 0)] = &segments[..] else { panic!("{segments:?}") };
    assert!(syn.syn && !syn.ack);
    let remote = (*source, syn.source_port);
    let answer = segment(remote, 1000).syn().ack(syn.sequence_number.wrapping_add(1));
    scene.feed(built(answer.options_raw(&OPTIONS).unwrap(), &[]));
    (remote, syn.sequence_number.wrapping_add(1))
}

#[test]
fn unknown_guest_is_asked_for_each_second_and_given_up_after_75() {
    let mut scene = Scene::new(|_| {});
    let flow = scene.accept("198.51.100.2:5000").unwrap();
    assert_eq!(scene.arp_requests(), 1);
    scene.advance(Duration::from_millis(3500));
    assert_eq!(scene.arp_requests(), 3);
    scene.advance(Duration::from_secs(71));
    assert_eq!(scene.actions, []);
    scene.advance(Duration::from_secs(1));
    assert_eq!(scene.actions, [HostAction::Close { flow, reset: true }]);
    assert_eq!(scene.count(DiscardReason::GuestNotFound), 1);
    scene.arp_requests();
    scene.advance(Duration::from_secs(10));
    assert_eq!(scene.arp_requests(), 0);
}

#[test]
fn syn_goes_out_once_the_guest_is_found_and_is_repeated() {
    let mut scene = Scene::new(|_| {});
    scene.accept("198.51.100.2:5000").unwrap();
    scene.tell_mac();
    let segments = scene.segments();
    let [(source, syn, 0)] = &segments[..] else { panic!("{segments:?}") };
    assert_eq!((*source, syn.source_port), ([198, 51, 100, 2], 5000));
    scene.advance(Duration::from_secs(10));
    let repeats = scene.segments();
    assert!(repeats.len() >= 3, "{repeats:?}");
    assert!(
        repeats.iter().all(|(_, tcp, _)| {
            tcp.syn && !tcp.ack && tcp.sequence_number == syn.sequence_number
        })
    );
    scene.advance(Duration::from_secs(66));
    assert!(matches!(scene.actions[..], [HostAction::Close { reset: true, .. }]));
    assert_eq!(scene.count(DiscardReason::TcpHandshakeTimedOut), 1);
}

#[test]
fn guest_that_tells_its_place_again_and_again_wakes_its_connections_once_a_question() {
    let mut scene = Scene::new(|_| {});
    for port in 1..=20 {
        scene.accept(&format!("192.0.2.1:{port}")).unwrap();
    }
    let woken = |scene: &mut Scene| {
        let mut arp = tell(GUEST_MAC);
        assert!(scene.stack.handle_frame(&mut arp, scene.now).is_none());
        core::iter::from_fn(|| scene.stack.poll_ready(scene.now)).count()
    };
    assert_eq!(woken(&mut scene), 20);
    for _ in 0..3 {
        assert_eq!(woken(&mut scene), 0, "it was heard before");
    }
    scene.advance(ASK_INTERVAL);
    assert!(scene.arp_requests() > 0, "it may have moved");
    assert_eq!(woken(&mut scene), 20);
    assert_eq!(woken(&mut scene), 0);
}

#[test]
fn bytes_flow_both_ways_after_the_handshake_and_after_sleep() {
    let mut scene = Scene::new(|_| {});
    let (remote, mut next) = open(&mut scene);
    let mut guest_next = 1001;
    for round in 0..3 {
        scene.frames.clear();
        scene.client.outgoing = b"question".to_vec();
        let id = FlowId { index: 0, generation: 1 };
        scene.stack.wake_flow(id);
        scene.turn();
        let segments = scene.segments();
        let (_, asked, 8) = segments.last().unwrap() else { panic!("{segments:?}") };
        assert_eq!((asked.sequence_number, asked.acknowledgment_number), (next, guest_next));
        next = next.wrapping_add(8);
        scene.feed(built(segment(remote, guest_next).ack(next).psh(), b"answer"));
        guest_next += 6;
        assert_eq!(scene.client.incoming, b"answer".repeat(round + 1));
        scene.advance(Duration::from_secs(10));
        let parked = u64::try_from(round).unwrap() + 1;
        assert_eq!(scene.stack.stats().tcp_parked, parked);
    }
}

#[test]
fn guests_mss_in_the_answer_bounds_segments_and_the_device_cuts() {
    let mut scene = Scene::new(|config| config.offload = Offload::FULL);
    let (remote, next) = open(&mut scene);
    scene.client.outgoing = vec![7; 200_000];
    // A window that lets a super-segment through: 600 << 7.
    let mut update = built(segment(remote, 1001).ack(next), &[]);
    update[14 + 20 + 14..14 + 20 + 16].copy_from_slice(&600_u16.to_be_bytes());
    let packet = &mut update[14..];
    let ip = crate::wire::frame::IpHeader::parse(packet).unwrap();
    let tcp = crate::tcp::Segment::parse(&ip, packet).unwrap();
    let plain = Offload::default();
    crate::tcp::checksum_and_segment(&ip, &tcp, u16::MAX, packet, plain);
    scene.frames.clear();
    scene.feed(update);
    scene.stack.wake_flow(FlowId { index: 0, generation: 1 });
    scene.turn();
    let largest = scene.frames.iter().max_by_key(|frame| frame.len()).unwrap();
    assert!(largest.len() > 50_000, "{}", largest.len());
    let vnet = VnetHeader::parse(largest.first_chunk().unwrap()).unwrap();
    assert_eq!(vnet.gso_size, 1400);
    let payload = largest.len() - VNET_HEADER_LEN - 14 - 40;
    assert_eq!(payload % 1400, 0, "no frame ends in a runt");
}

#[test]
fn window_of_the_guests_answer_is_used_to_its_last_byte() {
    let mut scene = Scene::new(|_| {});
    let (remote, next) = open(&mut scene);
    scene.segments();
    scene.client.outgoing = vec![7; 100_000];
    scene.stack.wake_flow(FlowId { index: 0, generation: 1 });
    scene.turn();
    // The window field of a SYN|ACK is not scaled, and need not be a multiple of 128.
    let sent: usize = scene.segments().iter().map(|(_, _, len)| len).sum();
    assert_eq!(sent, 64_240);
    scene.feed(built(segment(remote, 1001).ack(next.wrapping_add(64_240)), &[]));
    let (_, rest, _) = &scene.segments()[0];
    assert_eq!(rest.sequence_number, next.wrapping_add(64_240), "nothing is left out");
}

#[test]
fn refusal_of_the_guest_resets_the_client() {
    let mut scene = Scene::new(|_| {});
    scene.tell_mac();
    let flow = scene.accept("127.0.0.1:5000").unwrap();
    let segments = scene.segments();
    let (source, syn, _) = &segments[0];
    assert_eq!(*source, [10, 0, 2, 2]);
    let ack = syn.sequence_number.wrapping_add(1);
    scene.feed(built(segment(([10, 0, 2, 2], 5000), 0).rst().ack(ack), &[]));
    assert_eq!(scene.actions, [HostAction::Close { flow, reset: true }]);
}

#[test]
fn refused_connection_is_led_to_the_guests_other_address_and_an_answered_one_is_not() {
    let (client, other) = ("127.0.0.1:5000", "[fd00::64]:80".parse().unwrap());
    for is_answered in [false, true] {
        let mut scene = Scene::new(|_| {});
        scene.tell_mac();
        let flow = scene.accept(client).unwrap();
        scene.stack.set_other_guest(flow, other);
        let ack = scene.segments()[0].1.sequence_number.wrapping_add(1);
        let remote = ([10, 0, 2, 2], 5000);
        let origin = came_through(1, client.parse().unwrap());
        let mut expected = HostAction::AskElsewhere { flow, origin, guest: other };
        if is_answered {
            scene.feed(built(segment(remote, 1000).syn().ack(ack), &[]));
            expected = HostAction::Close { flow, reset: true };
        }
        scene.feed(built(segment(remote, 1001).rst().ack(ack), &[]));
        assert_eq!(scene.actions, [expected]);
    }
}

#[test]
fn guest_without_another_address_is_not_waited_for_long() {
    let mut scene = Scene::new(|_| {});
    scene.tell_mac();
    let origin = came_through(1, "127.0.0.1:5000".parse().unwrap());
    let elsewhere = "10.0.2.101:80".parse().unwrap();
    let flow = scene.stack.handle_tcp_refused(origin, elsewhere, scene.now).unwrap();
    scene.advance(Duration::from_millis(249));
    assert_eq!(scene.actions, []);
    scene.advance(Duration::from_millis(1));
    assert_eq!(scene.actions, [HostAction::Close { flow, reset: true }]);
    // Found, and silent.
    scene.actions.clear();
    let here = SocketAddr::from((GUEST, 80));
    let flow = scene.stack.handle_tcp_refused(origin, here, scene.now).unwrap();
    scene.turn();
    scene.advance(Duration::from_millis(249));
    assert_eq!((scene.segments().is_empty(), scene.actions.as_slice()), (false, [].as_slice()));
    scene.advance(Duration::from_millis(1));
    assert_eq!(scene.actions, [HostAction::Close { flow, reset: true }]);
}

#[test]
fn reset_that_acknowledges_something_else_is_no_refusal() {
    let mut scene = Scene::new(|_| {});
    scene.tell_mac();
    scene.accept("127.0.0.1:5000").unwrap();
    scene.feed(built(segment(([10, 0, 2, 2], 5000), 0).rst().ack(1), &[]));
    assert_eq!(scene.actions, []);
}

#[test]
fn guest_that_answers_from_an_older_connection_is_reset_and_asked_anew() {
    for flags in ["an acknowledgement", "data", "a SYN|ACK"] {
        let mut scene = Scene::new(|_| {});
        scene.tell_mac();
        let flow = scene.accept("198.51.100.2:5000").unwrap();
        let (remote, old) = (([198, 51, 100, 2], 5000), 77_777);
        let answer = match flags {
            "a SYN|ACK" => built(segment(remote, 1000).syn().ack(old), &[]),
            "data" => built(segment(remote, 1000).ack(old).psh(), b"what was left"),
            _ => built(segment(remote, 1000).ack(old), &[]),
        };
        // Three times: resets may be lost.
        for _ in 0..3 {
            scene.segments();
            scene.feed(answer.clone());
            let segments = scene.segments();
            let [(_, reset, 0), (_, syn, 0)] = &segments[..] else { panic!("{segments:?}") };
            assert!(reset.rst && !reset.ack && reset.sequence_number == old, "{flags}");
            assert!(syn.syn && !syn.ack, "{flags}");
        }
        // A guest that goes on like that gets one answer for each, and may still come round.
        scene.feed(answer.clone());
        let segments = scene.segments();
        assert!(matches!(&segments[..], [(_, reset, 0)] if reset.rst), "{flags}: {segments:?}");
        scene.advance(Duration::from_secs(2));
        let segments = scene.segments();
        let (_, syn, _) = segments.last().unwrap();
        let answer = segment(remote, 1000).syn().ack(syn.sequence_number.wrapping_add(1));
        scene.feed(built(answer.options_raw(&OPTIONS).unwrap(), &[]));
        assert_eq!(scene.actions, []);
        assert!(!scene.segments().is_empty(), "the handshake is completed");
        scene.client.outgoing = b"question".to_vec();
        scene.stack.wake_flow(flow);
        scene.turn();
        assert_eq!(scene.segments()[0].2, 8);
    }
}

#[test]
fn segment_of_an_older_connection_that_comes_before_our_syn_does_not_confuse_it() {
    for flags in ["an acknowledgement", "data", "a SYN|ACK"] {
        let mut scene = Scene::new(|_| {});
        scene.tell_mac();
        let (remote, old) = (([198, 51, 100, 2], 5000), 0x8000_0000);
        // The guest's frame and the client come in one turn: the SYN has not left yet.
        let guest = SocketAddr::from((GUEST, 80));
        let client = SocketAddr::from(remote);
        scene.stack.handle_tcp_accepted(came_through(1, client), guest, scene.now).unwrap();
        scene.feed(match flags {
            "a SYN|ACK" => built(segment(remote, 1000).syn().ack(old), &[]),
            "data" => built(segment(remote, 1000).ack(old).psh(), b"what was left"),
            _ => built(segment(remote, 1000).ack(old), &[]),
        });
        let segments = scene.segments();
        let [(_, reset, 0), (_, syn, 0)] = &segments[..] else { panic!("{segments:?}") };
        assert!(reset.rst && !reset.ack && reset.sequence_number == old, "{flags}");
        assert!(syn.syn && !syn.ack, "{flags}");
        let answer = segment(remote, 1000).syn().ack(syn.sequence_number.wrapping_add(1));
        scene.feed(built(answer.options_raw(&OPTIONS).unwrap(), &[]));
        let segments = scene.segments();
        let [(_, ack, 0)] = &segments[..] else { panic!("{flags}: {segments:?}") };
        assert!(ack.ack && !ack.rst && !ack.syn, "{flags}: the handshake is completed");
    }
}

#[test]
fn later_connection_between_the_same_ports_begins_above() {
    let mut scene = Scene::new(|_| {});
    scene.tell_mac();
    let mut first_sequence = || {
        scene.segments();
        let flow = scene.accept("198.51.100.2:5000").unwrap();
        let sequence = scene.segments()[0].1.sequence_number;
        scene.stack.handle_remote_gone(flow);
        scene.turn();
        scene.advance(Duration::from_secs(1));
        sequence
    };
    let (first, second) = (first_sequence(), first_sequence());
    // A clock of 4 us.
    assert_eq!(second.wrapping_sub(first), 250_000);
    scene.segments();
    scene.accept("198.51.100.2:5001").unwrap();
    let other = scene.segments()[0].1.sequence_number;
    assert!(other.wrapping_sub(second) > 500_000, "other ports begin elsewhere");
}

#[test]
fn client_that_goes_before_the_guest_answers_ends_the_flow() {
    for is_found in [false, true] {
        let mut scene = Scene::new(|_| {});
        if is_found {
            scene.tell_mac();
        }
        let flow = scene.accept("198.51.100.2:5000").unwrap();
        scene.stack.handle_remote_gone(flow);
        scene.turn();
        assert_eq!(scene.actions, [HostAction::Close { flow, reset: true }]);
        assert_eq!(scene.stack.stats().flows, 0);
    }
}

#[test]
fn connections_that_wait_for_the_guest_are_bounded_and_the_oldest_goes() {
    let mut scene = Scene::new(|config| config.limits.half_open = 3);
    for port in 5000..5010 {
        scene.accept(&format!("198.51.100.2:{port}")).unwrap();
    }
    assert_eq!(scene.stack.stats().flows, 3);
    assert_eq!(scene.count(DiscardReason::HalfOpenLimit), 7);
}

#[test]
fn what_the_guest_cannot_answer_appears_as_the_gateway() {
    let scene = Scene::new(|config| {
        config.plan = config.plan.with_ipv6(crate::plan::Ipv6Plan::default());
    });
    let v4 = SocketAddr::from((GUEST, 80));
    let v6: SocketAddr = "[fd00::64]:80".parse().unwrap();
    for (remote, guest, shown) in [
        ("127.0.0.1:9", v4, "10.0.2.2:9"),
        ("0.0.0.0:9", v4, "10.0.2.2:9"),
        ("10.0.2.7:9", v4, "10.0.2.2:9"),
        ("169.254.1.1:9", v4, "10.0.2.2:9"),
        ("192.0.2.1:9", v4, "192.0.2.1:9"),
        ("[::1]:9", v6, "[fd00::2]:9"),
        ("[fe80::1%3]:9", v6, "[fd00::2]:9"),
        ("[2001:db8::1]:9", v6, "[2001:db8::1]:9"),
        ("[2001:db8::1]:9", v4, "10.0.2.2:9"),
        ("192.0.2.1:9", v6, "[fd00::2]:9"),
    ] {
        let shown: SocketAddr = shown.parse().unwrap();
        assert_eq!(scene.stack.as_seen_by(guest, remote.parse().unwrap()), Ok(shown), "{remote}");
    }
    for (remote, guest) in [("127.0.0.1:9", "10.0.2.2:80"), ("127.0.0.1:9", "[fd00::2]:80")] {
        let guest = guest.parse().unwrap();
        let shown = scene.stack.as_seen_by(guest, remote.parse().unwrap());
        assert_eq!(shown, Err(DiscardReason::ForwardAddressInvalid));
    }
}

fn origin(port: u16) -> Origin {
    let client = SocketAddr::from(([198, 51, 100, 2], port));
    Origin { rule: ForwardId(1), client, local: ([198, 51, 100, 1], 53).into() }
}

fn send_datagram(scene: &mut Scene, port: u16) {
    let guest = SocketAddr::from((GUEST, 80));
    scene.stack.handle_inbound_udp(origin(port), guest, b"ask", None, 0, scene.now);
    scene.turn();
}

#[test]
fn datagrams_wait_a_second_for_an_unknown_guest() {
    let mut scene = Scene::new(|_| {});
    send_datagram(&mut scene, 5000);
    send_datagram(&mut scene, 5001);
    assert_eq!(scene.arp_requests(), 1);
    scene.tell_mac();
    assert_eq!(scene.frames.len(), 2);
    let mut late = Scene::new(|_| {});
    for port in 0..100 {
        send_datagram(&mut late, 5000 + port);
    }
    assert_eq!(late.count(DiscardReason::GuestQueueFull), 100 - HELD_CAP as u64);
    late.advance(Duration::from_secs(2));
    assert_eq!(late.count(DiscardReason::GuestNotFound), HELD_CAP as u64);
    late.frames.clear();
    late.tell_mac();
    assert!(late.frames.is_empty());
    // Who comes later finds the guest.
    send_datagram(&mut late, 6000);
    assert_eq!(late.frames.len(), 1);
    send_datagram(&mut late, 5000);
    assert_eq!(late.frames.len(), 2, "an earlier client as well");
}

#[test]
fn answer_goes_back_to_whoever_asked_until_the_rule_is_gone() {
    let mut scene = Scene::new(|_| {});
    scene.tell_mac();
    send_datagram(&mut scene, 5000);
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(GUEST_MAC, GATEWAY_MAC)
        .ipv4(GUEST, [198, 51, 100, 2], 64)
        .udp(80, 5000)
        .write(&mut frame, b"answer")
        .unwrap();
    let expected = origin(5000);
    let sent = scene.stack.handle_frame(&mut frame.clone(), scene.now).map(|sent| match sent {
        Datagram::InboundUdp { origin, payload, .. } => (origin, payload.to_vec()),
        Datagram::Udp { .. } | Datagram::Echo { .. } => panic!("not the rule's socket"),
    });
    assert_eq!(sent, Some((expected, b"answer".to_vec())));
    scene.stack.handle_forwards_removed(&[ForwardId(1)].into(), scene.now);
    let sent = scene.stack.handle_frame(&mut frame, scene.now);
    assert!(matches!(sent, Some(Datagram::Udp { .. })), "{sent:?}");
}

#[test]
fn rules_that_go_take_their_own_conversations_along() {
    let mut scene = Scene::new(|_| {});
    scene.tell_mac();
    for rule in 1..=4 {
        let origin =
            Origin { rule: ForwardId(rule), ..origin(5000 + u16::try_from(rule).unwrap()) };
        let guest = SocketAddr::from((GUEST, 80));
        scene.stack.handle_inbound_udp(origin, guest, b"ask", None, 0, scene.now);
    }
    scene.stack.handle_forwards_removed(&[1, 3, 4, 9].map(ForwardId).into(), scene.now);
    let (mut left, _) = scene.stack.flows(0, 10, scene.now);
    assert_eq!(left.next().map(|flow| flow.remote.port()), Some(5002));
    assert!(left.next().is_none());
}

#[test]
fn flood_of_sources_pushes_its_own_oldest_out() {
    let mut scene = Scene::new(|config| config.limits.inbound_udp = 4);
    scene.tell_mac();
    for port in 5000..5100 {
        send_datagram(&mut scene, port);
    }
    assert_eq!(scene.stack.stats().flows, 4);
    scene.advance(Duration::from_secs(301));
    assert_eq!(scene.stack.stats().flows, 0);
    assert_eq!(scene.stack.admission.count(Kind::InboundUdp), 0);
}

/// Where the only frame of a forwarded datagram went.
fn destination_of_datagram(scene: &mut Scene) -> [u8; 6] {
    scene.frames.clear();
    send_datagram(scene, 5000);
    let [frame] = &scene.frames[..] else { panic!("{:?}", scene.frames) };
    frame[..6].try_into().unwrap()
}

#[test]
fn guest_that_changes_its_mac_address_keeps_its_datagrams() {
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const THIRD: [u8; 6] = [2, 0, 0, 0, 0, 3];
    let mut scene = Scene::new(|_| {});
    scene.tell_mac();
    assert_eq!(destination_of_datagram(&mut scene), GUEST_MAC);
    scene.tell_mac_of(OTHER);
    assert_eq!(destination_of_datagram(&mut scene), OTHER);
    // An answer tells as well, and does so for other clients.
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(THIRD, GATEWAY_MAC)
        .ipv4(GUEST, [198, 51, 100, 2], 64)
        .udp(80, 5000)
        .write(&mut frame, b"answer")
        .unwrap();
    assert!(scene.stack.handle_frame(&mut frame, scene.now).is_some());
    assert_eq!(destination_of_datagram(&mut scene), THIRD);
    scene.frames.clear();
    send_datagram(&mut scene, 5001);
    assert_eq!(scene.frames[0][..6], THIRD);
}

#[test]
fn guest_that_only_listens_is_asked_again_now_and_then() {
    let mut scene = Scene::new(|_| {});
    scene.tell_mac();
    let mut asked = 0;
    for _ in 0..12 {
        send_datagram(&mut scene, 5000);
        asked += scene.arp_requests();
        scene.advance(Duration::from_secs(1));
    }
    assert_eq!(asked, 2);
    scene.tell_mac_of([2, 0, 0, 0, 0, 2]);
    assert_eq!(destination_of_datagram(&mut scene), [2, 0, 0, 0, 0, 2]);
}

#[test]
fn remote_that_the_guest_spoke_to_first_answers_as_the_guest_knows_it() {
    let mut scene = Scene::new(|_| {});
    scene.tell_mac();
    // Loopback spelled out, which a remote of the host's loopback would not be shown as.
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(GUEST_MAC, GATEWAY_MAC)
        .ipv4(GUEST, [127, 0, 0, 1], 64)
        .udp(80, 5000)
        .write(&mut frame, b"hello")
        .unwrap();
    let guest = SocketAddr::from((GUEST, 80));
    let reached = SocketAddr::from(([127, 0, 0, 1], 5000));
    match scene.stack.handle_frame(&mut frame.clone(), scene.now) {
        Some(Datagram::Udp { guest: from, remote, .. }) => {
            assert_eq!((from, remote), (guest, reached));
        }
        other => panic!("{other:?}"),
    }
    let origin = Origin { rule: ForwardId(1), client: reached, local: reached };
    scene.stack.handle_inbound_udp(origin, guest, b"answer", None, 0, scene.now);
    scene.turn();
    assert_eq!(scene.frames.last().unwrap()[26..30], [127, 0, 0, 1]);
    let sent = scene.stack.handle_frame(&mut frame, scene.now);
    assert!(matches!(sent, Some(Datagram::InboundUdp { .. })), "{sent:?}");
}
