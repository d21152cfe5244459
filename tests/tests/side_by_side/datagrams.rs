//! UDP and echo of the guest.

use std::io::IoSliceMut;
use std::os::fd::AsRawFd as _;

use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv4RecvTtl, Ipv4Ttl};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt};

use super::*;

/// Sends one datagram to an unreachable place and says what the application learns, when it
/// asks for everything that ICMP can tell (`IP_RECVERR`).
fn complaint(world: &World, to: SocketAddr, ttl: Option<i32>) -> String {
    let socket = udp(&world.guest, (ANY, 0));
    setsockopt(&socket, Ipv4RecvErr, &true).unwrap();
    if let Some(ttl) = ttl {
        setsockopt(&socket, Ipv4Ttl, &ttl).unwrap();
    }
    socket.connect(to).unwrap();
    match socket.send(b"anybody?") {
        Ok(_) => datagram(&socket),
        Err(error) => errno(&error),
    }
}

/// The TTL of the next datagram.
fn ttl_of_next(socket: &UdpSocket) -> String {
    let (mut buffer, mut control) = ([0; 16], nix::cmsg_space!(i32));
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::empty();
    match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags) {
        Ok(message) => match message.cmsgs().unwrap().next() {
            Some(ControlMessageOwned::Ipv4Ttl(ttl)) => ttl.to_string(),
            other => format!("{other:?}"),
        },
        Err(error) => errno(&error.into()),
    }
}

#[test]
fn udp_errors() {
    run("udp", |side, seen| {
        let world = &side.world;
        world.remote.script(ROUTER);
        world.host.script("ip route add unreachable 203.0.113.87");
        let _slirp = side.slirp().start();
        let _capture = world.capture();
        for (what, to) in [
            ("a closed port of a remote", "203.0.113.10"),
            ("a closed port of the host", "198.51.100.1"),
            ("a closed port of the host's loopback", "10.0.2.2"),
            ("a port of the nameserver's address that is not 53", "10.0.2.3"),
            ("a host that never answers", "203.0.113.66"),
            ("a host that a router knows to be unreachable", "203.0.113.77"),
            ("a host that a router forbids", "203.0.113.78"),
            ("a silent neighbour of the host", "198.51.100.99"),
            ("a host unreachable by the host's routes", "203.0.113.87"),
        ] {
            let to = SocketAddr::new(to.parse().unwrap(), 99);
            seen.note(format!("send to {what}"), complaint(world, to, None));
        }
        let far = (FAR, 99).into();
        seen.note("TTL 1 ends at the gateway", complaint(world, far, Some(1)));
        seen.note("TTL 2 ends at the next router", complaint(world, far, Some(2)));
        world.host.script("ip route del default");
        seen.note("send without a route of the host", complaint(world, far, None));
    });
}

#[test]
fn udp_data() {
    run("udp data", |side, seen| {
        let world = &side.world;
        let slirp = side.slirp().start();
        let _capture = world.capture();
        let far = UdpServer::echo(&world.remote, (FAR, 0).into());
        let near = UdpServer::echo(&world.host, (LOOPBACK, 0).into());
        let gateway = SocketAddr::new(GATEWAY, near.address().port());
        let guest = udp(&world.guest, (ANY, 0));
        for len in [0_usize, 1, 1472, 1473, 2960, 8000, 60000, 65507] {
            for (name, to) in [("a remote", far.address()), ("the host's loopback", gateway)] {
                let mut sent = vec![0; len];
                send_exact(&mut sent[..], 3, len).unwrap();
                guest.send_to(&sent, to).unwrap();
                let mut buffer = vec![0; 65536];
                let outcome = match guest.recv_from(&mut buffer) {
                    Ok((got, from)) if buffer[..got] == sent => format!("echo of {}", from.ip()),
                    Ok((got, _)) => format!("{got} wrong bytes"),
                    Err(error) => errno(&error),
                };
                seen.note(format!("{len} bytes to {name}"), outcome);
            }
        }

        let first = udp(&world.remote, (REMOTE, 0));
        let second = udp(&world.remote, (REMOTE_2, 0));
        let third = udp(&world.remote, (FAR, 0));
        let mut buffer = [0; 16];
        guest.send_to(b"a", first.local_addr().unwrap()).unwrap();
        let (_, mapped) = first.recv_from(&mut buffer).unwrap();
        guest.send_to(b"b", second.local_addr().unwrap()).unwrap();
        let (_, again) = second.recv_from(&mut buffer).unwrap();
        seen.note("source that a remote sees", whose(mapped));
        seen.note("another remote sees the same source", mapped == again);
        third.send_to(b"unsolicited", mapped).unwrap();
        seen.note("a third party may answer", datagram(&guest));

        // Both are asked in turns from one port of the guest.
        let _dns = Dnsmasq::start(&world.host, "127.0.0.53".parse().unwrap(), &[]);
        let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x04test\0\0\x01\0\x01";
        guest.send_to(query, (NAMESERVER, 53)).unwrap();
        let from = guest.recv_from(&mut [0; 512]).map(|(_, from)| from.to_string());
        seen.note("one port, the nameserver", from.unwrap_or_else(|error| errno(&error)));
        guest.send_to(b"x", far.address()).unwrap();
        let from = guest.recv_from(&mut [0; 512]).map(|(_, from)| from.ip().to_string());
        seen.note("one port, then a remote", from.unwrap_or_else(|error| errno(&error)));

        let group = Ipv4Addr::new(239, 1, 2, 3);
        for ttl in [1, 7] {
            let member = udp(&world.remote, (ANY, 0));
            let IpAddr::V4(interface) = REMOTE else { panic!("{REMOTE}") };
            member.join_multicast_v4(&group, &interface).unwrap();
            setsockopt(&member, Ipv4RecvTtl, &true).unwrap();
            guest.set_multicast_ttl_v4(ttl).unwrap();
            guest.send_to(b"group", (group, member.local_addr().unwrap().port())).unwrap();
            seen.note(format!("TTL at a group of a datagram with {ttl}"), ttl_of_next(&member));
        }

        let service = udp(&world.host, (LOOPBACK, 7070));
        guest.set_broadcast(true).unwrap();
        guest.send_to(b"all", "255.255.255.255:7070").unwrap();
        seen.note("broadcast at the host's loopback", datagram(&service));
        seen.note("still running", slirp.facts().is_alive());
    });
}

