//! How many connections a second: connect, one byte there, an answer back, close.

use super::{Asked, MTU_ETHERNET, Metric, Sample};
use crate::arena::{Arena, GATEWAY};
use crate::load::connect::{CLIENT, SERVER};
use crate::options::Options;
use crate::stack::Stack;

/// The repeated work of the clients.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Errand {
    /// How many clients work at once.
    pub(crate) clients: u32,
    /// Bytes of the answer that each connection fetches.
    pub(crate) answer_len: u32,
}

impl Errand {
    /// Nothing but the connection, one after the other and several at once.
    pub(crate) const PLAIN: [Self; 2] =
        [Self { clients: 1, answer_len: 1 }, Self { clients: 8, answer_len: 1 }];
    /// Connections that fetch a page and a file.
    pub(crate) const FETCHES: [Self; 2] =
        [Self { clients: 8, answer_len: 32 << 10 }, Self { clients: 8, answer_len: 1 << 20 }];

    pub(crate) fn row(self) -> String {
        let clients = self.clients;
        let plural = if clients == 1 { "" } else { "s" };
        match self.answer_len >> 10 {
            0 => format!("connect {clients} client{plural}"),
            kib => format!("fetch {kib} KiB {clients} client{plural}"),
        }
    }
}

pub(crate) fn open(options: &Options, stack: &Stack, errand: Errand) -> anyhow::Result<Asked> {
    let arena = Arena::open(options, stack, MTU_ETHERNET)?;
    let answer_len = errand.answer_len.to_string();
    let (server, ready) = arena.host(SERVER, std::slice::from_ref(&answer_len))?;
    let mut args = vec![GATEWAY.to_owned(), errand.clients.to_string(), answer_len];
    args.extend(ready.numbers("port").iter().map(u64::to_string));
    let (client, _) = arena.guest(CLIENT, &args)?;
    let read = move |answer: &crate::worker::Reply| {
        let seconds = answer.number("nanos")? as f64 / 1e9;
        let rate = answer.number("count")? as f64 / seconds;
        Ok(vec![Sample::new(errand.row(), Metric::Connections, rate)])
    };
    Asked::new(options, client, server, arena, Box::new(read))
}
