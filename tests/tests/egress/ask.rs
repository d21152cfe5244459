//! Flows that somebody is asked about, by real kernels: what the guest waits for, and what has
//! arrived outside before the yes.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use slirp_core::dns::DnsConfig;
use slirp_core::egress::{
    Action, DecideError, Decision, EgressPolicy, Name, PendingQuestion, Scope, Subject,
};
use slirp_core::instance::{
    Builder, Established, Handle, Instance, Member, NewMember, Switchboard,
};
use slirp_core::link::Tap;
use slirp_core::netns::{Configuration, NamespaceTarget, TapRequest, open_tap};
use slirp_core::plan::{AddressPlan, Ipv6Plan, SlirpNetwork};
use slirp_tests::*;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::hello::hello;
use crate::scene::*;

const ONCE: Decision =
    Decision { action: Action::Allow, scope: Scope::Once, all_ports: false, parent: false };
const SESSION: Decision = Decision { scope: Scope::Session, ..ONCE };
const DENIED: Decision = Decision { action: Action::Deny, ..ONCE };

/// A guest of an instance in this process, and the outside of a [`Scene`].
struct Asked {
    instance: Instance,
    world: World,
    dns: NameServer,
    outside: Recorder,
    _servers: [TcpServer; 3],
}

fn policy(text: &str) -> EgressPolicy {
    EgressPolicy::parse(&format!("{text}\nallow udp:{SETTLED}\n"), "test").unwrap()
}

fn open(guest: &Namespace) -> Tap {
    let target = NamespaceTarget::of_pid(guest.pid().cast_signed()).unwrap();
    let configure = Some(Configuration::for_plan(&SlirpNetwork::default(), 1500));
    open_tap(&target, &TapRequest { name: "tap0".to_owned(), configure }).unwrap()
}

impl Asked {
    /// A guest under `policy`, and somebody who may decide.
    fn new(world: World, text: &str) -> Self {
        let asked = Self::begin(world, text, AddressPlan::default());
        asked.handle().blocking().set_approvers(1);
        asked
    }

    fn begin(world: World, text: &str, plan: AddressPlan) -> Self {
        let Outside { servers, dns, outside, config } = Outside::of(&world);
        let instance = world.host.enter(|| {
            let builder = Builder::new(open(&world.guest)).plan(plan).dns(config);
            builder.egress(policy(text)).spawn().unwrap()
        });
        Self { instance, world, dns, outside, _servers: servers }
    }

    fn handle(&self) -> Handle {
        self.instance.handle()
    }

    fn questions(&self) -> Vec<PendingQuestion> {
        self.handle().blocking().questions().unwrap()
    }

    /// Waits for the only question.
    fn question(&self) -> PendingQuestion {
        self.question_held_for(Duration::ZERO)
    }

    /// Waits until the only question has been open for so long.
    fn question_held_for(&self, time: Duration) -> PendingQuestion {
        wait_until(
            PATIENCE,
            "the question",
            || matches!(&self.questions()[..], [question] if question.held >= time),
        );
        self.questions()[0].clone()
    }

    /// Decides the only question once it is there.
    fn decide(&self, decision: Decision) -> PendingQuestion {
        let question = self.question();
        let decided = self.handle().blocking().decide(question.id, decision).unwrap();
        assert_eq!(decided.question.id, question.id);
        question
    }

    /// Has the guest connect, and meanwhile somebody decide.
    fn connect_while<T>(
        &self,
        to: SocketAddr,
        somebody: impl FnOnce() -> T,
    ) -> (Result<TcpStream, ConnectFailure>, T) {
        std::thread::scope(|scope| {
            let connecting = scope.spawn(|| connect(&self.world.guest, to));
            let done = somebody();
            (connecting.join().unwrap(), done)
        })
    }

    fn lookup(&self, name: &str) -> IpAddr {
        lookup(&self.world.guest, name)
    }

