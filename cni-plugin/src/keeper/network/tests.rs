//! The process of a network and its clients, without devices and without a sandbox.

use std::io::Read as _;
use std::net::Ipv4Addr;
use std::thread;

use serde::Deserialize as _;
use serde_json::{Value, json};
use slirp_core::instance::OutboundAddresses;
use slirp_core::internals::process::send_fd;

use super::*;
use crate::attachment::frame;
use crate::attachment::request::MembershipRequest;
use crate::attachment::request::tests::example;
use crate::attachment::store::tests::Scratch;

/// The host's network namespace, as keepers name it.
const HOST: [u64; 2] = [4, 4_026_531_840];

/// A container's request, on a network of 10.9.0.0/16.
fn request(container: &str) -> Request {
    let mut request = Request {
        outbound: OutboundAddresses::default(),
        ports: Vec::new(),
        sandbox: false,
        log_file: None,
        shared: Some(MembershipRequest::default()),
        ..example()
    };
    request.key.container_id = container.to_owned();
    request
}

fn join(request: &Request) -> Value {
    json!({ "execute": "join", "request": request, "hostNetns": HOST })
}

/// A network, its socket and its starter.
struct Fixture {
    network: Network,
    starter: UnixStream,
    scratch: Scratch,
}

/// Starts a network; also returns both ends of its starter's connection.
fn start_alone(name: &str) -> (Network, Scratch, [UnixStream; 2]) {
    let scratch = Scratch::new(name);
    let (starter, theirs) = UnixStream::pair().unwrap();
    let files = scratch.files("n");
    let order = json!({
        "request": request("a"),
        "hostNetns": HOST,
        "socket": files.socket().display().to_string(),
        "apiSocket": files.api_socket().display().to_string(),
    });
    frame::send(&starter, &order).unwrap();
    (Network::start(&theirs).unwrap(), scratch, [starter, theirs])
}

fn start(name: &str) -> Fixture {
    let (mut network, scratch, [starter, theirs]) = start_alone(name);
    network.add_client(Connection::new(theirs).unwrap());
    Fixture { network, starter, scratch }
}

impl Fixture {
    fn client(&mut self) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.network.add_client(Connection::new(theirs).unwrap());
        ours
    }

    /// One turn of the loop, without its wait.
    fn turn(&mut self) {
        self.network.remove_gone();
        self.network.serve_messages();
    }

    /// Sends a message and returns the answer.
    fn ask(&mut self, client: &UnixStream, message: &Value) -> Value {
        frame::send(client, message).unwrap();
        self.turn();
        frame::receive(client).unwrap()
    }

    /// Joins, and returns the last byte of the address.
    fn join(&mut self, client: &UnixStream, container: &str) -> u8 {
        let answer = self.ask(client, &join(&request(container)));
        let given = Addresses::deserialize(&answer).unwrap_or_else(|_| panic!("{answer}"));
        let address = given.address;
        assert_eq!(address.octets()[..3], Ipv4Addr::new(10, 9, 0, 0).octets()[..3]);
        address.octets()[3]
    }
}

fn is_hung_up(mut client: &UnixStream) -> bool {
    client.set_nonblocking(true).unwrap();
    matches!(client.read(&mut [0]), Ok(0))
}

#[test]
fn seat_is_free_again_when_its_keeper_hangs_up() {
    let mut fixture = start("seat");
    let [first, second, third] = [(); 3].map(|()| fixture.client());
    assert_eq!(fixture.join(&first, "a"), 100);
    assert_eq!(fixture.join(&second, "b"), 101);
    drop(first);
    assert_eq!(fixture.join(&third, "c"), 100);
}

