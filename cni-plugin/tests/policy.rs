//! `slirp policy`, as the real program: texts, streams and exit statuses.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test, and says so")]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{env, fs, process};

/// A policy of every kind of rule.
const POLICY: &str = "\
allow .index.example
allow files.example
allow git.example:22
allow *.corp.example private=yes
allow 10.9.8.7:5432
deny admin.corp.example
ask api.example
allow host-loopback:11434
allow in 198.51.100.0/24:8080
";

/// Files of one test; removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = env::temp_dir().join(format!("slirp-policy-{}-{name}", process::id()));
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }

    /// What `slirp` with these words prints on stdout and stderr, and its exit status.
    fn run(&self, words: &[&str], input: &str) -> (String, String, i32) {
        let mut slirp = Command::new(env!("CARGO_BIN_EXE_slirp"));
        slirp.args(words).env_remove("CNI_COMMAND").current_dir(&self.0);
        let pipes = slirp.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().unwrap();
        // It may end without reading all of it.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr), output.status.code().unwrap())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn policy_in_order_is_summed_up() {
    let folder = Folder::new("sum");
    folder.write("one", "deny 203.0.113.0/24 # a line of its own\nset mode audit\n");
    let said = |text: &str| (text.to_owned(), String::new(), 0);
    let first = "allow B.example\nallow a.example:443";
    let both = folder.run(&["policy", "check", "one", "-"], first);
    assert_eq!(both, said("3 rules, default deny, mode audit\n"));
    let canonical = folder.run(&["policy", "check", "--canonical", "-", "one"], first);
    let rules = "allow a.example:443\nallow b.example\ndeny 203.0.113.0/24\n";
    assert!(canonical.0.starts_with("# 3 rules, default deny, mode audit\n"), "{}", canonical.0);
    for line in rules.lines().chain(["set mode audit"]) {
        assert!(canonical.0.lines().any(|said| said == line), "{line} in {}", canonical.0);
    }
    let again = folder.run(&["policy", "check", "--canonical", "-"], &canonical.0);
    assert_eq!(again, canonical);
    assert_eq!(
        folder.run(&["policy", "check", "-"], ""),
        said("0 rules, default deny, mode enforce\n")
    );
}

#[test]
fn warnings_are_told_and_change_no_status() {
    let folder = Folder::new("warnings");
    let (stdout, stderr, status) =
        folder.run(&["policy", "check", "-"], "allow any\ndeny a.example");
    assert_eq!((stdout.as_str(), status), ("1 rule, default allow, mode enforce\n", 0));
    assert!(stderr.starts_with("warning: a list of denials stops honest programs"), "{stderr}");
    let (_, stderr, _) = folder.run(&["policy", "check", "-"], "allow *.github.io");
    assert_eq!(stderr, "warning: stdin:1: anybody can have a name below github.io\n");
}

#[test]
fn errors_of_all_files_are_told() {
    let folder = Folder::new("errors");
    folder.write("one", "allow 10.0.0.1/8\npermit a.example\n");
    folder.write("two", "allow *.münchen.example:443\n");
    folder.write("four", "allow any\n");
    folder.write("five", "deny any\n");
    folder.write("six", "deny a.example\n");
    for (files, told) in [
        (
            &["one", "two", "three"][..],
            "one:1:7: 10.0.0.1/8 has bits behind its prefix; did you mean 10.0.0.0/8?\n\
             one:2:1: \"permit\" is no action: allow, deny or ask\n\
             two:1:7: names are ASCII: write the xn-- form, *.xn--mnchen-3ya.example\n\
             slirp policy: cannot read the policy three: No such file or directory (os error 2)\n",
        ),
        (&["four", "five"], "five:1:1: the default was already given at four:1: allow\n"),
        (&["six"], "this policy only denies: add \"allow any\" for a deny list\n"),
    ] {
        let check = [&["policy", "check"], files].concat();
        assert_eq!(folder.run(&check, ""), (String::new(), told.to_owned(), 1), "{files:?}");
        let explain = [&["policy", "explain"], files, &["a.example:443"]].concat();
        assert_eq!(folder.run(&explain, ""), (String::new(), told.to_owned(), 2), "{files:?}");
    }
}

