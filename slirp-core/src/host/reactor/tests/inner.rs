//! Clients on the host's loopback that are handed over to the thread in the namespace.

use std::io::Read as _;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::mpsc;

use super::scene::{Scene, free_port, rule};
use super::*;
use crate::egress::{Cause, EgressPolicy};
use crate::host::forward::ForwardProtocol;
use crate::host::inner::inward::Inward;
use crate::host::inner::order::{Order, Orders, Passing, Signs};
use crate::journal::{Detail, Event, Refusal};
use crate::stack::AuditDuty;

/// A loop with one rule on 127.0.85.`last`, whose inner thread is this test.
struct Handed {
    scene: Scene,
    host: SocketAddr,
    signs: Arc<Signs>,
    orders: mpsc::Receiver<Order>,
    _poll: Poll,
}

fn handed(protocol: ForwardProtocol, last: u8, config: StackConfig) -> Handed {
    let mut scene = Scene::new(config);
    let poll = Poll::new().unwrap();
    let waker = Arc::new(Waker::new(poll.registry(), mio::Token(0)).unwrap());
    let (sender, orders) = mpsc::channel();
    let signs = Arc::new(Signs::new(64));
    let inward = Inward::new(false, (Some([10, 0, 2, 100].into()), None));
    scene.reactor.adopt_inner(Orders::new(sender, waker, Arc::clone(&signs), Some(inward)), &[]);
    scene.reactor.stack.set_detail(Detail::Flows);
    let host = free_port([127, 0, 85, last], protocol);
    scene.reactor.add_forwards(&[rule(protocol, host, 80)]).unwrap();
    Handed { scene, host, signs, orders, _poll: poll }
}

impl Handed {
    fn accepted(&self) -> usize {
        self.orders.try_iter().filter(|order| matches!(order, Order::Accepted { .. })).count()
    }

    /// The refusals that a listener has heard of, and the clients.
    fn refusals(&mut self) -> Vec<(SocketAddr, Refusal)> {
        let stack = &mut self.scene.reactor.stack;
        let reports = core::iter::from_fn(|| stack.poll_event());
        let refused = |event| {
            let Event::Refused { flow: None, ends, by, .. } = event else { return None };
            Some((ends.remote, by))
        };
        reports.filter_map(|report| refused(report.event)).collect()
    }
}

fn is_reset(client: &mut TcpStream) -> bool {
    client.read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

#[test]
fn client_for_which_there_is_no_room_waits_in_the_queue_of_its_port() {
    let mut handed = handed(ForwardProtocol::Tcp, 1, StackConfig::default());
    let mut waiting = Vec::new();
    while handed.signs.has_room() {
        waiting.push(Passing::connection(&handed.signs));
    }
    let mut client = TcpStream::connect(handed.host).unwrap();
    handed.scene.note();
    handed.scene.serve();
    client.set_nonblocking(true).unwrap();
    let read = client.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(read, Err(io::ErrorKind::WouldBlock), "it is neither reset nor at its end");
    assert_eq!((handed.accepted(), handed.scene.flows()), (0, 0));
    drop(waiting);
    while handed.accepted() == 0 {
        handed.scene.serve();
    }
    assert_eq!((handed.scene.flows(), handed.refusals()), (0, Vec::new()));
}

#[test]
fn datagrams_for_which_there_is_no_room_are_counted() {
    let mut handed = handed(ForwardProtocol::Udp, 2, StackConfig::default());
    let waiting: Vec<_> = core::iter::from_fn(|| Passing::datagram(&handed.signs)).collect();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"lost", handed.host).unwrap();
    handed.scene.note();
    handed.scene.serve();
    assert_eq!(handed.scene.discards(DiscardReason::BridgesFull), 1);
    drop(waiting);
}

#[test]
fn client_is_refused_where_the_audit_log_cannot_have_the_verdict() {
    let policy = EgressPolicy::parse("allow 192.0.2.1:1", "test").unwrap();
    let config = StackConfig { egress: Some(policy), ..StackConfig::default() };
    let mut handed = handed(ForwardProtocol::Tcp, 3, config);
    handed.scene.reactor.stack.set_audit_duty(AuditDuty::Failing);
    let mut client = TcpStream::connect(handed.host).unwrap();
    handed.scene.note();
    handed.scene.serve();
    assert!(is_reset(&mut client));
    assert_eq!(handed.accepted(), 0);
    assert_eq!(handed.scene.discards(DiscardReason::EgressDenied), 1);
    let by = Refusal::Egress(Cause::NoAudit);
    assert_eq!(handed.refusals(), [(client.local_addr().unwrap(), by)]);
}
