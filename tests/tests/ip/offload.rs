//! Kernels with fewer offloads than a current one, step by step: the network is slower and
//! otherwise equal.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};
use slirp_core::config::Offload;
use slirp_core::discard::DiscardReason;
use slirp_core::instance::{Builder, Instance};
use slirp_core::link::{OffloadCeiling, Tap};
use slirp_core::netns::{Configuration, NamespaceTarget, TapRequest, open_tap_up_to};
use slirp_core::plan::SlirpNetwork;
use slirp_tests::kernel::{
    BEYOND_ANY_READ, HEADER_LEN, refuse_large_frames, set_header_len, turn_on_offloads,
};
use slirp_tests::{
    FAR, PATIENCE, TcpServer, UdpServer, World, connect, needs, receive_exact, send_exact,
    wait_until,
};

const LEN: usize = 4 << 20;

/// A device that asks for no more than `ceiling`.
fn device(world: &World, ceiling: OffloadCeiling, mtu: u16) -> Tap {
    let pid = i32::try_from(world.guest.pid()).expect("process ids fit");
    let target = NamespaceTarget::of_pid(pid).expect("the guest is there");
    let configure = Some(Configuration::for_plan(&SlirpNetwork::default(), mtu));
    let request = TapRequest { name: "tap0".to_owned(), configure };
    open_tap_up_to(&target, &request, ceiling).expect("the device opens")
}

fn run(world: &World, ceiling: OffloadCeiling, mtu: u16) -> (Instance, Offload) {
    world.host.enter(|| {
        let tap = device(world, ceiling, mtu);
        let offload = tap.offload();
        (Builder::new(tap).mtu(mtu).spawn().expect("the instance starts"), offload)
    })
}

/// Bytes there and back over TCP, at the same time.
fn exchange(world: &World, server: SocketAddr) {
    let stream = connect(&world.guest, server).expect("the guest is on the network");
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| send_exact(&stream, 3, LEN));
        receive_exact(&stream, 3, LEN).expect("all of it comes back");
        sent.join().expect("the sender ends").expect("all of it leaves");
    });
    stream.shutdown(std::net::Shutdown::Write).expect("the guest ends");
    assert_eq!((&stream).read(&mut [0; 1]).expect("the end arrives"), 0);
}

/// Datagrams below and above the MTU, there and back.
fn datagrams(world: &World, server: SocketAddr) {
    let socket = world.guest.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)));
    let socket = socket.expect("the guest may open sockets");
    socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
    for len in [1, 1400, 8000] {
        let mut sent = Vec::new();
        send_exact(&mut sent, len, len).expect("memory takes it");
        socket.send_to(&sent, server).expect("it leaves");
        let mut back = vec![0; 9000];
        let (count, from) = socket.recv_from(&mut back).expect("it comes back");
        assert_eq!((count, from), (len, server));
        assert!(back[..count] == sent[..], "{len} bytes came back changed");
    }
}

/// Datagrams of a remote that reach the host together.
fn train(world: &World) {
    const LEN: usize = 1000;
    let remote = world.remote.enter(|| UdpSocket::bind((FAR, 0))).expect("the address is there");
    let guest = world.guest.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)));
    let guest = guest.expect("the guest may open sockets");
    for socket in [&guest, &remote] {
        socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
    }
    guest.send_to(b"here I am", remote.local_addr().expect("bound")).expect("it leaves");
    let (_, mapped) = remote.recv_from(&mut [0; 20]).expect("it arrives");
    let segment_len = i32::try_from(LEN).expect("a short datagram");
    setsockopt(&remote, UdpGsoSegment, &segment_len).expect("the kernel cuts datagrams");
    for _ in 0..3 {
        let sent: Vec<u8> = (0..10).flat_map(|number| [number; LEN]).collect();
        remote.send_to(&sent, mapped).expect("they leave");
        for number in 0..10 {
            let mut datagram = [0; 2 * LEN];
            assert_eq!(guest.recv(&mut datagram).expect("it arrives"), LEN);
            assert_eq!(datagram[..LEN], [number; LEN]);
        }
    }
}

fn works_with(ceiling: OffloadCeiling, expected: Offload) {
    let world = needs!(World::root());
    let tcp = TcpServer::echo(&world.remote, (FAR, 0).into());
    let udp = UdpServer::echo(&world.remote, (FAR, 0).into());
    let (instance, offload) = run(&world, ceiling, 1500);
    let _capture = world.capture();
    assert_eq!(Offload { udp_segmentation: false, ..offload }, expected);
    exchange(&world, tcp.address());
    datagrams(&world, udp.address());
    let stats = instance.handle().blocking().stats().expect("it runs");
    let segments = stats.bytes_from_guest / stats.frames_from_guest.max(1);
    if offload.tcp_segmentation {
        assert!(segments > 1514, "no frame held several segments: {segments} bytes on average");
    } else {
        assert!(segments <= 1524, "frames hold more than the MTU: {segments} bytes on average");
    }
    instance.handle().shutdown();
    instance.wait().expect("it ends in order");
}

const NOTHING: Offload = Offload {
    vnet_header: false,
    checksum: false,
    tcp_segmentation: false,
    udp_segmentation: false,
};

