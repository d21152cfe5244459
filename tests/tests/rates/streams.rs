//! Connections: late, but whole, and each with its part.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread;

use slirp_core::instance::{Forward, ForwardProtocol};

use super::*;

/// Connects and takes `len` bytes.
fn fetch(member: &Namespace, from: SocketAddr, len: usize) {
    receive_exact(&connect(member, from).unwrap(), 3, len).unwrap();
}

#[test]
fn both_directions_keep_to_their_rate_and_lose_nothing() {
    const LEN: usize = 1 << 20;
    const BITS: u64 = 8_000_000;
    let network = Network::new(needs!(World::root()), both(BITS));
    let (guest, _) = network.join(100, None);
    let source = source(&network.world.remote, FAR, LEN);
    in_no_less(LEN, BITS, || fetch(&guest, source.address(), LEN));
    let (done, is_done) = mpsc::channel();
    let sink = TcpServer::start(&network.world.remote, (FAR, 0).into(), move |stream| {
        let _ = done.send(receive_exact(&stream, 5, LEN));
    });
    in_no_less(LEN, BITS, || {
        let stream = connect(&guest, sink.address()).unwrap();
        send_exact(&stream, 5, LEN).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        is_done.recv_timeout(IO_LIMIT).unwrap().unwrap();
    });
    let stats = network.instance.handle().blocking().stats().unwrap();
    assert!(stats.rate_limited_micros_to_guest > 0 && stats.rate_limited_micros_from_guest > 0);
    assert_eq!((stats.rate_dropped_to_guest, stats.rate_dropped_from_guest), (0, 0));
}

#[test]
fn downloads_get_equal_parts() {
    const LEN: usize = 400_000;
    let network = Network::new(needs!(World::root()), both(8_000_000));
    let (guest, _) = network.join(100, None);
    let source = source(&network.world.remote, FAR, LEN);
    let mut streams: Vec<_> = (0..4)
        .map(|_| {
            let stream = connect(&guest, source.address()).unwrap();
            stream.set_nonblocking(true).unwrap();
            (stream, 0)
        })
        .collect();
    let mut buffer = vec![0; 16 * 1024];
    // One reader for all, so that the machine's scheduling does not decide.
    wait_until(IO_LIMIT, "one of them has everything", || {
        for (stream, received) in &mut streams {
            *received += stream.read(&mut buffer).unwrap_or(0);
        }
        streams.iter().any(|(_, received)| *received == LEN)
    });
    let parts: Vec<_> = streams.iter().map(|(_, received)| *received).collect();
    assert!(parts.iter().all(|&part| part > LEN / 2), "{parts:?}");
}

#[test]
fn login_goes_on_beside_a_download() {
    const LEN: usize = 1 << 20;
    let network = Network::new(needs!(World::root()), both(2_000_000));
    let (guest, _) = network.join(100, None);
    let source = source(&network.world.remote, FAR, LEN);
    let echo = TcpServer::echo(&network.world.remote, (FAR, 0).into());
    let mut login = connect(&guest, echo.address()).unwrap();
    login.set_nodelay(true).unwrap();
    let download = connect(&guest, source.address()).unwrap();
    let download = thread::spawn(move || receive_exact(&download, 3, LEN).unwrap());
    for key in 0..20u8 {
        login.write_all(&[key; 36]).unwrap();
        login.read_exact(&mut [0; 36]).unwrap();
    }
    assert!(!download.is_finished(), "four seconds for one, some milliseconds for the other");
    download.join().unwrap();
}

#[test]
fn member_has_its_own_limits_or_those_of_the_network() {
    const LEN: usize = 512 * 1024;
    let network = Network::new(needs!(World::root()), both(1_000_000));
    let (slow, _) = network.join(100, None);
    let (free, id) = network.join(101, Some(Rates::default()));
    let source = source(&network.world.remote, FAR, LEN);
    let address = source.address();
    let stream = connect(&slow, address).unwrap();
    let held = thread::spawn(move || receive_exact(&stream, 3, LEN).unwrap());
    fetch(&free, address, LEN);
    assert!(!held.is_finished(), "it waits for nearly four seconds");
    // Now the other way round.
    let handle = network.instance.handle();
    assert!(handle.blocking().set_rates(None, Rates::default()));
    held.join().unwrap();
    assert!(handle.blocking().set_rates(Some(id), both(4_000_000)));
    assert_eq!(handle.blocking().rates(Some(id)), Some(both(4_000_000)));
    assert_eq!(handle.blocking().rates(None), Some(Rates::default()));
    in_no_less(LEN, 4_000_000, || fetch(&free, address, LEN));
    fetch(&slow, address, LEN);
    let unknown = Some(MemberId(77));
    assert!(!handle.blocking().set_rates(unknown, both(1)));
    assert_eq!(handle.blocking().rates(unknown), None);
}

#[test]
fn limit_that_is_lifted_frees_what_waits() {
    const LEN: usize = 4 << 20;
    // Nine minutes for all.
    let network = Network::new(needs!(World::root()), both(64_000));
    let (guest, _) = network.join(100, None);
    let source = source(&network.world.remote, FAR, LEN);
    let mut stream = connect(&guest, source.address()).unwrap();
    let mut received = vec![0; 32 * 1024];
    stream.read_exact(&mut received).unwrap();
    assert!(network.instance.handle().blocking().set_rates(None, Rates::default()));
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(received.len() + rest.len(), LEN);
}

#[test]
fn published_port_is_limited_too() {
    const LEN: usize = 512 * 1024;
    const BITS: u64 = 4_000_000;
    let network = Network::new(needs!(World::root()), both(BITS));
    let (guest, _) = network.join(100, None);
    let inside = IpAddr::from(Ipv4Addr::new(10, 0, 2, 100));
    let source = source(&guest, inside, LEN);
    let forward = Forward::everywhere(ForwardProtocol::Tcp, 8080, source.address());
    network.instance.handle().blocking().add_forward(forward).unwrap();
    let client = || -> TcpStream { connect(&network.world.remote, (HOST, 8080).into()).unwrap() };
    in_no_less(LEN, BITS, || receive_exact(&client(), 3, LEN).unwrap());
}
