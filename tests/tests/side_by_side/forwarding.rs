//! Ports of the host that lead to the guest.

use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use socket2::SockRef;

use super::*;

const HOST_2: &str = "198.51.100.77";

fn start(side: &Side, options: &[&str]) -> (Slirp, Api) {
    let api = Api::new(&side.world);
    let slirp = side.slirp().options(&[&api.option()]).options(options).start();
    (slirp, api)
}

fn rule(proto: &str, host_port: u16, guest_port: u16) -> String {
    format!("{{\"proto\":\"{proto}\",\"host_port\":{host_port},\"guest_port\":{guest_port}}}")
}

/// Connects and says what the client learns next.
fn client(namespace: &Namespace, to: SocketAddr) -> String {
    match connect_patiently(namespace, to) {
        // A reset may come before or after the client has looked whether it is connected.
        Ok(stream) => next(&stream),
        Err(error) => errno(&error),
    }
}

#[test]
fn connections() {
    run("forwarded tcp", |side, seen| {
        let world = &side.world;
        let (_slirp, api) = start(side, &["--disable-host-loopback"]);
        let _capture = world.capture();
        let listener = listen(&world.guest, ANY);
        let guest_port = listener.local_addr().unwrap().port();
        let id = api.forward(&rule("tcp", 8080, guest_port));
        let at: SocketAddr = (HOST, 8080).into();

        for (what, namespace, to) in [
            ("remote", &world.remote, HOST),
            ("host's loopback", &world.host, LOOPBACK),
            ("host's own address", &world.host, HOST),
        ] {
            let (client, guest) = pair(namespace, &listener, (to, 8080).into());
            let from = guest.peer_addr().unwrap();
            let port = from.port() == client.local_addr().unwrap().port();
            seen.note(format!("client of the {what}: address"), whose(from));
            seen.note(format!("client of the {what}: its own port"), port);
        }

        let (mut client, mut guest) = pair(&world.remote, &listener, at);
        client.write_all(b"ask").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        seen.note("guest, client half-closed: data", next(&guest));
        seen.note("guest, client half-closed: then", next(&guest));
        guest.write_all(b"answer").unwrap();
        drop(guest);
        seen.note("client half-closed: data", next(&client));
        seen.note("client half-closed: then", next(&client));

        let (client, mut guest) = pair(&world.remote, &listener, at);
        guest.write_all(b"data").unwrap();
        seen.note("client, guest resets: data", next(&client));
        SockRef::from(&guest).set_linger(Some(Duration::ZERO)).unwrap();
        drop(guest);
        seen.note("client, guest resets: then", next(&client));

        let (mut client, guest) = pair(&world.remote, &listener, at);
        client.write_all(b"data").unwrap();
        seen.note("guest, client resets: data", next(&guest));
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        seen.note("guest, client resets: then", next(&guest));

        let (mut old, old_guest) = pair(&world.remote, &listener, at);
        api.ask(&format!("{{\"execute\":\"remove_hostfwd\",\"arguments\":{{\"id\":{id}}}}}"));
        old.write_all(b"still").unwrap();
        seen.note("rule removed: old connection", next(&old_guest));
        seen.note("rule removed: new connection", connecting(&world.remote, at));
    });
}

#[test]
fn guests_that_do_not_answer() {
    run("forwarded refusal", |side, seen| {
        let world = &side.world;
        let (_slirp, api) = start(side, &[]);
        let _capture = world.capture();
        api.forward(&rule("tcp", 8081, 99));
        seen.note("closed port of the guest", client(&world.remote, (HOST, 8081).into()));
        api.forward(&rule("udp", 8081, 99));
        let socket = udp(&world.remote, (REMOTE, 0));
        socket.connect((HOST, 8081)).unwrap();
        socket.send(b"anybody?").unwrap();
        seen.note("closed UDP port of the guest", datagram(&socket));
        api.forward(
            "{\"proto\":\"tcp\",\"host_port\":8082,\"guest_addr\":\"10.0.2.50\",\"guest_port\":80}",
        );
        seen.note("guest address that nobody has", client(&world.remote, (HOST, 8082).into()));
    });
}

#[test]
fn datagrams() {
    run("forwarded udp", |side, seen| {
        let world = &side.world;
        world.host.script(&format!("ip addr add {HOST_2}/24 dev h0"));
        let (_slirp, api) = start(side, &["--disable-host-loopback"]);
        let _capture = world.capture();
        let server = udp(&world.guest, (ANY, 0));
        api.forward(&rule("udp", 5353, server.local_addr().unwrap().port()));
        for (what, namespace, at, from) in [
            ("remote", &world.remote, HOST, REMOTE),
            ("remote of the host's second address", &world.remote, HOST_2.parse().unwrap(), REMOTE),
            ("host's loopback", &world.host, LOOPBACK, LOOPBACK),
        ] {
            let client = udp(namespace, (from, 0));
            client.send_to(b"ask", (at, 5353)).unwrap();
            let mut buffer = [0; 16];
            let Ok((_, source)) = server.recv_from(&mut buffer) else {
                for fact in ["address", "its own port", "answer"] {
                    seen.note(format!("client of the {what}: {fact}"), "none");
                }
                continue;
            };
            let port = source.port() == client.local_addr().unwrap().port();
            seen.note(format!("client of the {what}: address"), whose(source));
            seen.note(format!("client of the {what}: its own port"), port);
            let _ = server.send_to(b"answer", source);
            let answer = match client.recv_from(&mut buffer) {
                Ok((_, from)) => format!("from {}", from.ip()),
                Err(error) => errno(&error),
            };
            seen.note(format!("client of the {what}: answer"), answer);
        }
        let client = udp(&world.remote, (REMOTE, 0));
        let mut large = vec![0; 20_000];
        send_exact(&mut large[..], 1, 20_000).unwrap();
        client.send_to(&large, (HOST, 5353)).unwrap();
        seen.note("datagram of 20000 bytes", datagram(&server));
    });
}
