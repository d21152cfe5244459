//! Bulk TCP: one or more streams, in one direction, until told to pause or gone.
//!
//! Owns both ends: the server accepts, the client connects, and either may be the sender. Bytes are
//! counted as they are read and reported with the clock of the same instant, so a rate is the
//! difference of two `mark`s at the receiver.
//!
//! Arguments: `listen|listen-all|ADDRESS:PORT send|receive STREAMS [PORT]`. Questions: `mark`,
//! `pause`, `resume`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, bail};

use super::gate::Progress;
use super::{ANY_PORT, EXCHANGE_TIMEOUT, arg, everywhere_at};
use crate::worker::{self, Reply};

pub(crate) const LOAD: &str = "tcp-stream";

/// Bytes per call of a stream; large enough that the generator's own system calls do not count.
const CHUNK: usize = 256 << 10;

#[derive(Clone, Copy)]
enum Role {
    Send,
    Receive,
}

pub(crate) fn work(args: &[String]) -> anyhow::Result<()> {
    let role = match arg(args, 1)? {
        "send" => Role::Send,
        "receive" => Role::Receive,
        other => bail!("unknown role {other}"),
    };
    let streams: u32 = arg(args, 2)?.parse().context("odd number of streams")?;
    let progress = Arc::new(Progress::new());
    let mut ready = Reply::default();
    match arg(args, 0)? {
        place @ ("listen" | "listen-all") => {
            let own = if place == "listen" { ANY_PORT } else { everywhere_at(args.get(3))? };
            let listener = TcpListener::bind(own).context("bind")?;
            ready = ready.with("port", listener.local_addr()?.port().into());
            let progress = Arc::clone(&progress);
            thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    move_bytes(stream, role, &progress);
                }
            });
        }
        address => {
            let address: SocketAddr = address.parse().context("odd address")?;
            for _ in 0..streams {
                let stream =
                    TcpStream::connect_timeout(&address, EXCHANGE_TIMEOUT).context("connect")?;
                move_bytes(stream, role, &progress);
            }
        }
    }
    worker::serve(&ready, |question| progress.answer(question))
}

/// One thread per stream, until the peer or this process ends.
fn move_bytes(mut stream: TcpStream, role: Role, progress: &Arc<Progress>) {
    let progress = Arc::clone(progress);
    thread::spawn(move || {
        let mut chunk = vec![0_u8; CHUNK];
        loop {
            let moved = match role {
                Role::Send => {
                    progress.pass();
                    stream.write(&chunk)
                }
                Role::Receive => stream.read(&mut chunk),
            };
            match moved {
                // The count is all that is reported: a stream that ends early shows as a low rate.
                Ok(0) | Err(_) => return,
                Ok(len) => progress.add(len),
            }
        }
    });
}
