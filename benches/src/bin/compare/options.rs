//! The command line of `compare`.
//!
//! Owns the options and their defaults; the measurements are in `measure`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use lexopt::prelude::{Long, Short, ValueExt};

use crate::stack::StackKind;

pub(crate) const HELP: &str = "\
Usage: compare [OPTION]...
Measure our stack beside slirp4netns and pasta, each in its own fresh namespace.

  --rounds N        rounds; medians are printed (default 3)
  --seconds S       measured time of each rate in a round, in windows of 0.4 s between which the
                    stacks take turns (default 3)
  --quick           one round, short windows, little data: a trial of the pipeline, not a result
  --only NAME,..    only measurements whose name contains one of these words
                    (tcp, latency, connect, fetch, udp, forward, memory, crowd, iperf, rates,
                    spliced, start)
  --peers NAME,..   peers to run (default slirp4netns,pasta)
  --ours PATH       our binary (default: release/slirp4netns in the target directory)
  --ours-args LIST  further arguments for our binary, such as '--enable-sandbox --enable-seccomp'
  --slirp4netns-args LIST
                    further arguments for slirp4netns
  --policy          our binary once more, under an egress policy of 1,000 rules and with a guest
                    that has learned 10,000 names
  --run             our stack once more, as the program slirp beside our binary connects it with
                    slirp run: sandboxed and filtered
  --door            our program once more, called as pasta with pasta's command line; also
                    measures what only that has: spliced ports, and the start of a daemon
  --no-ours         peers only
  --no-build        do not build our binary first
  --iperf           cross-check the TCP rates with iperf3
  --rates           measure limited rates of our stack with iperf3, 10 s each
  --out DIR         where results and logs go (default: bench in the target directory)
  -h, --help        this text
";

/// The command of a command line.
pub(crate) enum Invocation {
    Help,
    Measure(Box<Options>),
}

/// The options of a run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) rounds: u32,
    /// How long a rate is measured in a round.
    pub(crate) measured: Duration,
    /// Traffic before the window: slow start, first touches of memory.
    pub(crate) warm_up: Duration,
    /// Bytes that one flow moves before its memory is read.
    pub(crate) bulk_bytes: u64,
    /// Rest before memory is read a second time.
    pub(crate) idle_for: Duration,
    pub(crate) only: Vec<String>,
    pub(crate) peers: Vec<StackKind>,
    pub(crate) with_ours: bool,
    /// Whether ours takes part a second time, under an egress policy.
    pub(crate) with_policy: bool,
    /// Whether ours takes part a second time, connected by `slirp run`.
    pub(crate) with_run: bool,
    /// Whether our program takes part as pasta, too.
    pub(crate) with_door: bool,
    pub(crate) ours: Option<PathBuf>,
    /// Further arguments for our binary.
    pub(crate) ours_args: Vec<String>,
    /// Further arguments for slirp4netns.
    pub(crate) slirp4netns_args: Vec<String>,
    pub(crate) build: bool,
    pub(crate) iperf: bool,
    pub(crate) rates: bool,
    pub(crate) out: PathBuf,
}

/// About how long a stack's turn is: much shorter than the seconds for which a core keeps its speed
/// (measured), long enough for thousands of round trips.
const TURN: Duration = Duration::from_millis(400);

impl Options {
    /// Into how many windows the measured time of a round is split.
    pub(crate) fn windows(&self) -> u32 {
        let turns = (self.measured + TURN / 2).as_nanos() / TURN.as_nanos();
        u32::try_from(turns).unwrap_or(u32::MAX).max(1)
    }

    pub(crate) fn window_len(&self) -> Duration {
        self.measured / self.windows()
    }
}

pub(crate) fn parse() -> anyhow::Result<Invocation> {
    let mut rounds = None;
    let mut seconds: Option<f64> = None;
    let mut quick = false;
    let mut options = Options {
        rounds: 3,
        measured: Duration::from_secs(3),
        warm_up: Duration::from_secs(1),
        bulk_bytes: 2 << 30,
        idle_for: Duration::from_secs(5),
        only: Vec::new(),
        peers: vec![StackKind::Slirp4netns, StackKind::Pasta],
        with_ours: true,
        with_policy: false,
        with_run: false,
        with_door: false,
        ours: None,
        ours_args: Vec::new(),
        slirp4netns_args: Vec::new(),
        build: true,
        iperf: false,
        rates: false,
        out: target_dir()?.join("bench"),
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("rounds") => rounds = Some(parser.value()?.parse()?),
            Long("seconds") => seconds = Some(parser.value()?.parse()?),
            Long("quick") => quick = true,
            Long("only") => options.only = words(&parser.value()?.string()?),
            Long("peers") => options.peers = peers(&parser.value()?.string()?)?,
            Long("ours") => options.ours = Some(parser.value()?.into()),
            Long("ours-args") => options.ours_args = arguments(&parser.value()?.string()?),
            Long("slirp4netns-args") => {
                options.slirp4netns_args = arguments(&parser.value()?.string()?);
            }
            Long("policy") => options.with_policy = true,
            Long("run") => options.with_run = true,
            Long("door") => options.with_door = true,
            Long("no-ours") => options.with_ours = false,
            Long("no-build") => options.build = false,
            Long("iperf") => options.iperf = true,
            Long("rates") => options.rates = true,
            Long("out") => options.out = parser.value()?.into(),
            Short('h') | Long("help") => return Ok(Invocation::Help),
            Short(_) | Long(_) | lexopt::Arg::Value(_) => return Err(arg.unexpected().into()),
        }
    }
    if quick {
        options.rounds = 1;
        options.measured = Duration::from_secs(1);
        options.warm_up = Duration::from_millis(300);
        options.bulk_bytes = 128 << 20;
        options.idle_for = Duration::from_secs(1);
    }
    if let Some(rounds) = rounds {
        options.rounds = rounds;
    }
    if let Some(seconds) = seconds {
        options.measured = Duration::try_from_secs_f64(seconds).context("--seconds")?;
    }
    if options.rounds == 0 || options.measured.is_zero() {
        bail!("--rounds and --seconds must be above zero");
    }
    Ok(Invocation::Measure(Box::new(options)))
}

/// `slirp4netns` of the release profile in the target directory that this executable came from.
pub(crate) fn default_ours() -> anyhow::Result<PathBuf> {
    Ok(target_dir()?.join("release").join("slirp4netns"))
}

/// The executable lives in `<target directory>/<profile>/compare`.
pub(crate) fn target_dir() -> anyhow::Result<PathBuf> {
    let executable = std::env::current_exe().context("cannot find this executable")?;
    let target = executable.ancestors().nth(2).context("executable outside a target directory")?;
    Ok(target.to_owned())
}

fn arguments(list: &str) -> Vec<String> {
    list.split_whitespace().map(str::to_owned).collect()
}

fn words(list: &str) -> Vec<String> {
    list.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn peers(list: &str) -> anyhow::Result<Vec<StackKind>> {
    words(list)
        .iter()
        .map(|word| match word.as_str() {
            "slirp4netns" => Ok(StackKind::Slirp4netns),
            "pasta" => Ok(StackKind::Pasta),
            other => bail!("unknown peer {other}: slirp4netns or pasta"),
        })
        .collect()
}
