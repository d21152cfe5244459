//! The target `flow_script`: conversations of a guest and a host, move by move.
//!
//! Owns the language of its inputs: byte 0 chooses the configuration, then each move is an [`Op`]
//! (its number modulo how many there are) and four bytes of arguments. The content of every stream
//! is known, so the target checks not only that nothing breaks, but also that bytes and ends
//! arrive.

use core::time::Duration;

use slirp_core::egress::{Action, Decision, Scope};
use slirp_core::event::{DatagramError, HostError};
use slirp_core::{Rate, Rates};

use crate::INPUT_CAP;
use crate::driver::{Driver, World};
use crate::guest::{content, with_vnet};
use crate::packet::{ACK, FIN, PSH, RST, SYN, Tcp, UDP, URG, echo, ipv4, tcp, udp, udp_segment};

/// Most bytes that one move sends to the guest; this bounds the time of an input.
const GIVEN_CAP: usize = 32 * 1024;

/// One move. The arguments are `which` (a conversation, modulo four), `a` (a byte), `b` (16 bits).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// The guest opens: `a` chooses options, `b` is the high half of the sequence number.
    Open = 0,
    /// The guest sends `b` bytes in order; with `a` odd, and a FIN.
    Send,
    /// The guest sends 16 times `a` bytes, `b` (signed) bytes away from its stream's position.
    SendAt,
    /// The guest acknowledges everything, with window `b`.
    Acknowledge,
    /// The guest acknowledges `b` (signed) times 16 bytes from what it received; `a` is the
    /// window's high byte.
    AcknowledgeAt,
    /// The guest ends its stream, together with `b` more bytes.
    End,
    /// The guest resets, `b` (signed) bytes from what the stack expects.
    Reset,
    /// Any flags `a`, urgent pointer `b`, in order.
    Flags,
    /// The host's connect comes out: `a` even is success, else a kind of failure.
    Connected,
    /// The host has `b` more bytes.
    HostBytes,
    /// The host ends its stream.
    HostEnd,
    /// The host's socket breaks.
    HostFail,
    /// The host takes `b` more bytes; all ones is no limit.
    HostRoom,
    /// The guest sends a datagram of `b` (modulo 1400) bytes from port 1000 + `a`.
    Udp,
    /// The host answers a datagram with `b` bytes; `a` not zero cuts them into that many times
    /// eight.
    HostUdp,
    /// The host's error queue reports an error about a datagram; `a` is the kind.
    HostUdpError,
    /// The guest sends an echo request.
    Echo,
    /// The echo reply arrives, or an error with `a` odd.
    HostEcho,
    /// The guest sends a DNS query.
    Dns,
    /// The oldest query is answered with `b` bytes, or not at all with `a` odd.
    DnsAnswer,
    /// A fragment of a datagram: `a` is its offset in eights and `b` its length; the high bit of
    /// `b` means that more follow.
    Fragment,
    /// `b` tenths of a millisecond pass, timer by timer.
    Step,
    /// `b` times 100 milliseconds pass at once.
    Jump,
    /// The host's socket is reported ready for no reason.
    Wake,
    /// The egress policy with the number `a` comes into force; with `which` odd, what it does not
    /// allow is cut. `b` (modulo three) people may decide from then on.
    Policy,
    /// Somebody answers a question: bit 0 of `a` allows, bits 1..=2 are the scope, for `b` tenths
    /// of a second if it is one for a time, bit 3 is all ports, bit 4 the parent.
    Decide,
    /// The rates become `b` times 800 bits a second: bit 0 of `a` to the guest, bit 1 from it, the
    /// others (not zero) a burst in hundreds of bytes.
    Rates,
}

impl Op {
    /// All moves, in the order of their numbers.
    pub const ALL: [Self; 27] = [
        Self::Open,
        Self::Send,
        Self::SendAt,
        Self::Acknowledge,
        Self::AcknowledgeAt,
        Self::End,
        Self::Reset,
        Self::Flags,
        Self::Connected,
        Self::HostBytes,
        Self::HostEnd,
        Self::HostFail,
        Self::HostRoom,
        Self::Udp,
        Self::HostUdp,
        Self::HostUdpError,
        Self::Echo,
        Self::HostEcho,
        Self::Dns,
        Self::DnsAnswer,
        Self::Fragment,
        Self::Step,
        Self::Jump,
        Self::Wake,
        Self::Policy,
        Self::Decide,
        Self::Rates,
    ];

