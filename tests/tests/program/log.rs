//! What the log says of flows, names and discards.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, UdpSocket};

use nix::sys::signal::Signal;
use slirp_tests::*;

const STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));

/// Waits for a line of the log that has all of `parts`.
fn line(slirp: &Slirp, parts: &[&str]) -> String {
    let mut found = None;
    wait_until(PATIENCE, &format!("a line with {parts:?}"), || {
        let text = slirp.stderr();
        found = text
            .lines()
            .find(|line| parts.iter().all(|part| line.contains(part)))
            .map(str::to_owned);
        found.is_some()
    });
    found.unwrap()
}

/// A connection of the guest, a refused one, one that policy refuses, a datagram, a question and a
/// forwarded connection. Returns the guest's ends of the first and of the datagram, the server of
/// the first, and the client of the last.
fn talk(world: &World, api: &Api) -> [SocketAddr; 4] {
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    let mut stream = connect(&world.guest, server.address()).unwrap();
    let guest = SocketAddr::new(GUEST, stream.local_addr().unwrap().port());
    stream.write_all(b"seven b").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    assert_eq!(back, b"seven b");

    connect(&world.guest, (FAR, 1).into()).unwrap_err();
    connect(&world.guest, (GATEWAY, 7).into()).unwrap_err();

    let far = UdpServer::echo(&world.remote, (FAR, 0).into());
    let socket = world.guest.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(b"text", far.address()).unwrap();
    assert_eq!(socket.recv(&mut [0; 16]).unwrap(), 4);
    let sender = SocketAddr::new(GUEST, socket.local_addr().unwrap().port());

    let _dns = Dnsmasq::start(&world.host, STUB, &[]);
    world.guest.exec(&["dig", "@10.0.2.3", "+tries=1", "+time=50", "www.example.test"]);

    let listener = world.guest.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80))).unwrap();
    api.forward("{\"proto\":\"tcp\",\"host_port\":8080,\"guest_port\":80}");
    let mut client = connect(&world.remote, (HOST, 8080).into()).unwrap();
    let from = client.local_addr().unwrap();
    let mut accepted = bounded(listener.accept().unwrap().0);
    accepted.write_all(b"hello").unwrap();
    drop(accepted);
    client.read_to_end(&mut Vec::new()).unwrap();
    [guest, sender, server.address(), from]
}

#[test]
fn every_flow_and_name_is_in_the_log_at_debug() {
    let world = needs!(World::root());
    let api = Api::new(&world);
    let options = ["--log-level=debug", "--disable-host-loopback"];
    let slirp = world.slirp().options(&[&api.option()]).options(&options).start();
    let [guest, sender, server, client] = talk(&world, &api);
    let ends = format!("guest={guest} remote={server}");
    for parts in [
        &["DEBUG", "flow opened", "protocol=\"tcp\"", &ends, &format!("to={server}")][..],
        &["DEBUG", "flow connected", &ends, "after="],
        &["flow closed", &ends, "reason=\"orderly\"", "age=", "to_guest=7 to_host=7"],
        &["flow refused", "remote=203.0.113.10:1 ", "by=\"host\"", "reason=\"refused\""],
        &["flow refused", "remote=10.0.2.2:7 ", "by=\"policy\"", "destination_not_allowed"],
        &["flow opened", "protocol=\"udp\"", &format!("guest={sender} remote=203.0.113.10:")],
        &["name asked", "guest=10.0.2.100:", "name=\"www.example.test\" kind=1"],
        &["name answered", "name=\"www.example.test\"", "code=0 records=1", "after="],
        &["inbound flow opened", "guest=10.0.2.100:80", &format!("client={client}"), "rule="],
        &["flow closed", &format!("guest=10.0.2.100:80 remote={client}"), "to_guest=0 to_host=5"],
    ] {
        let line = line(&slirp, parts);
        // The flow's number ties its lines together.
        assert!(!line.contains("flow ") || line.contains("flow=") || line.contains("refused"));
    }
    assert!(!slirp.stderr().contains("seven b"), "payload is never logged");
}

#[test]
fn discards_are_in_the_log_at_trace_with_their_protocol_and_ends() {
    let world = needs!(World::root());
    let slirp = world.slirp().options(&["--log-level=trace", "--disable-host-loopback"]).start();
    let socket = world.guest.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
    socket.send_to(b"text", (GATEWAY, 9)).unwrap();
    let source = SocketAddr::new(GUEST, socket.local_addr().unwrap().port());
    let ends = format!("protocol=UDP source={source} destination=10.0.2.2:9");
    line(&slirp, &["TRACE", "discard", "reason=\"destination_not_allowed\"", &ends]);
}

#[test]
fn flows_and_names_are_not_in_the_log_at_info_or_without_a_level() {
    for options in [&["--disable-host-loopback"][..], &["--log-level=info"]] {
        let world = needs!(World::root());
        let api = Api::new(&world);
        let slirp = world
            .slirp()
            .behind(&["env", "-u", "SLIRP_LOG"])
            .options(&[&api.option()])
            .options(options)
            .start();
        talk(&world, &api);
        slirp.signal(Signal::SIGTERM);
        let text = slirp.wait().stderr;
        for word in ["flow ", "name asked", "example.test", "203.0.113.10", "discard"] {
            assert!(!text.contains(word), "{word} in {text}");
        }
    }
}
