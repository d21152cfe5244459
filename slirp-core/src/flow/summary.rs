//! What a flow looks like from outside: the rows of a list for people and programs.
//!
//! Owns what a row has. Reading a row changes nothing. How often a program may ask is left to the
//! caller.

use core::net::SocketAddr;
use core::time::Duration;

use super::table::Entry;
use super::{Flow, FlowState};
use crate::config::Timeouts;
use crate::egress::{Action, Cause, Name, Source};
use crate::event::FlowId;
use crate::journal::Ends;
#[cfg(doc)]
use crate::journal::NAMES_TOLD;
use crate::member::MemberId;
use crate::policy::Protocol;
use crate::time::Instant;
use crate::traffic::Traffic;

/// One flow, and what the egress policy makes of it now.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct JudgedFlow {
    /// The flow.
    pub summary: FlowSummary,
    /// The member of a shared network that it is counted for.
    pub member: Option<MemberId>,
    /// The remote on the host's side, if the policy has judged it. A client of a published port as
    /// the host sees it.
    pub reached: Option<SocketAddr>,
    /// The name that the guest's first bytes had, and those that the guest has learned for the
    /// remote's address, at most [`NAMES_TOLD`].
    pub names: Vec<Name>,
    /// What the rules make of it at this moment, and why; `None` where no policy has judged it.
    pub verdict: Option<(Action, Cause)>,
    /// The rule that decides, if one does.
    pub rule: Option<Source>,
}

/// One flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FlowSummary {
    /// Its name.
    pub id: FlowId,
    /// The protocol; the family is that of `guest`.
    pub protocol: Protocol,
    /// The guest's side. An echo flow's port is the ICMP identifier.
    pub guest: SocketAddr,
    /// The remote as the guest knows it. A UDP or echo flow may have several: the one that the
    /// guest has addressed last. Echo has no ports: 0.
    pub remote: SocketAddr,
    /// The host's side of the host's socket, where there is one. Filled in by the host side.
    pub local: Option<SocketAddr>,
    /// Whether the remote has opened the flow, through a forwarded port.
    pub is_inbound: bool,
    /// Where it stands.
    pub state: FlowState,
    /// How long it has existed.
    pub age: Duration,
    /// How long nothing has happened.
    pub idle: Duration,
    /// What has passed.
    pub traffic: Traffic,
}