    /// The bytes of this move in an input.
    pub const fn emit(self, which: u8, a: u8, b: u16) -> [u8; 5] {
        let [b0, b1] = b.to_be_bytes();
        [self as u8, which, a, b0, b1]
    }
}

/// Plays one input on a new stack. Panics when a promise is broken.
pub fn flow_script(data: &[u8]) {
    let data = &data[..data.len().min(INPUT_CAP)];
    let Some((&choice, moves)) = data.split_first() else {
        return;
    };
    let mut play = Play { driver: Driver::new(choice, World::Scripted) };
    play.driver.guest.be_strict();
    for &[op, which, a, b0, b1] in moves.as_chunks().0 {
        let op = Op::ALL[usize::from(op) % Op::ALL.len()];
        play.play(op, usize::from(which % 4), a, u16::from_be_bytes([b0, b1]));
    }
    play.driver.finish();
}

struct Play {
    driver: Driver,
}

impl Play {
    fn play(&mut self, op: Op, which: usize, a: u8, b: u16) {
        let signed = i32::from(i16::from_be_bytes(b.to_be_bytes()));
        let conversation = self.driver.guest.conversations[which].clone();
        let (next, heard) = (conversation.next, conversation.their_next);
        match op {
            Op::Open => self.open(which, a, u32::from(b) << 16 | 0xfff0),
            Op::Send => self.send(which, next, heard, b, if a & 1 == 0 { PSH } else { FIN }),
            Op::SendAt => {
                self.send(which, next.wrapping_add_signed(signed), heard, u16::from(a) * 16, PSH);
            }
            Op::Acknowledge => self.segment(which, (next, heard), ACK, b, 0, 0),
            Op::AcknowledgeAt => {
                let ack = heard.wrapping_add_signed(signed * 16);
                self.segment(which, (next, ack), ACK, u16::from(a) << 8, 0, 0);
            }
            Op::End => self.send(which, next, heard, b, FIN),
            Op::Reset => {
                let seq = conversation.acknowledged.wrapping_add_signed(signed);
                self.segment(which, (seq, heard), RST | (a & ACK), 0, 0, 0);
            }
            // A SYN or FIN has a move of its own, which keeps the book.
            Op::Flags => self.segment(which, (next, heard), a & !(SYN | FIN), 0x4000, b, 0),
            Op::Connected => self.connected(which, a),
            Op::HostBytes => self.host(which, |host| {
                let given = if host.is_ended { 0 } else { usize::from(b) };
                host.ready = (host.ready + given).min(GIVEN_CAP);
            }),
            Op::HostEnd => self.host(which, |host| host.is_ended = true),
            Op::HostFail => self.host(which, |host| host.is_failed = true),
            Op::HostRoom => self.host(which, |host| {
                host.room = if b == u16::MAX { usize::MAX } else { usize::from(b) };
            }),
            Op::Wake => self.host(which, |_| {}),
            Op::Udp => self.udp(which, a, usize::from(b) % 1400),
            Op::HostUdp => self.host_udp(which, a, usize::from(b)),
            Op::HostUdpError => self.host_udp_error(which, a),
            Op::Echo => {
                let (from, to) = (conversation.guest.ip(), conversation.remote.ip());
                self.frame(&echo(from, to, u16::from(a), b, &[0; 56]));
            }
            Op::HostEcho => self.host_echo(which, a, b),
            Op::Dns => self.dns(a, b),
            Op::DnsAnswer => self.dns_answer(a, usize::from(b)),
            Op::Fragment => self.fragment(which, a, b),
            Op::Step => self.driver.step(Duration::from_micros(u64::from(b) * 100)),
            Op::Jump => self.driver.jump(Duration::from_millis(u64::from(b) * 100)),
            Op::Policy => {
                self.driver.stack.set_approvers(usize::from(b % 3), self.driver.now);
                self.driver.set_policy(a, which % 2 == 1);
            }
            Op::Decide => self.driver.decide(which, &decision(a, b)),
            Op::Rates => {
                let burst = Some(u64::from(a >> 2) * 100).filter(|&burst| burst != 0);
                let rate = Rate { bits_per_second: u64::from(b) * 800, burst };
                let limit = |bit| (a & bit != 0).then_some(rate);
                let rates = Rates::new(limit(1), limit(2));
                self.driver.stack.set_rates(None, rates, self.driver.now);
                self.driver.turn(None);
            }
        }
    }

