//! Datagrams: some wait, the rest is dropped and counted.

use std::net::UdpSocket;
use std::sync::{Arc, Mutex};

use slirp_core::discard::DiscardReason;

use super::*;

#[test]
fn datagrams_leave_in_order_or_are_counted() {
    const COUNT: usize = 100;
    let slow = Some(Rate { bits_per_second: 64_000, burst: Some(5_000) });
    let network = Network::new(needs!(World::root()), Rates::new(None, slow));
    let (guest, _) = network.join(100, None);
    let arrived = Arc::new(Mutex::new(Vec::new()));
    let numbers = Arc::clone(&arrived);
    let server = UdpServer::start(&network.world.remote, (FAR, 0).into(), move |_, text, _| {
        numbers.lock().unwrap().push(text[0]);
    });
    let socket = guest.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
    socket.connect(server.address()).unwrap();
    // The guest's kernel holds no hundred datagrams while it looks for the gateway.
    socket.send(&[0]).unwrap();
    wait_until(PATIENCE, "the first is there", || arrived.lock().unwrap().len() == 1);
    for number in 1..u8::try_from(COUNT).unwrap() {
        socket.send(&[number; 972]).unwrap();
    }
    let handle = network.instance.handle();
    wait_until(PATIENCE, "each is sent or counted", || {
        let dropped = handle.blocking().stats().unwrap().rate_dropped_from_guest;
        usize::try_from(dropped).unwrap() + arrived.lock().unwrap().len() == COUNT
    });
    let arrived = arrived.lock().unwrap();
    assert!(arrived.len() >= 5, "the burst");
    assert!(arrived.len() < COUNT, "a tenth of them in a second");
    assert!(arrived.is_sorted(), "{arrived:?}");
    let stats = handle.blocking().stats().unwrap();
    assert_eq!(stats.discards.value(DiscardReason::RateExceeded), stats.rate_dropped_from_guest);
    assert_eq!(stats.rate_dropped_to_guest, 0);
}

#[test]
fn answers_are_limited_as_well() {
    const COUNT: u64 = 50;
    let slow = Some(Rate { bits_per_second: 64_000, burst: Some(5_000) });
    let network = Network::new(needs!(World::root()), Rates::new(slow, None));
    let (guest, _) = network.join(100, None);
    // As many answers to one question.
    let server = UdpServer::start(&network.world.remote, (FAR, 0).into(), |socket, text, from| {
        for _ in 0..COUNT {
            let _ = socket.send_to(&[text[0]; 972], from);
        }
    });
    let socket = guest.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
    socket.connect(server.address()).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    socket.send(&[7]).unwrap();
    let handle = network.instance.handle();
    let mut received = 0;
    wait_until(PATIENCE, "each arrives or is counted", || {
        while socket.recv(&mut [0; 2000]).is_ok() {
            received += 1;
        }
        handle.blocking().stats().unwrap().rate_dropped_to_guest + received == COUNT
    });
    assert!((5..COUNT).contains(&received), "{received}");
}
