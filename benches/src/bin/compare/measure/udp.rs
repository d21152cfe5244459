//! UDP goodput of 1400-byte datagrams: the rate that arrives while the sender sends as fast as it
//! can.
//!
//! Owns the window and the loss. A sender without flow control loses much by design; the rate that
//! arrives, and the processor time the stack spent on it, are the result.

use std::thread;
use std::time::Duration;

use anyhow::bail;

use super::tcp::Window;
use super::{Direction, MTU_ETHERNET, Metric, SETTLE, Sample, Trial, pause, through_gateway};
use crate::arena::Arena;
use crate::load::udp::LOAD;
use crate::options::Options;
use crate::stack::Stack;
use crate::worker::{PATIENCE, Worker};

pub(crate) fn row(direction: Direction, gso: bool) -> String {
    let sender = if gso { " UDP_SEGMENT" } else { "" };
    format!("udp {}{sender}", direction.label())
}

/// A sender without flow control, and its receiver.
pub(crate) struct Flood {
    row: String,
    sender: Worker,
    receiver: Worker,
    arena: Arena,
}

impl Flood {
    pub(crate) fn open(
        options: &Options,
        stack: &Stack,
        direction: Direction,
        gso: bool,
    ) -> anyhow::Result<Self> {
        let arena = Arena::open(options, stack, MTU_ETHERNET)?;
        let (guest_role, host_role) = direction.roles();
        let style = if gso { "gso" } else { "plain" };
        let (host, ready) = arena.host(LOAD, &["listen".into(), host_role.into(), style.into()])?;
        let address = through_gateway(ready.number("port")?);
        let (guest, _) = arena.guest(LOAD, &[address, guest_role.into(), style.into()])?;
        let (mut sender, mut receiver) = match direction {
            Direction::Up => (guest, host),
            Direction::Down => (host, guest),
        };
        sender.ask("resume", PATIENCE)?;
        thread::sleep(options.warm_up);
        pause(&mut sender, &mut receiver)?;
        Ok(Self { row: row(direction, gso), sender, receiver, arena })
    }

    fn measure(&mut self, window: Duration) -> anyhow::Result<Vec<Sample>> {
        let cpu_before = self.arena.cpu_seconds()?;
        let sent_before = self.sender.ask("mark", PATIENCE)?;
        let before = self.receiver.ask("mark", PATIENCE)?;
        thread::sleep(window);
        let sent_after = self.sender.ask("mark", PATIENCE)?;
        let after = self.receiver.ask("mark", PATIENCE)?;
        let cpu = self.arena.cpu_seconds()? - cpu_before;
        let sent = Window::between(&sent_before, &sent_after, 0.0)?;
        let arrived = Window::between(&before, &after, cpu)?;
        if sent.bytes == 0.0 {
            bail!("nothing was sent in the window");
        }
        let lost = (100.0 * (1.0 - arrived.bytes / sent.bytes)).max(0.0);
        let mut samples = arrived.samples(&self.row);
        samples.insert(1, Sample::new(self.row.as_str(), Metric::Lost, lost));
        Ok(samples)
    }
}

impl Trial for Flood {
    fn window(&mut self, len: Duration) -> anyhow::Result<Vec<Sample>> {
        self.sender.ask("resume", PATIENCE)?;
        thread::sleep(SETTLE);
        let samples = self.measure(len);
        pause(&mut self.sender, &mut self.receiver)?;
        samples
    }
}
