//! The settings of an instance, and its start.
//!
//! Owns [`Builder`] and the order of the start: check the numbers, fit the caps to what the host
//! allows, set up the event loop, start the threads.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::resources::HostResources;
use super::running::Instance;
use super::splicing::{self, Terms};
use crate::config::{Limits, Personality, Silence, StackConfig, Timeouts};
use crate::control::metrics::MetricsSocket;
use crate::control::server::ApiSocket;
use crate::control::socket::ControlSocket;
use crate::egress::EgressPolicy;
use crate::host::addresses::HostAddresses;
use crate::host::audit::AuditLog;
use crate::host::dns::{self, DnsConfig};
use crate::host::forward::{ForwardError, OpenForwards};
use crate::host::handle::Handle;
use crate::host::inner::listening::SocketDiag;
use crate::host::inner::settings::{Splices, SplicesError};
use crate::host::link::{Link, Recording};
use crate::host::mailbox::Message;
use crate::host::outside::Outside;
use crate::host::reactor::{BusyPoll, Reactor};
use crate::host::socket::outbound::{OutboundAddresses, OutboundError};
use crate::mirror::Following;
use crate::mirror::following::Place;
use crate::mirror::thread::Mirroring;
use crate::plan::{AddressPlan, AssumedGuest};
use crate::policy::Policy;
use crate::rates::Rates;
use crate::stack::Stack;
use crate::sys::privilege::Identity;

/// Smallest MTU that the stack works with (RFC 791: every host takes 68 bytes).
pub const MTU_MIN: u16 = 68;
/// Largest MTU that a TAP device takes: 65,535 less the Ethernet header.
pub const MTU_MAX: u16 = 65_521;

/// How long the data thread polls for events before it sleeps, by default: about the time of an
/// answer over the host's loopback (measured: 10 us changed nothing, 30 and 50 us no more than 20).
pub const BUSY_POLL: Duration = Duration::from_micros(20);

