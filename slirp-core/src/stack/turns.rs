//! Whose turn it is to send.
//!
//! Owns the queue of flows whose host socket is to be looked at, and the number of frames that the
//! flow whose turn it is has sent. A flow is in the queue once.

use std::collections::VecDeque;

use crate::event::FlowId;
use crate::flow::table::{FlowTable, Meta};

/// Frames that one flow may send in a row before others get their turn: a full ring of 64 KiB
/// frames is four, one of MTU-sized ones 180.
const FRAMES_CAP: u32 = 64;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Turns {
    ready: VecDeque<FlowId>,
    /// The flow whose turn it is, and how many frames it has sent.
    current: Option<(FlowId, u32)>,
}

impl Turns {
    /// Puts a flow at the end of the queue.
    pub(super) fn wake(&mut self, meta: &mut Meta) {
        if !meta.is_ready {
            meta.is_ready = true;
            self.ready.push_back(meta.id);
        }
    }

    /// Puts a flow ahead of the queue: the guest waits for its opening, and nothing waits for the
    /// end of an old one.
    pub(super) fn wake_first(&mut self, meta: &mut Meta) {
        if !meta.is_ready {
            meta.is_ready = true;
            self.ready.push_front(meta.id);
        }
    }

    /// Begins the turn of the flow that is first in the queue.
    pub(super) fn begin(&mut self, flows: &mut FlowTable) -> Option<FlowId> {
        while let Some(id) = self.ready.pop_front() {
            if let Some(entry) = flows.entry_mut(id) {
                entry.meta.is_ready = false;
                self.current = Some((id, 0));
                return Some(id);
            }
        }
        None
    }

    /// The flow whose turn it is, and whether it may send another frame.
    pub(super) fn current(&self) -> Option<(FlowId, bool)> {
        self.current.map(|(id, sent)| (id, sent < FRAMES_CAP))
    }

    /// The flow whose turn it is has sent a frame.
    pub(super) const fn note_frame(&mut self) {
        if let Some((_, sent)) = &mut self.current {
            *sent += 1;
        }
    }

    /// Ends the turn.
    pub(super) const fn end(&mut self) {
        self.current = None;
    }

    /// Whether a flow has its turn or waits for it.
    pub(super) fn has_work(&self) -> bool {
        !self.ready.is_empty() || self.current.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::echo::EchoFlow;
    use crate::flow::permit::{Kind, Permit};
    use crate::flow::{Flow, FlowKey, GuestSide};
    use crate::mac::MacAddr;
    use crate::policy::Protocol;
    use crate::time::Instant;

    fn insert(flows: &mut FlowTable, port: u16) -> FlowId {
        let guest = ([10, 0, 2, 100], port).into();
        let key = FlowKey::of_guest(Protocol::Echo, guest);
        let side = GuestSide { address: guest, mac: MacAddr::default() };
        let flow = Flow::Echo(Box::new(EchoFlow::new(side, Instant::ZERO)));
        let permit = |_| Permit::new(Kind::Echo, None, Instant::ZERO);
        flows.insert(key, flow, permit, Instant::ZERO)
    }

    #[test]
    fn flow_waits_once_for_a_turn_of_64_frames() {
        let (mut flows, mut turns) = (FlowTable::new(1), Turns::default());
        let [first, second, gone] = [1, 2, 3].map(|port| insert(&mut flows, port));
        for id in [first, gone, first] {
            turns.wake(&mut flows.entry_mut(id).unwrap().meta);
        }
        turns.wake_first(&mut flows.entry_mut(second).unwrap().meta);
        flows.remove(gone);
        assert_eq!(turns.begin(&mut flows), Some(second));
        for _ in 0..FRAMES_CAP {
            assert_eq!(turns.current(), Some((second, true)));
            turns.note_frame();
        }
        assert_eq!(turns.current(), Some((second, false)));
        assert_eq!(turns.begin(&mut flows), Some(first));
        assert_eq!(turns.begin(&mut flows), None);
        assert!(turns.has_work(), "the turn goes on");
        turns.end();
        assert!(!turns.has_work() && turns.current().is_none());
    }
}
