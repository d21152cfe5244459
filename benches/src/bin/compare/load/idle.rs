//! Idle flows: TCP connections that carried one request each and then stay open.
//!
//! Owns both ends. One server thread suffices: the client opens its flows one after the other.
//! Question to the client: `open COUNT` (opens COUNT more), answered with the number now open.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::Context;

use super::{ANY_PORT, EXCHANGE_TIMEOUT, arg, operand};
use crate::worker::{self, Reply};

pub(crate) const SERVER: &str = "idle-server";
pub(crate) const CLIENT: &str = "idle-client";

/// Bytes of a request: a small HTTP request; arbitrary.
const REQUEST: usize = 200;
/// Bytes of a response: a small HTTP response; arbitrary.
const RESPONSE: usize = 1000;

pub(crate) fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind(ANY_PORT).context("bind")?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming().map_while(Result::ok) {
            if let Ok(stream) = answer(stream) {
                open.push(stream);
            }
        }
    });
    worker::serve(&Reply::default().with("port", port.into()), |_| Ok(Reply::default()))
}

fn answer(mut stream: TcpStream) -> std::io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(EXCHANGE_TIMEOUT))?;
    stream.read_exact(&mut [0; REQUEST])?;
    stream.write_all(&[0; RESPONSE])?;
    Ok(stream)
}

pub(crate) fn call(args: &[String]) -> anyhow::Result<()> {
    let address: SocketAddr = arg(args, 0)?.parse().context("odd address")?;
    let mut open = Vec::new();
    worker::serve(&Reply::default(), |question| {
        for _ in 0..operand(question)? {
            let number = open.len() + 1;
            let stream = exchange(&address).with_context(|| format!("idle flow {number}"))?;
            open.push(stream);
        }
        Ok(Reply::default().with("open", u64::try_from(open.len())?))
    })
}

fn exchange(address: &SocketAddr) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(address, EXCHANGE_TIMEOUT).context("connect")?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(EXCHANGE_TIMEOUT))?;
    stream.write_all(&[0; REQUEST]).context("request")?;
    stream.read_exact(&mut [0; RESPONSE]).context("response")?;
    Ok(stream)
}
