//! The host's resolv.conf: parsing it, and following its changes.
//!
//! Owns reading, parsing and re-reading the file. How its content is used is up to
//! [`upstream`](super::upstream).
//!
//! The file may be rewritten in place, replaced, removed and brought back at any time, by DHCP
//! clients, VPNs and network managers. In every case the last good content stays in force until
//! there is new good content. resolv.conf(5).

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use ::resolv_conf::{Config, ParseError, ScopedIp};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use tokio::time::Instant;

use super::DnsConfig;
use crate::host::outside::Outside;
use crate::sys::ifreq::{self, InterfaceRequest};
use crate::sys::outside::FILE_CAP;

/// Most resolvers that are taken from the file (arbitrary; glibc takes 3).
const SERVERS_CAP: usize = 16;
/// Longest `timeout:` in seconds (glibc's `RES_MAXRETRANS`).
const TIMEOUT_CAP: u32 = 30;
/// Most `attempts:` (glibc's `RES_MAXRETRY`).
const ATTEMPTS_CAP: u32 = 5;

/// The settings of the file that matter to a relay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Settings {
    /// Resolvers in the order of the file; never empty.
    pub(super) servers: Vec<SocketAddr>,
    /// `timeout:`, how long one try may take.
    pub(super) timeout: Duration,
    /// `attempts:`, how often each resolver is tried.
    pub(super) attempts: u32,
    /// `rotate`: begin with another resolver each time.
    pub(super) rotate: bool,
}

/// Which process reads the file.
#[derive(Debug)]
pub(super) enum Source {
    /// This process.
    File(PathBuf),
    /// The process outside of our sandbox.
    Outside(Outside),
}

/// A file under observation.
#[derive(Debug)]
pub(super) struct ResolvConf {
    source: Source,
    port: u16,
    recheck_every: Duration,
    checked_at: Option<Instant>,
    /// The content that is in force.
    taken: Option<Vec<u8>>,
    /// Content without resolvers that was seen once and is not in force yet.
    blank: Option<Vec<u8>>,
    /// Whether the loss of the process outside was logged already, so that it is logged once.
    is_lost: bool,
    settings: Settings,
}

impl ResolvConf {
    /// Observes a file, whose resolvers listen on `port`. Until the file was read, a resolver on
    /// this host is assumed.
    pub(super) fn new(source: Source, port: u16, recheck_every: Duration) -> Self {
        let settings = settings_of(&Config::new(), port);
        Self {
            source,
            port,
            recheck_every,
            checked_at: None,
            taken: None,
            blank: None,
            is_lost: false,
            settings,
        }
    }

    /// The settings in force. Checks the file first if the last check is long enough ago.
    pub(super) fn refresh(&mut self, now: Instant) -> &Settings {
        let is_due = self.checked_at.is_none_or(|at| now.duration_since(at) >= self.recheck_every);
        if is_due {
            self.checked_at = Some(now);
            self.check();
        }
        &self.settings
    }

    fn check(&mut self) {
        let content = match self.source.read() {
            Ok(content) if self.taken.as_ref() == Some(&content) => {
                self.blank = None;
                return;
            }
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe && !self.is_lost => {
                tracing::warn!("the reader of resolv.conf has ended: changes are not seen");
                self.is_lost = true;
                return;
            }
            Err(error) => {
                tracing::debug!(%error, "resolv.conf: keeping the known resolvers");
                return;
            }
        };
        let (config, errors) = Config::parse_with_errors(&content);
        if config.nameservers.is_empty() {
            // A malformed name server line is a mistake; the settings in force are better.
            if errors.iter().any(|error| matches!(error, ParseError::InvalidIp(..))) {
                tracing::warn!("resolv.conf: no usable name server, keeping the known ones");
                self.taken = Some(content);
                return;
            }
            // The file may be in the middle of a rewrite: a file without resolvers counts only if a
            // second check finds it unchanged, except at the very first read.
            if self.taken.is_some() && self.blank.as_ref() != Some(&content) {
                self.blank = Some(content);
                return;
            }
        }
        self.blank = None;
        self.taken = Some(content);
        let settings = settings_of(&config, self.port);
        if settings != self.settings {
            tracing::debug!(servers = ?settings.servers, "resolv.conf: resolvers");
            self.settings = settings;
        }
    }
}

impl Source {
    /// Where the resolvers of `config` come from.
    pub(super) fn of(config: &DnsConfig) -> Self {
        match &config.outside {
            Some(outside) => Self::Outside(outside.clone()),
            None => Self::File(config.resolv_conf.clone()),
        }
    }

    /// The file's present content, at most [`FILE_CAP`] bytes.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        let path = match self {
            Self::File(path) => path,
            Self::Outside(outside) => return outside.read_resolv_conf(),
        };
        // `O_NONBLOCK` matters if the path is a FIFO.
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let file: File = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut content = Vec::new();
        file.take(FILE_CAP as u64).read_to_end(&mut content)?;
        Ok(content)
    }
}

fn settings_of(config: &Config, port: u16) -> Settings {
    let mut servers: Vec<SocketAddr> = Vec::new();
    for nameserver in &config.nameservers {
        let Some(address) = address_of(nameserver, port) else {
            tracing::debug!(%nameserver, "skipped: its scope is not an interface");
            continue;
        };
        if servers.len() < SERVERS_CAP && !servers.contains(&address) {
            servers.push(address);
        }
    }
    if servers.is_empty() {
        // resolv.conf(5): the name server on the local machine; IPv6 in case it listens only there.
        servers.push(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        servers.push(SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
    }
    Settings {
        servers,
        timeout: Duration::from_secs(config.timeout.clamp(1, TIMEOUT_CAP).into()),
        attempts: config.attempts.clamp(1, ATTEMPTS_CAP),
        rotate: config.rotate,
    }
}

/// The address with its scope as an interface index. The unspecified address stands for this host,
/// as in glibc.
fn address_of(nameserver: &ScopedIp, port: u16) -> Option<SocketAddr> {
    match nameserver {
        ScopedIp::V4(ip) if ip.is_unspecified() => {
            Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        }
        ScopedIp::V4(ip) => Some(SocketAddr::from((*ip, port))),
        ScopedIp::V6(ip, _) if ip.is_unspecified() => {
            Some(SocketAddr::from((IpAddr::V6(Ipv6Addr::LOCALHOST), port)))
        }
        ScopedIp::V6(ip, None) => Some(SocketAddr::from((*ip, port))),
        ScopedIp::V6(ip, Some(scope)) => {
            let index = match scope.parse() {
                Ok(index) => index,
                Err(_) => interface_index(scope.as_str())?,
            };
            Some(SocketAddr::V6(SocketAddrV6::new(*ip, port, 0, index)))
        }
    }
}

/// The index of an interface. It is asked over an IP socket. if_nametoindex(3) would open a UNIX
/// socket, and the system call filter allows no socket that reaches other processes' UNIX sockets.
fn interface_index(name: &str) -> Option<u32> {
    let kind = SockType::Datagram;
    let socket = socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, None).ok()?;
    ifreq::index(socket.as_fd(), InterfaceRequest::new(name.as_bytes())).ok()
}
