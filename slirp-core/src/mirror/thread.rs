//! The thread that has a guest follow its host's network.
//!
//! Owns the thread `slirp-mirror`: how it gets into the guest's network namespace and what it keeps
//! of its privileges, when it reads the host's network again, and where the changes go. What
//! changes is worked out by [`Following`].
//!
//! # Theory of operation
//! The thread hears of changes of the host's links, addresses and routes. Once there was no news
//! for a moment it reads all of them: a thousand changes in a row cost one reading, and a reading
//! of a large table is followed by a pause in proportion. With them it reads resolv.conf(5), which
//! changes for the same reasons but is often written a moment later, so there is one more reading
//! [`LATE`] after the last news. Addresses and routes of the guest's
//! interface are set from here; the address plan goes to the data thread.
//!
//! *An IP version that the host loses* often comes back with the same addresses: an interface goes
//! down and up, a lease is renewed, a computer sleeps. So the guest keeps what it has for
//! [`LOSS_GRACE`]. Its packets come to us in any case, and leave the host once that can send them.
//!
//! *Privileges.* Changing addresses takes CAP_NET_ADMIN in the user namespace that owns the network
//! namespace; the kernel asks for it when a socket of rtnetlink(7) is opened and when a message is
//! sent. This thread keeps that capability and nothing else. It never sees anything that a guest
//! has sent. The sockets that read the host's network are opened without any capability, so that
//! nobody can change the host's network over them.

#![expect(clippy::disallowed_methods, reason = "a thread waits for news, by the clock")]

use std::io;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};

use super::following::{Changes, Following, Place};
use super::monitor::Monitor;
use crate::host::mailbox::{Mailbox, Message};
use crate::sys::changes::Link;
use crate::sys::errno::text_of;
use crate::sys::ifreq::InterfaceRequest;
use crate::sys::privilege::{Identity, give_up_privileges, keep_only, scope_abstract_sockets};

/// How long there has to be no news before the host's network is read, and how long news may go on
/// until it is read all the same (arbitrary; a client of DHCP sets an address and its routes within
/// milliseconds).
const QUIET: Duration = Duration::from_millis(100);
const QUIET_CAP: Duration = Duration::from_secs(1);
/// How long after the last news everything is read once more (arbitrary: clients of DHCP and VPNs
/// write resolv.conf within a second or two).
const LATE: Duration = Duration::from_secs(5);
/// How many times longer than a reading the pause after it is (arbitrary: a twentieth of a
/// processor at most).
const PAUSE_FACTOR: u32 = 20;
/// How long after a failed reading it is tried again (arbitrary).
const RETRY: Duration = Duration::from_secs(5);
/// How long a guest keeps an IP version that its host has lost (arbitrary: a link that goes down
/// and up has its addresses back within seconds).
const LOSS_GRACE: Duration = Duration::from_secs(10);
/// Events that one wait reports at most: there are two sources.
const EVENTS_CAP: usize = 4;

/// CAP_NET_ADMIN: addresses and routes of the guest's network namespace.
const NET_ADMIN: u8 = 12;

const NEWS: Token = Token(0);
const END: Token = Token(1);

/// What the thread is told.
enum Order {
    /// Something to do before the work.
    Run(Box<dyn FnOnce() + Send>),
    /// Start to work.
    Start(Mailbox, ResolvConf),
}

/// Reads the host's resolv.conf.
type ResolvConf = Box<dyn Fn() -> io::Result<Vec<u8>> + Send>;

/// The thread, which waits for its work. Dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Mirroring {
    end: End,
    thread: JoinHandle<()>,
}

/// The other threads' end. Dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct End {
    /// Taken when this is dropped.
    orders: Option<mpsc::Sender<Order>>,
    waker: Arc<Waker>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.orders = None;
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "cannot wake the thread that follows the host's network");
        }
    }
}

