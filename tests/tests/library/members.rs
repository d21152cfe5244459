//! A network with several members inside this process: devices with and without offloads, and the
//! library's own calls.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use slirp_core::discard::DiscardReason;
use slirp_core::instance::{
    Builder, Forward, ForwardProtocol, Instance, Member, MemberError, MemberId, NewMember,
    Switchboard,
};
use slirp_core::link::OffloadCeiling;
use slirp_core::netns::{
    Configuration, Ipv6Configuration, NamespaceTarget, TapRequest, open_tap_up_to,
};
use slirp_core::plan::{Ipv6Plan, SlirpNetwork};
use slirp_tests::kernel::{BEYOND_ANY_READ, HEADER_LEN, refuse_large_frames, set_header_len};
use slirp_tests::*;

use crate::turn;

fn plan() -> SlirpNetwork {
    SlirpNetwork::default().with_ipv6(Ipv6Plan::default())
}

fn network(world: &World) -> Instance {
    world.host.enter(|| Builder::new(Switchboard::new().unwrap()).plan(plan()).spawn().unwrap())
}

fn v6(last: u8) -> std::net::Ipv6Addr {
    format!("fd00::{last}").parse().unwrap()
}

/// A member `.LAST` in `namespace`, whose device has no more than `ceiling`.
fn member(namespace: &Namespace, last: u8, ceiling: OffloadCeiling) -> NewMember {
    let plan = plan();
    let address = Ipv4Addr::new(10, 0, 2, last);
    let address6 = v6(last);
    let ipv6 = plan
        .ipv6()
        .map(|plan| Ipv6Configuration { address: address6, ..Ipv6Configuration::for_plan(plan) });
    let configure = Configuration { address, ipv6, ..Configuration::for_plan(&plan, 1500) };
    let target = NamespaceTarget::of_pid(namespace.pid().cast_signed()).unwrap();
    let request = TapRequest { name: "tap0".to_owned(), configure: Some(configure) };
    let tap = open_tap_up_to(&target, &request, ceiling).unwrap();
    let mac = tap.mac().unwrap().unwrap();
    let member = Member {
        mac,
        address,
        address6: Some(address6),
        names: vec![format!("m{last}").parse().unwrap()],
        aliases: Vec::new(),
    };
    NewMember { tap, member, egress: None, rates: None, guard: None }
}

fn join(network: &Instance, namespace: &Namespace, last: u8, ceiling: OffloadCeiling) -> MemberId {
    network.handle().blocking().add_member(member(namespace, last, ceiling)).unwrap()
}

fn assert_echo(from: &Namespace, to: SocketAddr, len: usize) {
    let stream = connect(from, to).expect("the server is reached");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            send_exact(&stream, 3, len).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        });
        receive_exact(&stream, 3, len).unwrap();
    });
}

#[test]
fn members_without_offloads_get_whole_packets() {
    const CEILINGS: [OffloadCeiling; 5] = [
        OffloadCeiling::UdpSegmentation,
        OffloadCeiling::TcpSegmentation,
        OffloadCeiling::Checksum,
        OffloadCeiling::Header,
        OffloadCeiling::Nothing,
    ];
    let _turn = turn();
    let world = needs!(World::root());
    let network = network(&world);
    let far = TcpServer::echo(&world.remote, (FAR, 0).into());
    let full = Container::alone(&world, Account::Root);
    join(&network, &full, 100, OffloadCeiling::UdpSegmentation);
    for (last, ceiling) in (101..).zip(CEILINGS) {
        let poor = Container::alone(&world, Account::Root);
        join(&network, &poor, last, ceiling);
        let addresses = [IpAddr::V4(Ipv4Addr::new(10, 0, 2, last)), IpAddr::V6(v6(last))];
        for address in addresses {
            // Large frames of the one that has all offloads, both ways.
            let server = TcpServer::echo(&poor, (address, 0).into());
            assert_echo(&full, server.address(), 4 << 20);
            let datagrams = UdpServer::echo(&poor, (address, 0).into());
            let any: IpAddr = if address.is_ipv4() {
                Ipv4Addr::UNSPECIFIED.into()
            } else {
                std::net::Ipv6Addr::UNSPECIFIED.into()
            };
            let socket = full.enter(|| UdpSocket::bind((any, 0))).unwrap();
            socket.set_read_timeout(Some(IO_LIMIT)).unwrap();
            socket.send_to(&[7; 1200], datagrams.address()).unwrap();
            assert_eq!(socket.recv(&mut [0; 2000]).unwrap(), 1200);
        }
        // Super-segments of the stack.
        assert_echo(&poor, far.address(), 4 << 20);
    }
    let stats = network.handle().blocking().stats().unwrap();
    assert!(stats.frames_between_members > 100);
    assert_eq!(stats.discards.value(DiscardReason::TapWriteFailed), 0);
}

