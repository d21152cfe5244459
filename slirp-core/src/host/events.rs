//! The stack's events on their way to other threads.
//!
//! Owns who observes an instance, and what an observer that is too slow loses. The data thread
//! formats nothing and waits for nobody: it puts values into the bounded queue of each
//! [`Observer`], and an observer whose queue is full is told how many events it has lost as soon as
//! there is room: with the next event, or within a second if none follows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::journal::{Detail, Event, Report};
use crate::stats::AuditStats;

/// An event as an observer gets it, or word of those that it does not get.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Observed {
    /// When it happened: the time of the turn that it happened in.
    pub at: SystemTime,
    /// Events that were lost between the last one and this one.
    pub lost: u64,
    /// What happened; `None` if there is nothing but the loss to tell.
    pub event: Option<Event>,
}

/// What happens in an instance, from [`Handle::events`](crate::instance::Handle::events) on.
/// Dropping it ends that.
#[derive(Debug)]
pub struct EventStream {
    pub(crate) queue: Receiver<Observed>,
    last_lost: Arc<AtomicU64>,
}

impl EventStream {
    /// The next event; `None` once the instance has ended and all events were taken. Nothing is
    /// lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Observed> {
        let next = self.queue.recv().await;
        next.or_else(|| self.last())
    }

    /// The same for a thread that blocks until then.
    ///
    /// # Panics
    /// Within an async runtime.
    pub fn blocking_next(&mut self) -> Option<Observed> {
        self.queue.blocking_recv().or_else(|| self.last())
    }

    /// What was lost after the last event.
    fn last(&self) -> Option<Observed> {
        let lost = self.take_last_lost();
        (lost > 0).then(|| Observed { at: SystemTime::now(), lost, event: None })
    }

    /// How many events were lost at the end of the queue; 0 before its end, and the second time.
    pub(crate) fn take_last_lost(&self) -> u64 {
        self.last_lost.swap(0, Ordering::AcqRel)
    }
}

/// The data thread's end of the way to an observer.
#[derive(Debug)]
pub(crate) struct Observer {
    queue: Sender<Observed>,
    wants: fn(&Event) -> bool,
    lost: u64,
    /// Gets the number at the end.
    last_lost: Arc<AtomicU64>,
    /// All that it was given, and all that were lost.
    sum: AuditStats,
}

impl Observer {
    /// An observer of the events that it `wants`, of which `cap` may wait for it, and its end.
    pub(crate) fn new(cap: usize, wants: fn(&Event) -> bool) -> (Self, EventStream) {
        let (queue, receiver) = channel(cap);
        let last_lost = Arc::<AtomicU64>::default();
        let stream = EventStream { queue: receiver, last_lost: Arc::clone(&last_lost) };
        (Self { queue, wants, lost: 0, last_lost, sum: AuditStats::default() }, stream)
    }

    /// Events that still find a place in its queue.
    pub(crate) fn room(&self) -> usize {
        self.queue.capacity()
    }

    /// Whether nobody will ever take an event out.
    pub(crate) fn is_gone(&self) -> bool {
        self.queue.is_closed()
    }

    /// Whether it does not know yet of all that it has lost.
    pub(crate) fn is_behind(&self) -> bool {
        self.lost > 0 && !self.is_gone()
    }

    /// Gives it what the stack has told, if it wants that.
    pub(crate) fn tell(&mut self, at: SystemTime, report: &Report) {
        self.note_lost(report.lost);
        if (self.wants)(&report.event) {
            let observed = Observed { at, lost: self.lost, event: Some(report.event.clone()) };
            match self.queue.try_send(observed) {
                Ok(()) => {
                    self.lost = 0;
                    self.sum.taken += 1;
                }
                Err(TrySendError::Full(_)) => self.note_lost(1),
                Err(TrySendError::Closed(_)) => self.note_lost(1),
            }
        }
    }

    /// Tells it of what it has lost, if there is room.
    pub(crate) fn tell_lost(&mut self, at: SystemTime) {
        let observed = Observed { at, lost: self.lost, event: None };
        if self.queue.try_send(observed).is_ok() {
            self.lost = 0;
        }
    }

    /// `count` events never came here.
    pub(crate) const fn note_lost(&mut self, count: u64) {
        self.lost = self.lost.saturating_add(count);
        self.sum.lost = self.sum.lost.saturating_add(count);
    }

