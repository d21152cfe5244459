//! The resolvers of `/etc/resolv.conf`, each asked a few times at most.
//!
//! The question is about `localhost`, which resolvers answer by themselves (RFC 6761 section 6.3):
//! a resolver without internet is alive, too. Any answer will do, since a refusal is one.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use super::super::facts::{Answer, Asked, Resolvers, Silence};
use super::errno;

const FILE: &str = "/etc/resolv.conf";
/// Most resolvers that are asked; the engine takes no more.
const ASKED_CAP: usize = 16;
/// How long a resolver may take, and after what time it is asked again (arbitrary; a resolver takes
/// milliseconds for this question).
const PATIENCE: Duration = Duration::from_millis(2000);
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// A question for the address of `localhost` (RFC 1035 section 4). The first two bytes, its id, are
/// set for each try.
const QUESTION: &[u8] = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x09localhost\0\0\x01\0\x01";

/// Reads the file and asks all resolvers at once. A file without resolvers means the one on this
/// host (resolv.conf(5)).
pub(super) fn ask_all() -> Resolvers {
    let text = match fs::read(FILE) {
        Ok(text) => text,
        Err(error) => return Resolvers { file: Err(errno(error)), asked: Vec::new() },
    };
    let addresses = addresses(&String::from_utf8_lossy(&text));
    let threads = addresses.into_iter().take(ASKED_CAP).map(|address| {
        let to = address.clone();
        (address, thread::spawn(move || ask(&to)))
    });
    let threads: Vec<_> = threads.collect();
    let asked = threads.into_iter().map(|(address, thread)| {
        // A panic there is a defect.
        let outcome = thread.join().unwrap_or(Err(Silence::Late));
        Asked { address, outcome }
    });
    Resolvers { file: Ok(()), asked: asked.collect() }
}

/// What is known if nothing could be read.
pub(super) fn unread() -> Resolvers {
    Resolvers { file: Err(Errno::EIO), asked: Vec::new() }
}

/// What stands behind `nameserver`, in the order of the file.
fn addresses(text: &str) -> Vec<String> {
    let address = |line: &str| {
        let rest = line.strip_prefix("nameserver")?;
        let word = rest.split_whitespace().next()?;
        rest.starts_with(char::is_whitespace).then(|| word.to_owned())
    };
    text.lines().filter_map(address).collect()
}

/// `192.0.2.53`, `2001:db8::53` or `fe80::1%eth0`.
fn parse(text: &str) -> Option<SocketAddr> {
    const PORT: u16 = 53;
    let Some((address, interface)) = text.split_once('%') else {
        return text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, PORT));
    };
    let scope = interface.parse().ok().or_else(|| if_nametoindex(interface).ok())?;
    let address: Ipv6Addr = address.parse().ok()?;
    Some(SocketAddrV6::new(address, PORT, 0, scope).into())
}

fn ask(address: &str) -> Result<Answer, Silence> {
    let address = parse(address).ok_or(Silence::NoAddress)?;
    exchange(address).map_err(|error| {
        let is_late = error.kind() == io::ErrorKind::TimedOut;
        if is_late { Silence::Late } else { Silence::Unreachable(errno(error)) }
    })
}

/// Sends the question until there is an answer. `TimedOut` means silence.
fn exchange(resolver: SocketAddr) -> io::Result<Answer> {
    let any: IpAddr = match resolver {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(resolver)?;
    let began = Instant::now();
    // The port that the kernel has picked is a number that others do not know.
    let id = socket.local_addr()?.port().to_be_bytes();
    let mut question = QUESTION.to_vec();
    question[..2].copy_from_slice(&id);
    let mut asked_at = None;
    let mut answer = [0; 512];
    loop {
        let spent = began.elapsed();
        let Some(left) = PATIENCE.checked_sub(spent).filter(|left| !left.is_zero()) else {
            return Err(io::ErrorKind::TimedOut.into());
        };
        if asked_at.is_none_or(|at| spent >= at + AGAIN_AFTER) {
            socket.send(&question)?;
            asked_at = Some(spent);
        }
        socket.set_read_timeout(Some(left.min(AGAIN_AFTER)))?;
        match socket.recv(&mut answer) {
            // A response to this question: its id, and the bit QR.
            Ok(len) if len >= 12 && answer[..2] == id && answer[2] & 0x80 != 0 => {
                return Ok(Answer { after: began.elapsed(), code: answer[3] & 0x0f });
            }
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::TimedOut
                        | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_of_the_file_are_found() {
        let text = "# nameserver 1.1.1.1\nnameserver 192.0.2.53\nnameservers 9.9.9.9\n\
            nameserver\tfe80::1%lo # ours\nsearch example\nnameserver\nnameserver here\n";
        assert_eq!(addresses(text), ["192.0.2.53", "fe80::1%lo", "here"]);
        assert_eq!(parse("192.0.2.53"), Some(([192, 0, 2, 53], 53).into()));
        assert!(matches!(parse("fe80::1%lo"), Some(SocketAddr::V6(v6)) if v6.scope_id() == 1));
        assert_eq!(parse("here"), None);
        assert_eq!(parse("fe80::1%nowhere"), None);
    }

    #[test]
    fn second_question_is_answered_if_the_first_was_lost() {
        let resolver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback is there");
        let address = resolver.local_addr().expect("it is bound");
        let answering = thread::spawn(move || {
            let mut message = [0; 512];
            resolver.recv_from(&mut message).expect("a first question");
            let (len, from) = resolver.recv_from(&mut message).expect("a second question");
            // An answer to another question first.
            message[2] |= 0x80;
            message[0] ^= 1;
            resolver.send_to(&message[..len], from).expect("it is sent");
            message[0] ^= 1;
            message[3] = 5;
            resolver.send_to(&message[..len], from).expect("it is sent");
        });
        let answer = exchange(address).expect("an answer");
        assert_eq!(answer.code, 5);
        assert!(answer.after >= AGAIN_AFTER);
        answering.join().expect("it has answered");
    }
}
