//! Servers of the test itself, living in a namespace until dropped.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::namespace::Namespace;
use crate::tcp::bounded;

/// How often a server looks whether its test is over.
const TICK: Duration = Duration::from_millis(20);

/// A TCP server: one thread per connection runs the test's closure.
#[derive(Debug)]
pub struct TcpServer {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TcpServer {
    /// Listens on `at` (port 0 = any) inside `namespace` and serves every connection with `serve`.
    ///
    /// # Panics
    /// When the address is not there.
    pub fn start(
        namespace: &Namespace,
        at: SocketAddr,
        serve: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> Self {
        let listener =
            namespace.enter(|| TcpListener::bind(at)).expect("the namespace has this address");
        let address = listener.local_addr().expect("a listener has an address");
        listener.set_nonblocking(true).expect("an open socket can be non-blocking");
        let over = Arc::new(AtomicBool::new(false));
        let over_too = Arc::clone(&over);
        let serve = Arc::new(serve);
        let thread = std::thread::spawn(move || {
            while !over_too.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        stream.set_nonblocking(false).expect("an open socket can be blocking");
                        let serve = Arc::clone(&serve);
                        std::thread::spawn(move || serve(bounded(stream)));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        Self { address, over, thread: Some(thread) }
    }

    /// A server that sends everything back and closes when its client does.
    pub fn echo(namespace: &Namespace, at: SocketAddr) -> Self {
        Self::start(namespace, at, |stream| {
            let mut reader = &stream;
            let mut writer = &stream;
            // A client that resets or leaves ends this connection and nothing else.
            let _ = std::io::copy(&mut reader, &mut writer);
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for TcpServer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic would have been printed already.
            let _ = thread.join();
        }
    }
}

/// A UDP server: a closure answers every datagram.
#[derive(Debug)]
pub struct UdpServer {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl UdpServer {
    /// Receives on `at` inside `namespace`; `answer` gets the socket, the datagram and its source.
    ///
    /// # Panics
    /// When the address is not there.
    pub fn start(
        namespace: &Namespace,
        at: SocketAddr,
        answer: impl Fn(&UdpSocket, &[u8], SocketAddr) + Send + 'static,
    ) -> Self {
        let socket =
            namespace.enter(|| UdpSocket::bind(at)).expect("the namespace has this address");
        let address = socket.local_addr().expect("a socket has an address");
        socket.set_read_timeout(Some(TICK)).expect("an open socket takes a timeout");
        let over = Arc::new(AtomicBool::new(false));
        let over_too = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            while !over_too.load(Ordering::Relaxed) {
                if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                    answer(&socket, &buffer[..len], from);
                }
            }
        });
        Self { address, over, thread: Some(thread) }
    }

    /// A server that sends every datagram back to its source.
    pub fn echo(namespace: &Namespace, at: SocketAddr) -> Self {
        Self::start(namespace, at, |socket, datagram, from| {
            // A source that has gone away is the client's business.
            let _ = socket.send_to(datagram, from);
        })
    }

    /// Where it receives.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for UdpServer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic would have been printed already.
            let _ = thread.join();
        }
    }
}
