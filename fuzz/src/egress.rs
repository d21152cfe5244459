//! What the egress policies of scripts let out.
//!
//! Owns a few policies with, for each, a second opinion in plain words: what it lets out at once,
//! what somebody has to allow first, and what never leaves. They are about addresses alone: what a
//! guest says first, which names decide about, is judged in the targets of its own.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use slirp_core::policy::Protocol;

/// Questions that one guest may have open.
pub(crate) const QUESTIONS_CAP: usize = 64;

/// When something may leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Leaves {
    AtOnce,
    /// Once somebody has allowed something.
    Asked,
    Never,
}
use Leaves::{Asked, AtOnce, Never};

/// The lines of a policy, and what it lets out, besides the host's loopback.
type Policy = (&'static str, bool, fn(Protocol, SocketAddr) -> Leaves);

const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

const POLICIES: [Policy; 8] =
    [
        ("allow any", false, |_, _| AtOnce),
        ("", false, |_, _| Never),
        ("allow 192.0.2.1:443", false, |_, to| {
            if (to.ip(), to.port()) == (FAR, 443) { AtOnce } else { Never }
        }),
        ("ask any\nallow host-loopback", true, |protocol, _| asked(protocol)),
        ("ask 192.0.2.1\nallow [2001:db8::/32]\nset ask-timeout 5", false, |protocol, to| {
            if to.is_ipv6() { AtOnce } else { asked(protocol) }
        }),
        ("allow any\ndeny any:443", false, |_, to| if to.port() == 443 { Never } else { AtOnce }),
        ("allow any\nask udp:any:69\nallow host-loopback:80", true, |protocol, to| {
            if (protocol, to.port()) == (Protocol::Udp, 69) { Asked } else { AtOnce }
        }),
        // What is not allowed is only told.
        ("set mode audit\nask 192.0.2.1", false, |_, _| AtOnce),
    ];

/// Echoes are never asked about.
fn asked(protocol: Protocol) -> Leaves {
    if protocol == Protocol::Echo { Never } else { Asked }
}

/// The policy in force, and whether somebody has allowed something.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Egress {
    policy: Option<&'static Policy>,
    pub(crate) has_allowed: bool,
}

impl Egress {
    /// Puts the policy with this number into force, and returns its lines.
    pub(crate) fn choose(&mut self, number: u8) -> &'static str {
        let policy = &POLICIES[usize::from(number) % POLICIES.len()];
        self.policy = Some(policy);
        policy.0
    }

    /// Whether something may leave for `to`, on the host's side.
    pub(crate) fn lets_out(&self, protocol: Protocol, to: SocketAddr) -> bool {
        let Some((_, opens_loopback, leaves)) = self.policy else { return true };
        let leaves = match (to.ip().is_loopback(), opens_loopback) {
            (true, true) => AtOnce,
            (true, false) => Never,
            (false, _) => leaves(protocol, to),
        };
        leaves == AtOnce || (leaves == Asked && self.has_allowed)
    }

    /// The same for what is open when the policy comes into force: what would be asked about goes
    /// on.
    pub(crate) fn lets_go_on(&self, protocol: Protocol, to: SocketAddr) -> bool {
        Self { has_allowed: true, ..*self }.lets_out(protocol, to)
    }
}
