//! The stack's events on their way to other threads.
//!
//! Owns who observes an instance, and what an observer that is too slow loses. The data thread
//! formats nothing and waits for nobody: it puts values into the bounded queue of each
//! [`Observer`], and an observer whose queue is full is told later how many events it has lost.

use std::time::SystemTime;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::journal::{Detail, Event, Report};
use crate::stats::AuditStats;

/// An event as an observer gets it.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    /// When it happened: the time of the turn that it happened in.
    pub(crate) at: SystemTime,
    /// Events that were lost between the last one and this one.
    pub(crate) lost: u64,
    /// What happened.
    pub(crate) event: Event,
}

/// The data thread's end of the way to an observer.
#[derive(Debug)]
pub(crate) struct Observer {
    queue: Sender<Observed>,
    wants: fn(&Event) -> bool,
    lost: u64,
    /// All that it was given, and all that were lost.
    sum: AuditStats,
}

impl Observer {
    /// An observer of the events that it `wants`, of which `cap` may wait for it, and its end.
    pub(crate) fn new(cap: usize, wants: fn(&Event) -> bool) -> (Self, Receiver<Observed>) {
        let (queue, receiver) = channel(cap);
        (Self { queue, wants, lost: 0, sum: AuditStats::default() }, receiver)
    }

    /// Events that still find a place in its queue.
    pub(crate) fn room(&self) -> usize {
        self.queue.capacity()
    }

    /// Whether nobody will ever take an event out.
    pub(crate) fn is_gone(&self) -> bool {
        self.queue.is_closed()
    }

    /// Events that were lost since the last one that found a place.
    pub(crate) const fn lost(&self) -> u64 {
        self.lost
    }

    /// Gives it what the stack has told, if it wants that.
    pub(crate) fn tell(&mut self, at: SystemTime, report: &Report) {
        self.note_lost(report.lost);
        if (self.wants)(&report.event) {
            let observed = Observed { at, lost: self.lost, event: report.event.clone() };
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

    const fn note_lost(&mut self, count: u64) {
        self.lost = self.lost.saturating_add(count);
        self.sum.lost = self.sum.lost.saturating_add(count);
    }

    /// All events that it was given, and all that it has lost.
    pub(crate) const fn sum(&self) -> AuditStats {
        self.sum
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
        assert_eq!(slow_end.try_recv().unwrap().lost, 0);
        observers.tell(AT + Duration::from_secs(1), &report(4));
        assert_eq!(slow_end.try_recv().unwrap().lost, 0);
        let last = slow_end.try_recv().unwrap();
        assert_eq!((last.lost, last.at), (3 + 4, AT + Duration::from_secs(1)));
        observers.tell(AT, &report(0));
        assert_eq!(slow_end.try_recv().unwrap().lost, 0);
        let all: Vec<_> = core::iter::from_fn(|| quick_end.try_recv().ok()).collect();
        assert_eq!((all.len(), all[5].lost), (7, 4));
    }

    #[test]
    fn unwanted_event_takes_no_place() {
        let mut observers = Observers::default();
        let (observer, mut end) =
            Observer::new(1, |event| !matches!(event, Event::Discarded { .. }));
        observers.add(observer);
        observers.tell(AT, &report(0));
        assert!(end.try_recv().is_err());
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