    /// What the guest gets for `hello` at a placeholder.
    fn greet(&self, to: SocketAddr, name: &str) -> Vec<u8> {
        let mut stream = connect(&self.world.guest, to).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), to);
        stream.write_all(&hello(name)).unwrap();
        answer(&mut stream)
    }

    /// Waits until everything that the guest has sent so far has been handled.
    fn settle(&self) {
        settle(&self.outside, &self.world.guest);
    }

    /// What arrived outside besides what settles.
    fn arrived(&self) -> Vec<SocketAddr> {
        self.settle();
        let settled: SocketAddr = SETTLED.parse().unwrap();
        let arrived = self.outside.arrived().into_iter().map(|packet| packet.to);
        arrived.filter(|&to| to != settled).collect()
    }
}

/// What stands outside.
struct Outside {
    servers: [TcpServer; 3],
    dns: NameServer,
    outside: Recorder,
    config: DnsConfig,
}

impl Outside {
    fn of(world: &World) -> Self {
        world.remote.script(OUTSIDE_SCRIPT);
        let servers = [22, 443, 8443].map(|port| server(&world.remote, port));
        let dns = NameServer::start(&world.remote, NAME_SERVER);
        dns.set_address("index.example", "203.0.113.7");
        dns.set_address("api.example", "203.0.113.8");
        let outside = Recorder::start(&world.remote, "r0");
        let mut config = DnsConfig::default();
        config.servers = vec![(NAME_SERVER, 53).into()];
        Self { servers, dns, outside, config }
    }
}

fn udp(guest: &Namespace, to: SocketAddr) -> UdpSocket {
    let socket = guest.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
    socket.set_read_timeout(Some(AT_ONCE)).unwrap();
    socket.connect(to).unwrap();
    socket
}

fn settle(outside: &Recorder, guest: &Namespace) {
    let to: SocketAddr = SETTLED.parse().unwrap();
    let before = outside.datagrams(to).len();
    udp(guest, to).send(b"settled").unwrap();
    let arrived = || outside.datagrams(to).len() > before;
    wait_until(PATIENCE, "the allowed datagram arrives", arrived);
}

/// The only address of `name`.
fn lookup(guest: &Namespace, name: &str) -> IpAddr {
    lookup_by(&udp(guest, (NAMESERVER, 53).into()), name)
}

fn lookup_by(resolver: &UdpSocket, name: &str) -> IpAddr {
    resolver.send(&query(name, "A")).unwrap();
    let mut buffer = [0; 2048];
    let len = resolver.recv(&mut buffer).unwrap();
    let Found::Addresses(addresses) = read_answer(&buffer[..len]) else { panic!("no address") };
    assert_eq!(addresses.len(), 1);
    addresses[0]
}

fn name(text: &str) -> Subject {
    Subject::Name(Name::new(text).unwrap())
}

fn refused(outcome: Result<TcpStream, ConnectFailure>) -> ConnectFailure {
    let failure = outcome.expect_err("the connection was accepted");
    assert_eq!(failure.errno, Errno::EHOSTUNREACH);
    failure
}

const SSH: SocketAddr = SocketAddr::new(NOBODY, 22);

/// The guest's kernel repeats its SYN after 1, 2, 3, 4, 5, 7 and 11 seconds: a yes behind the last
/// of these that comes in time is not to wait for the next one.
#[test]
fn held_connection_is_there_at_once_after_a_yes_however_late() {
    let world = needs!(World::root());
    let asked = Asked::new(world, "ask 203.0.113.0/24:22");
    for (number, held) in [(1, 0), (2, 1300), (3, 7400)] {
        let to = SocketAddr::new(Ipv4Addr::new(203, 0, 113, number).into(), 22);
        let (stream, decided_at) = asked.connect_while(to, || {
            let question = asked.question_held_for(Duration::from_millis(held));
            assert_eq!((question.subject, question.flows), (Subject::Address(to.ip()), 1));
            assert!(!asked.arrived().contains(&to), "nothing arrives before");
            asked.decide(ONCE);
            Instant::now()
        });
        let mut stream = stream.unwrap();
        let after = decided_at.elapsed();
        assert!(after < Duration::from_secs(2), "{after:?} after the yes");
        stream.write_all(b"bytes").unwrap();
        assert_eq!(answer(&mut stream), SEEN);
        // A retry is not asked about.
        connect(&asked.world.guest, to).unwrap();
    }
    assert_eq!(asked.questions(), []);
}

