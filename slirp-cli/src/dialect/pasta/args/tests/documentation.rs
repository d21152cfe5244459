//! The texts that are made from the table of options.

use super::*;
use crate::dialect::getopt::documentation;
use crate::dialect::pasta::args::manual::manual;
use crate::dialect::pasta::version;
use crate::words::Offers;
use crate::words::shells::{self, Operands, Program};

const PAGE: &str = include_str!("../../../../../man/pasta.1");

#[test]
fn every_option_has_its_own_names() {
    for (i, a) in OPTIONS.iter().enumerate() {
        for b in &OPTIONS[i + 1..] {
            assert_ne!(a.long, b.long);
            assert!(a.short.is_none() || a.short != b.short, "{} {}", a.long, b.long);
        }
    }
    // The short options of pasta(1).
    let mut shorts: Vec<_> = OPTIONS.iter().filter_map(|option| option.short).collect();
    shorts.sort_unstable();
    let mut expected = b"dqfelhscFIpPmaMngioDSH461tuTU".to_vec();
    expected.sort_unstable();
    assert_eq!(shorts, expected);
}

#[test]
fn help_has_every_option_of_this_mode_in_lines_of_a_terminal() {
    let text = String::from_utf8(usage(OsStr::new("pasta"), Mode::Pasta)).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("Usage: pasta [OPTION]... [COMMAND] [ARGS]..."));
    assert_eq!(lines.next(), Some("       pasta [OPTION]... PID"));
    assert_eq!(lines.next(), Some("       pasta [OPTION]... --netns PATH|NAME"));
    for line in lines {
        assert!(line.len() <= 107, "{line}");
    }
    for name in ["--map-guest-addr=ADDR|none ", "--host-lo-to-ns-lo ", "-t, --tcp-ports=SPEC "] {
        assert!(text.contains(name), "{name}");
    }
    for name in [
        "--socket",
        "--vhost-user",
        "--stderr",
        "--stats",
        "--no-copy-routes",
        "--chroot-fallback",
        "--fd",
    ] {
        assert!(!text.contains(name), "{name}");
    }
}

#[test]
fn version_begins_with_the_date_of_the_interface() {
    let first = version::TEXT.lines().next().unwrap();
    let expected = format!("pasta 2026_07_16.slirp-{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(first, expected);
    assert_eq!(version::TEXT.lines().count(), 6);
}

#[test]
fn manual_is_made_from_the_table() {
    const LIST: &str = ".Bl -tag -width Ds\n";
    let (before, rest) = PAGE.split_once("\n.Sh OPTIONS\n").expect("the page has the section");
    let (text, rest) = rest.split_once(LIST).expect("the section has a list");
    let (_, after) = rest.split_once("\n.El\n.Sh ").expect("the section ends with it");
    let list = documentation::list(OPTIONS, manual);
    let made = format!("{before}\n.Sh OPTIONS\n{text}{LIST}{list}.El\n.Sh {after}");
    shells::compare("man/pasta.1", &made);
}

#[test]
fn every_entry_of_the_manual_names_a_default() {
    let list = documentation::list(OPTIONS, manual);
    let entries: Vec<_> = list.split(".It ").skip(1).collect();
    assert_eq!(entries.len(), OPTIONS.len());
    assert!(entries[0].starts_with("Fl Fl config-net\nSet the guest's interface up"));
    for entry in entries {
        let acts_at_once = entry.contains("and end");
        assert!(acts_at_once || entry.contains("\nDefault:"), "{entry}");
        for line in entry.lines() {
            assert!(line.len() <= 82 && !line.is_empty(), "{line}");
        }
    }
}

// The shells themselves are asked by tests of the package, if they are installed.
#[test]
fn completions_are_made_from_the_table() {
    let command = shells::Command {
        word: "",
        about: "",
        flags: documentation::flags(table::listed(Mode::Pasta)),
        operands: Operands::Of(&[], Offers::Command),
    };
    let program = Program { name: "pasta", commands: vec![command] };
    let (bash, fish, zsh) = (program.bash(), program.fish(), program.zsh());
    shells::compare("completions/pasta.bash", &bash);
    shells::compare("completions/pasta.fish", &fish);
    shells::compare("completions/_pasta", &zsh);
    assert!(bash.contains("-F _pasta pasta\n"));
    assert!(zsh.starts_with("#compdef pasta\n"));
    for text in [&bash, &fish, &zsh] {
        assert!(!text.contains("slirp4netns"), "{text}");
        for option in table::listed(Mode::Pasta).filter(|option| option.about.is_some()) {
            assert!(text.contains(option.long), "{}", option.long);
        }
    }
    assert!(fish.contains("__fish_complete_subcommand --fcs-skip=1 "));
    assert!(zsh.contains("'*'{-t+,--tcp-ports=}'["));
}

#[test]
fn passt_has_its_own_help_and_completions() {
    let text = String::from_utf8(usage(OsStr::new("passt"), Mode::Passt)).unwrap();
    assert!(text.starts_with("Usage: passt [OPTION]...\n"), "{text}");
    for line in text.lines() {
        assert!(line.len() <= 107, "{line}");
    }
    for name in ["--socket=PATH ", "--fd=FD ", "--one-off ", "--no-dhcp-dns ", "--tcp-ports=SPEC "]
    {
        assert!(text.contains(name), "{name}");
    }
    let listed: Vec<_> = text
        .lines()
        .filter_map(|line| line.split(' ').take(2).find(|word| word.starts_with("--")))
        .collect();
    for name in ["--config-net", "--netns", "--tcp-ns", "--vhost-user", "--repair-path"] {
        assert!(!listed.iter().any(|option| option.starts_with(name)), "{name}");
    }
    let command = shells::Command {
        word: "",
        about: "",
        flags: documentation::flags(table::listed(Mode::Passt)),
        operands: Operands::Of(&[], Offers::Nothing),
    };
    let program = Program { name: "passt", commands: vec![command] };
    shells::compare("completions/passt.bash", &program.bash());
    shells::compare("completions/passt.fish", &program.fish());
    shells::compare("completions/_passt", &program.zsh());
}