impl Mirroring {
    /// Starts the thread in the host's network namespace. When this returns, it is where it stays
    /// and has given up what it does not need, and its own identity for `identity`. Without a
    /// `place` it configures nothing.
    ///
    /// # Errors
    /// Why the guest cannot follow its host; no thread is left.
    pub(crate) fn enter(
        following: Following,
        place: Option<Place>,
        identity: Option<Identity>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), END)?);
        let kept = Arc::clone(&waker);
        let (orders, receiver) = mpsc::channel();
        let (done, entered) = mpsc::sync_channel(1);
        let work = move || {
            let outcome = enter(place, identity);
            let (monitor, link) = match outcome {
                Ok(made) => made,
                Err(error) => {
                    let _ = done.send(Err(error));
                    return;
                }
            };
            if done.send(Ok(())).is_ok() {
                obey(&receiver, Worker { poll, _waker: kept, monitor, link, following });
            }
        };
        let thread = thread::Builder::new().name("slirp-mirror".to_owned()).spawn(work)?;
        let mirroring = Self { end: End { orders: Some(orders), waker }, thread };
        entered.recv().unwrap_or_else(|_| Err(io::Error::other("the thread has ended")))?;
        Ok(mirroring)
    }

    /// Has the thread do something before it starts to work, and returns what came of it; `None`
    /// if the thread has ended.
    pub(crate) fn run<R: Send + 'static>(
        &self,
        what: impl FnOnce() -> R + Send + 'static,
    ) -> Option<R> {
        let (done, outcome) = mpsc::sync_channel(1);
        let what = move || {
            // Waited for below.
            let _ = done.send(what());
        };
        self.end.orders.as_ref()?.send(Order::Run(Box::new(what))).ok()?;
        outcome.recv().ok()
    }

    /// Has the thread work, until the [`End`] is dropped.
    pub(crate) fn start(
        self,
        mailbox: Mailbox,
        resolv_conf: impl Fn() -> io::Result<Vec<u8>> + Send + 'static,
    ) -> (End, JoinHandle<()>) {
        if let Some(orders) = &self.end.orders {
            // A thread that has ended is noticed when it is joined.
            let _ = orders.send(Order::Start(mailbox, Box::new(resolv_conf)));
        }
        (self.end, self.thread)
    }
}

/// Opens everything, and enters the guest's network namespace with the calling thread for good.
fn enter(place: Option<Place>, identity: Option<Identity>) -> io::Result<(Monitor, Option<Link>)> {
    let monitor = thread::scope(|scope| {
        let opening = scope.spawn(|| {
            keep_only(&[])?;
            Monitor::open()
        });
        opening.join().unwrap_or_else(|_| Err(io::Error::other("a thread has panicked")))
    })?;
    let mut link = None;
    if let Some(place) = place {
        match configure(place, identity) {
            Ok(opened) => link = Some(opened),
            Err(errno) => {
                let reason = text_of(&errno.into());
                tracing::warn!(
                    "the guest's interface will not follow the host's network: {reason}"
                );
            }
        }
    }
    if link.is_none() {
        give_up_privileges(&[], identity).map_err(|(_, errno)| errno)?;
    }
    // Best effort, as in the sandbox.
    let _may_be_absent = scope_abstract_sockets();
    Ok((monitor, link))
}

/// Finds the guest's interface, and keeps what it takes to configure it.
fn configure(place: Place, identity: Option<Identity>) -> Result<Link, Errno> {
    let Place { network, interface } = place;
    setns(&network, CloneFlags::CLONE_NEWNET)?;
    let link = Link::open(InterfaceRequest::new(interface.as_bytes()))?;
    give_up_privileges(&[NET_ADMIN], identity).map_err(|(_, errno)| errno)?;
    Ok(link)
}

/// Obeys the orders that come before the work, and then works.
fn obey(orders: &mpsc::Receiver<Order>, worker: Worker) {
    loop {
        match orders.recv() {
            Ok(Order::Run(what)) => what(),
            Ok(Order::Start(mailbox, resolv_conf)) => {
                if let Err(error) = worker.work(orders, &mailbox, &resolv_conf) {
                    tracing::warn!(%error, "the guest no longer follows the host's network");
                }
                return;
            }
            Err(mpsc::RecvError) => return,
        }
    }
}

/// What the thread works with.
struct Worker {
    poll: Poll,
    /// Kept so that its last signal is not closed with it before it is seen.
    _waker: Arc<Waker>,
    monitor: Monitor,
    link: Option<Link>,
    following: Following,
}

impl Worker {
    /// Follows until the other end of `orders` is gone.
    fn work(
        mut self,
        orders: &mpsc::Receiver<Order>,
        mailbox: &Mailbox,
        resolv_conf: &ResolvConf,
    ) -> io::Result<()> {
        let news = self.monitor.news();
        self.poll.registry().register(&mut SourceFd(&news), NEWS, Interest::READABLE)?;
        let mut events = Events::with_capacity(EVENTS_CAP);
        let begin = Instant::now();
        // The network may have changed since it was read for the start.
        let mut plans = Timetable { read_at: Some(begin), ..Timetable::new(begin) };
        loop {
            let patience = plans.due().map(|at| at.saturating_duration_since(Instant::now()));
            match self.poll.poll(&mut events, patience) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => other?,
            }
            if matches!(orders.try_recv(), Err(mpsc::TryRecvError::Disconnected)) {
                return Ok(());
            }
            if events.iter().any(|event| event.token() == NEWS) {
                self.monitor.drain()?;
                plans.on_news(Instant::now());
            }
            if plans.due().is_some_and(|at| at <= Instant::now()) {
                match resolv_conf() {
                    Ok(content) => self.following.note_resolv_conf(&content),
                    Err(error) => tracing::debug!(%error, "cannot read resolv.conf"),
                }
                self.read(&mut plans, mailbox);
            }
        }
    }

    /// Reads the host's network, and has the guest follow.
    fn read(&mut self, plans: &mut Timetable, mailbox: &Mailbox) {
        let begin = Instant::now();
        match self.following.read(&mut self.monitor, plans.stays(begin)) {
            Ok(reading) => {
                tracing::debug!(is_lost = reading.is_lost, "the host's network was read again");
                self.apply(reading.changes, mailbox);
                plans.on_read(begin, Instant::now(), reading.is_lost);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot read the host's network");
                plans.on_failure(Instant::now());
            }
        }
    }

    fn apply(&mut self, changes: Changes, mailbox: &Mailbox) {
        let Changes { plan, setup } = changes;
        if plan.is_none() && setup.is_empty() {
            return;
        }
        tracing::info!("the guest follows a change of the host's network");
        if let Some((plan, personality, search_domains)) = plan {
            let plan = Box::new(plan);
            // An instance that has ended reads no more mail.
            let _ = mailbox.send(Message::SetPlan { plan, personality, search_domains });
        }
        if let Some(link) = &self.link {
            let carried = setup.carry_out(link);
            for refusal in carried.refusals {
                tracing::warn!("{refusal}");
            }
            self.following.disown(carried.existing);
        }
    }
}

