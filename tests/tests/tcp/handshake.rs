//! How connections are opened, as both ends see it.

use super::*;

#[test]
fn connect_is_not_answered_before_the_host_has_an_answer() {
    let world = needs!(World::root());
    world.remote.script("ip route add blackhole 192.0.2.0/24");
    let world = world.online(&[]);
    let error = world
        .guest
        .enter(|| {
            let to = SocketAddr::from(([192, 0, 2, 1], 80));
            TcpStream::connect_timeout(&to, Duration::from_millis(1500))
        })
        .expect_err("nobody answers");
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{error}");
}

#[test]
fn new_connection_on_a_reset_tuple_works() {
    let world = needs!(World::root()).online(&[]);
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    for round in 0_u8..5 {
        let mut stream = connect_from(&world.guest, 40000, server.address()).unwrap();
        stream.write_all(&[round]).unwrap();
        let mut back = [0];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, [round]);
        reset(stream);
        world.guest.wait_for_free_port(40000);
    }
}

#[test]
fn new_connection_on_a_tuple_that_the_remote_closed_works() {
    let world = needs!(World::root()).online(&[]);
    let listener = listen(&world.remote, FAR);
    for _ in 0..3 {
        let mut guest = connect_from(&world.guest, 40001, listener.local_addr().unwrap()).unwrap();
        // The remote closes first, so that TIME-WAIT is not the guest's.
        accept(&listener).write_all(b"bye").unwrap();
        let mut text = String::new();
        guest.read_to_string(&mut text).unwrap();
        assert_eq!(text, "bye");
        drop(guest);
        // A TIME-WAIT of the guest's would last 60 s.
        wait_until(Duration::from_secs(20), "the guest's socket is gone", || {
            world.guest.script("ss -tanH sport = 40001").trim().is_empty()
        });
    }
}

#[test]
fn new_syn_of_a_guest_that_forgot_its_connection_works() {
    let world = needs!(World::root()).online(&[]);
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    // The first connection is made and forgotten without a word on the wire: the tap drops the
    // reset.
    let stream = connect_from(&world.guest, 40002, server.address()).unwrap();
    world.guest.script(
        "nft add table t; nft add chain t o '{ type filter hook output priority 0; }'
        nft add rule t o tcp sport 40002 drop",
    );
    reset(stream);
    world.guest.wait_for_free_port(40002);
    world.guest.script("nft delete table t");
    let mut again = connect_from(&world.guest, 40002, server.address()).unwrap();
    again.write_all(b"again").unwrap();
    let mut back = [0; 5];
    again.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"again");
}

#[test]
fn window_scaling_is_negotiated() {
    let world = needs!(World::root()).online(&[]);
    let (_guest, _remote) = pair(&world);
    let filter = "tcp[tcpflags] & (tcp-syn|tcp-ack) == (tcp-syn|tcp-ack)";
    wait_until(PATIENCE, "the SYN|ACK is recorded", || !world.capture.packets(filter).is_empty());
    let syn_ack = &world.capture.packets(filter)[0];
    assert!(syn_ack.contains("wscale"), "{syn_ack}");
}

/// The guest's segments of the connection from `port`, as they reach the remote.
fn segments_from(capture: &Capture, port: u16) -> Vec<String> {
    capture.packets(&format!("tcp and src host {HOST} and src port {port}"))
}

#[test]
fn request_that_follows_at_once_carries_the_acknowledgement_of_the_handshake() {
    let world = needs!(World::root());
    let _slirp = world.slirp().start();
    let capture = Capture::start(&world.remote, "r0");
    let listener = listen(&world.remote, FAR);
    let at = listener.local_addr().unwrap();
    let is_carried = |_| {
        let mut guest = connect(&world.guest, at).expect("it connects");
        guest.write_all(b"request").unwrap();
        let mut remote = accept(&listener);
        let mut request = [0; 7];
        remote.read_exact(&mut request).unwrap();
        assert_eq!(&request, b"request");
        let port = remote.peer_addr().unwrap().port();
        wait_until(PATIENCE, "the request is recorded", || {
            segments_from(&capture, port).len() >= 2
        });
        let second = segments_from(&capture, port).swap_remove(1);
        second.contains("Flags [P.]") && second.contains("length 7")
    };
    assert!(!is_carried(0), "at first nobody knows that the guest will speak first");
    // A guest that comes late, as on a loaded machine, is not taken for an eager one.
    assert!((1..50).any(is_carried), "each request came after an acknowledgement of its own");
}

#[test]
fn server_that_speaks_first_is_heard_although_the_guest_spoke_first_before() {
    let world = needs!(World::root());
    let _slirp = world.slirp().start();
    let listener = listen(&world.remote, FAR);
    let at = listener.local_addr().unwrap();
    for _ in 0..3 {
        let mut guest = connect(&world.guest, at).expect("it connects");
        guest.write_all(b"request").unwrap();
        accept(&listener).read_exact(&mut [0; 7]).unwrap();
    }
    let mut guest = connect(&world.guest, at).expect("it connects");
    accept(&listener).write_all(b"greeting").unwrap();
    let mut greeting = [0; 8];
    guest.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"greeting");
}