#[test]
fn udp_to_disabled_loopback() {
    run("udp loopback", |side, seen| {
        let world = &side.world;
        let _slirp = side.slirp().options(&["--disable-host-loopback"]).start();
        let _capture = world.capture();
        let service = udp(&world.host, (LOOPBACK, 7777));
        world.guest.script(
            "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
            ip addr del 127.0.0.1/8 dev lo; ip route flush table local dev lo 2>/dev/null || true
            ip route add 127.0.0.0/8 dev tap0 via 10.0.2.2 src 10.0.2.100",
        );
        for (what, to) in [("gateway", GATEWAY), ("127.0.0.1", LOOPBACK)] {
            let outcome = complaint(world, (to, 7777).into(), None);
            seen.note(format!("disabled, send to the {what}"), outcome);
            service.set_nonblocking(true).unwrap();
            seen.note(format!("disabled, arrived for the {what}"), datagram(&service));
        }
    });
}

/// What `ping` says, without times.
fn ping(world: &World, arguments: &[&str]) -> String {
    let argv = [&["ping", "-n", "-c", "1", "-W", "3"], arguments].concat();
    let output = world.guest.exec(&argv);
    let mut said: Vec<String> = Vec::new();
    for line in output.stdout.lines().skip(1) {
        if line.contains("bytes from") || line.starts_with("From ") {
            said.push(line.split(" time=").next().unwrap_or_default().to_owned());
        } else if let Some((counts, _)) = line.split_once(", time ") {
            said.push(counts.to_owned());
        }
    }
    said.join("; ")
}

fn pings(side: &Side, seen: &mut Seen) {
    let world = &side.world;
    world.remote.script(ROUTER);
    for (what, arguments) in [
        ("gateway", &["10.0.2.2"][..]),
        ("gateway, in fragments", &["-s", "4000", "10.0.2.2"]),
        ("nameserver", &["10.0.2.3"]),
        ("nobody of the virtual network", &["-W", "1", "10.0.2.50"]),
        ("remote", &["203.0.113.10"]),
        ("remote, in fragments", &["-s", "4000", "203.0.113.10"]),
        ("host", &["198.51.100.1"]),
        ("host that a router knows to be unreachable", &["203.0.113.77"]),
        ("remote, TTL 1", &["-t", "1", "203.0.113.10"]),
    ] {
        seen.note(format!("ping {what}"), ping(world, arguments));
    }
}

#[test]
fn ping_as_root() {
    run("ping", |side, seen| {
        let _slirp = side.slirp().start();
        let _capture = side.world.capture();
        pings(side, seen);
    });
}

#[test]
fn ping_as_an_ordinary_user() {
    run_as(Account::Ordinary, "ping socket", |side, seen| {
        side.world.host.script("echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range");
        let _slirp = side.slirp().start();
        let _capture = side.world.capture();
        pings(side, seen);
    });
}

#[test]
fn ping_without_the_right_to() {
    run_as(Account::Ordinary, "ping refused", |side, seen| {
        side.world.host.script("echo '1 0' > /proc/sys/net/ipv4/ping_group_range");
        let _slirp = side.slirp().options(&["--disable-host-loopback"]).start();
        let _capture = side.world.capture();
        seen.note("ping gateway", ping(&side.world, &["10.0.2.2"]));
        seen.note("ping remote", ping(&side.world, &["203.0.113.10"]));
    });
}