#[test]
fn no_is_heard_at_once_and_nobody_is_asked_again() {
    let asked = Asked::new(needs!(World::root()), "ask any");
    let (outcome, decided_at) = asked.connect_while(SSH, || {
        let question = asked.question();
        asked.decide(DENIED);
        let late = asked.handle().blocking().decide(question.id, SESSION);
        assert_eq!(late, Err(DecideError::AlreadyDecided(Action::Deny)));
        Instant::now()
    });
    refused(outcome);
    assert!(decided_at.elapsed() < AT_ONCE);
    assert!(refused(connect(&asked.world.guest, SSH)).after < AT_ONCE);
    assert_eq!(asked.questions(), []);
    assert_eq!(asked.arrived(), []);
}

#[test]
fn time_and_absence_end_a_question_and_nothing_is_remembered() {
    let asked = Asked::new(needs!(World::root()), "ask any\nset ask-timeout 5");
    for _ in 0..2 {
        let (outcome, question) = asked.connect_while(SSH, || asked.question());
        assert!(question.expires_in <= Duration::from_secs(5));
        assert!(refused(outcome).after >= Duration::from_secs(4));
    }
    let (outcome, ()) = asked.connect_while(SSH, || {
        asked.question();
        asked.handle().blocking().set_approvers(0);
    });
    refused(outcome);
    wait_until(PATIENCE, "the end of the grace", || {
        connect(&asked.world.guest, SSH).is_err_and(|failure| failure.after < AT_ONCE)
    });
    assert!(refused(connect(&asked.world.guest, SSH)).after < AT_ONCE);
    assert_eq!(asked.arrived(), []);
}

#[test]
fn without_anybody_to_decide_the_refusal_is_immediate() {
    let asked = Asked::begin(needs!(World::root()), "ask any", AddressPlan::default());
    assert!(refused(connect(&asked.world.guest, SSH)).after < AT_ONCE);
    let placeholder = asked.lookup("api.example");
    assert!(refused(connect(&asked.world.guest, (placeholder, 443).into())).after < AT_ONCE);
    assert_eq!(asked.arrived(), [], "not even the name");
}

#[test]
fn asked_name_stays_here_until_the_yes_and_its_first_bytes_have_to_be_its_own() {
    let asked = Asked::new(needs!(World::root()), "ask .example wide=yes");
    let placeholder = asked.lookup("api.example");
    assert!(placeholder.to_string().starts_with("198.19."), "{placeholder}");
    let to = SocketAddr::new(placeholder, 443);
    let (stream, ()) = asked.connect_while(to, || {
        assert_eq!(asked.question().subject, name("api.example"));
        assert_eq!(asked.arrived(), [], "not even the name");
        asked.decide(ONCE);
    });
    let mut stream = stream.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), to);
    let reached = SocketAddr::from(([203, 0, 113, 8], 443));
    stream.write_all(&hello("api.example")).unwrap();
    assert_eq!(answer(&mut stream), SEEN);
    assert_eq!(asked.outside.stream(reached), hello("api.example"));
    // Another name at the same address does not get there.
    let before = asked.outside.stream(reached).len();
    assert_eq!(asked.greet(to, "index.example"), ALERT);
    asked.settle();
    assert_eq!(asked.outside.stream(reached).len(), before);
    // A redirect to a second name is a second question.
    let second = SocketAddr::new(asked.lookup("index.example"), 443);
    assert_ne!(second, to);
    let (stream, ()) = asked.connect_while(second, || {
        assert_eq!(asked.decide(SESSION).subject, name("index.example"));
    });
    stream.unwrap();
    // From now on lookups of it are as any other, and the old address still leads there.
    assert_eq!(asked.lookup("index.example"), INDEX);
    assert_eq!(asked.greet((INDEX, 443).into(), "index.example"), SEEN);
    assert_eq!(asked.greet(second, "index.example"), SEEN);
    assert!(asked.dns.asked_names().iter().all(|name| name.ends_with(".example")));
}

