//! Running a stack: the embedding API.
//!
//! Owns the two threads of an instance (data and control, see
//! [`reactor`](crate::host) and [`dns`]) and their common life: they start
//! together, and neither outlives the [`Instance`]. There is no global state; a process may run as
//! many instances as it likes.
//!
//! ```no_run
//! use slirp_core::instance::Builder;
//! use slirp_core::netns::{Configuration, NamespaceTarget, TapRequest, open_tap};
//! use slirp_core::plan::AddressPlan;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let plan = AddressPlan::default();
//! let target = NamespaceTarget::of_pid(4711)?;
//! let request =
//!     TapRequest { name: "tap0".into(), configure: Some(Configuration::for_plan(&plan, 1500)) };
//! let instance = Builder::new(open_tap(&target, &request)?).plan(plan).mtu(1500).spawn()?;
//! let handle = instance.handle();
//! // … later, from any thread:
//! handle.shutdown();
//! instance.wait()?;
//! # Ok(())
//! # }
//! ```

#![expect(clippy::disallowed_methods, reason = "threads and the system's randomness start here")]

mod background;

use std::hash::{BuildHasher, Hasher};
use std::io;
use std::num::NonZero;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::config::{Limits, StackConfig, Timeouts};
use crate::control::server::{ApiSocket, CONNECTIONS_CAP};
pub use background::BackgroundInstance;

pub use crate::event::ForwardId;
pub use crate::flow::{FlowState, FlowSummary, Traffic};
use crate::host::dns::{self, DnsConfig};
pub use crate::host::forward::{Forward, ForwardError, ForwardProtocol, OpenForwards};
pub use crate::host::handle::Handle;
pub use crate::host::link::Switchboard;
use crate::host::link::{Link, Recording};
use crate::host::mailbox::Message;
pub use crate::host::mailbox::{FlowPage, NewMember};
pub use crate::host::reactor::RunError;
use crate::host::reactor::{BusyPoll, Reactor};
use crate::host::socket::descriptors::{self, Allotment};
pub use crate::host::socket::outbound::{OutboundAddresses, OutboundError};
use crate::host::socket::ports;
pub use crate::member::{Member, MemberError, MemberId, MemberName};
use crate::plan::{AddressPlan, AssumedGuest};
use crate::policy::Policy;
use crate::sandbox::Outside;
use crate::stack::Stack;
use crate::sys::calls::SystemCall;

/// Smallest MTU that the stack works with (RFC 791: every host takes 68 bytes).
pub const MTU_MIN: u16 = 68;
/// Largest MTU that a TAP device takes: 65,535 less the Ethernet header.
pub const MTU_MAX: u16 = 65_521;

/// For how long the data thread looks for events before it sleeps, unless told otherwise: about what an
/// answer over the host's loopback takes (measured: 10 us changed nothing, 30 and 50 no more than this).
pub const BUSY_POLL: Duration = Duration::from_micros(20);

crate::sys::calls::system_calls! {
    SYS_epoll_create1 => "tokio on the control thread";
    SYS_epoll_ctl => "tokio on the control thread";
    SYS_epoll_pwait => "tokio on the control thread";
    #[cfg(target_arch = "x86_64")]
    SYS_epoll_wait => "tokio on the control thread";
    SYS_eventfd2 => "tokio on the control thread";
    SYS_socketpair if crate::sys::calls::STREAM_PAIR => "tokio's signals";
}

/// Every system call that an instance makes once it is started, for
/// [`seccomp::apply`](crate::sandbox::seccomp::apply).
pub fn system_calls() -> impl Iterator<Item = &'static SystemCall> {
    [
        crate::host::link::tap::SYSTEM_CALLS,
        crate::host::link::switchboard::SYSTEM_CALLS,
        crate::host::socket::tcp::SYSTEM_CALLS,
        crate::host::socket::datagram::SYSTEM_CALLS,
        crate::host::socket::table::SYSTEM_CALLS,
        crate::host::forward::SYSTEM_CALLS,
        crate::host::forward::open::SYSTEM_CALLS,
        crate::host::reactor::SYSTEM_CALLS,
        dns::SYSTEM_CALLS,
        crate::control::server::SYSTEM_CALLS,
        crate::sys::outside::SYSTEM_CALLS,
        crate::sys::alloc::SYSTEM_CALLS,
        background::SYSTEM_CALLS,
        SYSTEM_CALLS,
    ]
    .into_iter()
    .flatten()
}

