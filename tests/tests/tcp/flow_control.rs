//! Flow control: a sender stops when its reader is slow, and no byte is lost.

use std::net::Shutdown;

use super::*;

/// Keeps the kernel's own buffers of new TCP sockets at 1 MiB each, so that what is in flight says
/// how much we hold. By default a receive buffer may grow to 32 MiB (tcp(7), `tcp_rmem`), even
/// without a reader: frames out of order are enough.
fn bound_kernel_buffers(world: &World) {
    for namespace in [&world.guest, &world.host, &world.remote] {
        namespace.script(
            "echo 4096 131072 1048576 >/proc/sys/net/ipv4/tcp_rmem
             echo 4096 16384 1048576 >/proc/sys/net/ipv4/tcp_wmem",
        );
    }
}

/// The most that [`bound_kernel_buffers`] and we may hold of one stream: four buffers of the
/// kernel's, a ring of 2 MiB, and 2 MiB more for what a socket takes beyond its limit.
const IN_FLIGHT_MAX: usize = 8 << 20;

#[test]
fn slow_reader_stalls_the_sender_and_loses_nothing() {
    const LEN: usize = 16 << 20;
    let world = needs!(World::root());
    bound_kernel_buffers(&world);
    let _slirp = world.slirp().start();
    for guest_sends in [true, false] {
        let (guest, remote) = pair(&world);
        let (sender, receiver) = if guest_sends { (guest, remote) } else { (remote, guest) };
        // The stall is seen, not timed: nothing more is taken for a while.
        sender.set_write_timeout(Some(Duration::from_millis(700))).unwrap();
        let mut sent = 0;
        let mut chunk = vec![0; 65536];
        let stalled = loop {
            let len = chunk.len().min(LEN - sent);
            send_exact(&mut chunk[..len], 77 + sent, len).unwrap();
            match (&sender).write(&chunk[..len]) {
                Ok(count) => sent += count,
                Err(error) => break error,
            }
            assert!(
                sent <= IN_FLIGHT_MAX,
                "{sent} bytes vanished into buffers: nothing pushes back"
            );
        };
        assert_eq!(stalled.kind(), std::io::ErrorKind::WouldBlock);
        sender.set_write_timeout(Some(IO_LIMIT)).unwrap();
        std::thread::scope(|scope| {
            let rest = scope.spawn(|| send_exact(&sender, 77 + sent, LEN - sent));
            receive_exact(&receiver, 77, LEN).unwrap();
            rest.join().unwrap().unwrap();
        });
    }
}

#[test]
fn bytes_before_the_guests_end_survive_a_slow_remote_that_ended_first() {
    let world = needs!(World::root());
    bound_kernel_buffers(&world);
    let slirp = world.slirp().start();
    let (guest, remote) = pair(&world);
    remote.shutdown(Shutdown::Write).unwrap();
    assert_eq!((&guest).read(&mut [0; 1]).unwrap(), 0);
    guest.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut sent = 0;
    let mut chunk = vec![0; 65536];
    loop {
        send_exact(&mut chunk[..], 9 + sent, 65536).unwrap();
        match (&guest).write(&chunk) {
            Ok(count) => sent += count,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                break;
            }
        }
        assert!(sent <= IN_FLIGHT_MAX, "{sent} bytes vanished into buffers: nothing pushes back");
    }
    drop(guest);
    // Longer than any TIME-WAIT of ours; the process has nothing to do meanwhile.
    let spent = slirp.facts().cpu_time_during(Duration::from_secs(3));
    assert!(spent < Duration::from_millis(100), "it spins while the remote is slow: {spent:?}");
    receive_exact(&remote, 9, sent).unwrap();
    assert_eq!((&remote).read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn tiny_receive_window_of_the_guest_is_respected() {
    let world = needs!(World::root());
    let _slirp = world.slirp().start();
    let listener = listen(&world.remote, FAR);
    let to = listener.local_addr().unwrap();
    let guest = world.guest.enter(|| {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect_timeout(&to.into(), IO_LIMIT).unwrap();
        bounded(TcpStream::from(socket))
    });
    let remote = accept(&listener);
    let sent = std::thread::spawn(move || send_exact(&remote, 9, 1_000_000));
    receive_exact(&guest, 9, 1_000_000).unwrap();
    sent.join().unwrap().unwrap();
}
