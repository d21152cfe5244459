//! What real programs send: each file of the corpus that is named after a program and its version.
use std::path::Path;

use super::*;

/// The files of a target's corpus whose names have a version in them.
#[expect(clippy::disallowed_methods, reason = "what programs send is recorded in files")]
fn programs(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let files = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| name(path).contains('.'));
    files.map(|path| (name(&path), std::fs::read(&path).unwrap())).collect()
}

#[test]
fn hellos_of_programs_pass_by_their_name() {
    let programs = programs("client_hello");
    assert!(programs.len() > 40);
    for (program, stream) in programs {
        let has_name = !program.ends_with("_no_name") && !program.ends_with("_address");
        let guest = Guest { no_name: Ok(()), ..Guest::tls() };
        let outcome = guest.sends(&stream);
        let name = if has_name { "good.example" } else { "-" };
        assert_eq!(
            (outcome.cause(), &outcome.asked[..]),
            (None, &[name.to_owned()][..]),
            "{program}"
        );
        assert_eq!(outcome.left, stream.len(), "{program}");
        if ["whole", "resumed", "retry"].iter().any(|end| program.ends_with(end)) {
            assert_eq!(outcome.end, End::Done, "{program}");
        }

        // The same for another name of the same length.
        if has_name {
            let evil = replace(&stream, b"good.example", b"evil.example");
            assert_eq!(guest.sends(&evil).cause(), Some(Cause::Name), "{program}");
        }
        // A second hello for another name.
        if program.contains("retry") {
            let at = stream.len() - find(stream.iter().rev().copied(), b"elpmaxe.doog");
            let mut evil = stream.clone();
            evil[at - 12..at].copy_from_slice(b"evil.example");
            let outcome = guest.sends(&evil);
            assert_eq!(outcome.cause(), Some(Cause::Name), "{program}");
            assert!((1..at).contains(&outcome.left), "{program}");
        }
    }
}

#[test]
fn requests_of_programs_pass_by_their_host() {
    let programs = programs("http_head");
    assert!(programs.len() > 20);
    for (program, stream) in programs {
        let outcome = Guest::http().sends(&stream);
        let refused = ["connect", "prior_knowledge", "websocket"];
        if refused.iter().any(|refused| program.ends_with(refused)) {
            assert_eq!((outcome.cause(), outcome.left), (Some(Cause::Http), 0), "{program}");
            continue;
        }
        assert_eq!((outcome.cause(), outcome.left), (None, stream.len()), "{program}");
        let evil = replace(&stream, b"good.example", b"evil.example");
        assert_eq!(Guest::http().sends(&evil).cause(), Some(Cause::Name), "{program}");
    }
}

fn find(stream: impl Iterator<Item = u8>, text: &[u8]) -> usize {
    let stream: Vec<u8> = stream.collect();
    stream.windows(text.len()).position(|window| window == text).expect("it is there")
}

fn replace(stream: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut stream = stream.to_vec();
    while let Some(at) = stream.windows(from.len()).position(|window| window == from) {
        stream[at..at + from.len()].copy_from_slice(to);
    }
    stream
}