/// What a program needs besides [`system_calls`] that is given members' devices over a socket,
/// adopts them and adds them, all of it under the filter.
pub fn member_system_calls() -> impl Iterator<Item = &'static SystemCall> {
    crate::host::link::switchboard::adoption::SYSTEM_CALLS.iter()
}

/// Why an instance could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The MTU is outside [`MTU_MIN`]..=[`MTU_MAX`].
    #[error("the MTU must be between {MTU_MIN} and {MTU_MAX}, not {0}")]
    Mtu(u16),
    /// The size of the rings is no power of two between 64 KiB and 512 MiB.
    #[error("the ring length must be a power of two between 65536 and 536870912, not {0}")]
    RingLength(usize),
    /// Traffic cannot leave from an address that [`Builder::outbound`] was given.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    /// A rule that [`Builder::forwards`] was given cannot be added.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// The poller could not be set up.
    #[error("cannot set up the event loop: {0}")]
    Poller(#[source] io::Error),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
    /// The control thread's runtime could not be set up.
    #[error("cannot set up the control runtime: {0}")]
    Runtime(#[source] io::Error),
}

/// How an instance is to be.
#[derive(Debug)]
pub struct Builder {
    link: Link,
    recording: Option<Recording>,
    config: StackConfig,
    dns: DnsConfig,
    outbound: OutboundAddresses,
    api: Option<ApiSocket>,
    outside: Option<Outside>,
    assumed_guest: Option<AssumedGuest>,
    forwards: OpenForwards,
    /// How many descriptors the process may have. Asked for before a filter of system calls may
    /// forbid to ask.
    descriptors: Option<usize>,
    /// How many UDP ports the host hands out. Asked for then as well.
    udp_ports: Option<usize>,
    /// How many processors it may use. Asked for then as well.
    processors: usize,
    busy_poll: Duration,
}

impl Builder {
    /// An instance on `link`, a [`Tap`](crate::host::link::Tap), a
    /// [`FrameSocket`](crate::host::link::FrameSocket), or a [`Switchboard`] for several
    /// guests, with the defaults of [`StackConfig`] and [`DnsConfig`].
    ///
    /// Whoever wants to raise the process's limit of descriptors does it before: every flow takes
    /// one, and there are no more flows than leave enough of them to everything else (a quarter of
    /// the limit, at most 1,048).
    pub fn new(link: impl Into<Link>) -> Self {
        let seed = std::collections::hash_map::RandomState::new().build_hasher().finish();
        Self {
            link: link.into(),
            recording: None,
            config: StackConfig { seed, ..StackConfig::default() },
            dns: DnsConfig::default(),
            outbound: OutboundAddresses::default(),
            api: None,
            outside: None,
            assumed_guest: None,
            forwards: OpenForwards::default(),
            descriptors: descriptors::limit(),
            udp_ports: ports::handed_out(),
            processors: std::thread::available_parallelism().map_or(1, NonZero::get),
            busy_poll: BUSY_POLL,
        }
    }

    /// Which addresses the guest sees (default 10.0.2.0/24 without IPv6).
    #[must_use]
    pub fn plan(mut self, plan: AddressPlan) -> Self {
        self.config.plan = plan;
        self
    }

    /// MTU of the guest's interface in bytes (default 1500).
    #[must_use]
    pub fn mtu(mut self, mtu: u16) -> Self {
        self.config.mtu = mtu;
        self
    }

    /// What the guest may reach (default everything, the host's loopback included).
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.config.policy = policy;
        self
    }

    /// Caps on everything that grows with what the guest does.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.config.limits = limits;
        self
    }

    /// How long things may stay idle.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.config.timeouts = timeouts;
        self
    }

    /// Which resolvers answer the guest's queries (default those of `/etc/resolv.conf`).
    #[must_use]
    pub fn dns(mut self, dns: DnsConfig) -> Self {
        self.dns = dns;
        self
    }

    /// Domains in which the guest looks up short names, told over DHCP and DHCPv6 to clients that ask,
    /// and in router advertisements (default none). What is no domain name
    /// ([`SearchDomain::new`](crate::service::search_domain::SearchDomain::new)), or does not fit
    /// into a message, is left out.
    #[must_use]
    pub fn search_domains(mut self, domains: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.config.search_domains = domains.into_iter().map(Into::into).collect();
        self
    }

    /// Which addresses of the host the guest's traffic leaves from (default those that the host's
    /// routes say), for DNS queries too unless [`DnsConfig::outbound`] says otherwise.
    /// [`spawn`](Self::spawn) checks that the host has them. One that goes away later makes the
    /// network unreachable for the guest until it is back.
    #[must_use]
    pub fn outbound(mut self, outbound: OutboundAddresses) -> Self {
        self.outbound = outbound;
        self
    }

    /// Serves requests on a bound API socket (default none). Its file is removed when the instance
    /// ends.
    #[must_use]
    pub fn api_socket(mut self, socket: ApiSocket) -> Self {
        self.api = Some(socket);
        self
    }

    /// What stays outside of the sandbox that this process lives in (default none), see
    /// [`Entered::outside`](crate::sandbox::Entered::outside). Without it no resolv.conf is found in
    /// there.
    #[must_use]
    pub fn outside(mut self, outside: Outside) -> Self {
        self.outside = Some(outside);
        self
    }

    /// Where the guest is taken to be by a request to the API socket that opens a port and does not say
    /// (default the recommended addresses of the plan).
    #[must_use]
    pub fn assumed_guest(mut self, guest: AssumedGuest) -> Self {
        self.assumed_guest = Some(guest);
        self
    }

    /// Ports of the host that lead to the guest from the start on (default none). They are open
    /// already, for the same plan; their rules have the first names. More are opened by
    /// [`Handle::add_forwards`].
    #[must_use]
    pub fn forwards(mut self, opened: OpenForwards) -> Self {
        self.forwards = opened;
        self
    }

    /// Records every frame that crosses the guest's link (default none). Of a shared network that
    /// is what its members exchange with us, not with each other.
    #[must_use]
    pub fn recording(mut self, recording: Recording) -> Self {
        self.recording = Some(recording);
        self
    }

    /// Seed of everything random (default from the operating system).
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.config.seed = seed;
        self
    }

    /// For how long the data thread looks for the next event before it sleeps, while small requests and
    /// their answers follow each other closely (default [`BUSY_POLL`]; zero: never, and never on a
    /// single processor). It costs processor time, and makes a round trip shorter on some machines and
    /// longer on others. The thread times both ways and looks only where that is a tenth quicker.
    #[must_use]
    pub fn busy_poll(mut self, limit: Duration) -> Self {
        self.busy_poll = limit;
        self
    }

    /// Starts the instance. The guest has its network when this returns.
    ///
    /// # Errors
    /// See [`StartError`]; the device is closed.
    pub fn spawn(self) -> Result<Instance, StartError> {
        let Self {
            link,
            recording,
            mut config,
            mut dns,
            outbound,
            api,
            outside,
            assumed_guest,
            forwards,
            descriptors,
            udp_ports,
            processors,
            busy_poll,
        } = self;
        if !(MTU_MIN..=MTU_MAX).contains(&config.mtu) {
            return Err(StartError::Mtu(config.mtu));
        }
        let ring_len = config.limits.ring_len;
        if !ring_len.is_power_of_two() || !(1 << 16..=1 << 29).contains(&ring_len) {
            return Err(StartError::RingLength(ring_len));
        }
        let allotment = Allotment {
            flows: config.limits.flows,
            dns_queries: config.limits.dns_queries.min(dns.queries_cap),
            api_clients: CONNECTIONS_CAP,
        };
        let allotment = allotment.within(descriptors);
        config.limits.flows = allotment.flows;
        config.limits.dns_queries = allotment.dns_queries;
        dns.queries_cap = allotment.dns_queries;
        config.limits.udp_mappings = ports::mappings_within(udp_ports, config.limits.udp_mappings);
        outbound.verify()?;
        dns.outbound.get_or_insert(outbound);
        dns.outside = dns.outside.or(outside);
        config.offload = link.offload();
        config.policy.is_shared = matches!(link, Link::Members(_));
        let recorder = recording
            .map(|recording| recording.start(config.offload.vnet_header))
            .transpose()
            .map_err(StartError::Thread)?;
        let queries_cap = config.limits.dns_queries.max(1);
        let (ask, queries) = mpsc::channel(queries_cap);
        let plan = config.plan;
        let assumed = assumed_guest.unwrap_or_else(|| AssumedGuest::new(&plan, None));
        let stack = Stack::new(config);
        let busy_poll = BusyPoll::new(busy_poll, processors);
        let (mut reactor, mailbox) =
            Reactor::new(link, recorder, stack, outbound, ask, busy_poll, descriptors)
                .map_err(StartError::Poller)?;
        reactor.adopt_forwards(forwards)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(StartError::Runtime)?;
        let (ended, has_ended) = oneshot::channel();
        let answers = mailbox.clone();
        let handle = Handle::new(mailbox.clone());
        let control = std::thread::Builder::new()
            .name("slirp-control".into())
            .spawn(move || {
                let resolving = dns::run(dns, queries, move |query, answer| {
                    answers.send(Message::DnsAnswer { query, answer });
                });
                let Some(api) = api else {
                    runtime.block_on(resolving);
                    return;
                };
                // Ends when the data thread has gone and the channel of queries with it.
                runtime.block_on(async move {
                    let mut serving = JoinSet::new();
                    serving.spawn(api.serve(handle, plan, assumed, allotment.api_clients));
                    resolving.await;
                    serving.shutdown().await;
                });
            })
            .map_err(StartError::Thread)?;
        let data = std::thread::Builder::new()
            .name("slirp-data".into())
            .spawn(move || {
                let outcome = reactor.run();
                drop(reactor);
                // Nobody may be waiting.
                let _ = ended.send(());
                outcome
            })
            .map_err(StartError::Thread)?;
        Ok(Instance {
            handle: Handle::new(mailbox),
            threads: Some(Threads { data, control }),
            has_ended,
        })
    }
}

