//! The API socket as its clients see it, in front of a real instance whose guest is a socket.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};

use super::*;
use crate::host::link::FrameSocket;
use crate::instance::{Builder, Instance};
use crate::wire::udp::emit_datagram;

/// Longest wait for an event that has to come; only a failing test ever waits that long.
const PATIENCE: Duration = Duration::from_secs(10);

/// A path that no other test uses.
fn path() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("slirp-api-{}-{number}", std::process::id()))
}

/// An instance, and its guest's end of the link.
fn instance() -> (Instance, OwnedFd) {
    let (ours, guest) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let instance = Builder::new(FrameSocket::adopt(ours).unwrap()).spawn().unwrap();
    (instance, guest)
}

/// Serves up to `cap` clients of an instance at a path while `clients` runs.
fn serving(cap: usize, clients: impl AsyncFnOnce(&Path, &mut Option<Instance>, &OwnedFd)) {
    let path = path();
    let socket = ApiSocket::bind(&path).unwrap();
    let (instance, guest) = instance();
    let handle = instance.handle();
    let plan = AddressPlan::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let served = socket.serve(handle, plan, AssumedGuest::new(plan, None), cap);
        let serving = tokio::spawn(served);
        clients(&path, &mut Some(instance), &guest).await;
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
    });
    assert!(!path.exists(), "the file goes with the server");
}

/// Everything that the server sends to a client whose request is complete.
async fn reply(client: &mut UnixStream) -> String {
    let mut reply = String::new();
    client.read_to_string(&mut reply).await.unwrap();
    reply
}

/// The reply to one request.
async fn ask(path: &Path, request: &str) -> String {
    let mut client = UnixStream::connect(path).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    reply(&mut client).await
}

fn refused(desc: &str) -> String {
    format!("{{\"error\":{{\"desc\":\"bad request: {desc}\"}}}}")
}

