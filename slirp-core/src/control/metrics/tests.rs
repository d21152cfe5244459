//! What collectors get for what they ask.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tokio::net::{TcpStream, UnixStream};

use super::*;
use crate::host::link::FrameSocket;
use crate::instance::{Builder, Instance};

const PROMETHEUS_3: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";

fn path() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("slirp-metrics-{}-{number}", std::process::id()))
}

/// An instance that serves metrics, and its guest's end of the link.
fn instance(socket: MetricsSocket) -> (Instance, OwnedFd) {
    let (ours, guest) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let builder = Builder::new(FrameSocket::adopt(ours).unwrap());
    (builder.metrics(socket).spawn().unwrap(), guest)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Everything that the server says to `request`.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) -> String {
    stream.write_all(request).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    reply
}

#[test]
fn dialect_follows_what_a_collector_accepts() {
    let of = |accept: &str| parse(format!("GET /metrics HTTP/1.1\r\n{accept}\r\n\r\n").as_bytes());
    assert_eq!(of("Host: a"), Ok(Dialect::OpenMetrics));
    assert_eq!(of(&format!("Accept: {PROMETHEUS_3}")), Ok(Dialect::OpenMetrics));
    assert_eq!(of("accept: text/plain;version=0.0.4;q=1,*/*;q=0.1"), Ok(Dialect::Prometheus));
    assert_eq!(of("Accept: */*"), Ok(Dialect::OpenMetrics));
    assert_eq!(of("X-Accept: text/plain"), Ok(Dialect::OpenMetrics));
}

#[test]
fn other_requests_are_refused() {
    for (request, refused) in [
        ("GET / HTTP/1.1", Refused::NotFound),
        ("GET /metrics/ HTTP/1.1", Refused::NotFound),
        ("GET http://127.0.0.1/metrics HTTP/1.1", Refused::NotFound),
        ("POST /metrics HTTP/1.1", Refused::Method),
        ("HEAD /metrics HTTP/1.0", Refused::Method),
        ("get /metrics HTTP/1.1", Refused::Method),
        ("GET /metrics", Refused::Malformed),
        ("GET  /metrics HTTP/1.1", Refused::Malformed),
        (" /metrics HTTP/1.1", Refused::Malformed),
        ("GET /metrics HTTP/2.0", Refused::Malformed),
        ("GET /metrics FTP/1.1", Refused::Malformed),
        ("", Refused::Malformed),
    ] {
        assert_eq!(parse(format!("{request}\r\n\r\n").as_bytes()), Err(refused), "{request:?}");
    }
    assert_eq!(parse(b"GET /metrics HTTP/1.1\r\nA: \xff\r\n\r\n"), Err(Refused::Malformed));
    assert!(parse(b"GET /metrics?debug=1 HTTP/1.0\n\n").is_ok());
}

#[test]
fn unix_socket_serves_a_page_for_each_connection_and_its_file_goes() {
    let path = path();
    let (instance, _guest) = instance(MetricsSocket::bind(&path).unwrap());
    block_on(async {
        for request in ["GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", "GET /metrics HTTP/1.0\n\n"] {
            let reply = ask(UnixStream::connect(&path).await.unwrap(), request.as_bytes()).await;
            let (head, body) = reply.split_once("\r\n\r\n").unwrap();
            assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
            assert!(head.contains(Dialect::OpenMetrics.content_type()), "{head}");
            assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
            assert!(body.ends_with("# EOF\n") && body.contains("slirp_frames_total"), "{body}");
        }
        let plain = b"GET /metrics HTTP/1.1\r\nAccept: text/plain\r\n\r\n";
        let reply = ask(UnixStream::connect(&path).await.unwrap(), plain).await;
        assert!(reply.contains(Dialect::Prometheus.content_type()), "{reply}");
        assert!(reply.contains("# TYPE slirp_frames_total counter\n"), "{reply}");
        let reply = ask(UnixStream::connect(&path).await.unwrap(), b"GET / HTTP/1.1\r\n\r\n").await;
        assert!(reply.starts_with("HTTP/1.0 404 "), "{reply}");
        let post = b"POST /metrics HTTP/1.1\r\nContent-Length: 9\r\n\r\nsomething";
        let reply = ask(UnixStream::connect(&path).await.unwrap(), post).await;
        assert!(reply.starts_with("HTTP/1.0 405 ") && reply.contains("\r\nAllow: GET\r\n"));
    });
    drop(instance);
    assert!(!path.exists(), "the file goes with the instance");
}

#[test]
fn endless_heads_and_idle_connections_do_not_stop_others() {
    let socket = MetricsSocket::bind_tcp((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = socket.tcp_address().unwrap();
    let (_instance, _guest) = instance(socket);
    block_on(async {
        let endless = [&b"GET /metrics HTTP/1.1\r\nA: "[..], &[b'a'; HEAD_CAP]].concat();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&endless).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        assert!(reply.starts_with("HTTP/1.0 400 "), "{reply}");
        let mut idle = Vec::new();
        for _ in 0..=CONNECTIONS_CAP {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let request = b"GET /metrics HTTP/1.1\r\n\r\n";
        let reply = ask(TcpStream::connect(address).await.unwrap(), request).await;
        assert!(reply.starts_with("HTTP/1.0 200 "), "{reply}");
        let mut oldest = idle.remove(0);
        assert_eq!(oldest.read(&mut [0; 1]).await.unwrap_or(0), 0, "the oldest one has to go");
    });
}

#[test]
fn other_addresses_than_the_two_of_the_loopback_are_refused() {
    for address in ["0.0.0.0:0", "192.0.2.1:9100", "[::]:0", "127.0.0.2:0", "[::ffff:127.0.0.1]:0"]
    {
        let error = MetricsSocket::bind_tcp(address.parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{address}");
    }
}