#[test]
fn member_whose_kernel_refuses_large_frames_gets_whole_packets() {
    let _turn = turn();
    let world = needs!(World::root());
    let far = TcpServer::echo(&world.remote, (FAR, 0).into());
    let full = Container::alone(&world, Account::Root);
    let refusing = Container::alone(&world, Account::Root);
    let newcomer = member(&refusing, 101, OffloadCeiling::default());
    let network = world.host.enter(|| {
        refuse_large_frames(newcomer.tap.as_fd());
        Builder::new(Switchboard::new().unwrap()).plan(plan()).spawn().unwrap()
    });
    join(&network, &full, 100, OffloadCeiling::default());
    network.handle().blocking().add_member(newcomer).unwrap();
    // Large frames of the other member, before and after the stack's own.
    let server = TcpServer::echo(&refusing, (Ipv4Addr::new(10, 0, 2, 101), 0).into());
    for _ in 0..2 {
        assert_echo(&full, server.address(), 4 << 20);
        assert_echo(&refusing, far.address(), 4 << 20);
    }
    let stats = network.handle().blocking().stats().unwrap();
    assert_eq!(stats.discards.value(DiscardReason::TapWriteFailed), 0);
}

#[test]
fn member_stays_when_its_kernel_cannot_describe_a_frame() {
    let _turn = turn();
    let world = needs!(World::root());
    let network = network(&world);
    let far = TcpServer::echo(&world.remote, (FAR, 0).into());
    let guest = Container::alone(&world, Account::Root);
    let newcomer = member(&guest, 100, OffloadCeiling::default());
    let device = newcomer.tap.as_fd().try_clone_to_owned().unwrap();
    network.handle().blocking().add_member(newcomer).unwrap();
    set_header_len(device.as_fd(), BEYOND_ANY_READ);
    let socket = guest.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
    wait_until(PATIENCE, "a lost frame", || {
        socket.send_to(b"lost", (FAR, 9)).unwrap();
        let stats = network.handle().blocking().stats().unwrap();
        stats.discards.value(DiscardReason::VnetHeaderInvalid) > 0
    });
    set_header_len(device.as_fd(), HEADER_LEN);
    assert_echo(&guest, far.address(), 1 << 16);
}

#[test]
fn member_goes_with_its_ports_its_guard_and_its_device() {
    let _turn = turn();
    let world = needs!(World::root());
    let network = network(&world);
    let handle = network.handle();
    let (first, second) =
        (Container::alone(&world, Account::Root), Container::alone(&world, Account::Root));
    let (mut end, guard) = std::io::pipe().unwrap();
    let new =
        NewMember { guard: Some(guard.into()), ..member(&first, 100, OffloadCeiling::default()) };
    let id = handle.blocking().add_member(new).unwrap();
    let other = join(&network, &second, 101, OffloadCeiling::default());
    let ids: Vec<MemberId> =
        handle.blocking().members().unwrap().into_iter().map(|m| m.0).collect();
    assert_eq!(ids, [id, other]);
    let rule = |last| {
        let host = (Ipv4Addr::UNSPECIFIED, 8000 + u16::from(last)).into();
        let guest = (Ipv4Addr::new(10, 0, 2, last), 80).into();
        Forward::new(ForwardProtocol::Tcp, host, guest)
    };
    handle.blocking().add_forwards(vec![rule(100), rule(101)]).unwrap();
    handle.blocking().remove_member(id).unwrap();
    assert_eq!(std::io::Read::read(&mut end, &mut [0]).unwrap(), 0, "the guard is closed");
    let left: Vec<Forward> =
        handle.blocking().list_forwards().unwrap().into_iter().map(|(_, rule)| rule).collect();
    assert_eq!(left, [rule(101)]);
    assert!(!first.exec(&["ip", "link", "show", "tap0"]).status.success());
    assert_eq!(handle.blocking().remove_member(id), Err(MemberError::Unknown));
    // A device that goes by itself takes its member along.
    second.script("ip link delete tap0");
    wait_until(PATIENCE, "the member is gone", || handle.blocking().members().unwrap().is_empty());
    assert!(handle.blocking().list_forwards().unwrap().is_empty());
    // And the network is as good as new.
    join(&network, &first, 100, OffloadCeiling::default());
    let far = TcpServer::echo(&world.remote, (FAR, 0).into());
    assert_echo(&first, far.address(), 1 << 16);
    handle.shutdown();
    network.wait().unwrap();
    assert_eq!(handle.blocking().remove_member(id), Err(MemberError::Ended));
}

#[test]
fn instance_with_one_guest_takes_no_members() {
    let _turn = turn();
    let world = needs!(World::root());
    let tap = member(&world.guest, 100, OffloadCeiling::default()).tap;
    let instance = world.host.enter(|| Builder::new(tap).plan(plan()).spawn().unwrap());
    let other = Container::alone(&world, Account::Root);
    let refused =
        instance.handle().blocking().add_member(member(&other, 101, OffloadCeiling::default()));
    assert_eq!(refused, Err(MemberError::NotShared));
    assert!(instance.handle().blocking().members().unwrap().is_empty());
}
