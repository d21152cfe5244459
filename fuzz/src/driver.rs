//! A stack with a scripted host around it and a virtual clock.
//!
//! Owns the order of calls that [`Stack`] asks for, the caps that make an endless loop a failure,
//! and the scripted ends of host sockets. The targets decide what the guest sends, and when.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::collections::BTreeMap;

use slirp_core::config::{Offload, StackConfig};
use slirp_core::discard::DiscardReason;
use slirp_core::egress::{Action, Decision, EgressPolicy};
use slirp_core::event::{Datagram, DnsQueryId, FlowId, HostAction};
use slirp_core::plan::Ipv6Plan;
use slirp_core::policy::Protocol;
use slirp_core::stack::{Established, Stack};
use slirp_core::time::Instant;
use slirp_core::{HostStream, Transfer};

use crate::check::judge;
use crate::egress::{Egress, QUESTIONS_CAP};
use crate::guest::{Guest, content};

/// Frames that one turn may emit: a full ring in segments of 28 bytes is 2,341, for each of the
/// eight flows; a turn with more repeats itself.
const FRAMES_CAP: usize = 32 * 1024;
/// How often one turn may find more work without time passing.
const ROUNDS_CAP: usize = 4096;
/// Timers that may fire one by one within a second of virtual time.
const TIMERS_CAP: usize = 4096;

/// Flows at one time; low, so that inputs reach the cap.
pub(crate) const FLOWS_CAP: usize = 8;

/// The host's end of one TCP flow.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) flow: FlowId,
    remote: SocketAddr,
    pub(crate) is_connecting: bool,
    /// The guest's first sequence number after its SYN, if the content is known.
    pub(crate) origin: Option<u32>,
    /// Bytes that wait to be read by the stack.
    pub(crate) ready: usize,
    pub(crate) is_ended: bool,
    pub(crate) is_failed: bool,
    /// Bytes that the socket takes before it blocks.
    pub(crate) room: usize,
    given: u32,
    taken: u32,
    pub(crate) is_shut: bool,
}

impl HostStream for Host {
    fn send(&mut self, data: &[u8]) -> Transfer {
        assert!(!data.is_empty(), "nothing is not sent");
        assert!(!self.is_shut || self.origin.is_none(), "nothing is sent behind the end");
        if self.is_failed || self.is_shut {
            return Transfer::Failed;
        }
        let len = data.len().min(self.room);
        if len == 0 {
            return Transfer::Blocked;
        }
        if let Some(origin) = self.origin {
            let mut seq = origin.wrapping_add(self.taken);
            for &byte in &data[..len] {
                assert_eq!(byte, content(seq), "byte {seq} of the guest is what it sent");
                seq = seq.wrapping_add(1);
            }
        }
        self.room -= len;
        self.taken = self.taken.wrapping_add(u32::try_from(len).expect("a ring fits"));
        Transfer::Moved(len)
    }

    fn recv(&mut self, room: &mut [u8]) -> Transfer {
        assert!(!room.is_empty(), "nothing is not read");
        if self.is_failed {
            return Transfer::Failed;
        }
        let len = room.len().min(self.ready);
        if len == 0 {
            return if self.is_ended { Transfer::Ended } else { Transfer::Blocked };
        }
        for byte in &mut room[..len] {
            *byte = content(self.given);
            self.given = self.given.wrapping_add(1);
        }
        self.ready -= len;
        Transfer::Moved(len)
    }

    fn shutdown_write(&mut self) {
        assert!(!self.is_shut, "the end is told once");
        self.is_shut = true;
    }
}

/// How the host reacts to everything that the script does not decide.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum World {
    /// Connects succeed, datagrams come back, queries are answered with themselves.
    Echoing,
    /// The host reacts only as the script says.
    Scripted,
}

/// See the [module](self).
pub(crate) struct Driver {
    pub(crate) stack: Stack,
    pub(crate) now: Instant,
    pub(crate) hosts: Vec<Host>,
    pub(crate) queries: Vec<(DnsQueryId, Vec<u8>)>,
    pub(crate) datagrams: Vec<(FlowId, SocketAddr)>,
    pub(crate) echoes: Vec<(FlowId, IpAddr, u16)>,
    pub(crate) guest: Guest,
    world: World,
    egress: Egress,
}

impl Driver {
    /// A stack with the configuration of `choice`.
    pub(crate) fn new(choice: u8, world: World) -> Self {
        let config = configure(choice);
        Self {
            stack: Stack::new(config),
            now: Instant::from_micros(1_000_000),
            hosts: Vec::new(),
            queries: Vec::new(),
            datagrams: Vec::new(),
            echoes: Vec::new(),
            guest: Guest::new(),
            world,
            egress: Egress::default(),
        }
    }