#[test]
fn verdicts_have_a_status_a_cause_and_a_rule() {
    let folder = Folder::new("verdicts");
    folder.write("p", POLICY);
    for (target, first, status) in [
        ("index.example:443", "allowed: rule, p:1", 0),
        ("a.b.index.example:80", "allowed: rule, p:1", 0),
        ("index.example:22", "denied: port", 1),
        ("udp:index.example:443", "denied: protocol", 1),
        ("git.example:22", "allowed: rule, p:3", 0),
        ("db.corp.example:443", "allowed: rule, p:4", 0),
        ("admin.corp.example:443", "denied: rule, p:6", 1),
        ("api.example:443", "asked: rule, p:7", 1),
        ("10.9.8.7:5432", "allowed: rule, p:5", 0),
        ("10.9.8.8:5432", "denied: default", 1),
        ("203.0.113.7:443", "denied: no-name", 1),
        ("169.254.169.254:80", "denied: protected", 1),
        ("10.0.2.2:11434", "allowed: rule, p:8", 0),
        ("host-loopback:22", "denied: port", 1),
        ("icmp:203.0.113.1", "denied: default", 1),
        ("udp:8.8.8.8:53", "allowed: default", 0),
        ("dns:index.example", "allowed: rule, p:1", 0),
        ("dns:x.attacker.example", "denied: default", 1),
        ("dns:corp.example", "denied: default", 1),
        ("in:198.51.100.7:8080", "allowed: rule, p:9", 0),
        ("in:203.0.113.7:8080", "denied: default", 1),
    ] {
        let (stdout, stderr, code) = folder.run(&["policy", "explain", "p", target], "");
        assert_eq!(stdout.lines().next(), Some(first), "{target}: {stdout}{stderr}");
        assert_eq!((stderr.as_str(), code), ("", status), "{target}");
    }
    let (stdout, ..) = folder.run(&["policy", "explain", "p", "index.example:443"], "");
    assert_eq!(
        stdout,
        "allowed: rule, p:1\n  \
         p:1: allow .index.example\n  \
         the lookup of index.example is asked upstream\n  \
         its first bytes must be a ClientHello with an allowed name\n"
    );
    let rule = "allow 10.0.2.2:11434";
    let (stdout, ..) = folder.run(&["policy", "explain", "-", "10.0.2.2:11434"], rule);
    assert!(stdout.starts_with("allowed: rule, stdin:1\n"), "{stdout}");
}

#[test]
fn bad_command_lines_say_what_is_meant() {
    let folder = Folder::new("usage");
    folder.write("p", POLICY);
    for (words, told) in [
        (&["policy"][..], "slirp policy: a word is missing: check or explain\n"),
        (
            &["policy", "chekc", "p"],
            "slirp policy: \"chekc\" is no word of slirp policy; did you mean check?\n",
        ),
        (
            &["policy", "check", "--canon", "p"],
            "slirp policy: --canon is no option of slirp policy; did you mean --canonical?\n",
        ),
        (&["policy", "check"], "slirp policy: a file is needed\n"),
        (&["policy", "explain", "p"], "slirp policy: a file and a target are needed\n"),
        (
            &["policy", "explain", "p", "index.example"],
            "slirp policy: index.example has no port: write index.example:443, or \
             dns:index.example for its lookup alone\n",
        ),
    ] {
        let told = format!("{told}Try 'slirp policy --help'.\n");
        assert_eq!(folder.run(words, ""), (String::new(), told, 2), "{words:?}");
    }
    let (help, stderr, status) = folder.run(&["policy", "--help"], "");
    assert!(help.starts_with("Usage: slirp policy check [--canonical] FILE...\n"), "{help}");
    assert!(help.lines().all(|line| line.len() <= 80), "{help}");
    assert_eq!((stderr.as_str(), status), ("", 0));
    assert_eq!(folder.run(&["policy", "explain", "p", "--help"], ""), (help, stderr, status));
}