/// When the host's network is read.
#[derive(Debug)]
struct Timetable {
    /// When news is looked into.
    read_at: Option<Instant>,
    /// When the news came that was not looked into yet.
    first_at: Option<Instant>,
    not_before: Instant,
    /// When everything is read once more.
    late_at: Option<Instant>,
    /// When what the host has lost is taken from the guest.
    loss_at: Option<Instant>,
}

impl Timetable {
    const fn new(now: Instant) -> Self {
        Self { read_at: None, first_at: None, not_before: now, late_at: None, loss_at: None }
    }

    /// When the network is to be read.
    fn due(&self) -> Option<Instant> {
        [self.read_at, self.late_at, self.loss_at].into_iter().flatten().min()
    }

    /// Whether what is lost stays with the guest.
    fn stays(&self, now: Instant) -> bool {
        self.loss_at.is_none_or(|at| now < at)
    }

    fn on_news(&mut self, now: Instant) {
        let first_at = *self.first_at.get_or_insert(now);
        let at = (now + QUIET).min(first_at + QUIET_CAP);
        self.read_at = Some(at.max(self.not_before));
        self.late_at = Some(now + LATE);
    }

    fn on_read(&mut self, begin: Instant, end: Instant, is_lost: bool) {
        self.loss_at = is_lost.then(|| self.loss_at.unwrap_or(end + LOSS_GRACE));
        self.not_before = end + end.saturating_duration_since(begin) * PAUSE_FACTOR;
        self.late_at = self.late_at.filter(|&at| begin < at);
        (self.read_at, self.first_at) = (None, None);
    }

    fn on_failure(&mut self, now: Instant) {
        self.not_before = now + RETRY;
        self.read_at = Some(self.not_before);
        self.late_at = self.late_at.map(|at| at.max(self.not_before));
        self.loss_at = self.loss_at.map(|at| at.max(self.not_before));
        self.first_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn burst_of_news_costs_one_reading_and_endless_news_one_a_second() {
        let begin = Instant::now();
        let mut plans = Timetable::new(begin);
        for at in 0..5 {
            plans.on_news(begin + at * 10 * MS);
        }
        assert_eq!(plans.due(), Some(begin + 140 * MS));
        plans.on_read(begin + 140 * MS, begin + 141 * MS, false);
        let late_at = begin + 40 * MS + LATE;
        assert_eq!(plans.due(), Some(late_at), "for what is written behind the news");
        plans.on_read(late_at, late_at, false);
        assert_eq!(plans.due(), None);
        let begin = late_at + 200 * MS;
        for at in 0..200 {
            plans.on_news(begin + at * 10 * MS);
        }
        assert_eq!(plans.due(), Some(begin + QUIET_CAP));
    }

    #[test]
    fn long_reading_is_followed_by_a_longer_pause() {
        let begin = Instant::now();
        let mut plans = Timetable::new(begin);
        plans.on_read(begin, begin + 100 * MS, false);
        plans.on_news(begin + 101 * MS);
        assert_eq!(plans.due(), Some(begin + 2100 * MS));
    }

    #[test]
    fn what_is_lost_stays_for_a_while() {
        let begin = Instant::now();
        let mut plans = Timetable::new(begin);
        plans.on_read(begin, begin, true);
        let lost_at = begin + LOSS_GRACE;
        // More news does not prolong it.
        plans.on_read(begin + 1000 * MS, begin + 1000 * MS, true);
        assert_eq!(plans.due(), Some(lost_at));
        assert!(plans.stays(lost_at - MS) && !plans.stays(lost_at));
        plans.on_read(lost_at, lost_at, false);
        assert_eq!(plans.due(), None);
        assert!(plans.stays(lost_at));
    }
}