    /// All events that it was given, and all that it has lost.
    pub(crate) const fn sum(&self) -> AuditStats {
        self.sum
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        // Read when the queue has ended, which it does behind this.
        self.last_lost.store(self.lost, Ordering::Release);
    }
}

/// Who observes an instance.
#[derive(Debug, Default)]
pub(crate) struct Observers(Vec<Observer>);

impl Observers {
    /// Adds one.
    pub(crate) fn add(&mut self, observer: Observer) {
        self.0.push(observer);
    }

    /// Forgets those that have gone. Returns whether there were any.
    pub(crate) fn forget_gone(&mut self) -> bool {
        let count = self.0.len();
        self.0.retain(|observer| !observer.queue.is_closed());
        self.0.len() < count
    }

    /// How much the stack has to tell for them.
    pub(crate) fn detail(&self) -> Detail {
        if self.0.is_empty() { Detail::Nothing } else { Detail::Flows }
    }

    /// Each of them.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Observer> {
        self.0.iter_mut()
    }

    /// Whether one of them does not know yet of all that it has lost.
    pub(crate) fn are_behind(&self) -> bool {
        self.0.iter().any(Observer::is_behind)
    }

    /// Gives each of them what the stack has told.
    pub(crate) fn tell(&mut self, at: SystemTime, report: &Report) {
        for observer in &mut self.0 {
            observer.tell(at, report);
        }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::discard::DiscardReason;

    const AT: SystemTime = SystemTime::UNIX_EPOCH;

    fn report(lost: u64) -> Report {
        let event = Event::Discarded { reason: DiscardReason::ArpInvalid, packet: None };
        Report { lost, event }
    }

    #[test]
    fn slow_observer_hears_how_much_it_has_lost_and_the_others_lose_nothing() {
        let mut observers = Observers::default();
        let (slow, mut slow_end) = Observer::new(2, |_| true);
        let (quick, mut quick_end) = Observer::new(64, |_| true);
        observers.add(slow);
        observers.add(quick);
        for _ in 0..5 {
            observers.tell(AT, &report(0));
        }
        assert_eq!(slow_end.queue.try_recv().unwrap().lost, 0);
        observers.tell(AT + Duration::from_secs(1), &report(4));
        assert_eq!(slow_end.queue.try_recv().unwrap().lost, 0);
        let last = slow_end.queue.try_recv().unwrap();
        assert_eq!((last.lost, last.at), (3 + 4, AT + Duration::from_secs(1)));
        observers.tell(AT, &report(0));
        assert_eq!(slow_end.queue.try_recv().unwrap().lost, 0);
        let all: Vec<_> = core::iter::from_fn(|| quick_end.queue.try_recv().ok()).collect();
        assert_eq!((all.len(), all[5].lost), (7, 4));
    }

    #[test]
    fn loss_is_told_although_no_event_follows_it() {
        let (mut observer, mut end) = Observer::new(1, |_| true);
        observer.tell(AT, &report(0));
        observer.tell(AT, &report(2));
        assert!(observer.is_behind());
        observer.tell_lost(AT);
        assert!(observer.is_behind(), "there is no room");
        assert_eq!(end.blocking_next().unwrap().lost, 0);
        observer.tell_lost(AT);
        assert!(!observer.is_behind());
        observer.tell(AT, &report(0));
        observer.note_lost(5);
        drop(observer);
        let losses: Vec<_> = core::iter::from_fn(|| end.blocking_next())
            .map(|observed| (observed.lost, observed.event.is_some()))
            .collect();
        assert_eq!(losses, [(3, false), (6, false)], "the last event found no room either");
    }

    #[test]
    fn unwanted_event_takes_no_place() {
        let mut observers = Observers::default();
        let (observer, mut end) =
            Observer::new(1, |event| !matches!(event, Event::Discarded { .. }));
        observers.add(observer);
        observers.tell(AT, &report(0));
        assert!(end.queue.try_recv().is_err());
    }

    #[test]
    fn detail_is_as_low_as_the_observers_that_are_left_allow() {
        let mut observers = Observers::default();
        assert_eq!(observers.detail(), Detail::Nothing);
        let (observer, end) = Observer::new(1, |_| true);
        observers.add(observer);
        assert_eq!(observers.detail(), Detail::Flows);
        assert!(!observers.forget_gone());
        drop(end);
        assert!(observers.forget_gone());
        assert_eq!(observers.detail(), Detail::Nothing);
    }
}