fn add(arguments: &str) -> String {
    format!(r#"{{"execute":"add_hostfwd","arguments":{{{arguments}}}}}"#)
}

fn remove(arguments: &str) -> String {
    format!(r#"{{"execute":"remove_hostfwd","arguments":{{{arguments}}}}}"#)
}

const LIST: &str = r#"{"execute":"list_hostfwd"}"#;
/// How the refusal to open a port begins.
const NOT_ADDED: &str = r#"{"error":{"desc":"bad request: add_hostfwd: slirp_add_hostfwd failed"#;
const NO_RULES: &str = r#"{"return":{"entries":[]},"entries":[]}"#;

/// Two adjacent ports on a loopback address of their own. The first is free, the last is taken.
struct Ports {
    address: Ipv4Addr,
    first: u16,
    end: u16,
    taken: TcpListener,
}

impl Ports {
    /// Two ports of 127.0.83.`last`, which no other test uses.
    fn new(last: u8) -> Self {
        let address = Ipv4Addr::new(127, 0, 83, last);
        let taken = TcpListener::bind((address, 0)).unwrap();
        let end = taken.local_addr().unwrap().port();
        Self { address, first: end - 1, end, taken }
    }

    fn is_open(&self, port: u16) -> bool {
        TcpListener::bind((self.address, port)).is_err()
    }

    /// Waits until a port is closed that was open a moment ago. A process that another test is just
    /// starting may have it open, too, up to its execve(2).
    fn await_end_of(&self, port: u16) {
        while self.is_open(port) {
            if let Ok(mut client) = TcpStream::connect((self.address, port)) {
                client.set_read_timeout(Some(PATIENCE)).unwrap();
                let end = client.read(&mut [0]).map_err(|error| error.kind());
                assert_eq!(end, Err(io::ErrorKind::ConnectionReset));
            }
        }
    }
}

#[test]
fn request_is_answered_as_soon_as_its_value_is_complete() {
    serving(8, async |path, _, _| {
        let mut client = UnixStream::connect(path).await.unwrap();
        for piece in [r#"{"exec"#, r#"ute":"list"#, r#"_hostfwd"}"#] {
            client.write_all(piece.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
        // The client has not ended its side.
        assert_eq!(reply(&mut client).await, NO_RULES);
        let mut client = UnixStream::connect(path).await.unwrap();
        client.write_all(br#"{"execute":"#).await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(reply(&mut client).await, refused("cannot parse JSON"));
    });
}

#[test]
fn request_that_is_too_large_is_refused_in_words() {
    serving(8, async |path, _, _| {
        // What the server does not read must not take the reply away from the client.
        for len in [REQUEST_CAP, 5 * REQUEST_CAP] {
            let request = format!("{{\"execute\":\"{}", "x".repeat(len));
            assert_eq!(ask(path, &request).await, refused("too large message"));
        }
        let behind = format!("{LIST}{}", " ".repeat(2 * REQUEST_CAP));
        assert_eq!(ask(path, &behind).await, refused("too large message"));
    });
}

#[test]
fn silent_clients_delay_no_other_and_the_oldest_is_closed() {
    serving(2, async |path, _, _| {
        let mut silent = Vec::new();
        for _ in 0..2 {
            silent.push(UnixStream::connect(path).await.unwrap());
        }
        // There are two connections already, so the older one is closed.
        assert_eq!(ask(path, LIST).await, NO_RULES);
        assert_eq!(silent[0].read(&mut [0]).await.unwrap(), 0, "closed without a word");
        // Connections that have been served do not count.
        for _ in 0..5 {
            assert_eq!(ask(path, LIST).await, NO_RULES);
        }
        silent[1].write_all(LIST.as_bytes()).await.unwrap();
        assert_eq!(reply(&mut silent[1]).await, NO_RULES);
    });
}

#[test]
fn ports_are_opened_listed_and_closed() {
    serving(8, async |path, _, _| {
        let ports = Ports::new(1);
        let first = ports.first;
        let rule = format!(
            r#""proto":"tcp","host_addr":"127.0.83.1","host_port":{first},"guest_port":80"#
        );
        assert_eq!(ask(path, &add(&rule)).await, r#"{"return":{"id":1}}"#);
        let entry = format!(
            "[{{\"id\":1,\"proto\":\"tcp\",\"host_addr\":\"127.0.83.1\",\"host_port\":{first},\
             \"guest_addr\":\"10.0.2.100\",\"guest_port\":80}}]"
        );
        let listed = format!("{{\"return\":{{\"entries\":{entry}}},\"entries\":{entry}}}");
        assert_eq!(ask(path, LIST).await, listed);
        assert!(ports.is_open(first));
        assert_eq!(ask(path, &remove(r#""id":1"#)).await, r#"{"return":{}}"#);
        assert_eq!(ask(path, LIST).await, NO_RULES);
        ports.await_end_of(first);
        let gone = refused("remove_hostfwd: bad arguments.id");
        assert_eq!(ask(path, &remove(r#""id":1"#)).await, gone);
    });
}

#[test]
fn range_of_ports_is_opened_and_closed_as_a_whole_or_not_at_all() {
    serving(8, async |path, _, _| {
        let mut ports = Ports::new(2);
        let (first, end) = (ports.first, ports.end);
        let rule = |port| {
            format!(r#""proto":"tcp","host_addr":"127.0.83.2","host_port":{port},"guest_port":80"#)
        };
        let range = add(&format!(r#"{},"host_port_end":{end}"#, rule(first)));
        let failed = ask(path, &range).await;
        let why = format!("cannot listen on 127.0.83.2:{end} for TCP");
        assert!(failed.starts_with(NOT_ADDED) && failed.contains(&why), "{failed}");
        assert_eq!(ask(path, LIST).await, NO_RULES);
        ports.await_end_of(first);
        assert!(ask(path, &add(&rule(end))).await.starts_with(NOT_ADDED));
        ports.taken = TcpListener::bind((ports.address, 0)).unwrap();
        ports.await_end_of(end);
        let added: serde_json::Value = serde_json::from_str(&ask(path, &range).await).unwrap();
        let id = added["return"]["id"].as_u64().unwrap();
        let id_end = added["return"]["id_end"].as_u64().unwrap_or(id);
        assert!(ports.is_open(first) && ports.is_open(end));
        let beyond = remove(&format!(r#""id":{id},"id_end":{}"#, id_end + 1));
        let unknown = refused("remove_hostfwd: bad arguments.id_end");
        assert_eq!(ask(path, &beyond).await, unknown);
        assert!(ports.is_open(first) && ports.is_open(end));
        let all = remove(&format!(r#""id":{id},"id_end":{id_end}"#));
        assert_eq!(ask(path, &all).await, r#"{"return":{}}"#);
        assert_eq!(ask(path, LIST).await, NO_RULES);
        ports.await_end_of(first);
        ports.await_end_of(end);
    });
}

#[test]
fn address_that_no_guest_can_have_is_named() {
    serving(8, async |path, _, _| {
        for (rest, name) in [
            (r#""guest_addr":"10.0.2.2","guest_port":80"#, "guest_addr"),
            (r#""guest_addr":"10.0.2.2","guest_port":80,"host_port_end":8090"#, "guest_addr"),
            // The network has no IPv6.
            (r#""guest_addr6":"fd00::64","guest_port":80"#, "guest_addr6"),
        ] {
            let rule = format!(r#""proto":"tcp","host_port":8080,{rest}"#);
            let expected = refused(&format!("add_hostfwd: bad arguments.{name}"));
            assert_eq!(ask(path, &add(&rule)).await, expected, "{rule}");
        }
        assert_eq!(ask(path, LIST).await, NO_RULES);
    });
}

#[test]
fn flows_are_listed_in_pieces() {
    serving(8, async |path, _, guest| {
        let remote = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = remote.local_addr().unwrap().port();
        for source in 1..=5 {
            let mut frame = vec![0x52, 0x55, 10, 0, 2, 2, 2, 0, 0, 0, 0, 1, 8, 0];
            let from = SocketAddr::from(([10, 0, 2, 100], source));
            let to = SocketAddr::from(([10, 0, 2, 2], port));
            emit_datagram(&mut frame, from, to, 64, 0, b"question").unwrap();
            send(guest.as_raw_fd(), &frame, MsgFlags::empty()).unwrap();
            // Its flow exists once it has arrived.
            remote.recv(&mut [0; 16]).unwrap();
        }
        let mut ports = Vec::new();
        let mut pieces = Vec::new();
        let mut from = 0;
        loop {
            let request =
                format!(r#"{{"execute":"list_flows","arguments":{{"from":{from},"limit":2}}}}"#);
            let reply: serde_json::Value =
                serde_json::from_str(&ask(path, &request).await).unwrap();
            let flows = reply["return"]["flows"].as_array().unwrap();
            pieces.push(flows.len());
            ports.extend(flows.iter().map(|flow| flow["guest_port"].as_u64().unwrap()));
            match reply["return"]["next"].as_u64() {
                Some(next) => from = next,
                None => break,
            }
        }
        assert_eq!((ports, pieces), (vec![1, 2, 3, 4, 5], vec![2, 2, 1]));
        let all = ask(path, r#"{"execute":"list_flows"}"#).await;
        assert!(all.ends_with(r#"],"next":null}}"#), "{all}");
        assert_eq!(all.matches("\"guest_port\"").count(), 5);
    });
}

#[test]
fn ended_network_says_so() {
    serving(8, async |path, instance, _| {
        let info = ask(path, r#"{"execute":"info"}"#).await;
        assert!(info.starts_with(r#"{"return":{"version":""#), "{info}");
        drop(instance.take());
        let ended = refused("the network is ending");
        for request in [LIST, r#"{"execute":"list_flows"}"#, r#"{"execute":"info"}"#] {
            assert_eq!(ask(path, request).await, ended, "{request}");
        }
        let rule = r#""proto":"tcp","host_port":1,"guest_port":80"#;
        assert!(ask(path, &add(rule)).await.starts_with(NOT_ADDED));
        let failed = refused("remove_hostfwd: slirp_remove_hostfwd failed");
        assert_eq!(ask(path, &remove(r#""id":1"#)).await, failed);
    });
}

#[test]
fn socket_replaces_a_file_and_removes_its_own_alone() {
    let path = path();
    fs::write(&path, "left behind").unwrap();
    let first = ApiSocket::bind(&path).unwrap();
    // Another server takes the path over.
    let second = ApiSocket::bind(&path).unwrap();
    drop(first);
    assert!(path.exists(), "it is the second one's file");
    drop(second);
    assert!(!path.exists());
}

#[test]
fn path_that_is_too_long_is_refused() {
    let path = std::env::temp_dir().join("x".repeat(108));
    assert_eq!(ApiSocket::bind(&path).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    let nowhere = Path::new("/nonexistent/api.sock");
    assert_eq!(ApiSocket::bind(nowhere).unwrap_err().kind(), io::ErrorKind::NotFound);
}