#[test]
fn decision_for_a_time_ends_with_it() {
    let asked = Asked::new(needs!(World::root()), "ask any");
    let decision = Decision { scope: Scope::For(Duration::from_secs(4)), ..ONCE };
    let (stream, ()) = asked.connect_while(SSH, || {
        asked.decide(decision);
    });
    let mut stream = stream.unwrap();
    connect(&asked.world.guest, SSH).unwrap();
    let (second, ()) = asked.connect_while(SSH, || {
        // It is asked about again as soon as the time is over.
        wait_until(PATIENCE, "the end of the decision", || {
            let _ = connect_briefly(&asked.world.guest, SSH);
            !asked.questions().is_empty()
        });
        asked.decide(SESSION);
    });
    second.unwrap();
    stream.write_all(b"goes on").unwrap();
    assert_eq!(answer(&mut stream), SEEN);
}

/// Sends a SYN, and waits for nothing.
fn connect_briefly(guest: &Namespace, to: SocketAddr) -> std::io::Result<()> {
    guest.enter(|| connect_here(to))
}

fn connect_here(to: SocketAddr) -> std::io::Result<()> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::from(to))
}

#[test]
fn ipv6_guest_waits_as_well() {
    let plan = AddressPlan::default().with_ipv6(Ipv6Plan::default());
    let asked = Asked::begin(needs!(World::root()), "ask any", plan);
    asked.handle().blocking().set_approvers(1);
    asked.world.wait_for_ipv6("fd00:");
    let to: SocketAddr = "[2001:db8:2::7]:22".parse().unwrap();
    let (stream, ()) = asked.connect_while(to, || {
        let question = asked.question_held_for(Duration::from_millis(1200));
        assert_eq!(question.subject, Subject::Address(to.ip()));
        asked.decide(ONCE);
    });
    let mut stream = stream.unwrap();
    stream.write_all(b"bytes").unwrap();
    assert_eq!(answer(&mut stream), SEEN);
    let other: SocketAddr = "[2001:db8:2::8]:22".parse().unwrap();
    let (outcome, decided_at) = asked.connect_while(other, || {
        asked.decide(DENIED);
        Instant::now()
    });
    assert_eq!(outcome.expect_err("it was denied").errno, Errno::EACCES);
    assert!(decided_at.elapsed() < AT_ONCE);
}

#[test]
fn datagrams_pass_after_the_yes_and_answers_come_from_the_placeholder() {
    let asked = Asked::new(needs!(World::root()), "ask udp:api.example:5000");
    let reached = SocketAddr::from(([203, 0, 113, 8], 5000));
    let server = asked.world.remote.enter(|| UdpSocket::bind(reached)).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let socket = udp(&asked.world.guest, (asked.lookup("api.example"), 5000).into());
    socket.send(b"early").unwrap();
    assert_eq!(asked.question().subject, name("api.example"));
    assert_eq!(asked.arrived(), []);
    asked.decide(SESSION);
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    server.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut buffer = [0; 16];
    wait_until(PATIENCE, "a datagram and its answer", || {
        socket.send(b"again").unwrap();
        let Ok((_, from)) = server.recv_from(&mut buffer) else { return false };
        server.send_to(b"answer", from).unwrap();
        socket.recv(&mut buffer).is_ok_and(|len| &buffer[..len] == b"answer")
    });
}

#[test]
fn flood_of_names_is_bounded_and_others_are_served() {
    const NAMES: usize = 10_000;
    let asked = Asked::new(needs!(World::root()), "ask any\nallow 203.0.113.66:22");
    let (guest, handle) = (&asked.world.guest, asked.handle());
    let flood = |is_attended: bool| {
        handle.blocking().set_approvers(usize::from(is_attended));
        let resolver = udp(guest, (NAMESERVER, 53).into());
        guest.enter(|| {
            for number in 0..NAMES / 2 {
                let name = format!("n{number}-{is_attended}.example");
                let to = (lookup_by(&resolver, &name), 443).into();
                // The connection is given up at once, and its question stays.
                let _ = connect_here(to);
                if number % 500 == 0 {
                    let mut stream = connect(guest, SSH).unwrap();
                    stream.write_all(b"bytes").unwrap();
                    assert_eq!(answer(&mut stream), SEEN);
                    assert!(handle.blocking().questions().unwrap().len() <= 64);
                }
            }
        });
        asked.settle();
        asked.questions().len()
    };
    assert_eq!(flood(true), 64);
    let flows = asked.handle().blocking().stats().unwrap().flows;
    assert!(flows <= 256 + 100, "{flows} flows");
    // They wait for somebody to come back; new ones are refused.
    wait_until(PATIENCE, "the end of all questions", || {
        asked.handle().blocking().set_approvers(0);
        asked.questions().is_empty()
    });
    assert_eq!(flood(false), 0);
    let only = |to: &SocketAddr| *to == SSH || to.port() == 9;
    assert!(asked.arrived().iter().all(only), "no name has left");
}