    fn frame(&mut self, packet: &[u8]) {
        let mut frame = with_vnet(self.driver.stack.config(), packet);
        self.driver.handle_frame(&mut frame, None);
    }

    fn open(&mut self, which: usize, a: u8, isn: u32) {
        let scale = [3, 3, a >> 5 << 1, 1];
        let options: &[u8] = match a % 8 {
            0 => &[],
            1 => &[2, 4, 0, 0],
            2 => &[2, 4, 0, 1],
            3 => &[2, 4, 2, 24, 3, 3, 14, 1],
            4 => &[2, 4, 0xff, 0xff],
            5 => &scale,
            6 => &[2, 3, 1, 1],
            _ => &[2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7],
        };
        let c = &mut self.driver.guest.conversations[which];
        (c.isn, c.next, c.sent_end) = (isn, isn.wrapping_add(1), isn);
        c.ends.clear();
        let packet = tcp(&Tcp {
            from: c.guest,
            to: c.remote,
            seq: isn,
            ack: 0,
            flags: SYN,
            window: u16::from(a) << 8 | 0xff,
            urgent: 0,
            options,
            payload: &[],
        });
        let mut frame = with_vnet(self.driver.stack.config(), &packet);
        self.driver.handle_frame(&mut frame, Some(isn.wrapping_add(1)));
    }

    fn send(&mut self, which: usize, seq: u32, ack: u32, len: u16, flags: u8) {
        // The most that one IP packet takes.
        let len = u32::from(len).min(60_000);
        let end = seq.wrapping_add(len);
        if self.driver.guest.note_sent(which, end, flags & FIN != 0) {
            for host in &mut self.driver.hosts {
                host.origin = None;
            }
        }
        if flags & FIN != 0 {
            self.driver.guest.note_end(which, end);
        }
        let c = &mut self.driver.guest.conversations[which];
        if seq == c.next {
            c.next = end.wrapping_add(u32::from(flags & FIN != 0));
        }
        self.segment(which, (seq, ack), ACK | flags, 0x8000, 0, len);
    }

    fn segment(
        &mut self,
        which: usize,
        (seq, ack): (u32, u32),
        flags: u8,
        window: u16,
        urgent: u16,
        len: u32,
    ) {
        let c = &self.driver.guest.conversations[which];
        let payload: Vec<u8> = (0..len).map(|at| content(seq.wrapping_add(at))).collect();
        let packet = tcp(&Tcp {
            from: c.guest,
            to: c.remote,
            seq,
            ack,
            flags: if urgent == 0 { flags } else { flags | URG },
            window,
            urgent,
            options: &[],
            payload: &payload,
        });
        self.frame(&packet);
    }

    fn connected(&mut self, which: usize, a: u8) {
        let waiting = self.driver.hosts.iter().filter(|host| host.is_connecting).count();
        if waiting == 0 {
            return;
        }
        let mut waiting_hosts = self.driver.hosts.iter_mut().filter(|host| host.is_connecting);
        let Some(host) = waiting_hosts.nth(which % waiting) else {
            return;
        };
        let outcome = if a.is_multiple_of(2) { Ok(()) } else { Err(error(a)) };
        host.is_connecting = false;
        let flow = host.flow;
        self.driver.stack.handle_tcp_connected(flow, outcome, self.driver.now);
        self.driver.turn(None);
    }

    fn host(&mut self, which: usize, change: impl FnOnce(&mut crate::driver::Host)) {
        let count = self.driver.hosts.len().max(1);
        if let Some(host) = self.driver.hosts.get_mut(which % count) {
            change(host);
            let flow = host.flow;
            self.driver.stack.wake_flow(flow);
            self.driver.turn(None);
        }
    }

    fn udp(&mut self, which: usize, a: u8, len: usize) {
        let c = &self.driver.guest.conversations[which];
        let mut from = c.guest;
        from.set_port(1000 + u16::from(a));
        let mut to = c.remote;
        to.set_port(if a.is_multiple_of(4) { 53 } else { 69 });
        let packet = udp(from, to, &vec![a; len]);
        self.frame(&packet);
    }

    fn host_udp(&mut self, which: usize, a: u8, len: usize) {
        let count = self.driver.datagrams.len().max(1);
        let Some(&(flow, mut remote)) = self.driver.datagrams.get(which % count) else {
            return;
        };
        if a & 0x80 != 0 {
            remote.set_port(remote.port().wrapping_add(1).max(1));
        }
        let segment_len = Some(u16::from(a & 0x7f) * 8).filter(|&len| len != 0);
        let payload = vec![a; len];
        let now = self.driver.now;
        self.driver.stack.handle_udp_from_host(flow, remote, &payload, segment_len, 0, now);
        self.driver.turn(None);
    }

