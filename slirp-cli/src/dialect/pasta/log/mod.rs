//! Where messages go: stderr until the daemon starts, and the system's log or a file.
//!
//! Owns the form of a line in each place. Every message of this dialect, and of the network, is an
//! event of `tracing`. The verbosity decides which events become lines; `SLIRP_LOG` has no say,
//! because quiet means quiet.
//!
//! | place | when | form |
//! | --- | --- | --- |
//! | stderr | until the daemon has left the caller's streams | the text; with the time for `-d` |
//! | `/dev/log` | unless there is a file, or `-d` | `pasta: TEXT`, facility daemon |
//! | file | `-l` | `SECONDS: WORD: TEXT` |

mod file;

use std::fmt;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use nix::libc;
use slirp_core::sandbox::seccomp::SystemCall;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::options::{ProcessOptions, Verbosity};
use crate::console;
use file::LogFile;

/// The system calls of this module once the network runs.
pub(super) const SYSTEM_CALLS: &[SystemCall] = &[
    SystemCall::new(libc::SYS_write, "lines of the log file"),
    SystemCall::new(libc::SYS_pread64, "what stays of a log file that is full"),
    SystemCall::new(libc::SYS_ftruncate, "a log file that is full; the file of our number"),
    SystemCall::new(libc::SYS_sendto, "lines to the system's log"),
];

/// The socket of the system's log (syslog(3)).
const SYSTEM_LOG: &str = "/dev/log";

/// Facility "daemon" (syslog(3)), as the part of a priority above its three lowest bits.
const FACILITY: u8 = 3 << 3;

/// Sends events to where `options` say.
///
/// # Errors
/// The errors of opening the log file.
pub(super) fn start(options: &ProcessOptions) -> io::Result<()> {
    let level = match options.verbosity {
        Verbosity::Quiet => LevelFilter::WARN,
        Verbosity::Normal => LevelFilter::INFO,
        Verbosity::Debug => LevelFilter::DEBUG,
        Verbosity::Trace => LevelFilter::TRACE,
    };
    let has_time = matches!(options.verbosity, Verbosity::Debug | Verbosity::Trace);
    let path = options.log_file.as_deref();
    let file = path.map(|path| LogFile::create(path, options.log_size)).transpose()?;
    let system = (file.is_none() && !has_time).then(connect).flatten();
    let places =
        Places { started_at: Instant::now(), has_time, system, file: file.map(Mutex::new) };
    let lines =
        tracing_subscriber::fmt::layer().with_ansi(false).event_format(Text).with_writer(places);
    // The summary has the rules in words.
    let filter = Targets::new().with_default(level).with_target(
        "slirp_core::host::reactor::forwards",
        if level == LevelFilter::INFO { LevelFilter::WARN } else { level },
    );
    tracing_subscriber::registry().with(filter).with(lines).init();
    Ok(())
}

/// Why [`start`] failed, for the caller.
pub(super) fn refusal(options: &ProcessOptions, error: &io::Error) -> String {
    let path = options.log_file.as_deref().unwrap_or("".as_ref());
    format!("Couldn't open log file {}: {error}", path.display())
}

/// A socket to the system's log; `None` where no log is kept.
fn connect() -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    socket.connect(SYSTEM_LOG).ok()?;
    Some(socket)
}

/// An event as its text: the message, and then fields.
struct Text;

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        context.field_format().format_fields(writer.by_ref(), event)?;
        writer.write_char('\n')
    }
}

/// The places that messages go to, besides stderr.
struct Places {
    started_at: Instant,
    /// Whether a line on stderr begins with the time.
    has_time: bool,
    system: Option<UnixDatagram>,
    file: Option<Mutex<LogFile>>,
}

/// Takes the text of one event.
struct Line<'a> {
    places: &'a Places,
    level: Level,
}

impl<'a> MakeWriter<'a> for Places {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { places: self, level: Level::INFO }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Line<'a> {
        Line { places: self, level: *event.level() }
    }
}

impl Write for Line<'_> {
    /// Takes a whole event. What a place does not take is lost: nothing waits for a log.
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let Places { started_at, has_time, system, file } = self.places;
        let seconds = || format!("{:.4}: ", started_at.elapsed().as_secs_f64());
        if *has_time {
            console::Log.write_all(&[seconds().as_bytes(), text].concat())?;
        } else {
            console::Log.write_all(text)?;
        }
        if let Some(system) = system {
            let head = format!("<{}>pasta: ", FACILITY | severity(self.level));
            let _ = system.send(&[head.as_bytes(), text.trim_ascii_end()].concat());
        }
        if let Some(file) = file {
            let line = [seconds().as_bytes(), word(self.level).as_bytes(), text].concat();
            file.lock().unwrap_or_else(PoisonError::into_inner).add(&line);
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The level as syslog(3) has it.
const fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// The level as the log file has it, in a column of its own.
const fn word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR:   ",
        Level::WARN => "WARNING: ",
        Level::INFO => "info:    ",
        Level::DEBUG | Level::TRACE => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_has_its_own_form_of_a_line() {
        let (system, log) = UnixDatagram::pair().unwrap();
        let folder = std::env::temp_dir().join(format!("slirp-log-{}", std::process::id()));
        let file = LogFile::create(&folder, 1 << 20).unwrap();
        let places = Places {
            started_at: Instant::now(),
            has_time: false,
            system: Some(system),
            file: Some(Mutex::new(file)),
        };
        let subscriber = tracing_subscriber::registry().with(
            tracing_subscriber::fmt::layer()
                .with_ansi(false)
                .event_format(Text)
                .with_writer(places),
        );
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(port = 80, "in use");
            tracing::info!("ready");
        });
        let mut told = [0; 64];
        let len = log.recv(&mut told).unwrap();
        assert_eq!(&told[..len], b"<28>pasta: in use port=80");
        let len = log.recv(&mut told).unwrap();
        assert_eq!(&told[..len], b"<30>pasta: ready");
        let text = std::fs::read_to_string(&folder).unwrap();
        std::fs::remove_file(&folder).unwrap();
        let lines: Vec<_> =
            text.lines().skip(1).map(|line| line.split_once(": ").unwrap().1).collect();
        assert_eq!(lines, ["WARNING: in use port=80", "info:    ready"]);
    }
}
