//! UDP goodput of 1400-byte datagrams: what arrives while the sender sends as fast as it can.
//!
//! Owns the window and the loss. A sender without brakes loses much by design; the rate that arrives, and the
//! processor time the stack spent on it, are the result.

use std::thread;

use super::tcp::Window;
use super::{Direction, MTU_ETHERNET, Metric, Sample, through_gateway};
use crate::arena::Arena;
use crate::load::udp::LOAD;
use crate::options::Options;
use crate::stack::Stack;
use crate::worker::PATIENCE;

pub(crate) fn row(direction: Direction, gso: bool) -> String {
    let sender = if gso { " UDP_SEGMENT" } else { "" };
    format!("udp {}{sender}", direction.label())
}

pub(crate) fn measure(
    options: &Options,
    stack: &Stack,
    direction: Direction,
    gso: bool,
) -> anyhow::Result<Vec<Sample>> {
    let arena = Arena::open(options, stack, MTU_ETHERNET)?;
    let (guest_role, host_role) = direction.roles();
    let style = if gso { "gso" } else { "plain" };
    let (mut host, ready) = arena.host(LOAD, &["listen".into(), host_role.into(), style.into()])?;
    let address = through_gateway(ready.number("port")?);
    let (mut guest, _) = arena.guest(LOAD, &[address, guest_role.into(), style.into()])?;
    let (sender, receiver) = match direction {
        Direction::Up => (&mut guest, &mut host),
        Direction::Down => (&mut host, &mut guest),
    };
    sender.ask("resume", PATIENCE)?;
    thread::sleep(options.warm_up);
    let cpu_before = arena.cpu_seconds()?;
    let sent_before = sender.ask("mark", PATIENCE)?;
    let before = receiver.ask("mark", PATIENCE)?;
    thread::sleep(options.window);
    let sent_after = sender.ask("mark", PATIENCE)?;
    let after = receiver.ask("mark", PATIENCE)?;
    let cpu = arena.cpu_seconds()? - cpu_before;
    sender.ask("pause", PATIENCE)?;

    let arrived = Window::between(&before, &after, cpu)?;
    let sent = Window::between(&sent_before, &sent_after, 0.0)?;
    let lost = (100.0 * (1.0 - arrived.bytes / sent.bytes)).max(0.0);
    let row = row(direction, gso);
    Ok(vec![
        Sample::new(row.clone(), Metric::Rate, arrived.gigabits_per_second()),
        Sample::new(row.clone(), Metric::Lost, lost),
        Sample::new(row, Metric::CpuPerGigabyte, arrived.cpu_per_gigabyte()),
    ])
}