    fn host_udp_error(&mut self, which: usize, a: u8) {
        let count = self.driver.datagrams.len().max(1);
        let Some(&(flow, remote)) = self.driver.datagrams.get(which % count) else {
            return;
        };
        let payload = [a; 40];
        if a & 0x80 == 0 {
            self.driver.stack.handle_udp_unsent(flow, remote, error(a), &payload, 1400, 1);
        } else {
            self.driver.stack.handle_udp_undelivered(flow, &datagram_error(remote, a), &payload);
        }
        self.driver.turn(None);
    }

    fn host_echo(&mut self, which: usize, a: u8, b: u16) {
        let count = self.driver.echoes.len().max(1);
        let Some(&(flow, remote, sequence)) = self.driver.echoes.get(which % count) else {
            return;
        };
        let (stack, now) = (&mut self.driver.stack, self.driver.now);
        let payload = vec![a; usize::from(b)];
        match a % 4 {
            0 => stack.handle_echo_reply(flow, remote, sequence, &payload, None, now),
            1 => stack.handle_echo_unsent(flow, remote, sequence, error(a >> 2)),
            2 => {
                let remote = core::net::SocketAddr::new(remote, 0);
                stack.handle_echo_undelivered(flow, &datagram_error(remote, a), sequence);
            }
            _ => stack.handle_echo_not_permitted(flow),
        }
        self.driver.turn(None);
    }

    fn dns(&mut self, a: u8, b: u16) {
        let c = &self.driver.guest.conversations[3];
        let mut from = c.guest;
        from.set_port(2000 + u16::from(a % 4));
        let mut message = b.to_be_bytes().to_vec();
        message.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 0, 0, a % 30, 0, 1]);
        let packet = udp(from, c.remote, &message);
        self.frame(&packet);
    }

    fn dns_answer(&mut self, a: u8, len: usize) {
        if self.driver.queries.is_empty() {
            return;
        }
        let (query, mut message) = self.driver.queries.remove(0);
        message.resize(message.len().max(len), 0);
        message[2] |= 0x80;
        let answer = a.is_multiple_of(2).then_some(message);
        self.driver.stack.handle_dns_answer(query, answer, self.driver.now);
        self.driver.turn(None);
    }

    fn fragment(&mut self, which: usize, a: u8, b: u16) {
        let c = &self.driver.guest.conversations[which];
        if c.guest.is_ipv6() {
            return;
        }
        let whole = udp_segment(c.guest, c.remote, &[0; 4096]);
        let at = usize::from(a) * 8;
        let end = (at + usize::from(b & 0xfff)).min(whole.len());
        let field = u16::from(a) | if b & 0x8000 == 0 { 0 } else { 0x2000 };
        let payload = whole.get(at..end).unwrap_or(&[]);
        let packet = ipv4(c.guest.ip(), c.remote.ip(), UDP, 7, field, payload);
        self.frame(&packet);
    }
}

fn decision(a: u8, b: u16) -> Decision {
    Decision {
        action: if a & 1 == 0 { Action::Deny } else { Action::Allow },
        scope: match a >> 1 & 3 {
            0 | 1 => Scope::Once,
            2 => Scope::For(Duration::from_millis(u64::from(b) * 100)),
            _ => Scope::Session,
        },
        all_ports: a & 8 != 0,
        parent: a & 16 != 0,
    }
}

const fn error(a: u8) -> HostError {
    match a >> 1 & 7 {
        0 => HostError::Refused,
        1 => HostError::Reset,
        2 => HostError::NetworkUnreachable,
        3 => HostError::HostUnreachable,
        4 => HostError::TimedOut,
        5 => HostError::TooLarge(Some(a as u16)),
        6 => HostError::TooLarge(None),
        _ => HostError::Exhausted,
    }
}

fn datagram_error(remote: core::net::SocketAddr, a: u8) -> DatagramError {
    let offenders =
        [None, Some(remote.ip()), Some([192, 0, 2, 254].into()), Some([127, 0, 0, 1].into())];
    DatagramError {
        remote,
        offender: offenders[usize::from(a >> 1 & 3)],
        icmp_type: if remote.is_ipv4() { 3 } else { 1 },
        icmp_code: a >> 3 & 7,
        info: u32::from(a) * 16,
        error: error(a),
    }
}
