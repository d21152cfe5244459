//! Resets: with data still on its way, and from ends that have vanished.

use std::net::Ipv4Addr;

use nix::sys::signal::Signal;
use socket2::TcpKeepalive;

use super::*;

/// `answering` sends its last bytes and then a reset; `asking` must receive the bytes first.
fn assert_last_word_arrives(slirp: &Slirp, mut asking: TcpStream, mut answering: TcpStream) {
    asking.write_all(b"the start of a request").unwrap();
    let mut start = [0; 1];
    assert_eq!(answering.peek(&mut start).unwrap(), 1);
    // All that follows is there at once when the network looks again.
    slirp.signal(Signal::SIGSTOP);
    answering.write_all(b"413").unwrap();
    // Closed with something unread: the kernel sends a reset behind the answer.
    drop(answering);
    asking.write_all(b"the rest of it").unwrap();
    slirp.signal(Signal::SIGCONT);
    let mut answer = [0; 3];
    asking.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"413");
    let error = asking.read(&mut start).expect_err("a reset is no end of stream");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn last_word_of_a_remote_reaches_the_guest_before_the_reset() {
    let world = needs!(World::root());
    let slirp = world.slirp().start();
    let _capture = world.capture();
    let (guest, remote) = pair(&world);
    assert_last_word_arrives(&slirp, guest, remote);
}

#[test]
fn last_word_of_the_guest_reaches_the_remote_before_the_reset() {
    let world = needs!(World::root());
    let slirp = world.slirp().start();
    let _capture = world.capture();
    let (guest, remote) = pair(&world);
    assert_last_word_arrives(&slirp, remote, guest);
}

#[test]
fn last_words_reach_both_ends_of_a_published_port() {
    let world = needs!(World::root());
    let slirp = world.slirp().options(&["--publish=8080:80"]).start();
    let _capture = world.capture();
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let listener = world.guest.enter(|| TcpListener::bind((any, 80))).unwrap();
    for is_guest_asking in [true, false] {
        let client = connect(&world.remote, (HOST, 8080).into()).unwrap();
        let served = accept(&listener);
        let (asking, answering) = if is_guest_asking { (served, client) } else { (client, served) };
        assert_last_word_arrives(&slirp, asking, answering);
    }
}

#[test]
fn word_of_a_client_that_resets_before_the_guest_answers_reaches_the_guest() {
    let world = needs!(World::root()).online(&["--publish=8080:80"]);
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let listener = world.guest.enter(|| TcpListener::bind((any, 80))).unwrap();
    SockRef::from(&listener).set_read_timeout(Some(IO_LIMIT)).unwrap();
    world.slirp.signal(Signal::SIGSTOP);
    let mut client = connect(&world.remote, (HOST, 8080).into()).unwrap();
    client.write_all(b"word").unwrap();
    let port = client.local_addr().unwrap().port();
    reset(client);
    world.remote.wait_for_free_port(port);
    world.slirp.signal(Signal::SIGCONT);
    let mut served = accept(&listener);
    let mut word = [0; 4];
    served.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"word");
    let error = served.read(&mut word).expect_err("a reset is no end of stream");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn guest_that_probes_hears_of_remotes_that_vanished() {
    let world = needs!(World::root()).online(&["--publish=8080:80"]);
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let listener = world.guest.enter(|| TcpListener::bind((any, 80))).unwrap();
    let _client = connect(&world.remote, (HOST, 8080).into()).unwrap();
    let served = accept(&listener);
    let (guest, _remote) = pair(&world);
    let second = Duration::from_secs(1);
    for stream in [&served, &guest] {
        let probes = TcpKeepalive::new().with_time(second).with_interval(second);
        SockRef::from(stream).set_tcp_keepalive(&probes).unwrap();
    }
    world.remote.script("ip link set r0 down");
    for mut stream in [served, guest] {
        let error = stream.read(&mut [0]).expect_err("a remote that vanished is no end of stream");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}
