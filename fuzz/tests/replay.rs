//! Replays the corpus of every target, then tries random and mutated inputs for a while.
//!
//! `SLIRP_FUZZ_SECONDS` (default 4, per target) sets the duration, `SLIRP_FUZZ_SEED` repeats a run.
//! A failure prints the seed and leaves the input in the target directory.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the input that broke a promise must be seen"
)]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use slirp_core::internals::Rng;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no corpus in {}", folder.display());
    files
}

fn replay(target: &str, body: fn(&[u8])) {
    for (path, input) in corpus(target) {
        println!("{}", path.display());
        body(&input);
    }
}

fn explore(target: &str, body: fn(&[u8])) {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seconds = number("SLIRP_FUZZ_SECONDS").unwrap_or(4);
    let seed = number("SLIRP_FUZZ_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let inputs: Vec<Vec<u8>> = corpus(target).into_iter().map(|(_, input)| input).collect();
    let mut rng = Rng::new(seed);
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut tried = 0_u64;
    while Instant::now() < until {
        let input = mutate(&inputs, &mut rng);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(&input))) {
            let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{target}-{seed}"));
            std::fs::write(&file, &input).unwrap();
            eprintln!("SLIRP_FUZZ_SEED={seed}, input {tried}: {}", file.display());
            resume_unwind(panic);
        }
        tried += 1;
    }
    println!("{target}: {tried} inputs, SLIRP_FUZZ_SEED={seed}");
}

/// One corpus entry, or noise, with a few changes; sometimes the start of one and the end of
/// another.
fn mutate(inputs: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut input = inputs[below(rng, inputs.len())].clone();
    match below(rng, 8) {
        0 => input = (0..below(rng, 600)).map(|_| byte(rng)).collect(),
        1 => {
            let other = &inputs[below(rng, inputs.len())];
            input.truncate(below(rng, input.len() + 1) / 5 * 5 + 1);
            input.extend_from_slice(&other[below(rng, other.len() + 1) / 5 * 5..]);
        }
        _ => {}
    }
    for _ in 0..=below(rng, 8) {
        let at = below(rng, input.len() + 1);
        match below(rng, 6) {
            0 if at < input.len() => input[at] = byte(rng),
            1 if at < input.len() => input[at] ^= 1 << below(rng, 8),
            2 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xff][below(rng, 5)],
            3 => {
                let moves: Vec<u8> = (0..5).map(|_| byte(rng)).collect();
                let at = (at / 5 * 5 + 1).min(input.len());
                input.splice(at..at, moves);
            }
            4 => {
                let end = (at + 5).min(input.len());
                let copy = input[at..end].to_vec();
                input.splice(at..at, copy);
            }
            _ if at < input.len() => {
                let end = (at + 1 + below(rng, 5)).min(input.len());
                input.drain(at..end);
            }
            _ => {}
        }
    }
    input
}

fn below(rng: &mut Rng, end: usize) -> usize {
    usize::from(rng.next_u16()) % end.max(1)
}

fn byte(rng: &mut Rng) -> u8 {
    rng.next_u16().to_be_bytes()[0]
}

#[test]
fn every_frame_of_the_corpus_keeps_the_promises() {
    replay("frame", slirp_fuzz::frame);
}

#[test]
fn every_script_of_the_corpus_keeps_the_promises() {
    replay("flow_script", slirp_fuzz::flow_script);
}

#[test]
fn every_shared_network_of_the_corpus_keeps_the_promises() {
    replay("members", slirp_fuzz::members);
}

#[test]
fn every_answer_of_the_corpus_is_read_as_the_reference_reads_it() {
    replay("dns_answer", slirp_fuzz::dns_answer);
}

#[test]
fn every_policy_of_the_corpus_keeps_the_promises() {
    replay("rule", slirp_fuzz::rule);
}

#[test]
fn every_control_line_of_the_corpus_keeps_the_promises() {
    replay("control_line", slirp_fuzz::control_line);
}

#[test]
fn every_port_of_the_corpus_means_the_same_when_it_is_read_again() {
    replay("ports", slirp_fuzz::ports);
}

#[test]
fn every_exchange_of_the_corpus_keeps_the_promises() {
    replay("ports_wire", slirp_fuzz::ports_wire);
}

#[test]
fn every_client_hello_of_the_corpus_keeps_the_promises() {
    replay("client_hello", slirp_fuzz::client_hello);
}

#[test]
fn every_request_of_the_corpus_keeps_the_promises() {
    replay("http_head", slirp_fuzz::http_head);
}

#[test]
fn random_frames_keep_the_promises() {
    explore("frame", slirp_fuzz::frame);
}

#[test]
fn random_scripts_keep_the_promises() {
    explore("flow_script", slirp_fuzz::flow_script);
}

#[test]
fn random_shared_networks_keep_the_promises() {
    explore("members", slirp_fuzz::members);
}

#[test]
fn random_answers_are_read_as_the_reference_reads_them() {
    explore("dns_answer", slirp_fuzz::dns_answer);
}

#[test]
fn random_policies_keep_the_promises() {
    explore("rule", slirp_fuzz::rule);
}

#[test]
fn random_control_lines_keep_the_promises() {
    explore("control_line", slirp_fuzz::control_line);
}

#[test]
fn random_ports_mean_the_same_when_they_are_read_again() {
    explore("ports", slirp_fuzz::ports);
}

#[test]
fn random_exchanges_keep_the_promises() {
    explore("ports_wire", slirp_fuzz::ports_wire);
}

#[test]
fn random_client_hellos_keep_the_promises() {
    explore("client_hello", slirp_fuzz::client_hello);
}

#[test]
fn random_requests_keep_the_promises() {
    explore("http_head", slirp_fuzz::http_head);
}