#[test]
fn network_works_with_udp_segmentation() {
    let expected = Offload { vnet_header: true, checksum: true, tcp_segmentation: true, ..NOTHING };
    works_with(OffloadCeiling::UdpSegmentation, expected);
}

#[test]
fn network_works_without_udp_segmentation() {
    let expected = Offload { vnet_header: true, checksum: true, tcp_segmentation: true, ..NOTHING };
    works_with(OffloadCeiling::TcpSegmentation, expected);
}

#[test]
fn network_works_without_tcp_segmentation() {
    let expected = Offload { vnet_header: true, checksum: true, ..NOTHING };
    works_with(OffloadCeiling::Checksum, expected);
}

#[test]
fn network_works_without_checksum_offload() {
    works_with(OffloadCeiling::Header, Offload { vnet_header: true, ..NOTHING });
}

#[test]
fn network_works_without_virtio_net_header() {
    works_with(OffloadCeiling::Nothing, NOTHING);
}

#[test]
fn device_that_somebody_else_opened_is_taken_with_what_it_offers() {
    let world = needs!(World::root());
    let tcp = TcpServer::echo(&world.remote, (FAR, 0).into());
    // As it arrives from another program: a bare descriptor, not our own record of it.
    let (instance, offload) = world.host.enter(|| {
        let opened = device(&world, OffloadCeiling::Nothing, 1500);
        let fd = opened.as_fd().try_clone_to_owned().expect("a duplicate");
        drop(opened);
        let tap = Tap::adopt(fd).expect("it is a TAP device");
        let offload = tap.offload();
        (Builder::new(tap).spawn().expect("the instance starts"), offload)
    });
    assert_eq!(offload, NOTHING);
    exchange(&world, tcp.address());
    drop(instance);
}

#[test]
fn largest_mtu_carries_whole_frames() {
    let world = needs!(World::root());
    let tcp = TcpServer::echo(&world.remote, (FAR, 0).into());
    let udp = UdpServer::echo(&world.remote, (FAR, 0).into());
    let (instance, _) = run(&world, OffloadCeiling::default(), 65_520);
    exchange(&world, tcp.address());
    datagrams(&world, udp.address());
    let mut stream = connect(&world.guest, tcp.address()).expect("a further connection");
    stream.write_all(b"x").expect("it leaves");
    stream.read_exact(&mut [0]).expect("it comes back");
    drop(instance);
}

#[test]
fn kernel_that_refuses_the_large_frames_it_offered_gets_whole_packets() {
    let world = needs!(World::root());
    let tcp = TcpServer::echo(&world.remote, (FAR, 0).into());
    let udp = UdpServer::echo(&world.remote, (FAR, 0).into());
    let (instance, offload) = world.host.enter(|| {
        let tap = device(&world, OffloadCeiling::default(), 1500);
        let offload = tap.offload();
        refuse_large_frames(tap.as_fd());
        (Builder::new(tap).spawn().expect("the instance starts"), offload)
    });
    assert!(offload.tcp_segmentation, "the kernel offered it");
    exchange(&world, tcp.address());
    datagrams(&world, udp.address());
    train(&world);
    let stats = instance.handle().blocking().stats().expect("it runs");
    assert_eq!(stats.discards.value(DiscardReason::TapWriteFailed), 0, "no frame was lost");
    drop(instance);
}

#[test]
fn kernel_that_hands_over_large_frames_unasked_is_understood() {
    let world = needs!(World::root());
    let tcp = TcpServer::echo(&world.remote, (FAR, 0).into());
    let (instance, offload) = world.host.enter(|| {
        let tap = device(&world, OffloadCeiling::Header, 1500);
        let offload = tap.offload();
        turn_on_offloads(tap.as_fd());
        (Builder::new(tap).spawn().expect("the instance starts"), offload)
    });
    assert_eq!(offload, Offload { vnet_header: true, ..NOTHING }, "nothing else was asked for");
    exchange(&world, tcp.address());
    let stats = instance.handle().blocking().stats().expect("it runs");
    let segments = stats.bytes_from_guest / stats.frames_from_guest.max(1);
    assert!(segments > 1514, "no frame held several segments: {segments} bytes on average");
}

#[test]
fn frame_that_the_kernel_cannot_describe_is_one_lost_frame() {
    let world = needs!(World::root());
    let tcp = TcpServer::echo(&world.remote, (FAR, 0).into());
    let (instance, other) = world.host.enter(|| {
        let tap = device(&world, OffloadCeiling::default(), 1500);
        let other = tap.as_fd().try_clone_to_owned().expect("a duplicate");
        (Builder::new(tap).spawn().expect("the instance starts"), other)
    });
    let handle = instance.handle();
    let lost = || {
        let stats = handle.blocking().stats().expect("it runs");
        stats.discards.value(DiscardReason::VnetHeaderInvalid)
    };
    // The guest knows its router before frames are lost: it gives a router up whose answers to ARP
    // are lost for three seconds.
    exchange(&world, tcp.address());
    set_header_len(other.as_fd(), BEYOND_ANY_READ);
    let socket = world.guest.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)));
    let socket = socket.expect("the guest may open sockets");
    wait_until(PATIENCE, "a lost frame", || {
        socket.send_to(b"lost", (FAR, 9)).expect("it leaves");
        lost() > 0
    });
    set_header_len(other.as_fd(), HEADER_LEN);
    exchange(&world, tcp.address());
}
