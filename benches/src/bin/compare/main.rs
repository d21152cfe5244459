//! `compare`: our stack beside slirp4netns and pasta, in the same run on the same machine.
//!
//! Owns the order of a run: rounds outside, measurements inside, and within a measurement ours and
//! slirp4netns side by side, each in a fresh namespace, working in turns. `arena` and `stack` start
//! a stack, `measure` owns the measurements, `load` makes the traffic (this binary re-executes
//! itself inside the namespace), and `report` owns the output.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measuring tool talks to the person who runs it"
)]

mod arena;
mod load;
mod machine;
mod measure;
mod options;
mod policy;
mod report;
mod stack;
mod worker;

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, bail};

use measure::Case;
use options::{Invocation, Options};
use report::{At, Results};
use stack::{Stack, StackKind};

fn main() -> ExitCode {
    let mut args = std::env::args();
    let _program = args.next();
    // The hidden subcommands come first: they are this binary at work inside a namespace.
    let outcome = match args.next().as_deref() {
        Some(worker::HOLD) => arena::hold().map(|()| true),
        Some(worker::EXEC) => worker::exec(args).map(|()| true),
        Some(worker::EXEC_IN_GUEST) => arena::exec_in_guest(args).map(|()| true),
        Some(worker::WORK) => load::work(args).map(|()| true),
        Some(_) | None => run(),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compare: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Makes all requested measurements; `false` if any of them failed.
fn run() -> anyhow::Result<bool> {
    let options = match options::parse()? {
        Invocation::Help => {
            print!("{}", options::HELP);
            return Ok(true);
        }
        Invocation::Measure(options) => options,
    };
    machine::raise_file_limit()?;
    let stacks = find_stacks(&options)?;
    let cases = measure::cases(&options);
    if cases.is_empty() {
        bail!("no measurement matches --only");
    }
    std::fs::create_dir_all(&options.out)
        .with_context(|| format!("cannot create {}", options.out.display()))?;

    for stack in &stacks {
        arena::clear_log(&options, stack.kind)?;
    }
    let facts = machine::facts(&stacks);
    print!("{facts}");
    let results = measure_all(&options, &cases, &stacks);
    print!("\n{}", report::text::table(&results));
    print!("\n{}", report::bars::verdicts(&results));

    let csv = options.out.join("compare.csv");
    std::fs::write(&csv, report::csv::render(&facts, &results))
        .with_context(|| format!("cannot write {}", csv.display()))?;
    let svg = options.out.join("compare.svg");
    std::fs::write(&svg, report::svg::render(&results))
        .with_context(|| format!("cannot write {}", svg.display()))?;
    println!("\nwritten: {} {}", csv.display(), svg.display());

    for failure in results.failures() {
        eprintln!("compare: failed: {failure}");
    }
    Ok(results.failures().is_empty())
}

fn measure_all(options: &Options, cases: &[Case], stacks: &[Stack]) -> Results {
    let started_at = Instant::now();
    let mut results = Results::new(stacks.iter().map(|stack| stack.kind).collect());
    for round in 0..options.rounds {
        for case in cases.iter().filter(|case| round < case.rounds_cap()) {
            eprintln!(
                "[{:>5.0} s] round {}/{}  {}",
                started_at.elapsed().as_secs_f64(),
                round + 1,
                options.rounds,
                case.name(),
            );
            measure(options, *case, round, stacks, &mut results);
        }
    }
    results
}

/// One round of one case: first the stacks that take turns are set up and measured, once or several
/// times, then each other stack has its window.
fn measure(options: &Options, case: Case, round: u32, stacks: &[Stack], results: &mut Results) {
    let (together, alone): (Vec<&Stack>, Vec<&Stack>) = stacks
        .iter()
        .filter(|stack| case.is_for(stack))
        .partition(|stack| case.takes_turns(stack) && !case.is_whole());
    let windows: Vec<u32> = (0..options.windows()).collect();
    for windows in windows.chunks(case.windows_at_once(windows.len())) {
        measure_together(options, case, round, windows, &together, results);
    }
    for stack in alone {
        let samples =
            case.open(options, stack).and_then(|mut trial| trial.window(options.measured));
        match samples {
            Ok(samples) => results.record(At { round, window: 0 }, stack.kind, samples),
            Err(error) => fail(results, case, stack.kind, &error),
        }
    }
}

fn measure_together(
    options: &Options,
    case: Case,
    round: u32,
    windows: &[u32],
    stacks: &[&Stack],
    results: &mut Results,
) {
    let mut trials = Vec::new();
    for stack in stacks {
        match case.open(options, stack) {
            Ok(trial) => trials.push((stack.kind, trial)),
            Err(error) => fail(results, case, stack.kind, &error),
        }
    }
    for &window in windows {
        // The first stack in one window is the last in the next.
        let is_forward = (round + window).is_multiple_of(2);
        let mut failed = Vec::new();
        for turn in 0..trials.len() {
            let at = if is_forward { turn } else { trials.len() - 1 - turn };
            let (kind, trial) = &mut trials[at];
            match trial.window(options.window_len()) {
                Ok(samples) => results.record(At { round, window }, *kind, samples),
                Err(error) => {
                    fail(results, case, *kind, &error);
                    failed.push(*kind);
                }
            }
        }
        trials.retain(|(kind, _)| !failed.contains(kind));
    }
}

fn fail(results: &mut Results, case: Case, kind: StackKind, error: &anyhow::Error) {
    let failure = format!("{}, {}: {error:#}", case.name(), kind.label());
    eprintln!("          {failure}");
    results.record_failure(failure);
}

/// Ours (built unless a path is given) and the installed peers.
fn find_stacks(options: &Options) -> anyhow::Result<Vec<Stack>> {
    let mut stacks = Vec::new();
    if options.with_ours {
        if options.build && options.ours.is_none() {
            build_ours()?;
        }
        let path = match &options.ours {
            Some(path) => path.clone(),
            None => options::default_ours()?,
        };
        let stack = Stack::at(StackKind::Ours, path.clone())
            .with_context(|| format!("our binary does not run: {}", path.display()))?;
        let under_policy = Stack { kind: StackKind::Policy, ..stack.clone() };
        stacks.push(stack);
        if options.with_run {
            stacks.push(Stack::at(StackKind::Run, path.with_file_name("slirp"))?);
        }
        stacks.extend(options.with_policy.then_some(under_policy));
        if options.with_door {
            stacks.push(Stack::at(StackKind::Door, path.with_file_name("slirp"))?);
        }
    }
    for &kind in &options.peers {
        match stack::find_in_path(kind) {
            Some(path) => stacks.push(Stack::at(kind, path)?),
            None => println!("{} is not installed: left out", kind.label()),
        }
    }
    if stacks.is_empty() {
        bail!("nothing to measure: no stack was found");
    }
    Ok(stacks)
}

fn build_ours() -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "-p", "slirp-cli", "-p", "slirp-cni", "--target-dir"])
        .arg(options::target_dir()?)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .context("cannot start cargo (use --no-build or --ours PATH)")?;
    if !status.success() {
        bail!("cargo build --release failed");
    }
    Ok(())
}