#[test]
fn placeholder_leads_to_its_own_name_of_its_own_guest_and_no_other_port() {
    let world = needs!(World::root());
    let Outside { servers: _servers, dns: _dns, outside, config } = Outside::of(&world);
    let instance =
        world.host.enter(|| Builder::new(Switchboard::new().unwrap()).dns(config).spawn().unwrap());
    let handle = instance.handle();
    let handle = handle.blocking();
    handle.set_approvers(1);
    let [first, second] = [100, 101].map(|last| {
        let namespace = Container::alone(&world, Account::Root);
        let address = Ipv4Addr::new(10, 0, 2, last);
        let plan = SlirpNetwork::default();
        let configure = Configuration { address, ..Configuration::for_plan(&plan, 1500) };
        let target = NamespaceTarget::of_pid(namespace.pid().cast_signed()).unwrap();
        let request = TapRequest { name: "tap0".to_owned(), configure: Some(configure) };
        let tap = open_tap(&target, &request).unwrap();
        let mac = tap.mac().unwrap().unwrap();
        let names = vec![format!("m{last}").parse().unwrap()];
        let member = Member { mac, address, address6: None, names, aliases: Vec::new() };
        let egress = Some(policy("ask api.example\nallow private\nallow index.example"));
        let member = NewMember { tap, member, egress, rates: None, guard: None };
        (namespace, handle.add_member(member).unwrap())
    });
    let placeholder = lookup(&first.0, "api.example");
    let is_refused = |guest: &Namespace, to| refused(connect(guest, to)).after < AT_ONCE;
    // Guessed, and another member's, which `private` would cover.
    assert!(is_refused(&first.0, "198.19.200.200:443".parse().unwrap()));
    assert!(is_refused(&second.0, (placeholder, 443).into()));
    // Somebody decides for the first: the others, and other ports, stay as they are.
    std::thread::scope(|scope| {
        let connecting = scope.spawn(|| connect(&first.0, (placeholder, 443).into()));
        wait_until(PATIENCE, "the question", || !handle.questions().unwrap().is_empty());
        let question = handle.questions().unwrap()[0].clone();
        assert_eq!(question.member, Some(first.1));
        handle.decide(question.id, SESSION).unwrap();
        let mut stream = connecting.join().unwrap().unwrap();
        stream.write_all(&hello("api.example")).unwrap();
        assert_eq!(answer(&mut stream), SEEN);
    });
    assert!(is_refused(&second.0, (placeholder, 443).into()));
    let _ = connect_briefly(&first.0, (placeholder, 8443).into());
    wait_until(PATIENCE, "the question", || !handle.questions().unwrap().is_empty());
    assert_eq!(handle.questions().unwrap()[0].port, 8443);
    // Its member leaves.
    handle.remove_member(first.1).unwrap();
    assert_eq!(handle.questions().unwrap(), []);
    settle(&outside, &second.0);
    let known = [(NAME_SERVER, 53), (IpAddr::from([203, 0, 113, 8]), 443)].map(SocketAddr::from);
    let settled: SocketAddr = SETTLED.parse().unwrap();
    let arrived = outside.arrived();
    let is_known = |to| to == settled || known.contains(&to);
    assert!(arrived.iter().all(|packet| is_known(packet.to)), "{arrived:?}");
}

#[test]
fn another_policy_answers_the_question() {
    let asked = Asked::new(needs!(World::root()), "ask any");
    let (stream, ()) = asked.connect_while(SSH, || {
        asked.question();
        let allowed = policy("allow 203.0.113.66:22");
        asked.handle().blocking().set_egress(None, allowed, Established::Cut).unwrap();
    });
    let mut stream = stream.unwrap();
    stream.write_all(b"bytes").unwrap();
    let mut buffer = [0; 16];
    let len = stream.read(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], SEEN);
    assert_eq!(asked.questions(), []);
}