/// Why an instance could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The MTU is outside [`MTU_MIN`]..=[`MTU_MAX`].
    #[error("the MTU must be between {MTU_MIN} and {MTU_MAX}, not {0}")]
    Mtu(u16),
    /// The size of the rings is not a power of two between 64 KiB and 512 MiB.
    #[error("the ring length must be a power of two between 65536 and 536870912, not {0}")]
    RingLength(usize),
    /// Traffic cannot leave from an address that [`Builder::outbound`] was given.
    #[error(transparent)]
    Outbound(#[from] OutboundError),
    /// A rule that [`Builder::forwards`] was given cannot be added.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// What [`Builder::splices`] was given cannot be done.
    #[error(transparent)]
    Splices(#[from] SplicesError),
    /// The addresses of the host cannot be read, without which an egress policy cannot tell the
    /// host from others.
    #[error("cannot read the addresses of the host: {0}")]
    HostAddresses(#[source] io::Error),
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

/// The settings of an instance. [`spawn`](Self::spawn) starts it.
#[derive(Debug)]
pub struct Builder {
    link: Link,
    recording: Option<Recording>,
    config: StackConfig,
    dns: DnsConfig,
    outbound: OutboundAddresses,
    api: Option<ApiSocket>,
    audit: Option<AuditLog>,
    control: Option<ControlSocket>,
    metrics: Option<MetricsSocket>,
    outside: Option<Outside>,
    assumed_guest: Option<AssumedGuest>,
    forwards: OpenForwards,
    splices: Option<Splices>,
    following: Option<(Following, Option<Place>)>,
    /// The thread that follows the host, once it is where it stays.
    mirroring: Option<Mirroring>,
    resources: Option<HostResources>,
    /// The socket that tells which ports of the host are in use, once it was opened.
    host_ports: Option<SocketDiag>,
    /// The socket that tells the host's addresses, once it was opened.
    addresses: Option<io::Result<HostAddresses>>,
    seed: Option<u64>,
    busy_poll: Duration,
    keeps_udp_ports: bool,
}

impl Builder {
    /// An instance on `link`, a [`Tap`](crate::host::link::Tap), a
    /// [`FrameSocket`](crate::host::link::FrameSocket), or a
    /// [`Switchboard`](crate::host::link::Switchboard) for several
    /// guests, with the defaults of [`StackConfig`] and [`DnsConfig`].
    ///
    /// This opens nothing and asks the kernel nothing; [`spawn`](Self::spawn) does.
    pub fn new(link: impl Into<Link>) -> Self {
        Self {
            link: link.into(),
            recording: None,
            config: StackConfig::default(),
            dns: DnsConfig::default(),
            outbound: OutboundAddresses::default(),
            api: None,
            audit: None,
            control: None,
            metrics: None,
            outside: None,
            assumed_guest: None,
            forwards: OpenForwards::default(),
            splices: None,
            following: None,
            mirroring: None,
            resources: None,
            host_ports: None,
            addresses: None,
            seed: None,
            busy_poll: BUSY_POLL,
            keeps_udp_ports: false,
        }
    }

    /// Which addresses the guest sees (default 10.0.2.0/24 without IPv6).
    #[must_use]
    pub fn plan(mut self, plan: impl Into<AddressPlan>) -> Self {
        self.config.plan = plan.into();
        self
    }

    /// MTU of the guest's interface in bytes (default 1500).
    #[must_use]
    pub fn mtu(mut self, mtu: u16) -> Self {
        self.config.mtu = mtu;
        self
    }

    /// What the guest may reach (default: everything, the host's loopback included).
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.config.policy = policy;
        self
    }

    /// Which of the destinations that the [`policy`](Self::policy) allows the guest may use, by
    /// address, port and name (default: all of them). On a shared network it holds for the members
    /// that have no policy of their own. [`Handle::set_egress`] exchanges it.
    #[must_use]
    pub fn egress(mut self, policy: EgressPolicy) -> Self {
        self.config.egress = Some(policy);
        self
    }

    /// How fast the guest may send and receive (default: as fast as it can). On a shared network
    /// it holds for each member that has no limits of its own. [`Handle::set_rates`] exchanges it.
    #[must_use]
    pub fn rates(mut self, rates: Rates) -> Self {
        self.config.rates = rates;
        self
    }

    /// Writes down what the egress policy decides (default: nothing).
    #[must_use]
    pub fn audit(mut self, log: AuditLog) -> Self {
        self.audit = Some(log);
        self
    }

    /// Serves requests on a control socket (default none). Its file is removed when the instance
    /// ends.
    #[must_use]
    pub fn control(mut self, socket: ControlSocket) -> Self {
        self.control = Some(socket);
        self
    }

    /// Serves metrics on a socket (default none). Its file is removed when the instance ends.
    #[must_use]
    pub fn metrics(mut self, socket: MetricsSocket) -> Self {
        self.metrics = Some(socket);
        self
    }

    /// Caps on everything that grows with what the guest does.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.config.limits = limits;
        self
    }

    /// How long flows and other state may stay idle.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.config.timeouts = timeouts;
        self
    }

    /// Which resolvers answer the guest's queries (default: the resolvers of `/etc/resolv.conf`).
    #[must_use]
    pub fn dns(mut self, dns: DnsConfig) -> Self {
        self.dns = dns;
        self
    }

    /// Domains in which the guest looks up short names. They are sent over DHCP and DHCPv6 to
    /// clients that request them, and in router advertisements (default none). Invalid names
    /// ([`SearchDomain::new`](crate::service::search_domain::SearchDomain::new)), and names that do
    /// not fit into one message, are skipped.
    #[must_use]
    pub fn search_domains(mut self, domains: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.config.search_domains = domains.into_iter().map(Into::into).collect();
        self
    }

    /// How DHCP, DHCPv6 and router advertisements give the guest its configuration (default: as
    /// slirp4netns does).
    #[must_use]
    pub fn personality(mut self, personality: Personality) -> Self {
        self.config.personality = personality;
        self
    }

    /// What of the guest's packets is dropped silently (default: nothing). The guest's answers to
    /// clients of forwarded ports are dropped too: a rule of such a protocol lets clients wait for
    /// nothing.
    #[must_use]
    pub fn silence(mut self, silence: Silence) -> Self {
        self.config.silence = silence;
        self
    }

    /// Which addresses and interfaces of the host the guest's traffic leaves from (default: chosen
    /// by the host's routes), for DNS queries too unless [`DnsConfig::outbound`] is set.
    /// [`spawn`](Self::spawn) checks that the host has them. If one goes away later, the network is
    /// unreachable for the guest until it is back.
    #[must_use]
    pub fn outbound(mut self, outbound: OutboundAddresses) -> Self {
        self.outbound = outbound;
        self
    }

    /// Whether the guest's datagrams leave from the port that the guest sent them from, where that
    /// is a free port from 1024 on (default: from any port), so that remotes see the port that the
    /// guest tells them of. Only remotes that the guest has written to from there may answer. No
    /// port is kept towards the host itself or towards groups.
    #[must_use]
    pub fn keeps_udp_ports(mut self, keeps: bool) -> Self {
        self.keeps_udp_ports = keeps;
        self
    }

    /// Serves requests on a bound API socket (default none). Its file is removed when the instance
    /// ends.
    #[must_use]
    pub fn api_socket(mut self, socket: ApiSocket) -> Self {
        self.api = Some(socket);
        self
    }

    /// The process outside of the sandbox in which this process runs (default none), see
    /// [`Entered::outside`](crate::sandbox::Entered::outside). Without it, a sandboxed process
    /// finds no resolv.conf.
    #[must_use]
    pub fn outside(mut self, outside: Outside) -> Self {
        self.outside = Some(outside);
        self
    }

    /// The guest address for API requests that open a port without naming one (default: the
    /// recommended addresses of the plan).
    #[must_use]
    pub fn assumed_guest(mut self, guest: AssumedGuest) -> Self {
        self.assumed_guest = Some(guest);
        self
    }

    /// Ports of the host that lead to the guest from the start (default none). They have been
    /// opened for the instance's plan; their rules have the first ids. More are opened by
    /// [`Handle::add_forwards`].
    #[must_use]
    pub fn forwards(mut self, opened: OpenForwards) -> Self {
        self.forwards = opened;
        self
    }

    /// Joins connections between the loopback interfaces of the host and of the guest's network
    /// namespace (default: clients on the host's loopback are led over the link). There is one more
    /// thread then.
    #[must_use]
    pub fn splices(mut self, splices: Splices) -> Self {
        self.splices = Some(splices);
        self
    }

    /// Has the guest follow the host's network (default: it keeps what it has). The interface of
    /// that name in the network namespace is configured; without one only the plan follows. There
    /// is one more thread then, which needs CAP_NET_ADMIN in the user namespace that owns the
    /// network namespace. If it cannot be started, or may not configure the interface, there is a
    /// warning.
    #[must_use]
    pub fn follows(mut self, following: Following, interface: Option<(OwnedFd, String)>) -> Self {
        let place = interface.map(|(network, interface)| Place { network, interface });
        self.following = Some((following, place));
        self
    }

    /// Has the threads of [`splices`](Self::splices) and [`follows`](Self::follows) enter the
    /// namespace, if they have not yet, and take on `identity`.
    pub(crate) fn enter_inner(mut self, identity: Option<Identity>) -> Result<Self, SplicesError> {
        self.splices = self.splices.map(|splices| splices.enter(identity)).transpose()?;
        if let Some((following, place)) = self.following.take() {
            match Mirroring::enter(following, place, identity) {
                Ok(mirroring) => self.mirroring = Some(mirroring),
                Err(error) => {
                    tracing::warn!(%error, "the guest will not follow the host's network");
                }
            }
        }
        Ok(self)
    }

    /// Has the threads that are in the namespace do something before they start to work. Returns
    /// what came of it.
    pub(crate) fn within_inner<R: Send + 'static>(
        &self,
        what: impl FnOnce() -> R + Clone + Send + 'static,
    ) -> impl Iterator<Item = R> {
        let inner = self.splices.as_ref().and_then(Splices::inner);
        let of_inner = inner.and_then(|inner| inner.run(what.clone()));
        let of_mirroring = self.mirroring.as_ref().and_then(|mirroring| mirroring.run(what));
        of_inner.into_iter().chain(of_mirroring)
    }

    /// Records every frame that crosses the guest's link (default none). On a shared network this
    /// covers frames between a member and us, not frames between members.
    #[must_use]
    pub fn recording(mut self, recording: Recording) -> Self {
        self.recording = Some(recording);
        self
    }

    /// Seed of everything random (default from the operating system).
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// How long the data thread polls for the next event before it sleeps, while small requests and
    /// their answers follow each other closely (default [`BUSY_POLL`]; zero: never; never on a
    /// single processor). Polling costs processor time. It shortens a round trip on some machines
    /// and lengthens it on others, so the thread times both ways and polls only if that is a tenth
    /// quicker.
    #[must_use]
    pub fn busy_poll(mut self, limit: Duration) -> Self {
        self.busy_poll = limit;
        self
    }

    /// Reads now, instead of in [`spawn`](Self::spawn), the limit of descriptors, the number of UDP
    /// ports that the host hands out, and the number of processors, and opens the socket that tells
    /// the addresses of the host, for which an egress policy asks. A program that enters a sandbox
    /// or filters system calls without [`launch`](crate::launch) calls this before: the sandbox
    /// hides the answers, and a filter kills a process that asks.
    ///
    /// Raise `RLIMIT_NOFILE` before: each flow takes one descriptor, and there are only so many
    /// flows that a quarter of the limit (at most 1,048) is left to everything else.
    #[must_use]
    pub fn measure_host(mut self) -> Self {
        self.resources = Some(HostResources::read());
        self.addresses = Some(HostAddresses::open());
        if self.splices.as_ref().is_some_and(Splices::is_scanning) {
            // Without it `spawn` tries again, and says why it fails.
            self.host_ports = SocketDiag::open().ok();
        }
        self
    }

    /// Starts the instance. The guest has its network when this returns.
    ///
    /// # Errors
    /// See [`StartError`]; the device is closed.
    pub fn spawn(mut self) -> Result<Instance, StartError> {
        // Before other threads are there.
        self = self.enter_inner(None)?;
        let Self { link, mut config, mut dns, outbound, .. } = self;
        if !(MTU_MIN..=MTU_MAX).contains(&config.mtu) {
            return Err(StartError::Mtu(config.mtu));
        }
        let ring_len = config.limits.ring_len;
        if !ring_len.is_power_of_two() || !(1 << 16..=1 << 29).contains(&ring_len) {
            return Err(StartError::RingLength(ring_len));
        }
        let resources = self.resources.unwrap_or_else(HostResources::read);
        let api_clients = resources.cap(&mut config.limits, &mut dns);
        let bridges = self.splices.as_ref().map(|_| resources.take_for_bridges(&mut config.limits));
        outbound.verify()?;
        dns.outbound.get_or_insert_with(|| outbound.clone());
        dns.outside = dns.outside.or(self.outside);
        config.seed = self.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        config.offload = link.offload();
        config.is_shared = matches!(link, Link::Members(_));
        if let Some(metrics) = &self.metrics {
            config.own_listeners.extend(metrics.tcp_address());
        }
        let recorder = self
            .recording
            .map(|recording| recording.start(config.offload.vnet_header))
            .transpose()
            .map_err(StartError::Thread)?;
        let queries_cap = config.limits.dns_queries.max(1);
        let (ask, queries) = mpsc::channel(queries_cap);
        let audit = self.audit.map(|log| log.start(config.egress.as_ref()));
        let audit = audit.transpose().map_err(StartError::Thread)?;
        let terms = bridges.map(|descriptors| Terms {
            descriptors,
            host_ports: self.host_ports,
            closed: config.own_listeners.clone(),
            timeouts: config.timeouts,
        });
        let (plan, policy) = (config.plan, config.policy);
        let assumed = self.assumed_guest.unwrap_or_else(|| AssumedGuest::new(plan, None));
        let stack = Stack::new(config);
        let busy_poll = BusyPoll::new(self.busy_poll, resources.processors);
        let descriptors = resources.descriptors;
        let (mut reactor, mailbox) =
            Reactor::new(link, recorder, stack, outbound, ask, busy_poll, descriptors)
                .map_err(StartError::Poller)?;
        reactor.adopt_addresses(self.addresses).map_err(StartError::HostAddresses)?;
        reactor.adopt_forwards(self.forwards)?;
        reactor.keep_udp_ports(self.keeps_udp_ports);
        reactor.adopt_audit(audit);
        let mut others = Vec::new();
        if let (Some(splices), Some(terms)) = (self.splices, terms) {
            others.push(splicing::start(splices, terms, &mut reactor, mailbox.clone())?);
        }
        let end = self.mirroring.map(|mirroring| {
            let (end, thread) = mirroring.start(mailbox.clone(), dns::resolv_conf_reader(&dns));
            others.push(thread);
            end
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(StartError::Runtime)?;
        let answers = mailbox.clone();
        let handle = Handle::new(mailbox.clone());
        let control = move || {
            let resolving = dns::run(dns, queries, move |query, answer| {
                answers.send(Message::DnsAnswer { query, answer });
            });
            // Ends when the data thread has ended and its channel of queries is closed.
            runtime.block_on(async move {
                let mut serving = JoinSet::new();
                if let Some(metrics) = self.metrics {
                    serving.spawn(metrics.serve(handle.clone()));
                }
                if let Some(api) = self.api {
                    serving.spawn(api.serve(handle.clone(), plan, assumed, api_clients));
                }
                if let Some(control) = self.control {
                    serving.spawn(control.serve(handle, policy, assumed));
                }
                resolving.await;
                serving.shutdown().await;
            });
        };
        Instance::start(reactor, mailbox, control, others, end).map_err(StartError::Thread)
    }
}