    /// One frame of the guest and the turn that follows. `origin` is the sequence number after the
    /// SYN, if the frame is a SYN and the content after it is known.
    pub(crate) fn handle_frame(&mut self, frame: &mut [u8], origin: Option<u32>) {
        let mut echoed = None;
        match self.stack.handle_frame(frame, self.now) {
            Some(Datagram::Udp { flow, remote, payload, segment_len, envelope, .. }) => {
                assert_ne!(envelope.hop_limit, 0);
                assert_ne!(remote.port(), 0);
                assert!(segment_len.is_none_or(|len| len != 0 && usize::from(len) < payload.len()));
                assert!(self.egress.lets_out(Protocol::Udp, remote), "{remote} is not let out");
                echoed = Some((flow, remote, payload.to_vec(), segment_len));
                self.datagrams.push((flow, remote));
            }
            Some(Datagram::Echo { flow, remote, sequence, payload, envelope, .. }) => {
                assert_ne!(envelope.hop_limit, 0);
                let to = SocketAddr::new(remote, 0);
                assert!(self.egress.lets_out(Protocol::Echo, to), "{remote} is not let out");
                self.echoes.push((flow, remote, sequence));
                if self.world == World::Echoing {
                    let payload = payload.to_vec();
                    self.stack.handle_echo_reply(
                        flow,
                        remote,
                        sequence,
                        &payload,
                        Some(60),
                        self.now,
                    );
                }
            }
            // There are no forward rules here.
            Some(Datagram::InboundUdp { .. }) | None => {}
        }
        if self.world == World::Echoing
            && let Some((flow, remote, payload, segment_len)) = echoed
        {
            self.stack.handle_udp_from_host(flow, remote, &payload, segment_len, 0, self.now);
        }
        self.turn(origin);
    }

    /// All work of a host side before it waits.
    pub(crate) fn turn(&mut self, origin: Option<u32>) {
        let mut frames = 0;
        for _ in 0..ROUNDS_CAP {
            if self.is_due() {
                self.stack.handle_timeout(self.now);
            }
            self.take_actions(origin);
            // What had to wait for its rate.
            while self.stack.poll_datagram(self.now).is_some() {}
            self.take_frames(&mut frames);
            if let Some(flow) = self.stack.poll_ready(self.now) {
                if let Some(host) = self.hosts.iter_mut().find(|host| host.flow == flow)
                    && !host.is_connecting
                {
                    let was_shut = host.is_shut;
                    self.stack.pump(flow, host, self.now);
                    if host.is_shut
                        && !was_shut
                        && let Some(origin) = host.origin
                    {
                        self.guest.judge_end(origin.wrapping_add(host.taken));
                    }
                }
                self.take_frames(&mut frames);
            } else if !self.stack.has_work() && !self.is_due() {
                self.judge();
                return;
            }
        }
        panic!("a turn does not end: {:?}", self.stack.stats());
    }

    /// Lets time pass without serving the timers in between, as on a suspended host.
    pub(crate) fn jump(&mut self, by: Duration) {
        self.now = self.now + by;
        self.turn(None);
    }

    /// Lets time pass timer by timer until the next one is more than `within` away.
    pub(crate) fn step(&mut self, within: Duration) {
        let until = self.now + within;
        for _ in 0..TIMERS_CAP {
            match self.stack.poll_timeout() {
                Some((at, _)) if at <= until => {
                    self.now = self.now.max(at);
                    self.turn(None);
                }
                Some(_) | None => {
                    self.now = until;
                    return;
                }
            }
        }
        panic!("timers follow each other without end: {:?}", self.stack.poll_timeout());
    }

    /// Puts the policy with this number into force. With `is_cut` the connections that it does not
    /// allow end.
    pub(crate) fn set_policy(&mut self, number: u8, is_cut: bool) {
        let lines = self.egress.choose(number);
        let policy = EgressPolicy::parse(lines, "script").expect("a constant");
        let established = if is_cut { Established::Cut } else { Established::Keep };
        self.stack.set_egress(None, policy, established, self.now);
        self.turn(None);
        if is_cut {
            self.step(Duration::from_millis(1));
            let may_go_on = |host: &Host| self.egress.lets_go_on(Protocol::Tcp, host.remote);
            assert!(self.hosts.iter().all(may_go_on), "{lines:?} leaves {:?}", self.hosts);
        }
    }

    /// Somebody decides about one of the open questions.
    pub(crate) fn decide(&mut self, which: usize, decision: &Decision) {
        let questions = self.stack.questions(self.now);
        assert!(questions.len() <= QUESTIONS_CAP);
        let Some(question) = questions.get(which % questions.len().max(1)) else { return };
        self.egress.has_allowed |= decision.action == Action::Allow;
        let _ = self.stack.decide(question.id, decision, None, self.now);
        self.turn(None);
    }