#[test]
fn unknown_words_suggest_the_nearest() {
    let folder = Folder::new("words");
    let (stdout, stderr, status) = folder.run(&["polcy", "check"], "");
    let told = "slirp: \"polcy\" is no word of slirp; did you mean \"policy\"?\n\
                Try 'slirp --help'.\n";
    assert_eq!((stdout.as_str(), stderr.as_str(), status), ("", told, 2));
}

/// On a terminal of 24 lines and 80 columns.
fn assert_fits(text: &str) {
    let lines = text.lines().count();
    assert!(lines <= 24, "{lines} lines:\n{text}");
    assert!(text.lines().all(|line| line.len() <= 80), "{text}");
}

#[test]
fn help_of_every_word_fits_a_screen() {
    let folder = Folder::new("help");
    let (overview, stderr, status) = folder.run(&["--help"], "");
    assert_eq!((stderr.as_str(), status), ("", 0));
    assert_eq!(folder.run(&["help"], "").0, overview);
    // The last of the words are programs of their own, whose texts have their own rules.
    let words = overview.lines().filter_map(|line| line.strip_prefix("  "));
    let words = words.map(|line| line.split(' ').next().unwrap());
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    let (words, faces) = words.split_at(words.len() - 4);
    assert_eq!(faces, ["slirp4netns", "pasta", "passt", "pesto"]);
    assert!(words.len() >= 8, "{overview}");
    for word in words {
        let (help, stderr, status) = folder.run(&[word, "--help"], "");
        assert!(help.starts_with(&format!("Usage: slirp {word} ")), "{help}");
        assert_eq!((stderr.as_str(), status), ("", 0), "{word}");
        assert_eq!(folder.run(&["help", word], "").0, help);
        assert_fits(&help);
    }
    assert_fits(&overview);
    let (usage, ..) = folder.run(&["help", "slirp4netns"], "");
    assert!(usage.starts_with("Usage: slirp4netns [OPTION]... PID|PATH|FD [TAPNAME]\n"), "{usage}");
    assert_eq!(folder.run(&["slirp4netns", "--help"], "").0, usage);
    for (face, first) in [
        ("pasta", "Usage: pasta [OPTION]... [COMMAND] [ARGS]...\n"),
        ("passt", "Usage: passt [OPTION]...\n"),
        ("pesto", "Usage: pesto [OPTION]... PATH\n"),
    ] {
        let (usage, ..) = folder.run(&["help", face], "");
        assert!(usage.starts_with(first), "{usage}");
        assert_eq!(folder.run(&[face, "--help"], "").0, usage);
    }
    let told =
        "slirp: \"lern\" is no word of slirp; did you mean \"learn\"?\nTry 'slirp --help'.\n";
    assert_eq!(folder.run(&["help", "lern"], ""), (String::new(), told.to_owned(), 2));
}

const EGRESS_PAGE: &str = include_str!("../../slirp-cli/man/slirp-egress.7");
const SLIRP_PAGE: &str = include_str!("../../slirp-cli/man/slirp.1");

/// The examples of a manual page.
fn examples(page: &str) -> impl Iterator<Item = &str> {
    let blocks = page.split("\n.Bd -literal -offset indent\n").skip(1);
    blocks.map(|block| block.split("\n.Ed\n").next().unwrap())
}

#[test]
fn examples_of_the_manual_pages_work_as_written() {
    let folder = Folder::new("manual");
    let mut runs = 0;
    for example in examples(EGRESS_PAGE).chain(examples(SLIRP_PAGE)) {
        if !example.starts_with("$ ") {
            let (_, stderr, status) = folder.run(&["policy", "check", "-"], example);
            assert_eq!((stderr.as_str(), status), ("", 0), "{example}");
        }
        for step in example.split("$ ").skip(1) {
            let (command, shown) = step.split_once('\n').unwrap_or((step, ""));
            if let Some(file) = command.strip_prefix("cat ") {
                folder.write(file, shown);
            } else if let Some((input, words)) = command.split_once("slirp policy ") {
                let input = input.strip_prefix("echo '").and_then(|rest| rest.split_once('\''));
                let input = input.map_or("", |(text, _)| text);
                let words: Vec<_> = ["policy"].into_iter().chain(words.split(' ')).collect();
                let (stdout, stderr, _) = folder.run(&words, input);
                assert_eq!(
                    (stdout.trim_end(), stderr.as_str()),
                    (shown.trim_end(), ""),
                    "{command}"
                );
                runs += 1;
            }
        }
    }
    assert_eq!(runs, 4);
}

