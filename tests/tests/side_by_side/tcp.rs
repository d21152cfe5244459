//! Connections of the guest.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;

use super::*;

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn failing_connects() {
    run("tcp", |side, seen| {
        let world = &side.world;
        world.remote.script(ROUTER);
        world.remote.script(
            "nft 'add table ip t; add chain ip t in { type filter hook input priority 0; };
                add rule ip t in tcp dport 7 reject with tcp reset;
                add rule ip t in tcp dport 8 reject with icmp type port-unreachable;
                add rule ip t in tcp dport 9 reject with icmp type admin-prohibited'",
        );
        world.host.script(
            "ip route add unreachable 203.0.113.87; ip route add prohibit 203.0.113.88
            ip route add throw 203.0.113.89; ip route add blackhole 203.0.113.90",
        );
        let _slirp = side.slirp().start();
        world.guest.script("echo 300 > /proc/sys/net/ipv4/neigh/tap0/retrans_time_ms");
        let _capture = world.capture();
        for (what, to, port) in [
            ("closed port of a remote", "203.0.113.10", 99),
            ("closed port of the host", "198.51.100.1", 99),
            ("closed port of the host's loopback", "10.0.2.2", 99),
            ("port of the nameserver's address that is not 53", "10.0.2.3", 99),
            ("host that never answers", "203.0.113.66", 99),
            ("host that a router knows to be unreachable", "203.0.113.77", 99),
            ("host that a router forbids", "203.0.113.78", 99),
            ("port that a firewall resets", "203.0.113.10", 7),
            ("port that a firewall calls unreachable", "203.0.113.10", 8),
            ("port that a firewall forbids", "203.0.113.10", 9),
            ("silent neighbour of the host", "198.51.100.99", 99),
            ("unreachable by the host's routes", "203.0.113.87", 99),
            ("forbidden by the host's routes", "203.0.113.88", 99),
            ("blackhole of the host's routes", "203.0.113.90", 99),
            ("nobody of the virtual network", "10.0.2.50", 99),
        ] {
            let to = SocketAddr::new(to.parse().unwrap(), port);
            seen.note(format!("connect to a {what}"), connecting(&world.guest, to));
        }
        world.host.script("ip route del default");
        let to = (FAR, 99).into();
        seen.note("connect without a route of the host", connecting(&world.guest, to));
    });
}

#[test]
fn ends() {
    run("tcp ends", |side, seen| {
        let world = &side.world;
        let _slirp = side.slirp().start();
        let _capture = world.capture();
        let listener = listen(&world.remote, FAR);
        let at = listener.local_addr().unwrap();
        let fresh = || pair(&world.guest, &listener, at);

        let (mut guest, mut remote) = fresh();
        guest.write_all(b"ask").unwrap();
        guest.shutdown(Shutdown::Write).unwrap();
        seen.note("remote, guest half-closed: data", next(&remote));
        seen.note("remote, guest half-closed: then", next(&remote));
        remote.write_all(b"answer").unwrap();
        drop(remote);
        seen.note("guest half-closed: data", next(&guest));
        seen.note("guest half-closed: then", next(&guest));

        let (mut guest, mut remote) = fresh();
        remote.write_all(b"greeting").unwrap();
        remote.shutdown(Shutdown::Write).unwrap();
        seen.note("guest, remote half-closed: data", next(&guest));
        seen.note("guest, remote half-closed: then", next(&guest));
        guest.write_all(b"late").unwrap();
        seen.note("remote half-closed: data", next(&remote));
        drop(guest);
        seen.note("remote half-closed: then", next(&remote));

        let (guest, mut remote) = fresh();
        remote.write_all(b"data").unwrap();
        seen.note("guest, remote resets: data", next(&guest));
        reset(remote);
        seen.note("guest, remote resets: then", next(&guest));

        let (mut guest, remote) = fresh();
        guest.write_all(b"data").unwrap();
        seen.note("remote, guest resets: data", next(&remote));
        reset(guest);
        seen.note("remote, guest resets: then", next(&remote));

        let (mut guest, remote) = fresh();
        guest.write_all(b"unread").unwrap();
        // The data is there: it shows without being taken.
        remote.peek(&mut [0; 6]).unwrap();
        drop(remote);
        seen.note("guest, remote closes with data unread", next(&guest));

        let (guest, mut remote) = fresh();
        remote.write_all(b"unread").unwrap();
        guest.peek(&mut [0; 6]).unwrap();
        drop(guest);
        seen.note("remote, guest closes with data unread", next(&remote));

        let (guest, mut remote) = fresh();
        drop(guest);
        seen.note("remote, guest is gone", next(&remote));
        let _ = remote.write_all(b"more");
        seen.note("remote wrote to a guest that is gone", next(&remote));
    });
}

