//! The thread in the guest's network namespace, and what it joins there.
//!
//! Owns the thread `slirp-inner`: how it gets into the namespace and gives up the way back, and
//! what it is told ([`order`]) and asks ([`ask`]). Its event loop is in [`worker`]; connections are
//! joined in [`joining`] and datagrams in [`datagrams`], over sockets of the namespace that
//! [`listeners`] and the loop open and sockets of the host that come from a [`pool`]; [`scan`]
//! follows the ports that are in use. The bridges themselves are in [`bridge`](super::bridge).
//!
//! # Theory of operation
//! A client on the loopback interface of either side is not led over the guest's link: it would
//! have to be shown there under another address, and a service that listens on loopback alone would
//! not be reached. Its connection is joined with another one, made on the other side.
//!
//! *Sockets belong to the network namespace of the thread that makes them, descriptors to the
//! process.* So one thread is in the guest's namespace, and has all bridges, so that the data
//! thread is not slowed down by them. The other side's sockets are made by the data thread, some at
//! a time; binding and connecting works from anywhere.
//!
//! *Privileges.* Entering a network namespace takes CAP_SYS_ADMIN (setns(2)). It is entered once,
//! before the system calls are filtered; then the thread keeps CAP_NET_BIND_SERVICE alone, for
//! good. Nothing in the namespace can be asked to do anything for it.
//!
//! Both ways begin with a client on a loopback:
//!
//! * *inbound*: accepted on the host by a forward rule. The far socket is made here, and goes to
//!   the guest's own address, or to its loopback.
//! * *outbound*: accepted here on `lo`. The far socket is from the pool, and goes to the same
//!   loopback address of the host.
//!
//! *Egress.* What a client in the namespace reaches this way is a destination of the guest, so an
//! egress policy judges it as the address of the host that it reaches. What the policy would have
//! to look at (names in first bytes), and what it would have to ask somebody about, is refused. The
//! data thread judges inbound clients before they come here. Another policy judges all bridges
//! anew. The limits of rates are those of the link, and do not hold here.

mod account;
pub(crate) mod ask;
mod datagrams;
pub(crate) mod inward;
mod joining;
pub(crate) mod listeners;
pub(crate) mod listening;
pub(crate) mod order;
pub(crate) mod pool;
pub(crate) mod ports;
mod scan;
mod scanning;
mod serving;
pub(crate) mod settings;
mod token;
pub(crate) mod worker;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal};

use crate::host::forward::Forward;
use crate::host::mailbox::{Mailbox, Message};
use crate::sys::privilege::{Identity, give_up_privileges, scope_abstract_sockets};
use ask::Ask;
use inward::Inward;
use listening::SocketDiag;
use order::{Order, Orders, Start, Started};
use settings::SplicesError;
use worker::Worker;

/// CAP_NET_BIND_SERVICE: ports of the namespace below 1024.
const NET_BIND_SERVICE: u8 = 10;

/// A thread in the guest's network namespace that waits for its work. Dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Inner {
    /// Taken when this is dropped.
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Inner {
    /// Starts the thread. When this returns, the thread is in the namespace and has given up its
    /// privileges, and its own identity for `identity`.
    ///
    /// # Errors
    /// See [`SplicesError`]; no thread is left.
    pub(crate) fn enter(
        network: OwnedFd,
        identity: Option<Identity>,
    ) -> Result<Self, SplicesError> {
        let (orders, receiver) = mpsc::channel();
        let (done, entered) = mpsc::sync_channel(1);
        let work = move || {
            let outcome = enter(network, identity);
            let is_there = outcome.is_ok();
            // Opened here because a filter forbids it later; only scanned ports need it.
            let ports = SocketDiag::open();
            if done.send(outcome).is_ok() && is_there {
                obey(receiver, ports);
            }
        };
        let thread = thread::Builder::new().name("slirp-inner".to_owned()).spawn(work);
        let thread = Some(thread.map_err(SplicesError::Thread)?);
        let inner = Self { orders: Some(orders), thread };
        entered.recv().unwrap_or(Err(SplicesError::Ended))?;
        Ok(inner)
    }

    /// Has the thread do something before it starts to work, and returns what came of it; `None`
    /// if the thread has ended.
    pub(crate) fn run<R: Send + 'static>(
        &self,
        what: impl FnOnce() -> R + Send + 'static,
    ) -> Option<R> {
        let (done, outcome) = mpsc::sync_channel(1);
        self.send(Order::Run(Box::new(move || {
            // Waited for below.
            let _ = done.send(what());
        })));
        outcome.recv().ok()
    }

    /// Has the thread work. Returns the way to it, the thread, and the rules for ports that are
    /// scanned and in use already.
    ///
    /// # Errors
    /// See [`SplicesError`]; the thread has ended.
    pub(crate) fn start(
        mut self,
        start: Start,
        outcome: &mpsc::Receiver<Result<Started, SplicesError>>,
        inward: Option<Inward>,
    ) -> Result<(Orders, JoinHandle<()>, Vec<Forward>), SplicesError> {
        let signs = Arc::clone(&start.signs);
        self.send(Order::Start(Box::new(start)));
        let Started { waker, scanned } = outcome.recv().unwrap_or(Err(SplicesError::Ended))?;
        let (Some(orders), Some(thread)) = (self.orders.take(), self.thread.take()) else {
            return Err(SplicesError::Ended);
        };
        Ok((Orders::new(orders, waker, signs, inward), thread, scanned))
    }

    fn send(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // A thread that has ended does not answer.
            let _ = orders.send(order);
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // It has panicked if this fails, and the panic has been printed.
            let _ = thread.join();
        }
    }
}

/// Enters the namespace with the calling thread, for good.
fn enter(network: OwnedFd, identity: Option<Identity>) -> Result<(), SplicesError> {
    setns(&network, CloneFlags::CLONE_NEWNET).map_err(|errno| SplicesError::Enter(errno.into()))?;
    drop(network);
    give_up_privileges(&[NET_BIND_SERVICE], identity)
        .map_err(|(_, errno)| SplicesError::Privileges(errno.into()))?;
    // Best effort, as in the sandbox.
    let _may_be_absent = scope_abstract_sockets();
    Ok(())
}

/// Obeys the orders that come before the work, and then works.
fn obey(orders: mpsc::Receiver<Order>, ports: io::Result<SocketDiag>) {
    // splice(2) raises it, with whatever action the program has for it.
    let mut of_splice = SigSet::empty();
    of_splice.add(Signal::SIGPIPE);
    if let Err(errno) = of_splice.thread_block() {
        tracing::debug!(%errno, "SIGPIPE is not blocked");
    }
    let start = loop {
        match orders.recv() {
            Ok(Order::Run(what)) => what(),
            Ok(Order::Start(start)) => break start,
            // There is nothing else before the work.
            Ok(_) => {}
            Err(mpsc::RecvError) => return,
        }
    };
    let done = start.done.clone();
    let _alarm = Alarm(start.mailbox.clone());
    let (mut worker, waker) = match Worker::new(*start, orders, ports) {
        Ok(made) => made,
        Err(error) => {
            let _ = done.send(Err(error));
            return;
        }
    };
    let scanned = worker.first_scan(Instant::now());
    if done.send(Ok(Started { waker, scanned })).is_ok() {
        drop(done);
        worker.run();
    }
}

/// Ends the instance if the thread panics.
struct Alarm(Mailbox);

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.send(Message::Inner(Ask::Panicked));
        }
    }
}