#[test]
fn client_with_other_terms_is_told_why_and_hung_up_on() {
    let mut fixture = start("terms");
    let elsewhere = {
        let mut message = join(&request("b"));
        message["hostNetns"] = json!([4, 1]);
        message
    };
    let larger = Request { mtu: 9000, ..request("b") };
    for (message, told) in [
        (
            join(&larger),
            "the network net is in use with another configuration: mtu is 1500, not 9000",
        ),
        (elsewhere, "the network net is served from another network namespace of the host"),
        (
            json!({ "execute": "join", "hostNetns": HOST }),
            "the request cannot be read: missing field `request`",
        ),
        (
            json!({ "execute": "dance" }),
            "the request cannot be read: unknown variant `dance`, expected one of `join`, \
             `join-under-policy`, `settle` at line 1 column 18",
        ),
        (
            json!(7),
            "the request cannot be read: invalid type: integer `7`, expected internally tagged \
             enum NetworkRequest at line 1 column 1",
        ),
    ] {
        let client = fixture.client();
        let answer = fixture.ask(&client, &message);
        assert_eq!(Error::deserialize(&answer["error"]).unwrap().message, told);
        assert!(is_hung_up(&client), "{told}");
    }
    assert_eq!(fixture.network.clients.len(), 1, "the starter alone is left");
    let client = fixture.client();
    assert_eq!(fixture.join(&client, "b"), 100, "no address was lost");
}

#[test]
fn invalid_device_makes_no_member() {
    let mut fixture = start("device");
    let client = fixture.client();
    assert_eq!(fixture.join(&client, "a"), 100);
    frame::send(&client, &json!({ "mac": "02:00:00:00:00:09" })).unwrap();
    send_fd(client.as_fd(), std::fs::File::open("/dev/null").unwrap().as_fd()).unwrap();
    fixture.turn();
    let answer: Value = frame::receive(&client).unwrap();
    assert!(answer["error"]["message"].as_str().unwrap().contains("TAP"), "{answer}");
    assert!(is_hung_up(&client));
    let client = fixture.client();
    assert_eq!(fixture.join(&client, "a"), 100, "its address is free again");
}

#[test]
fn network_is_needed_by_its_starter_and_by_seats_and_not_by_probes() {
    let mut fixture = start("needed");
    assert!(fixture.network.is_needed(), "the starter is about to join");
    let member = fixture.client();
    fixture.join(&member, "a");
    fixture.starter.shutdown(std::net::Shutdown::Both).unwrap();
    fixture.turn();
    assert!(fixture.network.is_needed(), "a container has a seat");
    drop(member);
    let looker = fixture.client();
    fixture.turn();
    assert!(!fixture.network.is_needed());
    let settled = json!({ "execute": "settle" });
    assert_eq!(fixture.ask(&looker, &settled), json!({}));
    assert!(is_hung_up(&looker));
}

#[test]
fn clients_beyond_the_cap_are_hung_up_on() {
    let mut fixture = start("cap");
    let socket = fixture.scratch.files("n").socket();
    // The network's half of a connection stays until its next turn.
    while fixture.network.clients.len() < CLIENTS_CAP {
        drop(UnixStream::connect(&socket).unwrap());
        fixture.network.accept();
    }
    let refused = UnixStream::connect(&socket).unwrap();
    fixture.network.accept();
    assert_eq!(fixture.network.clients.len(), CLIENTS_CAP);
    assert!(is_hung_up(&refused));
    fixture.turn();
    assert_eq!(fixture.network.clients.len(), 1, "those who have gone are forgotten");
}

#[test]
fn network_ends_with_its_last_seat_and_tells_that_keeper_last() {
    let (network, scratch, [starter, theirs]) = start_alone("end");
    let socket = scratch.files("n").socket();
    let serving = thread::spawn(move || network.serve(theirs));
    let mut member = UnixStream::connect(&socket).unwrap();
    frame::send(&member, &join(&request("a"))).unwrap();
    frame::receive::<Addresses>(&member).unwrap();
    drop(starter);
    member.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(member.read(&mut [0]).unwrap(), 0);
    let refused = UnixStream::connect(&socket).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "nobody listens by then");
    serving.join().unwrap();
}
