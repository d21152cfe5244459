//! The event loop of the data thread.
//!
//! # Theory of operation
//!
//! *Goals.* Every call into the kernel moves as much as it can. No call is made that is known to
//! return nothing. The loop never blocks but in the poller, and never waits for the control thread.
//!
//! *A turn* is one round of [`Reactor::run`]. Wait; note which host sockets are ready; receive
//! datagrams and accept connections; read a batch of frames; read the mailbox; look at due timers;
//! then, flow by flow, move bytes between its host socket and its rings and write its frames. One
//! acknowledgement per flow and turn covers the batch, with the window that the move has reopened.
//!
//! *Readiness.* Host sockets are edge-triggered and drained until a short read or write. The
//! guest's link is level-triggered: it hands out one frame a call, so finding it drained would cost
//! a call. Instead the loop reads as many frames as the last turns had, and the poller reports
//! whether there are more. While a link takes no more frames (a socket whose peer reads slowly),
//! nothing is written: flows are not served and datagrams stay in the host's kernel.
//!
//! *Sleep.* If small requests follow each other closely, and if turns are quicker that way, the
//! loop polls for events for some microseconds before it sleeps ([`busy_poll`]).
//!
//! *Time.* A timer descriptor keeps the next deadline; it is set anew only for an earlier deadline.
//! A timeout given to each wait would have the kernel start and cancel a timer twice per round trip
//! of a small request.
//!
//! *Errors.* An error of one flow ends that flow; the batch goes on. Only the loss of the link or
//! of the poller ends the loop.
//!
//! *Limits.* [`BATCH_CAP`] frames and [`DATAGRAMS_CAP`] datagrams of one socket a turn, so that no
//! source of traffic starves the others.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Waker};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};

pub(crate) use busy_poll::BusyPoll;
pub use error::RunError;

use super::addresses::HostAddresses;
use super::audit::Audit;
use super::dns::Query;
use super::events::Observers;
use super::forward::Forwards;
use super::link::port::{Link, LinkPort};
use super::link::recording::Recorder;
use super::link::tap::is_frame_lost;
use super::mailbox::{Mailbox, Message};
use super::socket::outbound::OutboundAddresses;
use super::socket::table::{HostSocket, SocketTable};
use super::socket::tcp::TcpStream;
use super::token::Source;
use crate::discard::DiscardReason;
use crate::event::{DnsQueryId, FlowId, Origin};
use crate::stack::Stack;
use crate::time::Instant;
use mail::Next;
use train::Train;

mod actions;
mod addresses;
mod busy_poll;
mod datagrams;
mod error;
mod forwards;
mod inner;
mod log;
mod mail;
mod members;
mod train;
mod wait;

/// Frames that are read in one turn at most. With eight streams up, 64 instead of 16 moved an
/// eighth more, since each flow's bytes are then sent in one piece (measured; a single stream gains
/// nothing). A batch takes some 2 ms if all frames are as large as possible, and some 3 ms if each
/// opens a connection.
const BATCH_CAP: usize = 64;
/// Datagrams that are taken from one socket in one turn at most (arbitrary).
const DATAGRAMS_CAP: usize = 64;
/// Connections that are accepted on one rule in one turn at most (arbitrary).
const ACCEPTS_CAP: usize = 64;
/// Entries that are taken from one error queue at a time (arbitrary; the rest comes next turn).
const ERRORS_CAP: usize = 16;
/// Events that one wait reports at most (arbitrary).
const EVENTS_CAP: usize = 1024;
/// Largest frame: virtio-net and Ethernet header and an IP packet, with slack for a VLAN tag.
const FRAME_CAP: usize = 10 + 14 + 65_535 + 64;
/// Length from which a frame suggests that more follow (arbitrary: more than a request in one
/// segment of the usual MTU).
const BULK_FRAME: usize = 4096;
/// Bytes of a datagram that an ICMP error about it quotes (RFC 1812 section 4.3.2.3).
const QUOTE_CAP: usize = 548;

crate::sys::calls::system_calls! {
    SYS_epoll_create1 => "the event loop";
    SYS_epoll_ctl => "the event loop";
    SYS_epoll_pwait => "the event loop";
    #[cfg(target_arch = "x86_64")]
    SYS_epoll_wait => "the event loop";
    SYS_eventfd2 => "the mailbox wakes the event loop";
    SYS_timerfd_create => "deadlines";
    SYS_timerfd_settime => "deadlines";
}