#[test]
fn data() {
    run("tcp data", |side, seen| {
        let world = &side.world;
        let _slirp = side.slirp().start();
        let _capture = world.capture();
        let listener = listen(&world.remote, FAR);
        let at = listener.local_addr().unwrap();

        let (guest, remote) = pair(&world.guest, &listener, at);
        let bulk = std::thread::scope(|scope| {
            let up = scope.spawn(|| send_exact(&guest, 1, 4 << 20));
            let down = scope.spawn(|| send_exact(&remote, 2, 4 << 20));
            let at_guest = scope.spawn(|| receive_exact(&guest, 2, 4 << 20));
            receive_exact(&remote, 1, 4 << 20)
                .and(up.join().unwrap())
                .and(down.join().unwrap())
                .and(at_guest.join().unwrap())
        });
        seen.note("4 MiB both ways at once", bulk.map_or_else(|e| e.to_string(), |()| "ok".into()));

        let options = world.guest.script(&format!("ss -tinH dst {}", at.ip()));
        for option in ["ts", "sack", "wscale"] {
            let is_on = options.split([' ', ':']).any(|word| word == option);
            seen.note(format!("TCP option {option}"), if is_on { "agreed on" } else { "none" });
        }

        let (guest, remote) = pair(&world.guest, &listener, at);
        SockRef::from(&remote).set_out_of_band_inline(true).unwrap();
        SockRef::from(&guest).send_out_of_band(b"!").unwrap();
        seen.note("remote, guest sends urgent data", next(&remote));
        SockRef::from(&guest).set_out_of_band_inline(true).unwrap();
        SockRef::from(&remote).send_out_of_band(b"!").unwrap();
        seen.note("guest, remote sends urgent data", next(&guest));

        let (mut guest, remote) = pair(&world.guest, &listener, at);
        SockRef::from(&guest).send_out_of_band(b"!").unwrap();
        guest.write_all(b"data").unwrap();
        guest.shutdown(Shutdown::Write).unwrap();
        let mut told = Vec::new();
        (&remote).read_to_end(&mut told).unwrap();
        seen.note("remote reads without the guest's urgent byte", text(&told));

        let (_guest, remote) = pair(&world.guest, &listener, at);
        seen.note("source that a remote sees", whose(remote.peer_addr().unwrap()));
        let local = listen(&world.host, LOOPBACK);
        let port = local.local_addr().unwrap().port();
        let (_guest, host) = pair(&world.guest, &local, (GATEWAY, port).into());
        seen.note("source that the host's loopback sees", whose(host.peer_addr().unwrap()));
        let own = listen(&world.host, HOST);
        let (_guest, host) = pair(&world.guest, &own, own.local_addr().unwrap());
        seen.note("source that the host's own address sees", whose(host.peer_addr().unwrap()));
    });
}

#[test]
fn host_loopback() {
    run("loopback", |side, seen| {
        let world = &side.world;
        let _slirp = side.slirp().options(&["--disable-host-loopback"]).start();
        let _capture = world.capture();
        let _tcp = TcpServer::echo(&world.host, (LOOPBACK, 7777).into());
        let _all = TcpServer::echo(&world.host, (HOST, 7777).into());
        // What an application does that has raw sockets or may set routes.
        world.guest.script(
            "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
            ip addr del 127.0.0.1/8 dev lo; ip route flush table local dev lo 2>/dev/null || true
            ip route add 127.0.0.0/8 dev tap0 via 10.0.2.2 src 10.0.2.100",
        );
        for (what, to) in [
            ("gateway", GATEWAY),
            ("nameserver's address", NAMESERVER),
            ("127.0.0.1", LOOPBACK),
            ("127.1.2.3", Ipv4Addr::new(127, 1, 2, 3).into()),
            ("host's own address", HOST),
        ] {
            let outcome = connecting(&world.guest, (to, 7777).into());
            seen.note(format!("disabled, connect to the {what}"), outcome);
        }
    });
}