    /// Guest and remotes leave; no state of them may be left.
    pub(crate) fn finish(mut self) {
        self.turn(None);
        for at in 0..self.hosts.len() {
            let host = &mut self.hosts[at];
            (host.is_failed, host.room) = (true, usize::MAX);
            let flow = host.flow;
            self.stack.wake_flow(flow);
        }
        for (query, _) in core::mem::take(&mut self.queries) {
            self.stack.handle_dns_answer(query, None, self.now);
        }
        self.turn(None);
        self.step(Duration::from_secs(1));
        // The guest's programs end, and its kernel resets every open connection.
        for mut reset in self.guest.resets(self.stack.config()) {
            self.handle_frame(&mut reset, None);
        }
        for _ in 0..30 {
            self.jump(Duration::from_secs(30));
        }
        let stats = self.stack.stats();
        assert_eq!(stats.flows, 0, "a flow is left: {stats:?} {:?}", self.hosts);
        assert!(self.hosts.is_empty(), "every socket was closed: {:?}", self.hosts);
    }

    fn is_due(&mut self) -> bool {
        self.stack.poll_timeout().is_some_and(|(at, _)| at <= self.now)
    }

    fn take_actions(&mut self, origin: Option<u32>) {
        while let Some(action) = self.stack.poll_action() {
            match action {
                HostAction::ConnectTcp { flow, remote, .. } => {
                    assert_ne!(remote.port(), 0);
                    assert!(self.egress.lets_out(Protocol::Tcp, remote), "{remote} is not let out");
                    self.connect(flow, remote, origin);
                }
                HostAction::Close { flow, .. } | HostAction::AskElsewhere { flow, .. } => {
                    self.hosts.retain(|host| host.flow != flow)
                }
                HostAction::CancelDns { query, .. } => {
                    self.queries.retain(|&(other, _)| other != query);
                }
                HostAction::QueryDns { query, message, .. } => {
                    if self.world == World::Echoing {
                        self.stack.handle_dns_answer(query, Some(message), self.now);
                    } else {
                        self.queries.push((query, message));
                    }
                }
            }
        }
    }

    fn connect(&mut self, flow: FlowId, remote: SocketAddr, origin: Option<u32>) {
        let is_echoing = self.world == World::Echoing;
        self.hosts.push(Host {
            flow,
            remote,
            is_connecting: !is_echoing,
            origin,
            ready: if is_echoing { 5000 } else { 0 },
            is_ended: is_echoing,
            is_failed: false,
            room: usize::MAX,
            given: 0,
            taken: 0,
            is_shut: false,
        });
        if is_echoing {
            self.stack.handle_tcp_connected(flow, Ok(()), self.now);
        }
    }

    fn take_frames(&mut self, frames: &mut usize) {
        while let Some(frame) = self.stack.poll_frame(self.now).map(<[u8]>::to_vec) {
            *frames += 1;
            assert!(*frames <= FRAMES_CAP, "one turn emits frames without end");
            if let Some(segment) = judge(self.stack.config(), &frame) {
                self.guest.hear(&segment);
            }
        }
    }

    fn judge(&self) {
        let stats = self.stack.stats();
        assert_eq!(
            stats.discards.value(DiscardReason::TcpEngineFailed),
            0,
            "the engine never panics and never refuses what was checked"
        );
        let flows = usize::try_from(stats.flows).expect("a count of things in memory");
        assert!(flows <= FLOWS_CAP, "{flows} flows");
        let open: BTreeMap<_, _> =
            self.hosts.iter().map(|host| (host.flow.index, host.flow.generation)).collect();
        assert_eq!(open.len(), self.hosts.len(), "a slot has one socket");
        assert!(open.len() <= flows, "every socket belongs to a flow");
    }
}

/// The configuration that a byte stands for: bits 0..=1 offload, bit 2 IPv6, bits 3..=5 MTU,
/// bit 6 policy, bit 7 ring.
fn configure(choice: u8) -> StackConfig {
    let mut config = StackConfig::default();
    let vnet = Offload { vnet_header: true, ..Offload::default() };
    config.offload = match choice & 3 {
        0 => Offload::FULL,
        1 => vnet,
        2 => Offload { checksum: true, ..vnet },
        _ => Offload::default(),
    };
    config.mtu = match choice >> 3 & 7 {
        0..=2 => 1500,
        3 => 1280,
        4 => 576,
        5 => 68,
        6 => 9000,
        _ => 65_521,
    };
    // RFC 8200 section 5: IPv6 needs an MTU of 1280.
    if choice & 4 != 0 && config.mtu >= 1280 {
        config.plan = config.plan.with_ipv6(Ipv6Plan::default());
    }
    if choice & 0x40 != 0 {
        config.policy.allow_host_loopback = false;
        config.policy.dns_service = false;
    }
    config.limits.flows = FLOWS_CAP;
    config.limits.half_open = 3;
    config.limits.echo_flows = 2;
    config.limits.ring_len = if choice & 0x80 == 0 { 64 * 1024 } else { 256 * 1024 };
    config.limits.reassembly_bytes = 256 * 1024;
    config.limits.reassembly_datagrams = 4;
    config.limits.dns_queries = 2;
    config.seed = u64::from(choice);
    let gateway = config.plan.ipv4().and_then(|family| family.gateway);
    debug_assert_eq!(gateway, Some(Ipv4Addr::new(10, 0, 2, 2)));
    config
}