impl FlowSummary {
    pub(crate) fn of(entry: &Entry, timeouts: &Timeouts, now: Instant) -> Self {
        let Ends { protocol, guest, remote } = entry.ends();
        let age = now.saturating_since(entry.meta.created_at);
        // Traffic puts the expiry off by a whole timeout; what is left of it tells the idle time.
        let idle = |expires_at: Instant, timeout: Duration| {
            timeout.saturating_sub(expires_at.saturating_since(now))
        };
        let (is_inbound, state, idle) = match &entry.flow {
            Flow::Tcp(flow) => {
                (flow.is_inbound(), flow.state(), now.saturating_since(flow.active_at()))
            }
            Flow::Udp(flow) => {
                let idle = idle(flow.expires_at(), flow.idle_timeout(timeouts));
                (false, FlowState::Open, idle)
            }
            Flow::Echo(flow) => {
                let idle = idle(flow.expires_at(), timeouts.echo);
                (false, FlowState::Open, idle)
            }
            Flow::InboundUdp(flow) => {
                let idle = idle(flow.expires_at(), timeouts.udp);
                (true, FlowState::Open, idle)
            }
        };
        Self {
            id: entry.meta.id,
            protocol,
            guest,
            remote,
            local: None,
            is_inbound,
            state,
            age,
            idle: idle.min(age),
            traffic: entry.meta.traffic,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{ForwardId, Origin};
    use crate::flow::echo::EchoFlow;
    use crate::flow::inbound_udp::InboundUdp;
    use crate::flow::permit::{Kind, Permit};
    use crate::flow::table::Meta;
    use crate::flow::udp::UdpFlow;
    use crate::flow::{FlowKey, GuestSide};
    use crate::mac::MacAddr;
    use crate::plan::AddressPlan;

    const ANYBODY: &str = "0.0.0.0:0";

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn at(secs: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(secs)
    }

    fn guest() -> GuestSide {
        GuestSide { address: address("10.0.2.100:5000"), mac: MacAddr::default() }
    }

    /// A flow that has existed since second 10.
    fn entry(protocol: Protocol, remote: &str, flow: Flow) -> Entry {
        let meta = Meta {
            id: FlowId { index: 3, generation: 9 },
            key: FlowKey::new(protocol, guest().address, address(remote)),
            permit: Permit::new(Kind::Udp, None, at(10)),
            created_at: at(10),
            traffic: Traffic { from_guest: 1, to_guest: 2 },
            is_ready: false,
            is_told: false,
            passed: None,
        };
        Entry { meta, flow }
    }

    fn of(entry: &Entry, secs: u64) -> FlowSummary {
        FlowSummary::of(entry, &Timeouts::default(), at(secs))
    }

    /// A mapping whose guest has sent to `written`, which is `reached` on the host, at second 12.
    fn mapping(written: &str, reached: &str) -> Entry {
        let mut flow = UdpFlow::new(guest(), at(10));
        let (written, reached) = (address(written), address(reached));
        let (plan, timeouts) = (AddressPlan::default(), Timeouts::default());
        flow.on_guest_datagram(guest(), written, reached, &plan, &timeouts, at(12));
        entry(Protocol::Udp, ANYBODY, Flow::Udp(Box::new(flow)))
    }

    #[test]
    fn remote_is_the_one_that_the_guest_knows() {
        let entry = mapping("10.0.2.2:7", "127.0.0.1:7");
        let expected = FlowSummary {
            id: entry.meta.id,
            protocol: Protocol::Udp,
            guest: guest().address,
            remote: address("10.0.2.2:7"),
            local: None,
            is_inbound: false,
            state: FlowState::Open,
            age: Duration::from_secs(20),
            idle: Duration::from_secs(18),
            traffic: Traffic { from_guest: 1, to_guest: 2 },
        };
        assert_eq!(of(&entry, 30), expected);
    }

    #[test]
    fn idle_time_is_what_has_passed_of_the_timeout_that_counts() {
        let timeouts = Timeouts::default();
        let mut echo = EchoFlow::new(guest(), at(10));
        echo.on_request(guest(), [192, 0, 2, 1].into(), &timeouts, at(12));
        let client = address("198.51.100.2:700");
        let origin = Origin { rule: ForwardId(1), client, local: client };
        let mut forwarded = InboundUdp::new(guest(), origin, &timeouts, at(10));
        forwarded.on_datagram(&timeouts, at(12));
        for (entry, timeout) in [
            (mapping("192.0.2.1:9", "192.0.2.1:9"), timeouts.udp),
            (mapping("192.0.2.1:53", "192.0.2.1:53"), timeouts.udp_dns),
            (entry(Protocol::Echo, ANYBODY, Flow::Echo(Box::new(echo))), timeouts.echo),
            (
                entry(Protocol::Udp, "10.0.2.2:700", Flow::InboundUdp(Box::new(forwarded))),
                timeouts.udp,
            ),
        ] {
            assert_eq!(of(&entry, 12).idle, Duration::ZERO);
            assert_eq!(of(&entry, 17).idle, Duration::from_secs(5));
            // The timer that ends it may be late.
            assert_eq!(of(&entry, 1000).idle, timeout);
        }
    }

    #[test]
    fn flow_that_was_never_used_is_no_longer_idle_than_it_is_old() {
        let unused =
            entry(Protocol::Udp, ANYBODY, Flow::Udp(Box::new(UdpFlow::new(guest(), at(10)))));
        let summary = of(&unused, 11);
        assert_eq!((summary.age, summary.idle), (Duration::from_secs(1), Duration::from_secs(1)));
    }

    #[test]
    fn echo_has_no_ports_and_remotes_open_what_is_forwarded() {
        let mut echo = EchoFlow::new(guest(), at(10));
        echo.on_request(guest(), [192, 0, 2, 1].into(), &Timeouts::default(), at(12));
        let summary = of(&entry(Protocol::Echo, ANYBODY, Flow::Echo(Box::new(echo))), 12);
        assert_eq!((summary.remote, summary.is_inbound), (address("192.0.2.1:0"), false));
        let client = address("127.0.0.1:700");
        let origin = Origin { rule: ForwardId(1), client, local: client };
        let forwarded = InboundUdp::new(guest(), origin, &Timeouts::default(), at(10));
        let entry = entry(Protocol::Udp, "10.0.2.2:700", Flow::InboundUdp(Box::new(forwarded)));
        let summary = of(&entry, 12);
        // Where it really came from means nothing to a guest.
        assert_eq!((summary.remote, summary.is_inbound), (address("10.0.2.2:700"), true));
    }
}