/// See the [module](self).
pub(crate) struct Reactor {
    /// Dropped first, and so complete: a kernel that is busy with other devices may take seconds to
    /// remove ours.
    audit: Option<Audit>,
    poll: Poll,
    link: LinkPort,
    stack: Stack,
    sockets: SocketTable,
    forwards: Forwards,
    inbox: mpsc::Receiver<Message>,
    queries: tokio::sync::mpsc::Sender<Query>,
    /// Connections of remotes that the guest has refused and is to be asked for elsewhere.
    refused: Vec<(TcpStream, Origin, SocketAddr)>,
    /// Queries that have no answer yet. Dropping the sender gives a query up.
    wanted: BTreeMap<DnsQueryId, tokio::sync::oneshot::Sender<Infallible>>,
    started_at: std::time::Instant,
    timer: TimerFd,
    /// When the timer fires; `None` once it has.
    timer_at: Option<Instant>,
    /// Frames to read before asking the poller again.
    batch: usize,
    is_batch_spent: bool,
    /// Datagrams of the guest that are gathered to be sent together.
    train: Train,
    /// Datagram sockets that have something to receive, or had more than their share.
    backlog: Vec<FlowId>,
    frame: Box<[u8]>,
    datagram: Box<[u8]>,
    /// The socket that tells the host's addresses, or why there is none; `None` where it was not
    /// opened.
    addresses: Option<io::Result<HostAddresses>>,
    is_watching_addresses: bool,
    busy_poll: BusyPoll,
    /// The thread in the guest's network namespace, if there is one.
    inner: Option<inner::InnerLink>,
    observers: Observers,
    /// How many may decide among each of [`Deciders`](super::mailbox::Deciders).
    approvers: [usize; 2],
    /// Whether the log takes events.
    is_logging: bool,
    /// Whether bulk traffic is under way, so that more work gathers while the thread sleeps: this
    /// turn found several things to do, or read a frame of [`BULK_FRAME`] bytes or more.
    is_gathering: bool,
    is_echo_refusal_logged: bool,
    is_tap_failure_logged: bool,
}

/// What one wait found.
#[derive(Default)]
struct Found {
    is_link_ready: bool,
    is_link_writable: bool,
    is_woken: bool,
    has_address_news: bool,
}