#[test]
fn help_has_the_targets_of_the_manual_page() {
    let (help, ..) = Folder::new("targets").run(&["policy", "--help"], "");
    let entries = SLIRP_PAGE.lines().filter_map(|line| line.strip_prefix(".It Li "));
    let targets: Vec<_> = entries.flat_map(|entry| entry.split(" , ")).collect();
    assert_eq!(targets.len(), 9);
    for target in targets {
        assert!(help.contains(target), "{target}");
    }
}

#[test]
fn policy_is_learned_from_a_log_and_left_out_lines_have_a_status() {
    let folder = Folder::new("learn");
    let event = r#"{"v":1,"event":"flow","proto":"tcp","dst":"203.0.113.7","port":443,"#;
    let event = format!("{event}\"names\":[\"index.example\"],\"would\":\"deny\"}}\n");
    folder.write("log", &event);
    let (stdout, stderr, status) = folder.run(&["learn", "log", "-"], &event);
    assert!(stdout.ends_with("\nallow index.example:443  # 2 connections, 0 B out\n"), "{stdout}");
    assert_eq!((stderr.as_str(), status), ("", 0));
    let check = folder.run(&["policy", "check", "-"], &stdout);
    assert_eq!(check, ("1 rule, default deny, mode enforce\n".to_owned(), String::new(), 0));
    folder.write("learned", &stdout);
    let (stdout, ..) = folder.run(&["learn", "--against=learned", "log"], "");
    assert!(!stdout.contains("allow"), "{stdout}");
    let (stdout, stderr, status) = folder.run(&["learn", "log", "-"], "no event\n");
    assert!(stdout.contains("allow index.example:443"), "{stdout}");
    let told = "slirp learn: 1 line left out: not of an audit log\n";
    assert_eq!((stderr.as_str(), status), (told, 1));
    for (words, told) in [
        (&["learn", "none"][..], "slirp learn: none: No such file or directory (os error 2)\n"),
        (&["learn"], "slirp learn: a log is needed\nTry 'slirp learn --help'.\n"),
        (
            &["learn", "--against=none", "log"],
            "slirp learn: cannot read the policy none: No such file or directory (os error 2)\n",
        ),
    ] {
        assert_eq!(folder.run(words, ""), (String::new(), told.to_owned(), 2), "{words:?}");
    }
}

#[test]
fn words_for_a_control_socket_say_what_is_wrong() {
    let folder = Folder::new("socket");
    for (words, told, status) in [
        (&["top"][..], "slirp top: one socket is needed\n", 2),
        (&["top", "--json", "s"], "slirp top: --json needs --once\n", 2),
        (
            &["approve", "--sav", "s"],
            "slirp approve: --sav is no option of slirp approve; did you mean --save?\n",
            2,
        ),
        (&["events"], "slirp events: a socket is needed\n", 2),
        // Before anything is connected.
        (&["top", "s"], "slirp top: cannot use the terminal: stdin and stdout have to be", 1),
        (&["approve", "s"], "slirp approve: cannot use the terminal: stdin and stdout have", 1),
        (&["top", "--once", "s"], "slirp top: cannot connect to s: No such file or dir", 1),
        (&["events", "s"], "slirp events: cannot connect to s: No such file or directory", 1),
        (&["events", "fd:77"], "slirp events: cannot connect to fd:77: Bad file descriptor", 1),
    ] {
        let (stdout, stderr, code) = folder.run(words, "");
        assert!(stderr.starts_with(told), "{words:?}: {stderr}");
        assert_eq!((stdout.as_str(), code), ("", status), "{words:?}");
    }
    for word in ["learn", "doctor", "top", "approve", "events"] {
        assert!(SLIRP_PAGE.contains(&format!("\n.It Cm {word}\n")), "{word} in slirp(1)");
    }
}
