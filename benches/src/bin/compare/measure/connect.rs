//! How many connections a second: connect, one byte there and back, close.

use super::{Asked, MTU_ETHERNET, Metric, Sample};
use crate::arena::{Arena, GATEWAY};
use crate::load::connect::{CLIENT, SERVER};
use crate::options::Options;
use crate::stack::Stack;

pub(crate) fn row(clients: u32) -> String {
    let plural = if clients == 1 { "" } else { "s" };
    format!("connect {clients} client{plural}")
}

pub(crate) fn open(options: &Options, stack: &Stack, clients: u32) -> anyhow::Result<Asked> {
    let arena = Arena::open(options, stack, MTU_ETHERNET)?;
    let (server, ready) = arena.host(SERVER, &[])?;
    let mut args = vec![GATEWAY.to_owned(), clients.to_string()];
    args.extend(ready.numbers("port").iter().map(u64::to_string));
    let (client, _) = arena.guest(CLIENT, &args)?;
    let read = move |answer: &crate::worker::Reply| {
        let seconds = answer.number("nanos")? as f64 / 1e9;
        let rate = answer.number("count")? as f64 / seconds;
        Ok(vec![Sample::new(row(clients), Metric::Connections, rate)])
    };
    Asked::new(options, client, server, arena, Box::new(read))
}
