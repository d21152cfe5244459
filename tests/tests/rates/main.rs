//! Guests whose rates are limited, by the library's own calls.
//!
//! No test measures how fast the machine is. A limit is checked by the least time that so many
//! bytes must take, and a part by how much others have when the first has all.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

mod datagrams;
mod streams;

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use slirp_core::instance::{Builder, Instance, Member, MemberId, NewMember, Switchboard};
use slirp_core::netns::{Configuration, NamespaceTarget, TapRequest, open_tap};
use slirp_core::plan::SlirpNetwork;
use slirp_core::{Rate, Rates};
use slirp_tests::*;

/// What passes at once after a pause.
const BURST: u64 = 64 * 1024;

/// A shared network in this process.
struct Network {
    world: World,
    instance: Instance,
}

const fn rate(bits_per_second: u64) -> Option<Rate> {
    Some(Rate { bits_per_second, burst: Some(BURST) })
}

/// The same for both directions.
const fn both(bits_per_second: u64) -> Rates {
    Rates::new(rate(bits_per_second), rate(bits_per_second))
}

impl Network {
    /// One whose members are limited if they have no limits of their own.
    fn new(world: World, rates: Rates) -> Self {
        let network = || Builder::new(Switchboard::new().unwrap()).rates(rates).spawn().unwrap();
        let instance = world.host.enter(network);
        Self { world, instance }
    }

    /// A member `.LAST`.
    fn join(&self, last: u8, rates: Option<Rates>) -> (Namespace, MemberId) {
        let namespace = Container::alone(&self.world, Account::Root);
        let address = Ipv4Addr::new(10, 0, 2, last);
        let plan = SlirpNetwork::default();
        let configure = Configuration { address, ..Configuration::for_plan(&plan, 1500) };
        let target = NamespaceTarget::of_pid(namespace.pid().cast_signed()).unwrap();
        let request = TapRequest { name: "tap0".to_owned(), configure: Some(configure) };
        let tap = open_tap(&target, &request).unwrap();
        let mac = tap.mac().unwrap().unwrap();
        let member =
            Member { mac, address, address6: None, names: Vec::new(), aliases: Vec::new() };
        let member = NewMember { tap, member, egress: None, rates, guard: None };
        let id = self.instance.handle().blocking().add_member(member).unwrap();
        (namespace, id)
    }
}

/// The least time that `payload` bytes take at this rate, without headers.
fn least_time(payload: usize, bits_per_second: u64) -> Duration {
    let bits = (u64::try_from(payload).unwrap() - BURST) * 8;
    Duration::from_micros(bits * 1_000_000 / bits_per_second)
}

/// Runs `work` and checks that `payload` bytes took no less than they have to.
fn in_no_less<T>(payload: usize, bits_per_second: u64, work: impl FnOnce() -> T) -> T {
    let started_at = Instant::now();
    let outcome = work();
    let (took, least) = (started_at.elapsed(), least_time(payload, bits_per_second));
    assert!(took >= least, "{payload} bytes in {took:?}, not in {least:?}");
    outcome
}

/// A server in `namespace` that says `len` bytes and ends.
fn source(namespace: &Namespace, at: IpAddr, len: usize) -> TcpServer {
    TcpServer::start(namespace, (at, 0).into(), move |stream| {
        // A client that leaves early is its test's failure to see.
        let _ = send_exact(&stream, 3, len);
    })
}