#[derive(Debug)]
struct Threads {
    data: JoinHandle<Result<(), RunError>>,
    control: JoinHandle<()>,
}

impl Threads {
    fn join(self) -> Result<(), RunError> {
        let data = self.data.join();
        let control = self.control.join();
        match (data, control) {
            (Ok(outcome), Ok(())) => outcome,
            (Err(_), _) | (_, Err(_)) => Err(RunError::Panicked),
        }
    }
}

/// A running stack. Dropping it shuts it down and waits for its threads.
#[derive(Debug)]
pub struct Instance {
    handle: Handle,
    threads: Option<Threads>,
    has_ended: oneshot::Receiver<()>,
}

impl Instance {
    /// A handle, which may go to any thread or task.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits, blocking, until the instance has ended.
    ///
    /// # Errors
    /// Why it ended by itself.
    pub fn wait(mut self) -> Result<(), RunError> {
        self.threads.take().map_or(Ok(()), Threads::join)
    }

    /// Waits, as a future of any runtime, until the instance has ended. Dropping the future shuts
    /// the instance down.
    ///
    /// # Errors
    /// Why it ended by itself.
    pub async fn join(mut self) -> Result<(), RunError> {
        // An error means that the thread ended without a word: joining it tells why.
        let _ = (&mut self.has_ended).await;
        self.wait()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            self.handle.shutdown();
            if let Err(error) = threads.join() {
                tracing::error!(%error, "instance ended with an error");
            }
        }
    }
}
