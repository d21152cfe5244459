//! How many connections a second: connect, one byte there and back, close.

use super::{MTU_ETHERNET, Metric, Sample, millis};
use crate::arena::{Arena, GATEWAY};
use crate::load::connect::{CLIENT, SERVER};
use crate::options::Options;
use crate::stack::Stack;
use crate::worker::PATIENCE;

pub(crate) fn row(clients: u32) -> String {
    let plural = if clients == 1 { "" } else { "s" };
    format!("connect {clients} client{plural}")
}

pub(crate) fn measure(
    options: &Options,
    stack: &Stack,
    clients: u32,
) -> anyhow::Result<Vec<Sample>> {
    let arena = Arena::open(options, stack, MTU_ETHERNET)?;
    let (_server, ready) = arena.host(SERVER, &[])?;
    let mut args = vec![GATEWAY.to_owned(), clients.to_string()];
    args.extend(ready.numbers("port").iter().map(u64::to_string));
    let (mut client, _) = arena.guest(CLIENT, &args)?;
    client.ask(&format!("run {}", millis(options.warm_up)), options.warm_up + PATIENCE)?;
    let question = format!("run {}", millis(options.window));
    let answer = client.ask(&question, options.window + PATIENCE)?;
    let seconds = answer.number("nanos")? as f64 / 1e9;
    let rate = answer.number("count")? as f64 / seconds;
    Ok(vec![Sample::new(row(clients), Metric::Connections, rate)])
}