impl Reactor {
    /// A loop around `link` and `stack` that sends from `outbound`, asks `queries` for DNS answers
    /// and waits as `busy_poll` decides, in a process that may have this many `descriptors`.
    pub(crate) fn new(
        mut link: Link,
        recorder: Option<Recorder>,
        stack: Stack,
        outbound: OutboundAddresses,
        queries: tokio::sync::mpsc::Sender<Query>,
        busy_poll: BusyPoll,
        descriptors: Option<usize>,
    ) -> io::Result<(Self, Mailbox)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), Source::Mailbox.token()?)?);
        let (mailbox, inbox) = Mailbox::new(waker);
        if let Link::Members(board) = &mut link {
            board.start(stack.config().plan, mailbox.clone());
        }
        let coalesce_udp = link.offload().udp_segmentation;
        let link = LinkPort::new(link, recorder, poll.registry(), Source::Link.token()?)?;
        let timer = TimerFd::new(
            ClockId::CLOCK_MONOTONIC,
            TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
        )?;
        let timer_fd = std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&timer));
        // Edge-triggered, so that the count of its expirations need not be read.
        let token = Source::Timer.token()?;
        poll.registry().register(&mut SourceFd(&timer_fd), token, Interest::READABLE)?;
        let mut sockets = SocketTable::new(poll.registry().try_clone()?, coalesce_udp, outbound);
        sockets.adopt_plan(&stack.config().plan);
        let forwards = Forwards::new(poll.registry().try_clone()?, coalesce_udp, descriptors);
        let reactor = Self {
            audit: None,
            poll,
            link,
            stack,
            sockets,
            forwards,
            inbox,
            queries,
            refused: Vec::new(),
            wanted: BTreeMap::new(),
            started_at: std::time::Instant::now(),
            timer,
            timer_at: None,
            batch: 1,
            is_batch_spent: false,
            train: Train::default(),
            backlog: Vec::new(),
            frame: vec![0; FRAME_CAP].into_boxed_slice(),
            datagram: vec![0; usize::from(u16::MAX) + 1].into_boxed_slice(),
            addresses: None,
            is_watching_addresses: false,
            busy_poll,
            inner: None,
            observers: Observers::default(),
            approvers: [0; 2],
            is_logging: false,
            is_gathering: false,
            is_echo_refusal_logged: false,
            is_tap_failure_logged: false,
        };
        Ok((reactor, mailbox))
    }

    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// Why the loop cannot go on.
    pub(crate) fn run(&mut self) -> Result<(), RunError> {
        let mut events = Events::with_capacity(EVENTS_CAP);
        self.choose_detail();
        loop {
            let now = self.wait(&mut events)?;
            self.obey_audit();
            let found = self.note_events(&events, now);
            if found.has_address_news {
                self.renew_addresses();
            }
            if found.is_link_writable {
                self.resume(now)?;
            }
            self.serve_backlog(now)?;
            self.serve_forwards(now)?;
            if found.is_link_ready {
                self.read_frames(now)?;
            } else {
                self.is_batch_spent = false;
            }
            if found.is_woken && self.read_mail(now) == Next::End {
                self.tell_events();
                return Ok(());
            }
            if self.stack.poll_timeout().is_some_and(|(at, _)| at <= now) {
                self.stack.handle_timeout(now);
            }
            self.turn(now)?;
            self.tell_events();
        }
    }

    fn note_events(&mut self, events: &Events, now: Instant) -> Found {
        let mut found = Found::default();
        if self.timer_at.is_some_and(|at| at <= now) {
            self.timer_at = None;
        }
        self.is_gathering |= events.iter().nth(1).is_some();
        for event in events {
            match Source::of(event.token()) {
                Some(Source::Link) => {
                    found.is_link_ready = true;
                    found.is_link_writable = event.is_writable();
                }
                Some(Source::Mailbox) => found.is_woken = true,
                Some(Source::Timer) => self.timer_at = None,
                Some(Source::Addresses) => found.has_address_news = true,
                Some(Source::Port(number)) => self.forwards.on_event(number),
                Some(Source::Flow(slot)) => {
                    let Some((flow, socket)) = self.sockets.at(slot) else {
                        continue;
                    };
                    match socket {
                        HostSocket::Connecting(_) => self.finish_connect(flow, event, now),
                        HostSocket::Tcp(host) => {
                            if host.on_event(event) {
                                self.stack.wake_flow(flow);
                            }
                            let is_gone = event.is_error() || event.is_write_closed();
                            // The guest still gets what the remote sent before it left.
                            if is_gone && self.stack.is_unanswered(flow) && !host.has_unread() {
                                self.stack.handle_remote_gone(flow);
                            }
                        }
                        HostSocket::Udp(_) | HostSocket::Echo(_) => {
                            if self.sockets.set_queued(flow, true) {
                                self.backlog.push(flow);
                            }
                        }
                    }
                }
                None => {}
            }
        }
        found
    }

    /// Reads a batch of frames.
    fn read_frames(&mut self, now: Instant) -> Result<(), RunError> {
        if self.is_batch_spent {
            // There were more frames than we read, which cost a wait.
            self.batch = (self.batch * 2).min(BATCH_CAP);
        }
        self.is_batch_spent = false;
        let read = self.read_batch(now);
        self.send_train();
        read
    }

    fn read_batch(&mut self, now: Instant) -> Result<(), RunError> {
        for count in 0..self.batch {
            match self.link.read(&mut self.frame) {
                Ok(len) => {
                    self.is_gathering |= len >= BULK_FRAME;
                    self.on_frame(len, count + 1 < self.batch, now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.batch = count.max(1);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_frame_lost(&error) => {
                    self.stack.note_discard(DiscardReason::VnetHeaderInvalid);
                }
                Err(error) => return Err(RunError::of_link(error)),
            }
        }
        self.is_batch_spent = true;
        Ok(())
    }

    /// Handles a frame; `may_continue` tells that the next frame of the batch may belong to its
    /// train.
    fn on_frame(&mut self, len: usize, may_continue: bool, now: Instant) {
        // Flows that the last frame ended are closed before their sockets' slots are used again.
        self.perform_all(now);
        let sender = self.link.sender();
        let datagram = self.stack.handle_frame_of(sender, &mut self.frame[..len], now);
        if datagram.is_some_and(|datagram| self.train.try_join(&datagram)) {
            return;
        }
        let (sockets, forwards) = (&mut self.sockets, &mut self.forwards);
        let before =
            self.train.take().map_or(Ok(()), |train| datagrams::send(sockets, forwards, train));
        let sent = match datagram {
            Some(datagram) if may_continue && self.train.try_begin(&datagram) => Ok(()),
            Some(datagram) => datagrams::send(sockets, forwards, datagram),
            None => Ok(()),
        };
        self.note_sent(before);
        self.note_sent(sent);
    }

    /// Serves flow after flow until none has anything to do.
    fn turn(&mut self, now: Instant) -> Result<(), RunError> {
        loop {
            self.perform_all(now);
            self.send_released(now);
            if self.link.is_full() {
                return Ok(());
            }
            let Some(flow) = self.stack.poll_ready(now) else {
                break;
            };
            if let Some(HostSocket::Tcp(host)) = self.sockets.of(flow) {
                self.stack.pump(flow, host, now);
                self.sockets.watch_room(flow);
            }
            self.write_frames(now)?;
        }
        self.write_frames(now)
    }

    fn write_frames(&mut self, now: Instant) -> Result<(), RunError> {
        while !self.link.is_full()
            && let Some(frame) = self.stack.poll_frame(now)
        {
            if let Err(error) = self.link.write(frame) {
                self.on_write_error(error)?;
            }
        }
        Ok(())
    }

    /// Resumes after a full link: with the frame that the link did not take, and with that frame's
    /// flow.
    fn resume(&mut self, now: Instant) -> Result<(), RunError> {
        if let Err(error) = self.link.flush() {
            self.on_write_error(error)?;
        }
        self.write_frames(now)
    }

    fn on_write_error(&mut self, error: io::Error) -> Result<(), RunError> {
        let is_gone = error.raw_os_error() == Some(libc::EBADFD)
            || error.kind() == io::ErrorKind::UnexpectedEof;
        if is_gone {
            return Err(RunError::of_link(error));
        }
        // The interface is down (EIO), or the kernel refuses the frame or has no memory. The frame
        // is lost, as on any link.
        self.stack.note_discard(DiscardReason::TapWriteFailed);
        if !self.is_tap_failure_logged {
            self.is_tap_failure_logged = true;
            tracing::debug!(%error, "a frame was lost (further ones only counted)");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
